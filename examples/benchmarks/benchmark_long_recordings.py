"""Show what long recordings cost: memory and exact times over a day, time by length, time outside of the models.

    python examples/benchmarks/benchmark_long_recordings.py --hours 0.5 --minutes 1 2 --share-minutes 0.5    # a look
    python examples/benchmarks/benchmark_long_recordings.py                                # needs 9 GB of disk

`day` writes a recording of many hours (mono, 48 kHz) as flac and as RF64 and captions it window by window with the
default model, whose encoders and captioner are stubbed, so that reading and preparing remain: peak memory of the
process against that of a 10 s clip, seconds to the first row, and whether every row's times are exact to the sample.
`growth` captions recordings of some minutes with the default model: seconds by minute of sound. `share` captions some
minutes with a captioner of the base size, and published encoders' sizes, with random weights, and prints the share of
the time that passes outside of encoders and captioner. The last line is JSON.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import soundfile
import torch
from benchmark import peak_memory_gib
from benchmark_models import build_model, build_processor
from transformers import pipeline

from enclap_hf import DEFAULT_MODEL, AudioCaptioningPipeline
from enclap_hf.commands.freed_memory import keep_freed_memory

STAGES = ("day", "growth", "share")
KINDS = {"flac": {"format": "FLAC", "subtype": "PCM_16"}, "rf64": {"format": "RF64", "subtype": "PCM_16"}}
RATE, CHUNK_S = 48_000, 10
# Of a recording that ends within a sample's reach of nothing round.
ODD_SAMPLES = 12_345


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--hours", type=float, default=24.0, help="length of the recordings of `day`")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="their formats")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 20, 60], help="lengths of `growth`")
    parser.add_argument("--share-minutes", type=float, default=5.0, help="length of `share`")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--child", help=argparse.SUPPRESS)  # a process of `day`: the recording
    return parser.parse_args()


def write_recording(path: str, kind: str, num_samples: int) -> None:
    """A click every tenth of a second, each second as loud as none near it: little work for flac, and no silence."""
    second = np.zeros(RATE, np.int16)
    second[:: RATE // 10] = 1000
    with soundfile.SoundFile(
        path, "w", RATE, 1, **KINDS[kind], compression_level=0.0 if kind == "flac" else None
    ) as file:
        for i in range(num_samples // RATE):
            file.write(second * np.int16(1 + i % 29))
        file.write(second[: num_samples % RATE])


def stub_models(captioner: AudioCaptioningPipeline) -> None:
    """Every caption without running a model."""
    result = {"sequences": torch.tensor([[0, 2]]), "scores": torch.zeros(1)}
    captioner._forward = lambda inputs, **options: {"results": [result] * len(inputs["clip"])}


def caption_child(path: str, batch_size: int) -> None:
    """What a process of `day` does; prints JSON."""
    captioner = pipeline("audio-captioning", model=DEFAULT_MODEL, device="cpu")
    captioner.processor.codec, captioner.processor.clap  # noqa: B018
    stub_models(captioner)
    num_samples = soundfile.info(path).frames
    began, first_s, number, wrong = time.perf_counter(), None, 0, 0
    for _, row in captioner.stream(path, chunk_length_s=CHUNK_S, batch_size=batch_size):
        first_s = first_s or time.perf_counter() - began
        start, end = number * CHUNK_S * RATE, min((number + 1) * CHUNK_S * RATE, num_samples)
        wrong += (round(row["start_s"] * RATE), round(row["end_s"] * RATE)) != (start, end)
        wrong += abs(row["start_s"] - start / RATE) > 1e-9
        number += 1
    found = {"rows": number, "expected_rows": -(-num_samples // (CHUNK_S * RATE)), "wrong_times": wrong}
    found |= {"first_row_s": first_s, "total_s": time.perf_counter() - began, "peak_gib": peak_memory_gib("cpu")}
    print(json.dumps(found))


def run_child(path: str, args: argparse.Namespace) -> dict:
    """Caption a recording in a process of its own."""
    command = [sys.executable, __file__, "--child", path, "--batch-size", str(args.batch_size)]
    command += ["--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().split("\n")[-1])


def measure_day(args: argparse.Namespace) -> dict:
    """Long recordings against a clip."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds:
            path = os.path.join(folder, f"clip.{kind}")
            write_recording(path, kind, 10 * RATE)
            clip = run_child(path, args)
            path = os.path.join(folder, f"day.{kind}")
            write_recording(path, kind, round(args.hours * 3600) * RATE + ODD_SAMPLES)
            day = run_child(path, args)
            day |= {"file_gb": os.path.getsize(path) / 1e9, "clip_peak_gib": clip["peak_gib"]}
            day["more_than_clip_mb"] = (day["peak_gib"] - clip["peak_gib"]) * 2**30 / 1e6
            os.remove(path)
            found[kind] = day
            print(
                f"{args.hours:g} h of {kind} ({day['file_gb']:.2f} GB): {day['rows']} rows of {day['expected_rows']}, "
                f"{day['wrong_times']} wrong times, first after {day['first_row_s']:.2f} s, all after "
                f"{day['total_s']:.0f} s; peak {day['more_than_clip_mb']:.0f} MB above a 10 s clip's"
            )
    return found


