"""Beam search that knows its audio: a clip's encoder output, keys and values exist once, whatever the number of beams.

Stock generation repeats the encoder's output for every beam and copies the cross-attention cache at every step, though
all beams of a clip hold the same there. Here they attend to one copy together:

    queries of n beams   (B * n, S, D) -> (B, n * S, D)     cross-attention has no order, so beams are just more queries
    keys and values      (B, T + 3, D)                      once per clip, never repeated, never reordered

The same holds for sampling with `num_return_sequences`. Search, scores and stopping stay those of transformers.

On a CPU every clip attends to its own states, as long as they are, and each caption to its own tokens, so that its bits
do not depend on the batch (`row_bits.py`).
"""

import copy

import torch
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartAttention

from .clips_apart import captions_apart, check_seeds, generate_apart
from .configuration_enclap import NUM_EXTRA_SLOTS
from .encoder_enclap import build_slot_mask
from .input_checks import check_prompt, check_states
from .onednn_linear import is_plain_inference
from .row_bits import ALIGNMENT, ENOUGH_VALUES, attend_rows, count_slots, find_runs, has_aligned_rows, place_alike

# Decoding of the published system; a repository's own generation_config.json replaces it.
PUBLISHED_DECODING = {
    "num_beams": 4,
    "max_length": 50,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
    "length_penalty": 1.0,
}

# Arguments of `generate` that belong to the clip and not to a beam.
PER_CLIP_ARGUMENTS = (
    *("encoder_outputs", "attention_mask", "audio_codes", "audio_features", "clap_embedding", "inputs_embeds"),
)
SHARING_ATTENTIONS = ("sdpa", "eager")


