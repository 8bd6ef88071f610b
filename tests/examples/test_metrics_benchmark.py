"""The benchmark of the metrics says what it can do, and times only what can be computed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
