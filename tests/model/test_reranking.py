"""Scorers, mixtures and ranks, against what they are by hand."""

import numpy as np
import pytest

from enclap_hf.model import reranking
from enclap_hf.model.consensus import compare_captions
from enclap_hf.model.reranking import (
    REPETITION_PENALTY,
    SCORERS,
    ClipCandidates,
    gather_candidates,
    rank_candidates,
    read_mixture,
    standardise,
)

WRITTEN = [
    "A dog barks.",
    "A phone rings.",
    "A dog is barking.",
    "A dog barks.",
    "A dog barks, then a phone rings.",
    "A dog barks.",
]
LIKELIHOODS = [-0.5, -0.2, -0.4, -0.3, -0.9, -0.6]


def test_captions_of_one_text_are_put_together_and_the_likeliest_of_them_stands_for_it():
    candidates, places = gather_candidates(WRITTEN, LIKELIHOODS)
    assert candidates.texts == ["A dog barks.", "A phone rings.", "A dog is barking.", WRITTEN[4]]
    assert candidates.counts == [3, 1, 1, 1]
    assert places == [3, 1, 2, 4] and candidates.likelihoods == [LIKELIHOODS[place] for place in places]


def test_consensus_is_the_mean_similarity_with_all_others_that_were_written():
    candidates, _ = gather_candidates(WRITTEN, LIKELIHOODS)
    similarities = compare_captions(candidates.texts)
    where = [candidates.texts.index(text) for text in WRITTEN]
    for text, score in zip(candidates.texts, SCORERS["consensus"](candidates), strict=True):
        others = list(where)
        others.remove(candidates.texts.index(text))
        by_hand = np.mean([similarities[candidates.texts.index(text), other] for other in others])
        assert score == pytest.approx(by_hand, rel=1e-12)


def test_a_mixture_adds_standardised_scores_by_their_weights_and_takes_the_penalty_off(monkeypatch):
    texts = ["rain", "wind", "A dog barks and a dog barks.", "a bell"]
    candidates = ClipCandidates(texts, [1] * 4, [-3.0, -1.0, -0.5, -2.0], [0.9, 0.1, 0.8, 0.3])
    total = [0.0] * 4
    for weight, scores in ((0.75, candidates.similarities), (0.25, candidates.likelihoods)):
        mean = sum(scores) / 4
        spread = (sum((score - mean) ** 2 for score in scores) / 4) ** 0.5
        total = [value + weight * (score - mean) / spread for value, score in zip(total, scores, strict=True)]
    unpunished = sorted(range(4), key=lambda i: -total[i])
    total[2] -= REPETITION_PENALTY
    expected = sorted(range(4), key=lambda i: -total[i])
    assert expected != unpunished
    assert rank_candidates(candidates, read_mixture({"clap": 3, "likelihood": 1})) == expected


def test_captions_that_are_not_fluent_come_last_whatever_their_score():
    candidates = ClipCandidates(["rain", "a a", "wind"], [1] * 3, [-2.0, -0.1, -1.0])
    fluent = lambda texts: [text != "a a" for text in texts]  # noqa: E731
    assert rank_candidates(candidates, {"likelihood": 1.0}, fluent) == [2, 0, 1]
    assert rank_candidates(candidates, {"likelihood": 1.0}) == [1, 2, 0]


def test_equal_scores_keep_the_order_of_the_candidates_whatever_rounding_left():
    assert standardise([0.1 + 0.2, 0.3, 0.3]).tolist() == [0, 0, 0]
    candidates = ClipCandidates(["rain", "wind", "bell"], [1] * 3, [0.1 + 0.2, 0.3, 0.3])
    assert rank_candidates(candidates, {"likelihood": 1.0}) == [0, 1, 2]


@pytest.mark.parametrize("name", ["consensus", "likelihood"])
def test_one_candidate_is_the_best(name):
    assert rank_candidates(ClipCandidates(["rain"], [30], [-0.1]), read_mixture(name)) == [0]


def test_weights_are_normalised_and_those_of_nothing_are_left_out():
    assert read_mixture({"clap": 3, "consensus": 1, "likelihood": 0}) == {"clap": 0.75, "consensus": 0.25}
    assert read_mixture("likelihood") == {"likelihood": 1.0}


@pytest.mark.parametrize(
    ("rerank", "message"),
    [
        ("clip", "Got `rerank`='clip'; expected 'clap', 'consensus', 'likelihood', or a mixture"),
        ({"clip": 1.0}, "expected 'clap', 'consensus'"),
        (["clap"], "expected 'clap', 'consensus'"),
        ({}, "without a weight above 0; give a scorer one"),
        ({"clap": 0, "consensus": 0.0}, "without a weight above 0; give a scorer one"),
        ({"clap": -0.1, "consensus": 1}, "weight -0.1 for 'clap'; expected a number of at least 0"),
        ({"clap": float("nan")}, "weight nan for 'clap'"),
        ({"clap": float("inf")}, "weight inf for 'clap'"),
        ({"clap": "1"}, "weight '1' for 'clap'"),
        ({"clap": True}, "weight True for 'clap'"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused_in_one_line(rerank, message):
    with pytest.raises(ValueError, match="Got") as raised:
        read_mixture(rerank)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_clap_without_a_text_tower_is_refused():
    with pytest.raises(ValueError, match="no CLAP text tower") as raised:
        rank_candidates(ClipCandidates(["rain"], [1], [-0.1]), {"clap": 1.0})
    assert str(raised.value) == reranking.NO_TEXT_TOWER and "\n" not in str(raised.value)
