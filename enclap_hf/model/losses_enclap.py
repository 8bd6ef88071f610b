"""The two losses of EnCLAP: label-smoothed captions, and masked codec modelling on the hidden codes alone.

Both are means; `num_items_in_batch` says over how much, where a batch is a part of a larger one.
"""

from collections.abc import Sequence

import torch
from torch import nn

# Targets that no loss counts: padding of captions, and codes that are not hidden.
IGNORED_TARGET = -100


def smoothed_caption_loss(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Label-smoothed cross entropy of (B, S, V) against (B, S): mean over the tokens of this or the larger batch."""
    total = nn.functional.cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED_TARGET,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    if num_items_in_batch is None:
        return total / count_targets(labels)
    return total / (num_items_in_batch[0] if counts_hidden_codes(num_items_in_batch) else num_items_in_batch)


def masked_codec_loss(
    encoder_states: torch.Tensor,
    mcm_targets: torch.Tensor,
    heads: nn.ModuleList,
    labels: torch.Tensor | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Masked codec modelling: sum over k = 1 .. K of (1/2)^k times codebook k's mean cross entropy on its hidden codes.

    A codebook with nothing hidden adds 0.

    Args:
        encoder_states: (B, T + 3, D).
        mcm_targets: (B, T, K), -100 where nothing is hidden.
        heads: K linear layers D -> codec vocabulary.
        labels: (B, S), read for its number of tokens alone.
        num_items_in_batch: as in [`EnClapForConditionalGeneration.forward`]. Where it counts label tokens only, the
            part's own mean is weighted by the part's share of the tokens.
    Source: EnCLAP, arXiv 2401.17690, section 2.3.
    """
    states = encoder_states[:, 2:-1].flatten(0, 1)  # the frames' slots: (B, T + 3, D) -> (B * T, D)
    targets = mcm_targets.flatten(0, 1).t()  # (B, T, K) -> (K, B * T)
    counts = num_items_in_batch[1:] if counts_hidden_codes(num_items_in_batch) else (targets != IGNORED_TARGET).sum(1)
    total = states.new_zeros((), dtype=torch.float32)
    for k, (head, seen, wanted) in enumerate(zip(heads, *select_hidden(states, targets), strict=True)):
        cross_entropy = nn.functional.cross_entropy(
            head(seen).float(), wanted, ignore_index=IGNORED_TARGET, reduction="sum"
        )
        total = total + 0.5 ** (k + 1) * cross_entropy / counts[k].clamp(min=1)
    if num_items_in_batch is not None and labels is not None and not counts_hidden_codes(num_items_in_batch):
        total = total * count_targets(labels) / num_items_in_batch
    return total


def select_hidden(states: torch.Tensor, targets: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """What each codebook's head reads and names: states (N, D) and targets (K, N) -> K times (n, D), K times (n,).

    One selection for all codebooks, because the backward of each would write a gradient for all N positions.
    """
    if torch.compiler.is_compiling():  # a full graph has fixed shapes, so there the loss ignores what is not hidden
        return [states] * len(targets), targets
    is_hidden = targets != IGNORED_TARGET
    counts = is_hidden.sum(1).tolist()
    positions = is_hidden.nonzero()[:, 1]  # codebook after codebook
    return states.index_select(0, positions).split(counts), targets[is_hidden].split(counts)


def count_targets(labels: torch.Tensor) -> torch.Tensor:
    """Number of label tokens, at least 1."""
    return (labels != IGNORED_TARGET).sum().clamp(min=1)


def counts_hidden_codes(num_items_in_batch: torch.Tensor | int | None) -> bool:
    """Whether the counts are (1 + K,), label tokens and hidden codes, rather than Trainer's number of label tokens."""
    return (
        isinstance(num_items_in_batch, torch.Tensor) and num_items_in_batch.dim() == 1 and len(num_items_in_batch) > 1
    )
