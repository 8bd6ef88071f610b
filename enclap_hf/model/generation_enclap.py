"""Beam search that knows its audio: a clip's encoder output, keys and values exist once, whatever the number of beams.

Stock generation repeats the encoder's output for every beam and copies the cross-attention cache at every step, though
all beams of a clip hold the same there. Here they attend to one copy together:

    queries of n beams   (B * n, S, D) -> (B, n * S, D)     cross-attention has no order, so beams are just more queries
    keys and values      (B, T + 3, D)                      once per clip, never repeated, never reordered

The same holds for sampling with `num_return_sequences`. Search, scores and stopping stay those of transformers.
"""

import copy

import torch
from transformers import EncoderDecoderCache, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartAttention

from .input_checks import check_prompt, check_states

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


class SharedCrossAttention(BartAttention):
    """BART's cross-attention, in which several beams may read the states of one clip."""

    def forward(self, hidden_states, key_value_states=None, **kwargs):
        """`hidden_states` (B * n, S, D) over `key_value_states` (B, T + 3, D), n beams per clip.

        The other arguments are those of `BartAttention.forward`: the cache is `cache` from transformers 5.24 on, and
        `past_key_values` before.
        """
        num_rows, length, width = hidden_states.shape
        num_clips = key_value_states.shape[0]
        if num_rows == num_clips:
            return super().forward(hidden_states, key_value_states=key_value_states, **kwargs)
        queries = hidden_states.reshape(num_clips, -1, width)
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        if self.attends_by_products(queries, cache):
            output, weights = self.attend_to_cache(queries, cache, kwargs.get("attention_mask"))
        else:
            output, weights = super().forward(queries, key_value_states=key_value_states, **kwargs)
        if weights is not None:  # (B, heads, n * S, T + 3) -> (B * n, heads, S, T + 3)
            weights = weights.unflatten(2, (num_rows // num_clips, length)).transpose(1, 2)
            # Copied as a whole: whether a view will do depends on the batch, which an exported graph leaves open.
            weights = weights.clone(memory_format=torch.contiguous_format).flatten(0, 1)
        return output.reshape(num_rows, length, width), weights

    def attends_by_products(self, queries: torch.Tensor, cache: EncoderDecoderCache | None) -> bool:
        """Whether two plain products serve best: on a CPU, torch's fused attention is made for many queries.

        In half precision they would round the scores, which fused attention does not.
        """
        return (
            queries.device.type == "cpu"
            and not self.training
            and isinstance(cache, EncoderDecoderCache)
            and bool(cache.is_updated.get(self.layer_idx))
            and cache.cross_attention_cache.layers[self.layer_idx].keys.dtype == torch.float32
        )

    def attend_to_cache(self, queries: torch.Tensor, cache: EncoderDecoderCache, mask: torch.Tensor | None):
        """Attend with (B, n * S, D) to the keys and values of each clip that an earlier step left in the cache."""
        cached = cache.cross_attention_cache.layers[self.layer_idx]
        heads = (self.q_proj(queries) * self.scaling).unflatten(2, (-1, self.head_dim)).transpose(1, 2).contiguous()
        # Keys first: a product of few rows by many columns takes twice as long as its transpose.
        scores = (cached.keys @ heads.transpose(2, 3)).transpose(2, 3)  # (B, heads, n * S, T + 3)
        if mask is not None:
            scores += mask
        weights = scores.softmax(-1)
        output = self.out_proj((weights @ cached.values).transpose(1, 2).flatten(2))
        return output, weights if self.config._attn_implementation == "eager" else None


class SharedAudioGenerationMixin(GenerationMixin):
    """Generation in which the beams of a clip share what the encoder said about it."""

    @torch.no_grad()
    def generate(self, inputs: torch.LongTensor | None = None, **kwargs):
        """Write captions: `GenerationMixin.generate` with `audio_codes`, `clap_embedding` and `attention_mask`.

        Pass `attention_mask` with every padded batch. `audio_features` or `inputs_embeds`, in place of `audio_codes`,
        and `encoder_outputs` are accepted too and are left as they were.

        Raises:
            ValueError: rows, frames or codes that do not fit, as in [`forward`]; or a prompt, `decoder_input_ids`, that
                has not one row for each recording.
        """
        kwargs.pop("mcm_targets", None)  # Seq2SeqTrainer passes a whole batch of the collator
        given = kwargs.get("generation_config")
        limits = [kwargs.get("max_length"), kwargs.get("max_new_tokens"), self.generation_config.max_new_tokens]
        limits += [] if given is None else [given.max_length, given.max_new_tokens]
        if all(limit is None for limit in limits):
            kwargs["max_length"] = self._default_max_length()  # else transformers has a limit of its own
        check_prompt(inputs, kwargs)
        encoder_outputs = kwargs.get("encoder_outputs")
        if encoder_outputs is None and inputs is None and kwargs.get("audio_codes") is None:
            frames, features = kwargs.pop("inputs_embeds", None), kwargs.pop("audio_features", None)
            encoder_outputs = self.get_encoder()(
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
        return super().generate(inputs, **kwargs)

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
