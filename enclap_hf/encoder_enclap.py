"""The encoder's input: a recording's CLAP vector and codec frames, laid out as the slots of BART's encoder.

    slots        CLAP | <s> | frame 0 ... frame T-1 | </s> | padding        (B, T + 3, D)
    positions      -  |  0  |   1   ...      T      | T+1  |

The CLAP vector passes a linear layer, a frame is the sum of its codes' embeddings (`EnClapEncoder`), and positions
start at `<s>` (`SlotPositions`). What follows is BART's encoder.
"""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartEncoder, BartLearnedPositionalEmbedding

from .configuration_enclap import NUM_EXTRA_SLOTS, EnClapConfig

# Frames in a batch from which joining the code tables for one lookup pays: four clips of 10 s.
MIN_JOINED_FRAMES = 3000


class SlotPositions(BartLearnedPositionalEmbedding):
    """BART's position table, shifted so that the CLAP slot has none and `<s>` has position 0."""

    def forward(self, input_ids: torch.Tensor, *unused_args, **unused_kwargs) -> torch.Tensor:
        """Only the shape (B, T + 3) of `input_ids` is read. Returns (T + 3, D)."""
        num_slots = input_ids.shape[1]
        rows = self.weight[self.offset : self.offset + num_slots - 1]
        return nn.functional.pad(rows, (0, 0, 1, 0))


class EnClapEncoder(BartEncoder):
    """BART's encoder over the slots of a recording."""

    main_input_name = "audio_codes"

    def __init__(self, config: EnClapConfig):
        super().__init__(config)
        self.embed_positions = SlotPositions(config.max_position_embeddings, config.d_model)
        self.embed_encodec = nn.ModuleList(
            nn.Embedding(config.code_table_rows, config.d_model, padding_idx=config.codec_mask_token_id)
            for _ in range(config.num_codebooks)
        )
        self.clap_projection = nn.Linear(config.clap_dim, config.d_model)
        self.post_init()

    def forward(
        self,
        audio_codes: torch.LongTensor | None = None,
        clap_embedding: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """Encode a batch of recordings.

        Args:
            audio_codes: (B, T, K) EnCodec codes.
            clap_embedding: (B, C) CLAP vector; None stands for a zero vector, of which the projection leaves its
                learned bias in the slot.
            attention_mask: (B, T), 1 on a clip's own frames, which come first, and 0 on padding; None for no padding.
            inputs_embeds: (B, T, D) embedded frames in place of `audio_codes`.
        Returns:
            `BaseModelOutput` with `last_hidden_state` (B, T + 3, D).
        Raises:
            ValueError: not exactly one of `audio_codes` and `inputs_embeds`, a wrong shape, or too many frames.
        """
        if (audio_codes is None) == (inputs_embeds is None):
            raise ValueError(
                "Pass either `audio_codes` (B, T, K), as the processor returns them, or `inputs_embeds` (B, T, D)."
            )
        frames = self.embed_codes(audio_codes) if inputs_embeds is None else inputs_embeds
        slots = self.build_slots(frames, clap_embedding, attention_mask)
        return super().forward(
            inputs_embeds=slots, attention_mask=build_slot_mask(attention_mask, frames.shape[1]), **kwargs
        )

    def embed_codes(self, audio_codes: torch.LongTensor) -> torch.FloatTensor:
        """Sum the embeddings of a frame's codes: (B, T, K) -> (B, T, D)."""
        if audio_codes.dim() != 3 or audio_codes.shape[2] != self.config.num_codebooks:
            raise ValueError(
                f"Got `audio_codes` of shape {tuple(audio_codes.shape)}; expected (B, T, K) with K = "
                f"{self.config.num_codebooks} codebooks. Make them with this model's processor."
            )
        if joins_code_tables(audio_codes):
            return self.embed_codes_at_once(audio_codes)
        frames = self.embed_encodec[0](audio_codes[:, :, 0])
        for k in range(1, self.config.num_codebooks):
            frames += self.embed_encodec[k](audio_codes[:, :, k])
        return frames

    def embed_codes_at_once(self, audio_codes: torch.LongTensor) -> torch.FloatTensor:
        """The same by one lookup in the joined tables: a large batch passes through memory once, not K times."""
        rows, mask_id = self.config.code_table_rows, self.config.codec_mask_token_id
        lowest, highest = audio_codes.aminmax()
        if lowest < 0 or highest > mask_id:  # it would be read from another codebook's table
            raise IndexError(f"Got codes from {lowest} to {highest}; expected 0 to {mask_id}, which marks hidden ones.")
        tables = torch.cat([table.weight for table in self.embed_encodec])
        ids = audio_codes + torch.arange(0, len(tables), rows, device=audio_codes.device)
        ids = ids.masked_fill(audio_codes == mask_id, mask_id)  # all hidden codes share the zero row of the first table
        frames = nn.functional.embedding_bag(ids.flatten(0, 1), tables, mode="sum", padding_idx=mask_id)
        return frames.unflatten(0, audio_codes.shape[:2])

    def build_slots(
        self,
        frames: torch.FloatTensor,
        clap_embedding: torch.FloatTensor | None,
        attention_mask: torch.Tensor | None,
    ) -> torch.FloatTensor:
        """Lay out CLAP | <s> | frames | </s> | padding: (B, T, D) -> (B, T + 3, D)."""
        batch_size, num_frames, width = frames.shape
        if num_frames > self.config.max_codec_frames:
            raise ValueError(
                f"Got {num_frames} codec frames; one window holds {self.config.max_codec_frames} "
                f"(`max_position_embeddings` {self.config.max_position_embeddings} less {NUM_EXTRA_SLOTS}). "
                "Crop the codes, or let the processor or DataCollatorForEnClap do it."
            )
        if clap_embedding is None:
            clap_embedding = frames.new_zeros(batch_size, self.config.clap_dim)
        elif clap_embedding.shape != (batch_size, self.config.clap_dim):
            raise ValueError(
                f"Got `clap_embedding` of shape {tuple(clap_embedding.shape)}; expected (B, C) = "
                f"{(batch_size, self.config.clap_dim)}."
            )
        clap = self.clap_projection(clap_embedding.to(self.embed_tokens.weight.dtype)).unsqueeze(1)
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


def joins_code_tables(audio_codes: torch.LongTensor) -> bool:
    """Whether one lookup in joined tables is the faster one: for large batches on a CPU."""
    num_frames = audio_codes.shape[0] * audio_codes.shape[1]
    return not torch.compiler.is_compiling() and audio_codes.device.type == "cpu" and num_frames >= MIN_JOINED_FRAMES


def build_slot_mask(attention_mask: torch.Tensor | None, num_frames: int) -> torch.Tensor | None:
    """Widen the mask of codec frames to the slots: (B, T) -> (B, T + 3); None stays None.

    Raises:
        ValueError: the mask does not have one column per codec frame.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[1] != num_frames:
        raise ValueError(
            f"Got `attention_mask` of shape {tuple(attention_mask.shape)}; expected (B, T) with T = {num_frames} codec "
            "frames. The slots of the CLAP vector, <s> and </s> are added inside the model."
        )
    # Every clip's own frames come first, so its three extra slots widen the run of ones.
    return nn.functional.pad(attention_mask, (NUM_EXTRA_SLOTS, 0), value=1)
