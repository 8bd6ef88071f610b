"""CIDEr-D, with the details that the published scores depend on.

* Document frequencies come from the references of the clips that are scored: the score of one clip depends on the
  others, and a single clip scores 0 because every n-gram occurs in every document.
* The length that the Gaussian penalty compares is the number of bigrams, not of words.
* Counts are clipped to the reference's before the inner product.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence

from .caption_checks import check_captions
from .ngrams import MAX_ORDER, count_ngrams
from .ptb_tokenizer import tokenize_ptb

logger = logging.getLogger(__name__)

LENGTH_SIGMA = 6.0
SCALE = 10.0


def cider_d(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Compute CIDEr-D of captions as people write them.

    Args:
        predictions: one caption a clip.
        references: for each clip, a list of one or more references.
    Returns:
        the corpus score (mean over the clips), and the clips' scores.
    Raises:
        ValueError: lists of unequal length, none at all, a clip without references, or something not a string.
    Source: Vedantam et al., CVPR 2015, after the Penn Treebank tokenisation of the COCO caption evaluation.
    """
    check_captions(predictions, references)
    return compute_cider_d(tokenize_ptb(predictions), [tokenize_ptb(clip) for clip in references])


def compute_cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Compute the mean and the per-clip CIDEr-D.

    Args:
        candidates: one tokenised caption a clip, tokens joined by blanks.
        references: for each clip, its tokenised references.
    Returns:
        the mean over the clips, and the clips' scores, each from 0 to 10.
    Source: Vedantam et al., CVPR 2015, section "CIDEr-D", with sigma 6 and n-grams up to 4.
    """
    scorer = CiderD(references)
    if not any(scorer.idf.values()):
        logger.warning(
            "CIDEr-D is 0 whatever the captions are: words count by how few clips have them in their references, and "
            "with %s no word is rarer than another. Score more clips together.",
            "one clip" if len(references) == 1 else "the same references for all clips",
        )
    per_clip = [scorer.score(caption, clip) for caption, clip in zip(candidates, references, strict=True)]
    return sum(per_clip) / len(per_clip), per_clip


class CiderD:
    """CIDEr-D with the document frequencies of some clips, such as those of a training set.

    Args:
        references: for each clip, its tokenised references, tokens joined by blanks.

    Attributes:
        idf: weight of each n-gram.
    """

    def __init__(self, references: Sequence[Sequence[str]]):
        document_frequency: Counter = Counter()
        for clip in references:
            counts = [count_ngrams(reference.split()) for reference in clip]
            document_frequency.update({ngram for orders in counts for order in orders for ngram in order})
        self._unseen_idf = math.log(len(references))
        self.idf = {ngram: self._unseen_idf - math.log(frequency) for ngram, frequency in document_frequency.items()}

    def score(self, candidate: str, references: Sequence[str]) -> float:
        """CIDEr-D of a tokenised caption against tokenised references, from 0 to 10."""
        counts = count_ngrams(candidate.split())
        weights = [_tf_idf(order, self.idf, self._unseen_idf) for order in counts]
        norms = [math.sqrt(sum(weight * weight for weight in order.values())) for order in weights]
        length = sum(counts[1].values())
        similarities = [
            _similarity(weights, norms, length, count_ngrams(reference.split()), self.idf) for reference in references
        ]
        return SCALE * sum(similarities) / len(similarities)


def _tf_idf(counts: Counter, idf: dict[tuple, float], unseen_idf: float) -> dict[tuple, float]:
    """tf-idf of one order's n-grams; those that no reference has count as rare as can be."""
    return {ngram: count * idf.get(ngram, unseen_idf) for ngram, count in counts.items()}


def _similarity(
    weights: list[dict[tuple, float]],
    norms: list[float],
    length: int,
    reference: list[Counter],
    idf: dict[tuple, float],
) -> float:
    """Mean over the orders of the clipped cosine with one reference, times the penalty for another length."""
    total = 0.0
    for order, counts in enumerate(reference):
        product = 0.0
        for ngram, weight in weights[order].items():
            if ngram in counts:
                reference_weight = counts[ngram] * idf[ngram]
                product += min(weight, reference_weight) * reference_weight
        if product:
            squared_norm = sum([(count * idf[ngram]) ** 2 for ngram, count in counts.items()])
            total += product / (norms[order] * math.sqrt(squared_norm))
    penalty = math.exp(-((length - sum(reference[1].values())) ** 2) / (2 * LENGTH_SIGMA**2))
    return total / MAX_ORDER * penalty
