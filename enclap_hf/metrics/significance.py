"""How sure a score is: bootstrap intervals, and a paired test of two systems on the same clips.

Both treat the clips as the sample. They use per-clip scores as they are: CIDEr-D keeps the document frequencies of the
whole set.
"""

from __future__ import annotations

from collections.abc import Sequence

# Corpus scores that pool counts over the clips: an interval around the clips' mean would belong to another score.
POOLED_METRICS = frozenset(["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor"])
SEED = 0
_BLOCK = 1 << 20


def bootstrap_interval(scores: Sequence[float], num_samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over clips.

    Args:
        scores: one a clip.
        num_samples: how often the clips are drawn anew.
        confidence: share of the drawn means inside the interval.
    Returns:
        lower and upper end.
    Raises:
        ValueError: no scores, or no samples.
    Source: Efron and Tibshirani, 1993, chapter 13.
    """
    import numpy as np

    if len(scores) == 0 or num_samples < 1:
        raise ValueError(f"Got {len(scores)} scores and {num_samples} samples; expected at least one of each.")
    values = np.asarray(scores, dtype=np.float64)
    rng = np.random.default_rng(SEED)
    means = []
    block = max(1, _BLOCK // len(values))  # so many samples at once that memory stays small
    for start in range(0, num_samples, block):
        draws = rng.integers(len(values), size=(min(block, num_samples - start), len(values)))
        means.append(values[draws].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def paired_permutation_test(first: Sequence[float], second: Sequence[float], num_samples: int) -> float:
    """Test whether two systems differ in their mean per-clip score.

    Args:
        first: one system's scores, one a clip.
        second: the other's, for the same clips in the same order.
        num_samples: how often the two scores are swapped at random, clip by clip.
    Returns:
        two-sided p value; at least 1 / (num_samples + 1).
    Raises:
        ValueError: lists of unequal length, no scores, or no samples.
    Source: Fisher's randomisation test; the added one as in Phipson and Smyth, 2010.
    """
    import numpy as np

    if len(first) != len(second) or len(first) == 0 or num_samples < 1:
        raise ValueError(
            f"Got {len(first)} and {len(second)} scores and {num_samples} samples; expected two scores for every clip "
            "and at least one sample."
        )
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    observed = abs(differences.sum())
    rng = np.random.default_rng(SEED)
    as_large = 0
    block = max(1, _BLOCK // len(differences))
    for start in range(0, num_samples, block):
        signs = rng.integers(0, 2, size=(min(block, num_samples - start), len(differences)), dtype=np.int8) * 2 - 1
        # Sums in another order differ in their last digits: a tie counts as as large.
        as_large += int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return (as_large + 1) / (num_samples + 1)
