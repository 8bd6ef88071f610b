"""The short CIDEr-D among candidates is CIDEr-D, as the metrics compute it and as its definition says."""

import math
from collections import Counter

import numpy as np
import pytest

from enclap_hf.metrics.cider import compute_cider_d
from enclap_hf.model.consensus import compare_captions, split_words

CAPTIONS = [
    "A dog barks twice, then a phone is ringing.",
    "A dog barks and then a phone rings.",
    "The dog's barking, barking, barking loudly!",
    "A phone rings after a dog barks twice.",
    "Rain.",
    "It rains while a dog is barking in the far distance and then a phone is ringing for a long, long time.",
]


def compare_by_definition(captions: list[str]) -> list[list[float]]:
    def count(words: list[str], order: int) -> Counter:
        return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))

    words = [split_words(caption) for caption in captions]
    result = []
    for first in words:
        row = []
        for second in words:
            total = 0.0
            for order in (1, 2, 3, 4):
                documents = Counter(gram for other in words for gram in set(count(other, order)))
                idf = {gram: math.log(len(words) / number) for gram, number in documents.items()}
                mine = {gram: number * idf[gram] for gram, number in count(first, order).items()}
                its = {gram: number * idf[gram] for gram, number in count(second, order).items()}
                norms = math.sqrt(sum(w * w for w in mine.values())) * math.sqrt(sum(w * w for w in its.values()))
                product = sum(min(weight, its[gram]) * its[gram] for gram, weight in mine.items() if gram in its)
                total += product / norms if product else 0.0
            bigrams = max(len(first) - 1, 0) - max(len(second) - 1, 0)
            row.append(10 * total / 4 * math.exp(-(bigrams**2) / (2 * 6.0**2)))
        result.append(row)
    return result


def test_it_is_cider_d_by_its_definition():
    np.testing.assert_allclose(compare_captions(CAPTIONS), compare_by_definition(CAPTIONS), rtol=1e-12, atol=1e-12)


def test_it_is_what_the_metrics_compute_of_one_candidate_and_each_other_as_its_only_reference():
    tokenised = [" ".join(split_words(caption)) for caption in CAPTIONS]
    compared = compare_captions(CAPTIONS)
    for row, candidate in zip(compared, tokenised, strict=True):
        _, scores = compute_cider_d([candidate] * len(tokenised), [[reference] for reference in tokenised])
        np.testing.assert_allclose(row, scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("captions", [["", "a dog barks", "rain"], ["rain"], ["rain", "rain"], ["...", "!"]])
def test_captions_without_an_ngram_or_all_alike_have_nothing_in_common_that_tells(captions):
    compared = compare_captions(captions)
    assert compared.shape == (len(captions),) * 2 and np.isfinite(compared).all()
    assert compared[0].max() == 0


def test_words_are_cut_as_people_would():
    assert split_words("It doesn't stop: a dog’s bark, 2 bells.") == (
        ["it", "doesn't", "stop", "a", "dog’s", "bark", "2", "bells"]
    )
