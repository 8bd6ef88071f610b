"""The encoder's input: a recording's CLAP vector and its frames, laid out as the slots of BART's encoder.

    slots        CLAP | <s> | frame 0 ... frame T-1 | </s> | padding        (B, T + 3, D)
    positions      -  |  0  |   1   ...      T      | T+1  |

The CLAP vector passes a linear layer; a frame is the sum of its codes' embeddings (`CodeEmbedding`), or continuous
features that pass a linear layer and a layer norm (`FeatureEmbedding`); positions start at `<s>` (`SlotPositions`).
What follows is BART's encoder, which does not know what its frames were.

Without gradients a CPU encodes a batch clip by clip: a clip then has the states that it has alone, bit for bit, and
waits for no longer one.
"""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartEncoder, BartLearnedPositionalEmbedding

from .configuration_enclap import NUM_EXTRA_SLOTS, EnClapConfig
from .input_checks import check_mask, check_range
from .onednn_linear import is_plain_inference
from .row_bits import count_slots

# Frames in a batch from which joining the code tables for one lookup pays: four clips of 10 s.
MIN_JOINED_FRAMES = 3000


class SlotPositions(BartLearnedPositionalEmbedding):
    """BART's position table, shifted so that the CLAP slot has none and `<s>` has position 0."""

    def forward(self, input_ids: torch.Tensor, *unused_args, **unused_kwargs) -> torch.Tensor:
        """Only the shape (B, T + 3) of `input_ids` is read. Returns (T + 3, D)."""
        num_slots = input_ids.shape[1]
        rows = self.weight[self.offset : self.offset + num_slots - 1]
        return nn.functional.pad(rows, (0, 0, 1, 0))


class CodeEmbedding(nn.ModuleList):
    """A table for each codebook; a frame is the sum of its codes' rows.

    Args:
        config: for `num_codebooks` K, `codec_vocab_size` and `d_model` D.
    """

    def __init__(self, config: EnClapConfig):
        super().__init__(
            nn.Embedding(config.code_table_rows, config.d_model, padding_idx=config.codec_mask_token_id)
            for _ in range(config.num_codebooks)
        )
        self.mask_id = config.codec_mask_token_id

    def forward(self, audio_codes: torch.LongTensor) -> torch.FloatTensor:
        """(B, T, K) -> (B, T, D)."""
        self.check_shape(audio_codes)
        audio_codes = self.check_codes(audio_codes)
        if joins_code_tables(audio_codes):
            return self.embed_at_once(audio_codes)
        frames = self[0](audio_codes[:, :, 0])
        for k in range(1, len(self)):
            frames += self[k](audio_codes[:, :, k])
        return frames

    def check_shape(self, audio_codes: torch.Tensor) -> None:
        """Raise ValueError for codes of another shape than (B, T, K)."""
        if audio_codes.dim() != 3 or audio_codes.shape[2] != len(self):
            raise ValueError(
                f"Got `audio_codes` of shape {tuple(audio_codes.shape)}; expected (B, T, K) with K = {len(self)} "
                "codebooks. Make them with this model's processor."
            )

    def check_codes(self, audio_codes: torch.LongTensor) -> torch.LongTensor:
        """Codes as integers that index; none that no codec of this size gives, for which longer tables have a row."""
        if audio_codes.is_floating_point() or audio_codes.dtype == torch.bool:
            raise ValueError(f"Got `audio_codes` of type {audio_codes.dtype}; expected integers.")
        if audio_codes.dtype not in (torch.int64, torch.int32):
            audio_codes = audio_codes.long()
        check_range(audio_codes, 0, self.mask_id, "`audio_codes`", "the last of which marks hidden ones")
        return audio_codes

    def embed_at_once(self, audio_codes: torch.LongTensor) -> torch.FloatTensor:
        """The same by one lookup in the joined tables: a large batch passes through memory once, not K times."""
        rows = self[0].num_embeddings
        tables = torch.cat([table.weight for table in self])
        ids = audio_codes + torch.arange(0, len(tables), rows, device=audio_codes.device)
        ids = ids.masked_fill(audio_codes == self.mask_id, self.mask_id)  # all hidden codes share the first zero row
        frames = nn.functional.embedding_bag(ids.flatten(0, 1), tables, mode="sum", padding_idx=self.mask_id)
        return frames.unflatten(0, audio_codes.shape[:2])


