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
                mine, its = count(first, order), count(second, order)
                norms = math.sqrt(sum(n * n for n in mine.values())) * math.sqrt(sum(n * n for n in its.values()))
                product = sum(min(number, its[gram]) * its[gram] for gram, number in mine.items() if gram in its)
                total += product / norms if product else 0.0
            bigrams = max(len(first) - 1, 0) - max(len(second) - 1, 0)
            row.append(10 * total / 4 * math.exp(-(bigrams**2) / (2 * 6.0**2)))
        result.append(row)
    return result


def test_it_is_cider_d_by_its_definition():
    np.testing.assert_allclose(compare_captions(CAPTIONS), compare_by_definition(CAPTIONS), rtol=1e-12, atol=1e-12)


def test_it_is_what_the_metrics_compute_where_no_ngram_is_rarer_than_another():
    """Beside a second clip of other words, each n-gram of the first is in one of two documents."""
    tokenised = [" ".join(split_words(caption)) for caption in CAPTIONS]
    compared = compare_captions(CAPTIONS)
    for row, candidate in zip(compared, tokenised, strict=True):
        for cosine, reference in zip(row, tokenised, strict=True):
            _, scores = compute_cider_d([candidate, "quite else"], [[reference], ["quite else"]])
            assert cosine == pytest.approx(scores[0], rel=1e-12, abs=1e-12)


def test_the_same_caption_has_all_in_common_and_one_without_words_nothing():
    compared = compare_captions(["a dog barks loudly", "", "a dog barks loudly", "..."])
    assert compared[0] == pytest.approx([10, 0, 10, 0]) and compared[1].tolist() == [0] * 4
    assert compare_captions(["rain"]).tolist() == [[2.5]]  # of the four orders it has one


def test_words_are_cut_as_people_would():
    assert split_words("It doesn't stop: a dog’s bark, 2 bells.") == (
        ["it", "doesn't", "stop", "a", "dog’s", "bark", "2", "bells"]
    )
