"""Damaged audio files, made at random from a seed, are read or refused, and nothing else."""

import pytest

from fuzz_audio import make_damaged, make_originals, run


def test_damaged_files_are_read_or_refused():
    outcomes, faults, printed = run(count=200, seed=11)
    assert not faults and outcomes.total() == 200 and printed == 0
    assert outcomes["read"] > 50 and outcomes["read in part"] > 5  # the damage is not such that all is lost
    assert sum(number for outcome, number in outcomes.items() if outcome.startswith("refused")) > 30


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused():
    outcomes, faults, printed = run(count=10_000, seed=12)
    assert not faults and outcomes.total() == 10_000 and printed == 0


def test_files_follow_from_the_seed():
    originals = make_originals()
    assert len(originals) > 20
    assert make_damaged(originals, 5, 7) == make_damaged(originals, 5, 7) != make_damaged(originals, 6, 7)