class FeatureEmbedding(nn.Module):
    """A linear layer F -> D and a layer norm for continuous frames.

    Args:
        config: for `frame_dim` F and `d_model` D.
    """

    def __init__(self, config: EnClapConfig):
        super().__init__()
        self.projection = nn.Linear(config.frame_dim, config.d_model)
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, audio_features: torch.FloatTensor) -> torch.FloatTensor:
        """(B, T, F) -> (B, T, D)."""
        self.check_shape(audio_features)
        return self.layer_norm(self.projection(audio_features.to(self.layer_norm.weight.dtype)))

    def check_shape(self, audio_features: torch.Tensor) -> None:
        """Raise ValueError for features of another shape than (B, T, F)."""
        width = self.projection.in_features
        if audio_features.dim() != 3 or audio_features.shape[2] != width:
            raise ValueError(
                f"Got `audio_features` of shape {tuple(audio_features.shape)}; expected (B, T, F) with F = {width}. "
                "Make them with this model's processor."
            )


class EnClapEncoder(BartEncoder):
    """BART's encoder over the slots of a recording."""

    main_input_name = "audio_codes"

    def __init__(self, config: EnClapConfig):
        super().__init__(config)
        self.embed_positions = SlotPositions(config.max_position_embeddings, config.d_model)
        if config.frame_kind == "codes":
            self.embed_encodec = CodeEmbedding(config)
        else:
            self.embed_features = FeatureEmbedding(config)
        self.clap_projection = nn.Linear(config.clap_dim, config.d_model) if config.clap_dim else None
        self.post_init()

    def forward(
        self,
        audio_codes: torch.LongTensor | None = None,
        clap_embedding: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        audio_features: torch.FloatTensor | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """Encode a batch of recordings.

        Args:
            audio_codes: (B, T, K) codes of the frame encoder, for a captioner that reads codes.
            clap_embedding: (B, C) CLAP vector; None stands for a zero vector, of which the projection leaves its
                learned bias in the slot.
            attention_mask: (B, T), 1 on a clip's own frames, which come first, and 0 on padding; None for no padding.
            inputs_embeds: (B, T, D) embedded frames in place of the recordings'.
            audio_features: (B, T, F) continuous frames, for a captioner that reads features.
        Returns:
            `BaseModelOutput` with `last_hidden_state` (B, T + 3, D).
        Raises:
            ValueError: not exactly one of codes or features and `inputs_embeds`, the kind of frames that this captioner
                does not read, a wrong shape, or too many frames.
        """
        recordings = (audio_codes, audio_features, inputs_embeds)
        if self.encodes_apart(recordings):
            return self.encode_apart(recordings, clap_embedding, attention_mask, **kwargs)
        frames = self.embed_frames(*recordings)
        slot_mask = build_slot_mask(attention_mask, *frames.shape[:2])
        slots = self.build_slots(frames, clap_embedding, attention_mask)
        return super().forward(inputs_embeds=slots, attention_mask=slot_mask, **kwargs)

    def encodes_apart(self, recordings: tuple) -> bool:
        """Whether clips are encoded one by one: on a CPU, where padding costs time and a clip its bits."""
        given = [each for each in recordings if each is not None]
        return len(given) == 1 and given[0].dim() == 3 and not self.training and is_plain_inference(given[0])

    def encode_apart(self, recordings: tuple, clap_embedding, attention_mask, return_dict=None, **kwargs):
        """Encode each clip over its own length; zeros follow the shorter ones."""
        num_clips, num_frames = next(each.shape[:2] for each in recordings if each is not None)
        self.check_recordings(*recordings)
        slot_mask = build_slot_mask(attention_mask, num_clips, num_frames)
        self.check_sizes(num_clips, num_frames, clap_embedding)
        outputs = []
        for i, length in enumerate(count_slots(slot_mask, num_clips, num_frames + NUM_EXTRA_SLOTS)):
            own = [None if each is None else each[i : i + 1, : length - NUM_EXTRA_SLOTS].clone() for each in recordings]
            clap = None if clap_embedding is None else clap_embedding[i : i + 1].clone()
            slots = self.build_slots(self.embed_frames(*own), clap, None)
            outputs.append(super().forward(inputs_embeds=slots, attention_mask=None, return_dict=True, **kwargs))
        joined = join_encoded(outputs, num_frames + NUM_EXTRA_SLOTS)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return joined if return_dict else joined.to_tuple()

    def embed_frames(
        self,
        audio_codes: torch.LongTensor | None,
        audio_features: torch.FloatTensor | None,
        inputs_embeds: torch.FloatTensor | None,
    ) -> torch.FloatTensor:
        """Embed the one kind of frames that was passed: (B, T, D)."""
        self.check_recordings(audio_codes, audio_features, inputs_embeds)
        if inputs_embeds is not None:
            return inputs_embeds
        return self.embed_features(audio_features) if audio_codes is None else self.embed_encodec(audio_codes)

    def check_recordings(self, audio_codes, audio_features, inputs_embeds) -> None:
        """Raise ValueError unless one kind of frames was passed, one that this captioner reads, in its shape."""
        reads_codes = self.config.frame_kind == "codes"
        own, other = (audio_codes, audio_features) if reads_codes else (audio_features, audio_codes)
        if other is not None or (own is None) == (inputs_embeds is None):
            wanted = "`audio_codes` (B, T, K)" if reads_codes else "`audio_features` (B, T, F)"
            raise ValueError(
                f"Pass either {wanted}, as the processor returns them, or `inputs_embeds` (B, T, D); this captioner "
                f"reads {self.config.frame_kind}."
            )
        width = self.config.d_model
        if own is not None:
            (self.embed_encodec if reads_codes else self.embed_features).check_shape(own)
        elif inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != width:
            raise ValueError(
                f"Got `inputs_embeds` of shape {tuple(inputs_embeds.shape)}; expected (B, T, D) with D = {width}."
            )

    def build_slots(
        self,
        frames: torch.FloatTensor,
        clap_embedding: torch.FloatTensor | None,
        attention_mask: torch.Tensor | None,
    ) -> torch.FloatTensor:
        """Lay out CLAP | <s> | frames | </s> | padding: (B, T, D) -> (B, T + 3, D)."""
        batch_size, num_frames, width = frames.shape
        self.check_sizes(batch_size, num_frames, clap_embedding)
        clap = self.embed_clap(clap_embedding, frames)
        # Not through `embed_tokens`, which would scale them where `scale_embedding` is set: only the decoder scales.
        bos, eos = self.embed_tokens.weight[[self.config.bos_token_id, self.config.eos_token_id]].to(frames.dtype)
        bos = bos.expand(batch_size, 1, width)
        slots = torch.cat([clap.to(frames.dtype), bos, frames, torch.zeros_like(bos)], dim=1)
        if attention_mask is None:
            eos_slot = torch.full((batch_size, 1), num_frames + 2, device=frames.device)
        else:
            eos_slot = attention_mask.sum(dim=1, keepdim=True) + 2
        is_eos = torch.arange(num_frames + NUM_EXTRA_SLOTS, device=frames.device) == eos_slot  # (B, T + 3)
        return torch.where(is_eos.unsqueeze(-1), eos, slots)

    def embed_clap(self, clap_embedding: torch.FloatTensor | None, frames: torch.FloatTensor) -> torch.FloatTensor:
        """What stands in the CLAP slot: (B, 1, D); zeros in a captioner that reads no CLAP vector."""
        batch_size = frames.shape[0]  # `len` would fix it in an exported graph
        if self.clap_projection is None:
            return frames.new_zeros(batch_size, 1, self.config.d_model)
        if clap_embedding is None:
            clap_embedding = frames.new_zeros(batch_size, self.config.clap_dim)
        return self.clap_projection(clap_embedding.to(self.embed_tokens.weight.dtype)).unsqueeze(1)

    def check_sizes(self, num_clips: int, num_frames: int, clap_embedding: torch.FloatTensor | None) -> None:
        """Refuse more frames than the window holds, and CLAP vectors that are not of these clips or not read."""
        if num_frames > self.config.max_codec_frames:
            raise ValueError(
                f"Got {num_frames} codec frames; one window holds {self.config.max_codec_frames} "
                f"(`max_position_embeddings` {self.config.max_position_embeddings} less {NUM_EXTRA_SLOTS}). "
                "Crop the codes, or let the processor or DataCollatorForEnClap do it."
            )
        if clap_embedding is None:
            return
        if self.clap_projection is None:
            raise ValueError("Got `clap_embedding`, and this captioner reads none (`clap_dim` 0); leave it out.")
        expected = (num_clips, self.config.clap_dim)
        if clap_embedding.shape != expected:
            raise ValueError(
                f"Got `clap_embedding` of shape {tuple(clap_embedding.shape)}; expected (B, C) = {expected}."
            )


def join_encoded(outputs: list[BaseModelOutput], num_slots: int) -> BaseModelOutput:
    """What the encoder gave for each clip, as it gives a batch: zeros in the slots behind a clip's end."""
    if len(outputs) == 1 and outputs[0].last_hidden_state.shape[1] == num_slots:
        return outputs[0]

    def join(tensors: list[torch.Tensor]) -> torch.Tensor:  # (1, L, D) states, or (1, heads, L, L) weights
        sizes = [num_slots if axis else len(tensors) for axis in range(tensors[0].dim())]
        kept = 1 if tensors[0].dim() == 4 else 2
        sizes[kept] = tensors[0].shape[kept]
        joined = tensors[0].new_zeros(sizes)
        for whole, (own,) in zip(joined, tensors, strict=True):
            whole[tuple(map(slice, own.shape))] = own
        return joined

    joined = {}
    for name, value in outputs[0].items():
        values = [output[name] for output in outputs]
        if isinstance(value, tuple):
            joined[name] = tuple(join(list(layer)) for layer in zip(*values, strict=True))
        else:
            joined[name] = join(values)
    return type(outputs[0])(**joined)


def joins_code_tables(audio_codes: torch.LongTensor) -> bool:
    """Whether one lookup in joined tables is the faster one: for large batches on a CPU."""
    num_frames = audio_codes.shape[0] * audio_codes.shape[1]
    return not torch.compiler.is_compiling() and audio_codes.device.type == "cpu" and num_frames >= MIN_JOINED_FRAMES


def build_slot_mask(attention_mask: torch.Tensor | None, num_clips: int, num_frames: int) -> torch.Tensor | None:
    """Widen the mask of codec frames to the slots: (B, T) -> (B, T + 3); None stays None.

    Raises:
        ValueError: the mask is not of these recordings and frames, or no run of ones followed by zeros.
    """
    if attention_mask is None:
        return None
    misfits = attention_mask.dim() != 2 or attention_mask.shape[1] != num_frames
    if misfits or (not torch.compiler.is_compiling() and attention_mask.shape[0] != num_clips):
        expected = (num_clips, num_frames)
        raise ValueError(
            f"Got `attention_mask` of shape {tuple(attention_mask.shape)}; expected (B, T) = {expected}, recordings "
            "and codec frames. The slots of the CLAP vector, <s> and </s> are added inside the model."
        )
    check_mask(attention_mask)
    # Every clip's own frames come first, so its three extra slots widen the run of ones.
    return nn.functional.pad(attention_mask, (NUM_EXTRA_SLOTS, 0), value=1)
