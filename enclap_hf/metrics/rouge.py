"""ROUGE-L as the captioning papers compute it: F-measure of the longest common subsequence, beta 1.2."""

from __future__ import annotations

from collections.abc import Sequence

BETA = 1.2


def compute_rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Compute the mean and the per-clip ROUGE-L.

    Args:
        candidates: one tokenised caption a clip, tokens joined by blanks.
        references: for each clip, its tokenised references.
    Returns:
        the mean over the clips, and the clips' scores. A clip whose candidate is empty scores 0.
    Source: Lin, ACL 2004. Best precision and best recall may come from different references, as in the COCO
        caption evaluation.
    """
    per_clip = [
        _clip_rouge_l(_split(candidate), [_split(reference) for reference in clip_references])
        for candidate, clip_references in zip(candidates, references, strict=True)
    ]
    return sum(per_clip) / len(per_clip), per_clip


def _split(caption: str) -> list[str]:
    """Tokens of a caption, parted at blanks only: in BLEU a no-break space inside a token parts it too."""
    return caption.split(" ") if caption else []


def _clip_rouge_l(tokens: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one clip."""
    common = [(longest_common_subsequence(tokens, reference), len(reference)) for reference in references]
    precision = max(length for length, _ in common) / max(1, len(tokens))
    recall = max(length / max(1, reference_length) for length, reference_length in common)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of two token lists.

    Args:
        first: tokens.
        second: tokens.
    Returns:
        the length in tokens.
    Source: bit-parallel recurrence of Hyyro, 2004; an integer holds one row of the usual table, a bit a token.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(first):
        positions[token] = positions.get(token, 0) | (1 << index)
    all_ones = (1 << len(first)) - 1
    row = all_ones
    for token in second:
        matched = row & positions.get(token, 0)
        row = ((row + matched) | (row - matched)) & all_ones
    return len(first) - row.bit_count()
