"""Long captions: named before, parsed last, and the clip is named where time or memory does not suffice."""

import json
import logging
import os

import pytest

from enclap_hf.commands.score import main
from enclap_hf.metrics.java_runtime import JavaMemoryError, JavaTimeoutError
from enclap_hf.metrics.long_captions import CaptionNames, describe_time, estimate_parse_s, is_long
from enclap_hf.metrics.spice import compute_spice
from spice_stand_in import count_lines, install, read_runs

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")


def words(number: int) -> str:
    return " ".join(["dog"] * number)


CANDIDATES = [words(300), "rain", words(95), "a dog barks"]
REFERENCES = [["a dog"], ["rain falls"], ["a cat"], [words(81), words(80)]]
NAMES = ["loop.wav", "rain.wav", "loop too.wav", "dog.wav"]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    return tmp_path


@needs_posix
def test_long_captions_are_named_before_and_parsed_last(stand_in, caplog):
    with caplog.at_level(logging.WARNING):
        compute_spice(CANDIDATES, REFERENCES, clip_names=NAMES)
    assert [message.split(" takes about ")[0] for message in caplog.messages] == [
        "SPICE: parsing the caption of clip 'loop.wav' (300 words)",
        "SPICE: parsing the caption of clip 'loop too.wav' (95 words)",
        "SPICE: parsing a reference of clip 'dog.wav' (81 words)",
    ]
    assert "takes about 5 min" in caplog.messages[0] and "takes about 13 s" in caplog.messages[1]
    (folder,) = (stand_in / "cache" / "spice").iterdir()
    order = [json.loads(line.split("\t")[1])[0] for line in (folder / "parses.txt").read_text().split("\n") if line]
    assert order[-3:] == [words(81), words(95), words(300)] and order[:2] == ["a dog", "rain"]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        compute_spice(CANDIDATES[::-1], REFERENCES[::-1])
    assert caplog.messages == [], "what is not parsed is not named"


@needs_posix
def test_the_time_limit_names_the_clip_and_other_metrics_are_still_printed(stand_in, monkeypatch, capsys):
    """One caption of a captioner that was stuck in a loop took the scores of all clips away, and was not named."""
    monkeypatch.setenv("BEHAVIOUR", "stuck at long")
    with open(stand_in / "captions.jsonl", "w") as file:
        for name, caption, references in zip(NAMES[:2], CANDIDATES[:2], REFERENCES[:2], strict=True):
            file.write(json.dumps({"file_name": name, "caption": caption, "references": references}) + "\n")
    arguments = [str(stand_in / "captions.jsonl"), "--metrics", "cider_d,spice,spider", "--timeout", "2"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[0] == (
        "note: SPICE: parsing the caption of clip 'loop.wav' (300 words) takes about 5 min; it is parsed after the "
        "shorter ones"
    )
    assert lines[1] == (
        "left out: spice: not done within the time limit of 2 s; still to parse: 1 caption, that is the caption of "
        "clip 'loop.wav' (300 words), which takes about 5 min; shorten it, or give a longer time limit (`timeout_s`, "
        "--timeout). What was parsed is kept for the next run"
    )
    assert lines[2].startswith("left out: spider: needs spice: not done") and len(lines) == 3
    assert "cider_d" in output.out and "spice" not in output.out
    assert count_lines(stand_in / "cache", "parses.txt") == 3
    monkeypatch.setenv("BEHAVIOUR", "answer")
    assert main(arguments) == 0 and "spice" in capsys.readouterr().out


@needs_posix
def test_a_heap_too_small_for_two_captions_at_once_does_one_at_a_time(stand_in, monkeypatch, caplog):
    monkeypatch.setenv("BEHAVIOUR", "memory for two")
    with caplog.at_level(logging.WARNING):
        _, per_clip = compute_spice(CANDIDATES, REFERENCES, num_threads=2, java_heap="1g")
    assert per_clip[1] == 1.0 and [run[-1] for run in read_runs(stand_in)] == ["2", "1"]
    assert "the heap of 1g is too small for 2 captions at once" in caplog.messages[-1]


@needs_posix
def test_a_heap_too_small_for_one_caption_names_it(stand_in, monkeypatch):
    """CoreNLP would have gone on with an empty parse, and a wrong score."""
    monkeypatch.setenv("BEHAVIOUR", "memory")
    message = (
        r"the heap of 1g is too small to parse a reference of clip 'dog.wav' \(81 words\); shorten it, or give a larger"
    )
    with pytest.raises(JavaMemoryError, match=message):
        compute_spice(CANDIDATES, REFERENCES, java_heap="1g", clip_names=NAMES)
    assert count_lines(stand_in / "cache", "parses.txt") == 6


@needs_posix
def test_a_store_that_keeps_nothing_does_not_say_that_it_does(stand_in, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "stuck at long")
    (stand_in / "file").touch()
    with pytest.raises(JavaTimeoutError, match="Parses could not be kept"):
        compute_spice(CANDIDATES, REFERENCES, timeout_s=1.5, cache_dir=stand_in / "file")


def test_many_long_captions_are_not_many_lines():
    candidates = [f"{words(100)} {number}" for number in range(50)]
    sentences = CaptionNames(candidates, [["a dog"]] * 50).name_long(candidates)
    assert len(sentences) == 21 and "clip number 1 (101 words)" in sentences[0]
    assert sentences[-1] == "SPICE: 30 more captions have over 80 words; parsing them takes about 8 min of one core"


def test_rough_times():
    assert not is_long(words(80)) and is_long(words(81))
    assert 10 < estimate_parse_s(words(100)) < 20 and 200 < estimate_parse_s(words(300)) < 400
    assert [describe_time(seconds) for seconds in (0.2, 44.6, 100, 5000, 7300)] == [
        "1 s",
        "45 s",
        "2 min",
        "83 min",
        "2 h",
    ]
