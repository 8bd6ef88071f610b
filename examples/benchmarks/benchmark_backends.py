"""Time the captioner in torch, as ONNX graphs in float32 and in 8 bits, in one run: `benchmark.py --backends`.

The bench's captioner and its front end are saved and exported once; every way loads that folder, as a user does. The
ways run in turns (A B C A B C). In float32 they have to write the same ids; of 8 bits the share of equal captions is
told. Memory is the peak of a fresh process that loads one way and captions once.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from benchmark_models import Bench
from transformers import pipeline
from transformers.modeling_outputs import BaseModelOutput

from enclap_hf import DEFAULT_MODEL
from enclap_hf.metrics import AudioCaptioningMetrics
from enclap_hf.model.repository import save_repository
from enclap_hf.onnx.export import export_graphs, export_repository
from enclap_hf.onnx.quantize import quantize_graphs
from enclap_hf.sound_scenes import make_scene

BACKENDS = ("torch", "onnx", "onnx-int8")
PEAK_SCRIPT = """
import json, sys
from transformers import pipeline
import enclap_hf
folder, backend, threads, paths, decoding = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
caption = pipeline("audio-captioning", model=folder, model_kwargs={"backend": backend}, device="cpu")
caption(paths, batch_size=len(paths), **decoding)
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**20)
"""


class BackendBench:
    """One pipeline for each backend, over one exported folder.

    Args:
        bench: with the captioner, the processor and the recordings.
        folder: to save and export into.
        backends: of `BACKENDS`.
    """

    def __init__(self, bench: Bench, folder: str, backends: list[str]):
        self.bench, self.folder = bench, folder
        save_repository(bench.model, bench.processor, folder)
        export_graphs(bench.model, bench.processor, folder)
        if "onnx-int8" in backends:
            quantize_graphs(folder, "int8")
        self.captioners = {
            backend: pipeline("audio-captioning", model=folder, model_kwargs={"backend": backend}, device="cpu")
            for backend in backends
        }
        for captioner in self.captioners.values():
            captioner.processor.load_encoders()

    def make_works(self, stage: str) -> dict:
        """What each backend does in a stage, as functions that return what is compared."""
        works = {}
        for backend, captioner in self.captioners.items():
            works[backend] = getattr(self, stage)(captioner)
        return works

    def front_end(self, captioner):
        """Recordings to codes and CLAP vectors."""
        return lambda: captioner.processor(audio=self.bench.paths)["audio_codes"]

    def encoder(self, captioner):
        """Codes to states."""
        encoder = captioner.model.get_encoder()
        return lambda: encoder(**self.bench.inputs)[0]

    def beam(self, captioner):
        """The search, of states that each way has made by itself, with what it makes of them once."""
        model, states = captioner.model, captioner.model.get_encoder()(**self.bench.inputs)[0]
        mask = self.bench.inputs["attention_mask"]

        def search():
            outputs = BaseModelOutput(states.clone())  # whose keys and values are made anew
            return model.generate(encoder_outputs=outputs, attention_mask=mask, **self.bench.decoding)

        return search

    def caption(self, captioner):
        """Recordings to captions."""
        model, processor = captioner.model, captioner.processor
        return lambda: model.generate(**processor(audio=self.bench.paths), **self.bench.decoding)


STAGES = ("front_end", "encoder", "beam", "caption")


def compare_backends(bench: Bench, args) -> dict:
    """Time and print them; and, with `scenes`, what each writes of so many scenes by the default model."""
    with tempfile.TemporaryDirectory(prefix="enclap_backends_") as folder:
        result = time_backends(bench, os.path.join(folder, "bench"), args)
        print_backends(result)
        if args.scenes:
            result["scenes"] = compare_scenes(args.scenes, args.backends, folder)
            print(result["scenes"])
    return result


def time_backends(bench: Bench, folder: str, args) -> dict:
    """Time every stage by every backend.

    Args:
        bench: on the CPU, in float32.
        folder: to export into.
        args: of the benchmark: `backends`, `repeats`, `threads`, `memory`.
    Returns:
        of each stage and backend the median in seconds, all runs, how many times faster than the first, what is equal;
        and with `memory` the peaks in GiB.
    """
    runner, result = BackendBench(bench, folder, args.backends), {}
    with torch.no_grad():
        for stage in STAGES:
            works = runner.make_works(stage)
            seconds, found = {backend: [] for backend in works}, {}
            for _ in range(args.repeats + 1):
                for backend, work in works.items():
                    began = time.perf_counter()
                    found[backend] = work()
                    seconds[backend].append(time.perf_counter() - began)
            result[stage] = describe_stage({name: runs[1:] for name, runs in seconds.items()}, found)
    if args.memory:
        result["peak_gib"] = {backend: measure_peak(runner, backend, args.threads) for backend in args.backends}
    return result


def describe_stage(seconds: dict[str, list[float]], found: dict[str, torch.Tensor]) -> dict:
    """Medians, ratios to the first backend, and how much of what the others return is equal to its."""
    first = next(iter(seconds))
    base, described = statistics.median(seconds[first]), {}
    for backend, runs in seconds.items():
        median = statistics.median(runs)
        described[backend] = {
            "s": round(median, 4),
            "runs_s": [round(run, 4) for run in runs],
            "times_as_fast": round(base / median, 3),
            "same": compare_results(found[backend], found[first]),
        }
    return described


def compare_results(ours: torch.Tensor, first: torch.Tensor) -> str:
    """Share of equal whole numbers, or the largest difference of others."""
    if ours.is_floating_point():
        return f"{(ours - first).abs().max().item():.1e} apart"
    return f"{(ours == first).float().mean().item():.4%} equal" if ours.shape == first.shape else "other lengths"


def measure_peak(runner: BackendBench, backend: str, threads: int) -> float:
    """Peak memory in GiB of a fresh process that loads one way and captions the bench's recordings once."""
    decoding = {**runner.bench.decoding}
    argument = json.dumps([runner.folder, backend, threads, runner.bench.paths, decoding])
    run = subprocess.run([sys.executable, "-c", PEAK_SCRIPT, argument], check=True, capture_output=True, text=True)
    return round(float(run.stdout.strip().splitlines()[-1]), 3)