def make_noise(minutes: float) -> np.ndarray:
    """Noise that swells and fades, other in every window."""
    rng, num_samples = np.random.default_rng(0), round(60 * minutes * RATE)
    swell = 1 + np.sin(np.arange(num_samples) / RATE)
    return (0.1 * swell * rng.standard_normal(num_samples)).astype(np.float32)


def measure_growth(args: argparse.Namespace) -> dict:
    """Time by length, with the default model."""
    captioner, found = pipeline("audio-captioning", model=DEFAULT_MODEL, device="cpu"), {}
    captioner(make_noise(0.3), sampling_rate=RATE, chunk_length_s=CHUNK_S)  # warms up
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            path = os.path.join(folder, "recording.flac")
            soundfile.write(path, make_noise(minutes), RATE)
            began = time.perf_counter()
            rows = list(captioner.stream(path, chunk_length_s=CHUNK_S, batch_size=args.batch_size))
            seconds = time.perf_counter() - began
            found[f"{minutes:g}"] = {"total_s": seconds, "s_per_minute": seconds / minutes, "rows": len(rows)}
            print(f"{minutes:g} minutes: {len(rows)} rows in {seconds:.1f} s, {seconds / minutes:.2f} s for a minute")
    return found


@contextlib.contextmanager
def timed(owner, name: str, total: dict):
    """Add up the time inside of a method."""
    method: Callable = getattr(owner, name)

    def run(*arguments, **options):
        began = time.perf_counter()
        try:
            return method(*arguments, **options)
        finally:
            total["inside_s"] += time.perf_counter() - began

    setattr(owner, name, run)
    try:
        yield
    finally:
        setattr(owner, name, method)


def measure_share(args: argparse.Namespace) -> dict:
    """Time inside and outside of the models, of the base size."""
    captioner = AudioCaptioningPipeline(model=build_model("base"), processor=build_processor(), device="cpu")
    captioner.model.generation_config.update(max_length=20, num_beams=4)
    captioner(make_noise(0.2), sampling_rate=RATE)
    total = {"inside_s": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "recording.flac")
        soundfile.write(path, make_noise(args.share_minutes), RATE)
        began = time.perf_counter()
        with timed(captioner, "_forward", total):
            rows = list(captioner.stream(path, chunk_length_s=CHUNK_S, batch_size=args.batch_size))
        total["total_s"] = time.perf_counter() - began
    total["outside_share"] = 1 - total["inside_s"] / total["total_s"]
    print(
        f"base size, {args.share_minutes:g} minutes: {len(rows)} rows in {total['total_s']:.1f} s, "
        f"{100 * total['outside_share']:.1f} % of it outside of encoders and captioner"
    )
    return total


def main() -> None:
    args = parse_arguments()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    if args.child:
        caption_child(args.child, args.batch_size)
        return
    stages = {"day": measure_day, "growth": measure_growth, "share": measure_share}
    print(json.dumps({name: stages[name](args) for name in args.stages}))


if __name__ == "__main__":
    main()
