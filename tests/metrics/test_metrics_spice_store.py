"""What SPICE keeps: nothing spoiled is believed, nothing of another parser, and a store that fails costs no score."""

import errno
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import textwrap

import pytest

from enclap_hf.metrics.parse_store import ParseStore, clip_key
from enclap_hf.metrics.spice import compute_spice
from spice_stand_in import count_lines, find_store, install, make_corenlp, read_runs

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")

CANDIDATES = ["a dog barks", "rain falls on a roof", "ein Café \ud83d 😀"]
REFERENCES = [["a dog is barking"], ["rain is falling"], ["a café"]]
TUPLES = [["dog"], ["dog", "bark"], ["rain", "roof", "fall\ton\n"]]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    return tmp_path


def test_what_was_kept_comes_back(tmp_path):
    with ParseStore(tmp_path, "parser") as store:
        for caption in CANDIDATES:
            store.add_parse(caption, TUPLES)
        store.add_scores({"a": 1 / 3, "b": 0.0})
    with ParseStore(tmp_path, "parser") as store:
        assert store.read_parses() == dict.fromkeys(CANDIDATES, TUPLES)
        assert store.read_scores() == {"a": 1 / 3, "b": 0.0}
    assert ParseStore(tmp_path, "another parser").read_parses() == {}


def test_lines_of_another_parser_are_not_believed_wherever_they_lie(tmp_path):
    with ParseStore(tmp_path, "one") as store:
        store.add_parse("a", TUPLES)
    (tmp_path / "one").rename(tmp_path / "two")
    assert ParseStore(tmp_path, "two").read_parses() == {}


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bits_lose_lines_and_change_none(tmp_path, seed):
    """Sixty flipped bits changed a corpus score from .1058 to .1044 without a word."""
    captions = [f"caption number {number} of a dog" for number in range(200)]
    with ParseStore(tmp_path, "parser") as store:
        for number, caption in enumerate(captions):
            store.add_parse(caption, [[f"dog{number}"], ["dog", "bark"]])
        store.add_scores({f"clip{number}": number / 7 for number in range(200)})
    rng = random.Random(seed)
    for name in ("parses.txt", "scores.txt"):
        content = bytearray((tmp_path / "parser" / name).read_bytes())
        for _ in range(60):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "parser" / name).write_bytes(content)
    parses, scores = ParseStore(tmp_path, "parser").read_parses(), ParseStore(tmp_path, "parser").read_scores()
    assert 100 < len(parses) < 200 and 100 < len(scores) < 200
    assert all(parses[caption] == [[f"dog{captions.index(caption)}"], ["dog", "bark"]] for caption in parses)
    assert all(score == int(key[4:]) / 7 for key, score in scores.items())


def test_a_line_cut_short_spoils_none_that_comes_after(tmp_path):
    with ParseStore(tmp_path, "parser") as store:
        store.add_parse("first", TUPLES)
        store.add_parse("second", TUPLES)
    path = tmp_path / "parser" / "parses.txt"
    path.write_bytes(path.read_bytes()[:-20])
    with ParseStore(tmp_path, "parser") as store:
        assert set(store.read_parses()) == {"first"}
        store.add_parse("third", TUPLES)
        assert set(store.read_parses()) == {"first", "third"}


def _fill(folder, number):
    with ParseStore(folder, "parser") as store:
        for line in range(300):
            store.add_parse(f"caption {line} of process {number}", [[f"{number}", "word" * 500]])


