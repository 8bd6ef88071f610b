"""Long recordings are what their events say, and the benchmark of segments counts as its header says."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_script(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load_script("benchmarks/benchmark_segments.py")


def run_script(path: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, EXAMPLES / path, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    arguments = ("--output", str(folder), "--num-recordings", "1", "--duration-s", "30", "--first-seed", "5")
    run = run_script("make_long_scenes.py", *arguments)
    assert run.returncode == 0, run.stderr
    return folder


def event(kind: str, start_s: float, end_s: float) -> dict:
    return {"kind": kind, "start_s": start_s, "end_s": end_s}


def chunk(start_s: float, end_s: float, text: str) -> dict:
    return {"timestamp": (start_s, end_s), "text": text}


def test_a_seed_gives_a_recording_whose_events_are_where_it_says(recordings):
    (row,) = json.loads((recordings / "events.json").read_text())
    samples, rate = soundfile.read(recordings / row["file_name"])
    assert len(samples) == 30 * rate and row["duration_s"] == 30 and row["events"]
    sounds = np.zeros(len(samples), dtype=bool)
    for entry in row["events"]:
        assert 0 <= entry["start_s"] < entry["end_s"] <= 30
        first, last = round(entry["start_s"] * rate), round(entry["end_s"] * rate)
        sounds[first:last] = True
        assert np.abs(samples[first:last]).max() > 0.01
    distance = round(0.2 * rate)  # a scene's ends and its room
    apart = ~np.convolve(sounds, np.ones(2 * distance + 1), mode="same").astype(bool)
    if apart.any():
        assert np.abs(samples[apart]).max() < 0.01
    script = load_script("make_long_scenes.py")
    audio, events = script.make_recording(5, 30.0)
    assert [vars(entry) for entry in events] == row["events"]
    assert np.abs(audio - samples).max() < 1e-4


def test_events_are_named_by_segments_that_overlap_them_and_by_no_other():
    events = [event("dog", 1, 4), event("cat", 6, 8)]
    chunks = [
        chunk(0, 5, "A dog barks, then an owl hoots."),
        chunk(5, 10, "A cat meows."),
        chunk(10, 15, "A cat meows."),
    ]
    counts = benchmark.score_recording(chunks, events, 15.0)
    assert (counts["named"], counts["events"], counts["right"], counts["said"]) == (2, 2, 2, 4)
    assert counts["overlap"] == pytest.approx(3 / 5 + 2 / 5)
    assert (counts["matched"], counts["found"], counts["changes"]) == (1, 2, 4), "4 by 5, and 6 by 5 no more"


def test_changes_close_together_are_one_and_the_ends_are_none():
    events = [event("dog", 0.1, 4.0), event("cat", 4.2, 8.0), event("owl", 4.3, 14.9)]
    assert benchmark.find_changes(events, 15.0) == pytest.approx([(4.0 + 4.2 + 4.3) / 3, 8.0])


@pytest.mark.parametrize(
    ("found", "truth", "matches"),
    [
        ([1.0, 2.0], [1.5], 1),
        ([1.0, 2.0], [0.2, 2.9], 2),
        ([5.0], [3.9], 0),
        ([2.0, 2.5], [1.5, 3.4], 2),
        ([], [1.0], 0),
    ],
)
def test_each_moment_is_in_one_pair(found, truth, matches):
    assert benchmark.count_matches(found, truth) == matches


def test_the_last_line_is_json(recordings):
    run = run_script("benchmarks/benchmark_segments.py", "--recordings", str(recordings))
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["num_recordings"], list(result["scores"])) == (1, ["fixed", "changes"])
    assert 0 < result["scores"]["fixed"]["captions"] <= 3
    assert result["scores"]["changes"]["boundary_f1"] > result["scores"]["fixed"]["boundary_f1"]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("make_long_scenes.py", ("--output", "x", "--num-recordings", "0"), "at least one recording"),
        ("make_long_scenes.py", ("--output", "x", "--duration-s", "5"), "expected --duration-s"),
        ("benchmarks/benchmark_segments.py", ("--recordings", "nowhere"), "has no events.json"),
    ],
)
def test_what_cannot_be_is_refused(script, arguments, message):
    run = run_script(script, *arguments)
    assert run.returncode != 0 and message in run.stderr and "Traceback" not in run.stderr
