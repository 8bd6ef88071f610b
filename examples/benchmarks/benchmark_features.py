"""Show what preparing features and captioning cost as the data grow: time in the encoders, time by clips, memory.

    python examples/benchmarks/benchmark_features.py --num-clips 4 --stages share cost        # a look, in half a minute
    python examples/benchmarks/benchmark_features.py --stages memory --clip-counts 100 10000  # some minutes

`share` prepares the features of 10 s clips as `prepare_features.py` does and prints the share of the time that passes
inside EnCodec and CLAP, of the published sizes with random weights. `cost` encodes batches of 1 to 16 clips, and clips
of 2.5 to 10 s, in turns: medians, and seconds by the second of audio. `memory` captions folders of many clips of 1 s
with the default model by the command line, and prints the peak memory of each. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from benchmark import peak_memory_gib
from benchmark_models import CLIP_S, build_processor, write_clips

from enclap_hf.cli import main as caption
from enclap_hf.commands.freed_memory import keep_freed_memory
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.feature_shards import FeatureSettings

STAGES = ("share", "cost", "memory")
BATCH_SIZES, DURATIONS_S = (1, 2, 4, 8, 16), (2.5, 5.0)
CLIPS_BY_DURATION = 4
NUM_RECORDINGS = 16  # different ones, in a folder of many


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--num-clips", type=int, default=128, help="clips whose features are prepared")
    parser.add_argument("--clip-counts", type=int, nargs="+", default=[100, 1000], help="clips in the folders")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each batch, after a warm-up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--caption", help=argparse.SUPPRESS)  # a process of `memory`: the folder
    return parser.parse_args()


def measure_share(processor, num_clips: int) -> dict:
    """Prepare features from files to shards, and add up the time inside the encoders."""
    frames, clap, inside = processor.frame_encoder, processor.clap_encoder, 0.0

    def timed(method):
        def run(*args):
            nonlocal inside
            began = time.perf_counter()
            result = method(*args)
            inside += time.perf_counter() - began
            return result

        return run

    with tempfile.TemporaryDirectory() as folder:
        rows = [f"{os.path.basename(path)},a sound" for path in write_clips(folder, num_clips)]
        table = os.path.join(folder, "captions.csv")
        with open(table, "w", encoding="utf-8") as file:
            file.write("\n".join(["file_name,caption", *rows]))
        frames.encode, clap.embed = timed(frames.encode), timed(clap.embed)
        began = time.perf_counter()
        settings = FeatureSettings(processor.num_codebooks)
        open_source(table).open_features(os.path.join(folder, "features"), processor, settings)
        total = time.perf_counter() - began
        del frames.encode, clap.embed  # the class's own again
    print(f"features of {num_clips} clips: {total:.1f} s, {inside / total:.1%} inside EnCodec and CLAP")
    return {"clips": num_clips, "total_s": round(total, 2), "share_in_encoders": round(inside / total, 4)}


def measure_cost(processor, repeats: int) -> list[dict]:
    """Encode batches of several sizes and clips of several lengths in turns."""
    shapes = [(num_clips, float(CLIP_S)) for num_clips in BATCH_SIZES]
    shapes += [(CLIPS_BY_DURATION, duration_s) for duration_s in DURATIONS_S]
    seconds = {shape: [] for shape in shapes}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for num_clips, duration_s in shapes:
            name = os.path.join(folder, f"{num_clips}_{duration_s}")
            os.mkdir(name)
            paths[num_clips, duration_s] = write_clips(name, num_clips, duration_s)
        for _ in range(repeats + 1):
            for shape in shapes:
                began = time.perf_counter()
                processor(audio=paths[shape])
                seconds[shape].append(time.perf_counter() - began)
    rows = []
    print(f"{'clips':>6}{'of s':>7}{'s':>9}{'s by s of audio':>18}")
    for num_clips, duration_s in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
        median = statistics.median(seconds[num_clips, duration_s][1:])
        by_audio = median / (num_clips * duration_s)
        print(f"{num_clips:6}{duration_s:7}{median:9.3f}{by_audio:18.4f}")
        rows.append({"clips": num_clips, "duration_s": duration_s, "median_s": round(median, 4)})
    return rows


def measure_memory(clip_counts: list[int], threads: int) -> list[dict]:
    """Peak memory of `enclap caption` over folders of so many clips."""
    rows = []
    for num_clips in clip_counts:
        with tempfile.TemporaryDirectory() as folder:
            for i, path in enumerate(write_clips(folder, NUM_RECORDINGS, 1.0)):
                for copy in range(i, num_clips, NUM_RECORDINGS):
                    os.link(path, os.path.join(folder, f"copy_{copy:06}.flac"))
                os.remove(path)
            command = [sys.executable, __file__, "--threads", str(threads), "--caption", folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peak_mib = round(float(output.splitlines()[-1]) * 1024, 1)
        print(f"captions of {num_clips} clips: peak memory {peak_mib:.0f} MiB", flush=True)
        rows.append({"clips": num_clips, "peak_mib": peak_mib})
    return rows


def main() -> None:
    keep_freed_memory()
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if args.caption:
        caption(["caption", args.caption, "--output", os.path.join(args.caption, "captions.csv")])
        print(peak_memory_gib("cpu"))
        return
    result = {"arguments": {name: value for name, value in vars(args).items() if name != "caption"}}
    if "share" in args.stages:
        result["share"] = measure_share(build_processor(), args.num_clips)
    if "cost" in args.stages:
        result["cost"] = measure_cost(build_processor(), args.repeats)
    if "memory" in args.stages:
        result["memory"] = measure_memory(args.clip_counts, args.threads)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
