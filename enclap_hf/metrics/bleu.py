"""BLEU-1..4 as the captioning papers compute it: closest reference length, no smoothing beyond two tiny constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .ngrams import MAX_ORDER, count_ngrams

# The COCO scorer adds these to numerator and denominator; they show in the published per-clip scores (1e-12 where a
# clip shares no 4-gram with its references), so other values would not agree with the papers.
NUMERATOR_OFFSET = 1e-15
DENOMINATOR_OFFSET = 1e-9


def compute_bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[float], list[list[float]]]:
    """Compute corpus and per-clip BLEU-1 to BLEU-4.

    Args:
        candidates: one tokenised caption a clip, tokens joined by blanks.
        references: for each clip, its tokenised references.
    Returns:
        the four corpus scores, and for each of the four orders the list of the clips' scores.
    Source: Papineni et al., ACL 2002; effective reference length and offsets as in the COCO caption evaluation.
    """
    statistics = [
        _clip_statistics(candidate.split(), [reference.split() for reference in clip_references])
        for candidate, clip_references in zip(candidates, references, strict=True)
    ]
    per_clip = [_bleu_from_statistics(*clip) for clip in statistics]
    corpus = _bleu_from_statistics(
        [sum(clip[0][order] for clip in statistics) for order in range(MAX_ORDER)],
        [sum(clip[1][order] for clip in statistics) for order in range(MAX_ORDER)],
        sum(clip[2] for clip in statistics),
        sum(clip[3] for clip in statistics),
    )
    return corpus, [[clip[order] for clip in per_clip] for order in range(MAX_ORDER)]


def _clip_statistics(
    tokens: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[int], list[int], int, int]:
    """Matches and guesses per order, candidate length, and the reference length closest to it (ties: the shorter)."""
    reference_counts = [count_ngrams(reference) for reference in references]
    matches = []
    for order, counts in enumerate(count_ngrams(tokens)):
        matches.append(
            sum(min(count, max(ref[order][ngram] for ref in reference_counts)) for ngram, count in counts.items())
        )
    guesses = [max(0, len(tokens) - order) for order in range(MAX_ORDER)]
    closest_length = min((abs(len(reference) - len(tokens)), len(reference)) for reference in references)[1]
    return matches, guesses, len(tokens), closest_length


def _bleu_from_statistics(
    matches: Sequence[int], guesses: Sequence[int], length: int, reference_length: int
) -> list[float]:
    """BLEU-1..4 from counts, of one clip or of a corpus."""
    ratio = (length + NUMERATOR_OFFSET) / (reference_length + DENOMINATOR_OFFSET)
    # An empty candidate has a ratio near 1e-16: exp(1 - 1/ratio) underflows to 0, which is the wanted score.
    brevity_penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order in range(MAX_ORDER):
        product *= (matches[order] + NUMERATOR_OFFSET) / (guesses[order] + DENOMINATOR_OFFSET)
        scores.append(product ** (1 / (order + 1)) * brevity_penalty)
    return scores