def print_backends(result: dict) -> None:
    """One line for each stage and backend."""
    print(f"{'stage':12}{'backend':12}{'s':>9}{'faster':>9}  compared with the first")
    for stage in STAGES:
        for backend, row in result[stage].items():
            print(f"{stage:12}{backend:12}{row['s']:9.3f}{row['times_as_fast']:8.2f}x  {row['same']}")
    for backend, peak in result.get("peak_gib", {}).items():
        print(f"peak memory {backend}: {peak} GiB")


def compare_scenes(num_scenes: int, backends: list[str], folder: str, batch_size: int = 8) -> dict:
    """What the default model writes of sound scenes by every backend: equal captions, scores and CIDEr-D.

    Args:
        num_scenes: how many.
        backends: the first is what the others are compared with.
        folder: a new one, to export into.
        batch_size: clips at a time.
    """
    export_repository(DEFAULT_MODEL, os.path.join(folder, "default"), "int8")
    scenes = [make_scene(seed) for seed in range(num_scenes)]
    clips = [{"array": scene.audio, "sampling_rate": scene.sampling_rate} for scene in scenes]
    results = {}
    for backend in backends:
        options = {"model": os.path.join(folder, "default"), "model_kwargs": {"backend": backend}, "device": "cpu"}
        results[backend] = pipeline("audio-captioning", **options)(clips, batch_size=batch_size)
    references, metric = [list(scene.captions) for scene in scenes], AudioCaptioningMetrics("cider_d")
    first, described = results[backends[0]], {"scenes": num_scenes}
    for backend, found in results.items():
        texts = [result["text"] for result in found]
        pairs = list(zip(found, first, strict=True))
        same = [(ours, other) for ours, other in pairs if ours["text"] == other["text"]]
        described[backend] = {
            "equal_captions": len(same),
            "largest_score_difference": max(
                (abs(a.get("score", 0) - b.get("score", 0)) for a, b in same), default=None
            ),
            "cider_d": round(metric.compute(predictions=texts, references=references)["cider_d"], 4),
        }
    return described
