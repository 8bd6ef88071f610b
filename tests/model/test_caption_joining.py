"""Neighbours whose captions say the same are one segment, and nothing else is."""

import pytest

from enclap_hf.model.caption_joining import join_equal_neighbours, read_words
from enclap_hf.model.caption_stream import CaptionedPiece
from enclap_hf.model.recordings import RecordingState
from enclap_hf.sound_scenes import SOUND_KINDS

SILENCE = {"text": "", "silent": True}


def make_piece(result, start_s: float, end_s: float, index: int = 0, is_end: bool = False, is_windowed: bool = True):
    if isinstance(result, tuple):
        result = {"text": result[0], "score": result[1]}
    return CaptionedPiece(index, "a.wav", result, start_s, end_s, is_windowed, is_end, RecordingState(), 0.0)


def end_of(recording: int, end_s: float):
    return make_piece(None, end_s, end_s, recording, is_end=True)


def describe(pieces) -> list[tuple]:
    return [(piece.index, piece.start_s, piece.end_s, piece.result) for piece in pieces]


def test_captions_that_say_the_same_are_joined_with_their_mean_score_by_length():
    pieces = [
        make_piece(("A dog barks.", -0.4), 0, 3),
        make_piece(("The sound of a dog barking.", -0.2), 3, 4),
        make_piece(("You can hear a dog barking.", -0.6), 4, 8),
        make_piece(("A cat meows.", -0.1), 8, 9),
        end_of(0, 9),
    ]
    joined = describe(join_equal_neighbours(pieces))
    assert [(start, end) for _, start, end, _ in joined] == [(0, 8), (8, 9), (9, 9)]
    assert joined[0][3]["score"] == pytest.approx((3 * -0.4 + 1 * -0.2 + 4 * -0.6) / 8)
    assert joined[0][3]["text"] == "The sound of a dog barking.", "the wording that scored best"
    assert joined[2][3] is None, "the mark of the end stays"


def test_silence_is_joined_with_silence_alone():
    pieces = [
        make_piece(SILENCE, 0, 20),
        make_piece(SILENCE, 20, 30),
        make_piece(("A dog barks.", -0.4), 30, 33),
        make_piece(SILENCE, 33, 40),
        end_of(0, 40),
    ]
    assert [(start, end) for _, start, end, _ in describe(join_equal_neighbours(pieces))][:3] == [
        *[(0, 30), (30, 33), (33, 40)]
    ]


def test_a_segment_is_given_out_as_soon_as_the_next_differs():
    def pieces():
        yield make_piece(("A dog barks.", -0.4), 0, 3)
        yield make_piece(("A cat meows.", -0.4), 3, 4)
        pytest.fail("it waited for more than the next")

    assert next(join_equal_neighbours(pieces())).end_s == 3


def test_recordings_that_come_between_each_other_stay_apart():
    pieces = [
        make_piece(("A dog barks.", -0.4), 0, 3, index=0),
        make_piece(("A dog barks.", -0.4), 0, 2, index=1),
        make_piece(("A dog barks.", -0.4), 3, 5, index=0),
        end_of(0, 5),
        make_piece(("A dog barks.", -0.4), 2, 9, index=1),
        end_of(1, 9),
    ]
    joined = [row[:3] for row in describe(join_equal_neighbours(pieces)) if row[3] is not None]
    assert joined == [(0, 0, 5), (1, 0, 9)]


def test_a_failure_ends_a_segment_and_recordings_that_were_not_cut_pass():
    whole = make_piece(("A dog barks.", -0.4), 0, 3, index=1, is_end=True, is_windowed=False)
    failure = {"text": None, "error": "damaged"}
    pieces = [
        make_piece(("A dog barks.", -0.4), 0, 3),
        make_piece(failure, 3, 4),
        make_piece(failure, 4, 4, is_end=True),
        whole,
    ]
    joined = list(join_equal_neighbours(pieces))
    assert len(joined) == 4 and joined[3] is whole


def test_segments_with_a_gap_between_them_stay_apart():
    pieces = [make_piece(("A dog barks.", -0.4), 0, 3), make_piece(("A dog barks.", -0.4), 4, 5), end_of(0, 5)]
    assert len(list(join_equal_neighbours(pieces))) == 3


def test_n_best_is_joined_where_each_rank_says_the_same():
    dog, cat, owl = ({"text": f"A {name}.", "score": -0.5} for name in ("dog", "cat", "owl"))
    pieces = [
        make_piece([dog, cat], 0, 3),
        make_piece([dog, {**cat, "score": -0.9}], 3, 4),
        make_piece([dog, owl], 4, 5),
        end_of(0, 5),
    ]
    first, second, _ = join_equal_neighbours(pieces)
    assert (first.start_s, first.end_s, second.end_s) == (0, 4, 5)
    assert [caption["score"] for caption in first.captions] == pytest.approx([-0.5, (3 * -0.5 - 0.9) / 4])


def test_a_stream_that_ends_early_loses_nothing():
    assert len(list(join_equal_neighbours([make_piece(("A dog barks.", -0.4), 0, 3)]))) == 1


@pytest.mark.parametrize("kind", SOUND_KINDS.values(), ids=SOUND_KINDS)
def test_a_clause_and_its_phrase_say_the_same_and_no_other_kind_does(kind):
    said = [read_words(f"The sound of {phrase}.") for phrase in kind.phrases]
    pairs = [pair for pair in zip(kind.clauses, said, strict=True) if pair[0] != "it is raining"]
    assert all(read_words(clause) == words for clause, words in pairs)
    others = [read_words(clause) for other in SOUND_KINDS.values() if other is not kind for clause in other.clauses]
    assert not any(words in others for words in said)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("A dog barks, then a cat meows.", "A cat meows, then a dog barks.", False),
        ("A dog barks twice.", "A dog barks three times.", False),
        ("A dog barks twice.", "A DOG IS BARKING TWICE", True),
        ("Un perro ladra.", "Un perro ladra", True),
        ("Un perro ladra.", "Un gato ladra.", False),
        ("Someone strums a guitar.", "A guitar being strummed by someone", False),
    ],
)
def test_what_says_the_same(one, other, is_same):
    assert (read_words(one) == read_words(other)) is is_same
