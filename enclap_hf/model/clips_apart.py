"""Captions of a batch one clip after another, and what they return joined as `generate` returns a batch.

This is how a CPU captions where a decoder's layers do not give each row of a batch its own bits (`row_bits.py`), and
how every device samples from a seed of each clip.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from .onednn_linear import (
    HAS_ONEDNN,
    is_own_hook,
    is_plain_inference,
    is_plain_layer,
    is_transformed,
    keeps_rows,
)
from .row_bits import count_slots

# Arguments of `generate` that have a row for each clip, beside the audio.
ROW_ARGUMENTS = ("decoder_input_ids", "decoder_attention_mask", "decoder_inputs_embeds")
# Those that belong to a batch as a whole; of `custom_generate` not what can be asked for a clip's own (`take_clip`).
BATCH_ARGUMENTS = ("past_key_values", "assistant_model", "custom_generate", "streamer")

LAYERS_OF_A_BLOCK = 10  # linear ones, of a decoder: two attentions of four each, and two of the feed-forward
ROW_ACTIVATIONS = ("gelu", "relu")  # computed in one way, wherever in a batch a number stands


def captions_apart(model, decoding: GenerationConfig, seed: int | list[int] | None, arguments: dict) -> bool:
    """Whether `generate` captions clip by clip: samples of a seed, and on a CPU what would depend on the batch.

    Args:
        model: [`EnClapForConditionalGeneration`].
        decoding: what it decodes with.
        seed, arguments: of `generate`.
    """
    whole = [arguments.get(name) for name in BATCH_ARGUMENTS]
    if model.training or any(value is not None and not hasattr(value, "take_clip") for value in whole):
        return False
    if decoding.output_attentions or decoding.output_hidden_states:  # which cannot be joined
        return False
    if seed is not None and decoding.do_sample:
        return True
    if model.device.type != "cpu" or not is_plain_inference(model.final_logits_bias):
        return False
    config = model.config
    return not (
        config._attn_implementation == "sdpa"
        and config.activation_function in ROW_ACTIVATIONS
        and decoding.cache_implementation in (None, "dynamic")
        and arguments.get("decoder_attention_mask") is None
        and "forward" not in model.__dict__
        and keeps_all_rows(model.model.decoder, LAYERS_OF_A_BLOCK * config.decoder_layers)
        and keeps_all_rows(model.lm_head, 1)
    )


def generate_apart(
    generate: Callable,
    states: torch.Tensor,
    slot_mask: torch.Tensor | None,
    seeds: list[int] | None,
    pad_token_id: int,
    arguments: dict,
):
    """Caption each clip by itself.

    Args:
        generate: of transformers, for this model.
        states: the encoder's output (B, T + 3, D).
        slot_mask: (B, T + 3), or None for no padding.
        seeds: of each clip's samples; None draws them from torch's own generator.
        pad_token_id: what follows a caption that ends before the longest.
        arguments: the other arguments of `generate`.
    Returns:
        what `generate` returns.
    """
    outputs = []
    for i, length in enumerate(count_slots(slot_mask, *states.shape[:2])):
        own = {name: arguments[name][i : i + 1] for name in ROW_ARGUMENTS if arguments.get(name) is not None}
        if arguments.get("prefix_allowed_tokens_fn") is not None:
            own["prefix_allowed_tokens_fn"] = lambda _, ids, i=i: arguments["prefix_allowed_tokens_fn"](i, ids)
        if arguments.get("custom_generate") is not None:
            own["custom_generate"] = arguments["custom_generate"].take_clip(i)
        own["encoder_outputs"] = BaseModelOutput(last_hidden_state=states[i : i + 1, :length].clone())
        with draw_from(None if seeds is None else seeds[i], states.device):
            outputs.append(generate(**{**arguments, **own, "attention_mask": None}))
    if isinstance(outputs[0], torch.Tensor):
        return join_rows(outputs, pad_token_id)
    return join_outputs(outputs, pad_token_id)


def keeps_all_rows(model: nn.Module, num_layers: int) -> bool:
    """Whether all linear layers of a model, so many, and its activations give each row of a batch its own bits.

    Not so with plain layers (`use_onednn(model, False)`), quantised weights, adapters, hooks of others, autocast, modes
    that watch operations, number types other than float32 and bfloat16, odd widths, or where oneDNN has none of these:
    torch's own GELU computes the last numbers of a thread in another way.
    """
    if not HAS_ONEDNN or not torch._C._get_mkldnn_enabled() or torch.is_autocast_enabled("cpu") or is_transformed():
        return False
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    has_types = all(has_onednn_for(layer.weight.dtype) for layer in layers)
    return (
        len(layers) == num_layers
        and has_types
        and all(
            getattr(layer, "keeps_rows", False)
            and any(map(is_own_hook, layer._forward_pre_hooks.values()))
            and is_plain_layer(layer)
            and keeps_rows(layer.weight)
            for layer in layers
        )
    )


def has_onednn_for(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes with numbers of this type on this processor."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def draw_from(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw random numbers from a generator of its own, and leave torch's as it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_seeds(seed: int | list[int], num_clips: int) -> list[int]:
    """A seed for each clip.

    Raises:
        ValueError: it is neither a whole number nor one for each clip.
    """
    seeds = [seed] * num_clips if isinstance(seed, int) else list(seed)
    if len(seeds) != num_clips or not all(isinstance(each, int) for each in seeds):
        raise ValueError(
            f"Got `seed`={seed!r} for {num_clips} recordings; expected a whole number, from which each draws, or a "
            "list of one for each."
        )
    return seeds


def join_rows(rows: list[torch.Tensor], padding: int) -> torch.Tensor:
    """Rows (n, S) of each clip, below one another."""
    width = max(part.shape[1] for part in rows)
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[1]), value=padding) for part in rows])


def join_outputs(outputs: list, pad_token_id: int):
    """The outputs of each clip as one of all; steps behind a clip's end score 0. Without caches, which are none."""
    first, joined = outputs[0], {}
    for name in first:
        values = [output[name] for output in outputs]
        if name == "sequences":
            joined[name] = join_rows(values, pad_token_id)
        elif name == "beam_indices":
            num_beams = len(first.scores[0]) if first.get("scores") else len(first.logits[0])
            numbered = [torch.where(part < 0, part, part + i * num_beams) for i, part in enumerate(values)]
            joined[name] = join_rows(numbered, -1)
        elif name == "sequences_scores":
            joined[name] = torch.cat(values)
        elif name in ("scores", "logits"):
            joined[name] = tuple(
                torch.cat([steps[at] if at < len(steps) else torch.zeros_like(steps[0]) for steps in values])
                for at in range(max(map(len, values)))
            )
    return type(first)(**joined)
