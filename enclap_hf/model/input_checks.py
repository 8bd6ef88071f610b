"""Refuses inputs of the model that do not fit each other, or its tables, in one line that names both.

Values on a GPU are checked without waiting for it, so there the line is that of a failed assertion.
"""

import torch

from .configuration_enclap import NUM_EXTRA_SLOTS, EnClapConfig
from .losses_enclap import IGNORED_TARGET, counts_hidden_codes


def check_states(states: torch.Tensor, width: int) -> None:
    """Refuse encoder states that are not (B, T + 3, D) of this captioner."""
    if states.dim() != 3 or states.shape[2] != width:
        raise ValueError(
            f"Got `encoder_outputs` with states of shape {tuple(states.shape)}; expected (B, T + {NUM_EXTRA_SLOTS}, D) "
            f"with D = {width}, as this captioner's encoder returns them."
        )


def check_labels(labels: torch.Tensor, config: EnClapConfig) -> None:
    """Refuse labels that are not token ids of this captioner's."""
    longest = config.max_position_embeddings
    if labels.dim() != 2 or labels.shape[1] > longest:
        raise ValueError(
            f"Got `labels` of shape {tuple(labels.shape)}; expected (B, S) token ids, S up to {longest} "
            "(`max_position_embeddings`)."
        )
    tokens = labels.masked_fill(labels == IGNORED_TARGET, 0)
    check_range(
        tokens, 0, config.vocab_size - 1, "`labels`", f"token ids of this model, or {IGNORED_TARGET} on padding"
    )


def check_targets(
    states: torch.Tensor, labels: torch.Tensor | None, mcm_targets: torch.Tensor | None, config: EnClapConfig
) -> None:
    """Refuse targets that are not of these recordings, whose states are (B, T + 3, D)."""
    num_clips, num_frames = states.shape[0], states.shape[1] - NUM_EXTRA_SLOTS
    if labels is not None and labels.shape[0] != num_clips:
        raise ValueError(
            f"Got `labels` of shape {tuple(labels.shape)} for {num_clips} recordings of {num_frames} frames; expected "
            f"(B, S) with B = {num_clips}, one caption a recording."
        )
    if mcm_targets is None:
        return
    expected = (num_clips, num_frames, config.num_codebooks)
    if tuple(mcm_targets.shape) != expected:
        raise ValueError(
            f"Got `mcm_targets` of shape {tuple(mcm_targets.shape)}; expected (B, T, K) = {expected} here."
        )
    hidden = mcm_targets.masked_fill(mcm_targets == IGNORED_TARGET, 0)
    highest, meaning = config.codec_vocab_size - 1, f"codes, or {IGNORED_TARGET} where nothing is hidden"
    check_range(hidden, 0, highest, "`mcm_targets`", meaning)


def check_labels_were_kept(num_items_in_batch: torch.Tensor | int | None) -> None:
    """Refuse a batch whose label tokens a Trainer has counted, and whose labels it has taken away."""
    if num_items_in_batch is not None and not counts_hidden_codes(num_items_in_batch):
        raise ValueError(
            "Got `num_items_in_batch` without `labels`, which a Trainer with `label_smoothing_factor` or "
            "`compute_loss_func` keeps for itself. Leave both out: the model computes its losses, smoothed by "
            "`label_smoothing` of its configuration."
        )


def check_decoder_rows(
    decoder_input: torch.Tensor, num_clips: int, decoder_attention_mask: torch.Tensor | None = None
) -> None:
    """Refuse a decoder input that is not of these recordings: one row each, or the beams of each behind one another."""
    if torch.compiler.is_compiling():
        return
    num_rows = decoder_input.shape[0]
    if num_rows < num_clips or num_rows % num_clips:
        raise ValueError(
            f"Got a decoder input of shape {tuple(decoder_input.shape)} for {num_clips} recordings; expected "
            f"{num_clips} rows, one for each, or the same number of beams for each."
        )
    mask = decoder_attention_mask
    if mask is not None and (mask.dim() < 2 or mask.shape[0] != num_rows or mask.shape[-1] < decoder_input.shape[1]):
        raise ValueError(
            f"Got `decoder_attention_mask` of shape {tuple(mask.shape)} for a decoder input of shape "
            f"{tuple(decoder_input.shape)}; expected (B, S) as that has."
        )


def check_prompt(inputs: torch.Tensor | None, arguments: dict) -> None:
    """Refuse a prompt of `generate` that has not one row for each recording."""
    prompt = arguments.get("decoder_input_ids")
    states = arguments.get("encoder_outputs")
    names = ("audio_codes", "audio_features", "inputs_embeds")
    recordings = [states[0] if states is not None else inputs, *(arguments.get(name) for name in names)]
    recordings = next((tensor for tensor in recordings if tensor is not None), None)
    if prompt is None or recordings is None or prompt.shape[0] == recordings.shape[0]:
        return
    raise ValueError(
        f"Got `decoder_input_ids` of shape {tuple(prompt.shape)} for {recordings.shape[0]} recordings; expected one "
        "row for each: `generate` repeats it for its beams."
    )


def check_mask(attention_mask: torch.Tensor) -> None:
    """Refuse a mask (B, T) that is anything but ones followed by zeros, whose </s> would stand among the frames."""
    if not skips_value_checks(attention_mask):
        own = attention_mask != 0
        is_run = (own[:, :-1] >= own[:, 1:]).all() & (attention_mask == own).all()
        if attention_mask.is_cuda:  # without waiting for it
            torch._assert_async(is_run)
        elif not is_run:
            raise ValueError(
                "Got an `attention_mask` that is not 1 on a clip's own frames and 0 behind them; pad clips at their "
                "end, as the processor and DataCollatorForEnClap do."
            )


def check_range(values: torch.Tensor, lowest: int, highest: int, name: str, meaning: str) -> None:
    """Refuse whole numbers outside of a range, both of whose ends are in it."""
    if skips_value_checks(values):
        return
    least, most = values.aminmax()
    if values.is_cuda:  # without waiting for it
        torch._assert_async((least >= lowest) & (most <= highest))
    elif least < lowest or most > highest:
        raise ValueError(f"Got {name} from {least} to {most}; expected {lowest} to {highest}, {meaning}.")


def skips_value_checks(values: torch.Tensor) -> bool:
    """Whether there is nothing to check, or a graph is being made that shall hold no checks."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or not values.numel()
