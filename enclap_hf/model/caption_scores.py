"""The score of a caption: the mean log probability of its tokens by the model itself.

Generated tokens count, `</s>` among them; the start token, tokens that decoding forces, and padding do not. The model's
own probabilities count, before processors, penalties and temperature. So scores of different decodings can be compared.
"""

import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from .configuration_enclap import NUM_EXTRA_SLOTS
from .encoder_enclap import build_slot_mask
from .losses_enclap import IGNORED_TARGET
from .onednn_linear import is_plain_inference
from .row_bits import count_slots


@torch.no_grad()
def score_sequences(
    model,
    sequences: torch.LongTensor,
    encoder_outputs,
    attention_mask: torch.Tensor | None,
    decoding: GenerationConfig,
    num_prompt_tokens: int = 1,
) -> torch.Tensor:
    """Score what `generate` returned, in one pass of the decoder, on a CPU in one for each clip.

    Args:
        model: [`EnClapForConditionalGeneration`].
        sequences: (B * n, S) token ids, n captions of each recording behind one another.
        encoder_outputs: of the B recordings.
        attention_mask: (B, T) of their frames.
        decoding: what the sequences were generated with; its forced tokens do not count.
        num_prompt_tokens: tokens at the start that were given: the start token, and a prompt.
    Returns:
        float32 (B * n,); 0 for a caption without a token that counts.
    """
    states = encoder_outputs[0]
    if not is_plain_inference(states):
        return score_batch(model, sequences, states, attention_mask, decoding, num_prompt_tokens)
    num_captions = len(sequences) // len(states)
    slot_mask = build_slot_mask(attention_mask, len(states), states.shape[1] - NUM_EXTRA_SLOTS)
    scores = []
    for i, length in enumerate(count_slots(slot_mask, *states.shape[:2])):  # each clip over its own length
        own = sequences[i * num_captions : (i + 1) * num_captions]
        scored = find_scored_tokens(own, decoding, num_prompt_tokens) != IGNORED_TARGET
        last = int(scored.any(0).nonzero().max()) if scored.any() else 0
        clip = (own[:, : last + 2], states[i : i + 1, :length].clone(), None)
        scores.append(score_batch(model, *clip, decoding, num_prompt_tokens))
    return torch.cat(scores)


def score_batch(model, sequences, states, attention_mask, decoding, num_prompt_tokens: int) -> torch.Tensor:
    """[`score_sequences`] of one batch, as long as its longest caption."""
    targets = find_scored_tokens(sequences, decoding, num_prompt_tokens)
    encoder_outputs = BaseModelOutput(last_hidden_state=states)
    logits = model(
        attention_mask=attention_mask, encoder_outputs=encoder_outputs, decoder_input_ids=sequences[:, :-1]
    ).logits
    # By rows of one caption at a time: (S, V) in float32 is small, (B * n, S, V) is not.
    losses = [
        torch.nn.functional.cross_entropy(row.float(), wanted, ignore_index=IGNORED_TARGET, reduction="sum")
        for row, wanted in zip(logits, targets, strict=True)
    ]
    counts = (targets != IGNORED_TARGET).sum(1)
    return -torch.stack(losses) / counts.clamp(min=1)


def find_scored_tokens(
    sequences: torch.LongTensor, decoding: GenerationConfig, num_prompt_tokens: int = 1
) -> torch.LongTensor:
    """The tokens that count, as targets of the positions before them: (N, S) -> (N, S - 1), -100 for the others."""
    targets = sequences[:, 1:].clone()
    position = torch.arange(1, sequences.shape[1], device=sequences.device)
    ignored = (position < num_prompt_tokens).expand_as(targets).clone()
    if decoding.forced_bos_token_id is not None:
        ignored |= position == 1
    ends = as_list(decoding.eos_token_id)
    is_end = torch.isin(targets, torch.tensor(ends, device=targets.device, dtype=targets.dtype))
    ignored |= is_end.long().cumsum(1) - is_end.long() > 0  # what follows the first end is padding
    if decoding.forced_eos_token_id is not None and decoding.max_length is not None:
        ignored |= (position == decoding.max_length - 1) & is_end
    return targets.masked_fill(ignored, IGNORED_TARGET)


def as_list(token_ids) -> list[int]:
    """Token ids of a generation config, which may be one, several or none."""
    if token_ids is None:
        return []
    return list(token_ids) if isinstance(token_ids, (list, tuple)) else [token_ids]