def test_lines_of_several_processes_do_not_mix(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    parses = ParseStore(tmp_path, "parser").read_parses()
    assert len(parses) == 900 and all(tuples[0][0] == caption[-1] for caption, tuples in parses.items())


def test_the_order_of_references_is_part_of_a_clips_name():
    """SPICE merges a word into the first that shares a synonym with it: another order can be another score."""
    assert clip_key("a", ["b", "c"]) != clip_key("a", ["c", "b"])
    assert clip_key("a", ["b"]) != clip_key("b", ["a"]) and clip_key("a", ["b", "c"]) == clip_key("a", ["b", "c"])


# --- whole computations ---


@needs_posix
def test_damaged_lines_are_computed_again(stand_in):
    first = compute_spice(CANDIDATES, REFERENCES)
    folder = find_store(stand_in / "cache")
    for name in ("parses.txt", "scores.txt"):
        content = (folder / name).read_text()
        (folder / name).write_text(content.replace("dog", "cat").replace("0.", "1."))
    assert compute_spice(CANDIDATES, REFERENCES) == first
    assert len(read_runs(stand_in)) == 2


@needs_posix
@pytest.mark.parametrize("content", [b"", b"{", b"[]\n\t\n", b"\0\xff" * 1000, b"0123456789abcdef\t[1, 2]\n"])
def test_a_file_of_something_else_is_as_good_as_none(stand_in, content):
    first = compute_spice(CANDIDATES, REFERENCES)
    for name in ("parses.txt", "scores.txt"):
        (find_store(stand_in / "cache") / name).write_bytes(content)
    assert compute_spice(CANDIDATES, REFERENCES) == first and len(read_runs(stand_in)) == 2


@needs_posix
def test_another_parser_does_not_meet_the_first_ones_parses(stand_in, monkeypatch):
    compute_spice(CANDIDATES, REFERENCES)
    monkeypatch.setenv("ENCLAP_CORENLP", str(make_corenlp(stand_in / "another", word="other")))
    compute_spice(CANDIDATES, REFERENCES)
    assert len(read_runs(stand_in)) == 2 and len(list((stand_in / "cache" / "spice").iterdir())) == 2
    monkeypatch.setenv("ENCLAP_CORENLP", str(make_corenlp(stand_in / "copy")))
    compute_spice(CANDIDATES, REFERENCES)
    assert len(read_runs(stand_in)) == 2, "a copy of the first parser is the first parser"


@needs_posix
def test_a_cache_that_cannot_be_made_costs_one_warning(stand_in, monkeypatch, caplog):
    expected = compute_spice(CANDIDATES, REFERENCES)
    (stand_in / "file").touch()
    monkeypatch.setenv("ENCLAP_CACHE", str(stand_in / "file"))
    with caplog.at_level(logging.WARNING):
        assert compute_spice(CANDIDATES, REFERENCES) == expected
    (message,) = caplog.messages
    assert "SPICE's cache cannot be" in message and "ENCLAP_CACHE" in message


@needs_posix
@pytest.mark.parametrize("name", ["parses.txt", "scores.txt"])
def test_a_cache_that_cannot_be_read_costs_one_warning(stand_in, caplog, name):
    expected = compute_spice(CANDIDATES, REFERENCES)
    path = find_store(stand_in / "cache") / name
    path.unlink()
    path.mkdir()
    (find_store(stand_in / "cache") / "scores.txt").unlink() if name == "parses.txt" else None
    with caplog.at_level(logging.WARNING):
        assert compute_spice(CANDIDATES, REFERENCES) == expected
    (message,) = caplog.messages
    assert "SPICE's cache cannot be read" in message


@needs_posix
def test_a_disk_that_fills_up_costs_one_warning(stand_in, monkeypatch, caplog):
    write, num_calls = os.write, []

    def write_until_full(handle, data):
        num_calls.append(handle) if data.startswith(b"\n") else None  # other calls are none of the store's
        if len(num_calls) > 2 and data.startswith(b"\n"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", write_until_full)
    with caplog.at_level(logging.WARNING):
        corpus, per_clip = compute_spice(CANDIDATES, REFERENCES)
    monkeypatch.undo()
    (message,) = caplog.messages
    assert per_clip[0] == pytest.approx(2 / 3) and "cannot be written: [Errno 28] No space left" in message
    assert count_lines(stand_in / "cache", "parses.txt") == 2


@needs_posix
def test_a_quota_that_cuts_a_line_short_costs_one_warning(stand_in, monkeypatch):
    """The first write past the limit is cut short, the next one fails."""
    code = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (130, 130))
        from enclap_hf.metrics.parse_store import ParseStore
        import sys
        with ParseStore(__import__("pathlib").Path(sys.argv[1]), "parser") as store:
            for number in range(5):
                store.add_parse(f"caption {number}", [["a word"]])
            print(store.works)
    """
    folder = stand_in / "store"
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=60)
    assert run.stdout == "False\n" and run.stderr.count("cannot be written: [Errno 27]") == 1, run.stderr
    assert len((folder / "parser" / "parses.txt").read_bytes()) == 130
    kept = ParseStore(folder, "parser").read_parses()
    assert kept == {f"caption {number}": [["a word"]] for number in range(len(kept))} and 0 < len(kept) < 5


@needs_posix
def test_temporary_files_that_cannot_be_written_are_one_clear_line(stand_in, monkeypatch):
    import tempfile

    from enclap_hf.metrics.java_runtime import JavaError

    monkeypatch.setattr(tempfile, "tempdir", str(stand_in / "nowhere"))
    with pytest.raises(JavaError, match="the folder for temporary files cannot be written: .*`TMPDIR` names another"):
        compute_spice(CANDIDATES, REFERENCES)