class RowAttention(BartAttention):
    """BART's attention of a caption to its own tokens, in which a caption keeps its bits in any batch on a CPU."""

    def forward(self, hidden_states, key_value_states=None, **kwargs):
        """`hidden_states` (N, S, D); the arguments are those of `BartAttention.forward`."""
        cache = find_cache(kwargs)
        own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        if not self.attends_apart(hidden_states, own, kwargs):
            return super().forward(hidden_states, key_value_states=key_value_states, **kwargs)
        heads = (*hidden_states.shape[:2], -1, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        queries, keys, values = (project(hidden_states).view(heads).transpose(1, 2) for project in projections)
        if own is not None:
            keys, values = own.update(keys, values, self.layer_idx)
        output = attend_rows(queries, keys, values, self.scaling, is_causal=queries.shape[2] > 1)
        return self.out_proj(output.transpose(1, 2).flatten(2)), None

    def attends_apart(self, hidden_states: torch.Tensor, cache: DynamicCache | None, kwargs: dict) -> bool:
        """Whether each caption attends by itself: no mask hides a part, and what is cached grows token by token."""
        if not attends_plainly(self, hidden_states) or kwargs.get("attention_mask") is not None:
            return False
        is_first = cache is None or (type(cache) is DynamicCache and cache.get_seq_length(self.layer_idx) == 0)
        return is_first or (type(cache) is DynamicCache and hidden_states.shape[1] == 1)


class SharedCrossAttention(BartAttention):
    """BART's cross-attention, in which several beams may read the states of one clip."""

    def forward(self, hidden_states, key_value_states=None, **kwargs):
        """`hidden_states` (B * n, S, D) over `key_value_states` (B, T + 3, D), n beams per clip.

        The other arguments are those of `BartAttention.forward`: the cache is `cache` from transformers 5.24 on, and
        `past_key_values` before.
        """
        cache = find_cache(kwargs)
        if attends_plainly(self, hidden_states) and (cache is None or grows(cache)):
            return self.attend_apart(hidden_states, key_value_states, cache, kwargs.get("attention_mask")), None
        num_rows, length, width = hidden_states.shape
        num_clips = key_value_states.shape[0]
        if num_rows == num_clips:
            return super().forward(hidden_states, key_value_states=key_value_states, **kwargs)
        queries = hidden_states.reshape(num_clips, -1, width)
        output, weights = super().forward(queries, key_value_states=key_value_states, **kwargs)
        if weights is not None:  # (B, heads, n * S, T + 3) -> (B * n, heads, S, T + 3)
            weights = weights.unflatten(2, (num_rows // num_clips, length)).transpose(1, 2)
            # Copied as a whole: whether a view will do depends on the batch, which an exported graph leaves open.
            weights = weights.clone(memory_format=torch.contiguous_format).flatten(0, 1)
        return output.reshape(num_rows, length, width), weights

    def attend_apart(
        self,
        hidden_states: torch.Tensor,
        states: torch.Tensor,
        cache: EncoderDecoderCache | None,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend to each clip's own states, as long as they are: (B * n, S, D) -> (B * n, S, D)."""
        lengths = count_slots(mask, *states.shape[:2])
        keys, values = self.find_keys(states, lengths, cache)
        queries = self.q_proj(hidden_states).view(len(states), -1, self.num_heads, self.head_dim)
        queries = queries.transpose(1, 2).contiguous()  # (B, heads, n * S, d)
        outputs = [
            attend_rows(queries[a:b], keys[a:b, :, :length], values[a:b, :, :length], self.scaling)
            for a, b, length in find_runs(lengths)
        ]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return self.out_proj(output.transpose(1, 2).reshape(hidden_states.shape))

    def find_keys(
        self, states: torch.Tensor, lengths: list[int], cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (B, heads, at least T + 3, d) of each clip's own states, zeros behind them; made once."""
        cached = None if cache is None else cache.cross_attention_cache
        if cached is not None and cache.is_updated.get(self.layer_idx):
            return cached.layers[self.layer_idx].keys, cached.layers[self.layer_idx].values
        num_clips, num_slots = states.shape[:2]
        if not has_aligned_rows(self.head_dim, states.dtype):  # then so many rows that each head begins alike
            num_slots += -num_slots % ALIGNMENT
        shape = (num_clips, self.num_heads, num_slots, self.head_dim)
        keys, values = states.new_zeros(shape), states.new_zeros(shape)
        for i, length in enumerate(lengths):
            own = place_alike(states[i, :length])
            for made, project in ((keys, self.k_proj), (values, self.v_proj)):
                made[i, :, :length] = project(own).view(length, self.num_heads, self.head_dim).transpose(0, 1)
        if cached is not None:
            keys, values = cached.update(keys, values, self.layer_idx)
            cache.is_updated[self.layer_idx] = True
        return keys, values


def find_cache(kwargs: dict):
    """The cache among the arguments of an attention layer."""
    return kwargs.get("cache", kwargs.get("past_key_values"))


def grows(cache) -> bool:
    """Whether a cache of both attentions has no fixed size, and is not moved elsewhere."""
    return isinstance(cache, EncoderDecoderCache) and type(cache.cross_attention_cache) is DynamicCache


def attends_plainly(layer: BartAttention, hidden_states: torch.Tensor) -> bool:
    """Whether each clip of a batch is to attend by itself, on a CPU."""
    is_own = layer.config._attn_implementation == "sdpa" and not layer.training
    is_own = is_own and hidden_states.dtype in ENOUGH_VALUES and not torch.is_autocast_enabled("cpu")
    return is_own and is_plain_inference(hidden_states)


class SharedAudioGenerationMixin(GenerationMixin):
    """Generation in which the beams of a clip share what the encoder said about it."""

    @torch.no_grad()
    def generate(self, inputs: torch.LongTensor | None = None, seed: int | list[int] | None = None, **kwargs):
        """Write captions: `GenerationMixin.generate` with `audio_codes`, `clap_embedding` and `attention_mask`.

        Pass `attention_mask` with every padded batch. `audio_features` or `inputs_embeds`, in place of `audio_codes`,
        and `encoder_outputs` are accepted too and are left as they were.

        On a CPU a clip's captions and scores are the same bits alone and in any batch. Samples are, too, on every
        device but for rounding, where they are drawn from a `seed`: a whole number, from which each clip draws by
        itself, or a list of one for each clip. Without it they come from torch's own generator, in the batch's order.

        Raises:
            ValueError: rows, frames or codes that do not fit, as in [`forward`]; a prompt, `decoder_input_ids`, that
                has not one row for each recording; or a `seed` that is no whole number, nor one for each.
        """
        kwargs.pop("mcm_targets", None)  # Seq2SeqTrainer passes a whole batch of the collator
        given = kwargs.get("generation_config")
        limits = [kwargs.get("max_length"), kwargs.get("max_new_tokens"), self.generation_config.max_new_tokens]
        limits += [] if given is None else [given.max_length, given.max_new_tokens]
        if all(limit is None for limit in limits):
            kwargs["max_length"] = self._default_max_length()  # else transformers has a limit of its own
        check_prompt(inputs, kwargs)
        is_apart = self.captions_apart(self.find_decoding(**kwargs), seed, kwargs)
        encoder_outputs = kwargs.get("encoder_outputs")
        codes = kwargs.get("audio_codes") if inputs is None else inputs
        if encoder_outputs is None and (codes is None or is_apart):
            frames, features = kwargs.pop("inputs_embeds", None), kwargs.pop("audio_features", None)
            encoder_outputs = self.get_encoder()(
                audio_codes=codes,
                clap_embedding=kwargs.get("clap_embedding"),
                attention_mask=kwargs.get("attention_mask"),
                inputs_embeds=frames,
                audio_features=features,
            )
        if encoder_outputs is not None:
            check_states(encoder_outputs[0], self.config.d_model)
            # Where beams share nothing, transformers repeats the outputs in place, so it gets a shell of its own.
            kwargs["encoder_outputs"] = BaseModelOutput(last_hidden_state=encoder_outputs[0])
            kwargs.pop("audio_codes", None)
            inputs = None
        if not is_apart:
            return super().generate(inputs, **kwargs)
        states = kwargs["encoder_outputs"][0]
        slot_mask = build_slot_mask(kwargs.get("attention_mask"), len(states), states.shape[1] - NUM_EXTRA_SLOTS)
        seeds = None if seed is None else check_seeds(seed, len(states))
        return generate_apart(super().generate, states, slot_mask, seeds, self.config.pad_token_id, kwargs)

    def captions_apart(self, decoding: GenerationConfig, seed: int | list[int] | None, arguments: dict) -> bool:
        """Whether [`generate`] captions clip by clip, see [`~clips_apart.captions_apart`]."""
        return captions_apart(self, decoding, seed, arguments)

    def _default_max_length(self) -> int:
        """The model's own limit, or the published one where its generation_config.json has none."""
        return self.generation_config.max_length or PUBLISHED_DECODING["max_length"]

    def find_decoding(self, generation_config: GenerationConfig | None = None, **kwargs) -> GenerationConfig:
        """What [`generate`] decodes with, given these arguments: the forced tokens and the limit among it."""
        decoding = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        decoding.update(**{name: value for name, value in kwargs.items() if hasattr(decoding, name)})
        # As `generate` fills a configuration up, in which new tokens count before the length.
        for name in ("forced_bos_token_id", "forced_eos_token_id", "eos_token_id", "max_length", "max_new_tokens"):
            if getattr(decoding, name) is None:
                setattr(decoding, name, getattr(self.generation_config, name))
        prompt = kwargs.get("decoder_input_ids")
        if decoding.max_new_tokens is not None:
            decoding.max_length = decoding.max_new_tokens + (1 if prompt is None else prompt.shape[1])
        decoding.max_length = decoding.max_length or self._default_max_length()
        return decoding

    def _expand_inputs_for_generation(self, expand_size: int = 1, **kwargs):
        if expand_size == 1 or self.config._attn_implementation not in SHARING_ATTENTIONS:
            return super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        shared = {name: kwargs.pop(name) for name in PER_CLIP_ARGUMENTS if name in kwargs}
        kwargs["is_encoder_decoder"] = False  # it would ask for the encoder's output, to repeat it
        input_ids, model_kwargs = super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        return input_ids, {**model_kwargs, **shared}

    def _reorder_cache(self, cache: EncoderDecoderCache, beam_idx: torch.LongTensor) -> EncoderDecoderCache:
        if self.config._attn_implementation in SHARING_ATTENTIONS:
            cache.self_attention_cache.reorder_cache(beam_idx)  # the rest belongs to the clips
        else:
            cache.reorder_cache(beam_idx)
        return cache


def broadcast_slot_mask(slot_mask: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The mask of slots (B, T + 3) for queries of any number of beams, to add to their scores: (B, 1, 1, T + 3).

    Args:
        slot_mask: 1 on a clip's own slots.
        states: the encoder's output, for its type and device.
    """
    hidden = slot_mask[:, None, None, :].to(states.device) == 0
    return torch.zeros_like(hidden, dtype=states.dtype).masked_fill(hidden, torch.finfo(states.dtype).min)
