"""The benchmark runs, and refuses to time two ways that do not do the same work. What it measures is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "benchmark.py"
SMALL = ["--size", "tiny", "--batch-size", "2", "--num-tokens", "4", "--repeats", "1", "--threads", "1"]


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *SMALL, *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_it_compares_and_times_the_captioner_in_float32_with_peak_memory():
    run = run_benchmark("--stages", "beam", "training", "--memory")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert list(result["stages"]) == ["beam", "training"]
    for row in result["stages"].values():
        assert min(row["ours_s"], row["stock_s"], row["gflop"], row["ours_peak_gib"], row["stock_peak_gib"]) > 0
    assert result["stages"]["beam"]["same"].startswith("ids equal")


@pytest.mark.slow
def test_clips_of_unlike_lengths_keep_the_bits_that_they_have_alone():
    run = run_benchmark("--lengths", "40", "75", "20", "--stages", "codec", "clap", "encoder", "beam", "caption")
    assert run.returncode == 0, run.stderr
    stages = json.loads(run.stdout.splitlines()[-1])["stages"]
    assert all(row["same"].endswith("bits of 3 of 3 clips as alone") for row in stages.values()) and len(stages) == 5


@pytest.mark.slow
def test_it_says_what_bfloat16_leaves_the_same():
    run = run_benchmark("--stages", "beam", "training", "--dtype", "bfloat16", "--scenes", "2")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["stages"]["beam"]["same"].startswith("captions equal")
    assert result["equal_captions"]["scenes"] == 2 and 0 <= result["equal_captions"]["share"] <= 1


@pytest.mark.slow
def test_it_compares_backends():
    run = run_benchmark("--stages", "--backends", "torch", "onnx", "onnx-int8", "--memory")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])["backends"]
    assert result["caption"]["onnx"]["same"] == result["front_end"]["onnx"]["same"] == "100.0000% equal"
    assert all(row["s"] > 0 for stage in ("front_end", "encoder", "beam", "caption") for row in result[stage].values())
    assert all(peak > 0 for peak in result["peak_gib"].values())


def test_results_that_differ_stop_it(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import torch
    from benchmark_stages import compare_captions, largest_difference

    captions, others = torch.tensor([[2, 0, 5]]), torch.tensor([[2, 0, 6]])
    assert compare_captions(captions, captions, torch.float32) == "ids equal"
    assert compare_captions(captions, others, torch.bfloat16) == "captions equal 0.000"
    with pytest.raises(RuntimeError, match="do not do the same work: only 0.000 of the captions"):
        compare_captions(captions, others, torch.float32)
    with pytest.raises(RuntimeError, match="apart"):
        largest_difference(torch.zeros(2), torch.ones(2), 0.5)
