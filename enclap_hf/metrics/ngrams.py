"""n-gram counts of a tokenised caption, shared by BLEU and CIDEr-D."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MAX_ORDER = 4


def count_ngrams(tokens: Sequence[str], max_order: int = MAX_ORDER) -> list[Counter]:
    """Count the n-grams of one caption.

    Args:
        tokens: the caption's tokens.
        max_order: longest n-gram to count.
    Returns:
        `max_order` counters; entry n - 1 holds the n-grams, as tuples of n tokens.
    """
    return [
        Counter(zip(*(tokens[start:] for start in range(order)), strict=False)) for order in range(1, max_order + 1)
    ]
