"""Chooses among the candidate captions of a clip: by CLAP, by consensus, by likelihood, or by a mixture of them.

A scorer gives each candidate of a clip a number, the higher the better; `SCORERS` names them. Scores of a clip are
standardised over its candidates, so that weights mean the same whatever a scorer's unit is. A caption that names one
event twice loses `REPETITION_PENALTY`.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .consensus import compare_captions
from .repeated_events import names_event_twice

# Standard deviations that a caption loses for naming one event twice.
REPETITION_PENALTY = 2.0


@dataclass(frozen=True)
class ClipCandidates:
    """The different captions of one clip.

    Args:
        texts: each once.
        counts: how often each was written.
        likelihoods: mean log probability of its tokens.
        similarities: cosine with the clip by CLAP; None where there is no text tower.
    """

    texts: list[str]
    counts: list[int]
    likelihoods: list[float]
    similarities: list[float] | None = None


def score_by_clap(candidates: ClipCandidates) -> Sequence[float]:
    """Cosine of caption and recording in CLAP's space.

    Raises:
        ValueError: the repository has no text tower.
    """
    if candidates.similarities is None:
        raise ValueError(NO_TEXT_TOWER)
    return candidates.similarities


def score_by_consensus(candidates: ClipCandidates) -> Sequence[float]:
    """Mean CIDEr-D with all other captions written of the clip, those of the same text among them."""
    counts = np.array(candidates.counts, dtype=float)
    similarities = compare_captions(candidates.texts)
    return (similarities @ counts - similarities.diagonal()) / max(counts.sum() - 1, 1)


def score_by_likelihood(candidates: ClipCandidates) -> Sequence[float]:
    """Mean log probability of the caption's tokens by the captioner itself."""
    return candidates.likelihoods


SCORERS: dict[str, Callable[[ClipCandidates], Sequence[float]]] = {
    "clap": score_by_clap,
    "consensus": score_by_consensus,
    "likelihood": score_by_likelihood,
}
NO_TEXT_TOWER = (
    'This repository has no CLAP text tower (`clap_text`), which `rerank="clap"` needs; use "consensus" or '
    '"likelihood", or a repository with one.'
)


def read_mixture(rerank: str | Mapping[str, float]) -> dict[str, float]:
    """The scorers of a reranking with their weights, which add up to 1.

    Args:
        rerank: the name of a scorer, or names with weights.
    Raises:
        ValueError: an unknown scorer, a weight that is no finite number of at least 0, or none above 0.
    """
    weights = {rerank: 1.0} if isinstance(rerank, str) else rerank
    if not isinstance(weights, Mapping) or any(name not in SCORERS for name in weights):
        raise ValueError(
            f"Got `rerank`={rerank!r}; expected {', '.join(map(repr, SCORERS))}, or a mixture such as "
            '{"clap": 0.6, "consensus": 0.4}.'
        )
    for name, weight in weights.items():
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise ValueError(f"Got `rerank` with the weight {weight!r} for {name!r}; expected a number of at least 0.")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"Got `rerank`={rerank!r}, without a weight above 0; give a scorer one.")
    return {name: weight / total for name, weight in weights.items() if weight > 0}


def gather_candidates(texts: Sequence[str], likelihoods: Sequence[float]) -> tuple[ClipCandidates, list[int]]:
    """Put captions of the same text together, in the order in which each came first.

    Args:
        texts: of all that was written of a clip.
        likelihoods: of each; the same text can have several token sequences, of which the likeliest counts.
    Returns:
        the candidates, and the place in `texts` that each stands for.
    """
    counts, places = Counter(texts), {}
    for place, text in enumerate(texts):
        if text not in places or likelihoods[place] > likelihoods[places[text]]:
            places[text] = place
    kept = [places[text] for text in counts]
    return ClipCandidates(list(counts), list(counts.values()), [likelihoods[place] for place in kept]), kept


def rank_candidates(
    candidates: ClipCandidates,
    weights: Mapping[str, float],
    is_fluent: Callable[[list[str]], Sequence[bool]] | None = None,
) -> list[int]:
    """Order the candidates of a clip, best first.

    Args:
        candidates: of one clip.
        weights: from [`read_mixture`].
        is_fluent: tells captions without a fault of language; the others come last.
    Returns:
        indices of all candidates; those of equal scores keep their order.
    """
    total = np.zeros(len(candidates.texts))
    for name, weight in weights.items():
        total += weight * standardise(SCORERS[name](candidates))
    total -= REPETITION_PENALTY * np.array([names_event_twice(text) for text in candidates.texts])
    faults = np.zeros(len(total), dtype=bool) if is_fluent is None else ~np.asarray(is_fluent(candidates.texts))
    return np.lexsort((-total, faults)).tolist()


def standardise(scores: Sequence[float]) -> np.ndarray:
    """Scores of mean 0 and standard deviation 1; all 0 where they do not differ."""
    values = np.asarray(scores, dtype=float)
    spread = values.std()
    # What rounding leaves of equal scores is no difference.
    return (values - values.mean()) / spread if spread > 1e-9 * np.abs(values).max() else np.zeros(len(values))
