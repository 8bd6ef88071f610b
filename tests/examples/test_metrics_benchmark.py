"""The benchmark of the metrics says what it can do, and times only what can be computed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spice_stand_in import install, read_runs

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "benchmark_metrics.py"


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)


def test_the_help_times_nothing():
    run = run_benchmark("--help")
    assert run.returncode == 0 and "--num-clips" in run.stdout and "median_seconds" not in run.stdout


def test_the_last_line_is_json():
    run = run_benchmark("--metrics", "fast", "cider_d,bleu_1", "--num-clips", "5", "--num-runs", "1")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["num_clips"], result["num_runs"]) == (5, 1)
    assert list(result["median_seconds"]) == ["fast", "cider_d,bleu_1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "best"), "Got the metric 'best'; expected a set"),
        (("--num-clips", "0"), "expected a whole number of at least 1"),
        (("--metrics", "meteor", "--num-clips", "2"), "A metric cannot be timed: `ENCLAP_JAVA` is 'no-such-java'"),
    ],
)
def test_what_cannot_be_timed_is_refused(monkeypatch, arguments, message):
    monkeypatch.setenv("ENCLAP_JAVA", "no-such-java")
    run = run_benchmark(*arguments)
    assert run.returncode != 0 and message in run.stderr and "Traceback" not in run.stderr


def test_spice_is_timed_for_a_first_and_a_second_system(monkeypatch, tmp_path):
    """A median of runs would time the cache."""
    if os.name != "posix":
        pytest.skip("the stand-in for Java is a script with a #! line")
    environment = install(tmp_path, monkeypatch) | {"BEHAVIOUR": "slow 0.02"}
    command = [sys.executable, SCRIPT, "--metrics", "spice", "bleu_1", "--num-clips", "20", "--num-runs", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    systems = result["systems"]["spice"]
    assert list(result["median_seconds"]) == ["bleu_1"] and systems["java_memory_mb"] > 1
    assert systems["first_system_seconds"] > systems["second_system_seconds"] > systems["again_seconds"]
    assert len(read_runs(tmp_path)) == 2 and not (tmp_path / "cache").exists(), "the user's cache is not touched"


def test_captions_come_from_a_file(tmp_path):
    path = tmp_path / "clips.json"
    path.write_text(json.dumps([{"candidate": "a dog", "references": ["a dog", "one dog"]}] * 3))
    run = run_benchmark("--metrics", "bleu_1", "--num-clips", "2", "--num-runs", "1", "--captions", str(path))
    assert run.returncode == 0 and "2 clips, 4 references" in run.stdout, run.stderr
    path.write_text("[1]")
    run = run_benchmark("--metrics", "bleu_1", "--captions", str(path))
    assert run.returncode != 0 and "is not a JSON list of clips" in run.stderr and "Traceback" not in run.stderr
