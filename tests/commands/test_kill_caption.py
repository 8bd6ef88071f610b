"""Kills of `enclap caption` lose nothing: a short leg of tests/kill_caption.py, and its long ones."""

import os

import pytest

import kill_caption

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes and kills them by signals")


@pytest.fixture(scope="module")
def caption(tmp_path_factory):
    return kill_caption.load_tiny_captioner(tmp_path_factory.mktemp("model"))


def assert_nothing_is_lost(test: kill_caption.KillTest) -> None:
    assert test.problems == []
    assert test.counts["rows present at a kill"] >= test.counts["runs resumed"] > 0


def test_a_few_kills_lose_nothing(caption, tmp_path):
    assert_nothing_is_lost(kill_caption.run_kills(kill_caption.ForkedRuns(caption), tmp_path, 2, seed=7))


@pytest.mark.slow
def test_twenty_kills_lose_nothing(caption, tmp_path):
    assert_nothing_is_lost(kill_caption.run_kills(kill_caption.ForkedRuns(caption), tmp_path, 20, seed=1))


@pytest.mark.slow
def test_kills_of_the_program_lose_nothing(tmp_path):
    assert_nothing_is_lost(kill_caption.run_kills(kill_caption.ProgramRuns(), tmp_path, 3, seed=2))


def test_what_is_lost_is_noticed(tmp_path):
    """The checks themselves: a cut row, a foreign one, a missing one, one twice."""
    test = kill_caption.KillTest(None, tmp_path, 0)
    output = tmp_path / "killed.csv"
    header = "file_name,caption,score,silent,error\n"
    expected = [{"file_name": name, "caption": "rain", "score": -0.5} for name in ("a.wav", "b.wav")]
    for number, content in enumerate(("a.wav,ra", "a.wav,wind,,,\n"), 1):
        output.write_text(header + content)
        test.check_rows(output, expected, "killed")
        assert len(test.problems) == number
    output.write_text(header + "a.wav,rain,-0.5,,\nb.wav,rain,-0.50001,,\n")
    before = test.check_rows(output, expected, "killed")
    (tmp_path / "log").touch()
    test.check_resumed(output, expected, before, 1, "resumed")
    assert len(test.problems) == 2 and before == kill_caption.make_keys(expected)
    output.write_text(output.read_text().replace("-0.50001", "-0.6"))
    test.check_resumed(output, expected, before, 1, "resumed")
    assert "other scores" in test.problems.pop()
    for number, content in enumerate(
        ("a.wav,rain,-0.5,,\n", "a.wav,rain,-0.5,,\na.wav,rain,-0.5,,\nb.wav,rain,-0.50001,,\n")
    ):
        output.write_text(header + content)
        test.check_resumed(output, expected, [], 1, "resumed")
        assert len(test.problems) == 3 + number
