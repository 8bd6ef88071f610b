"""Time captioning and training against stock transformers and the published operations, stage by stage, on one machine.

    python examples/benchmarks/benchmark.py --size tiny --batch-size 2 --repeats 1       # a look, in half a minute
    python examples/benchmarks/benchmark.py --batch-size 8 --stages greedy beam   # beam search alone, BART-base sizes
    python examples/benchmarks/benchmark.py --batch-size 16 --stages training --repeats 1 --cold --memory
    python examples/benchmarks/benchmark.py --batch-size 16 --stages caption --dtype bfloat16
    python examples/benchmarks/benchmark.py --stages encoder caption --lengths 750 375 187 93 750 375 187 93
    python examples/benchmarks/benchmark.py --stages --scenes 200 --dtype bfloat16  # captions that stay the same
    python examples/benchmarks/benchmark.py --stages --batch-size 1 --backends torch onnx onnx-int8 --memory

Weights are random, in the published shapes, and the same for both ways; clips are 10 s of noise. The two ways run in
turns (A B A B) and have to agree before they are timed: the same ids, codes, losses and gradients in float32. Each clip
of this package's batch is compared with the same clip alone, bit for bit; on a CPU a bit that differs ends it. Printed
are medians, their ratio, and, of what this package's way reaches, the share of the machine's own rate of matrix
products; with --memory, the peak memory of a fresh process for each way. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

import torch
from benchmark_backends import BACKENDS, compare_backends
from benchmark_models import SIZES, Bench
from benchmark_stages import Stage, make_stages
from torch.utils.flop_counter import FlopCounterMode

from enclap_hf.commands.freed_memory import keep_freed_memory

STAGES = ("audio", "codec", "clap", "encoder", "greedy", "beam", "caption", "training")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch-size", type=int, default=8, help="clips")
    parser.add_argument("--lengths", type=int, nargs="+", help="codec frames of each clip, in place of --batch-size")
    parser.add_argument("--num-beams", type=int, default=4)
    parser.add_argument("--num-tokens", type=int, default=20, help="tokens of every caption")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of our captioner"
    )
    parser.add_argument("--dropout", type=float, default=0.0, help="in training; above 0 the losses differ")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way")
    parser.add_argument("--cold", action="store_true", help="no warm-up, and no count of operations: for long stages")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too, one more run of each way")
    parser.add_argument("--scenes", type=int, default=0, help="sound scenes that the default model captions in --dtype")
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=[], help="compare these, see the file of it")
    parser.add_argument("--only", choices=("ours", "stock"), help=argparse.SUPPRESS)  # a run for its memory
    args = parser.parse_args()
    if args.lengths:
        args.batch_size = len(args.lengths)
        args.stages = [stage for stage in args.stages if stage != "training"]  # of whole clips
    return args


def run_stage(stage: Stage, way: str):
    """One run; captioning without gradients."""
    with torch.set_grad_enabled(stage.name == "training"):
        return getattr(stage, way)()


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def time_stage(stage: Stage, args) -> dict:
    """Run both ways in turns, compare what they return, and take the medians; the first turn is a warm-up, or not."""
    seconds, results = {"ours": [], "stock": []}, {}
    for _ in range(args.repeats if args.cold else args.repeats + 1):
        for way, runs in seconds.items():
            results.pop(way, None)  # it would add to the peak
            synchronize(args.device)
            began = time.perf_counter()
            results[way] = run_stage(stage, way)
            synchronize(args.device)
            runs.append(time.perf_counter() - began)
    same = stage.compare(results["ours"], results["stock"])
    if stage.alone is not None:
        with torch.no_grad():
            found = stage.compare_clips(args.batch_size, results["ours"])
        if args.device == "cpu" and not found.startswith(f"bits of {args.batch_size} "):
            raise RuntimeError(f"A batch changes its clips in the stage {stage.name}: {found}.")
        same += f", {found}"
    timed = {way: runs if args.cold else runs[1:] for way, runs in seconds.items()}
    medians = {way: statistics.median(runs) for way, runs in timed.items()}
    return {
        "ours_s": round(medians["ours"], 4),
        "stock_s": round(medians["stock"], 4),
        "ratio": round(medians["stock"] / medians["ours"], 3),
        "ours_runs_s": [round(run, 4) for run in timed["ours"]],
        "stock_runs_s": [round(run, 4) for run in timed["stock"]],
        "same": same,
    }


def count_flop(stage: Stage, dtype: str) -> float:
    """Floating-point operations in matrix products and convolutions of our way; recurrent layers are not counted."""
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")  # of a switch for Intel's GPUs, which goes with oneDNN's
        # oneDNN's products are not counted; in training they are float32's alone, and others take minutes without it.
        with torch.backends.mkldnn.flags(enabled=stage.name == "training" and dtype != "float32"):
            run_stage(stage, "ours")
    return float(counter.get_total_flops())


def measure_ceiling(args) -> dict:
    """The machine's rates: matrix products in our number type and in float32, and reading and writing memory."""
    rates = {}
    for dtype in dict.fromkeys((args.dtype, "float32")):
        matrix = torch.randn(2048, 2048, device=args.device).to(getattr(torch, dtype))
        linear = torch.nn.functional.linear
        if args.device == "cpu" and dtype == "float32":
            from enclap_hf.model.onednn_linear import multiply_transposed as linear  # the faster of torch's two
        seconds = best_time(lambda matrix=matrix, linear=linear: linear(matrix, matrix), args.device)
        rates[f"{dtype}_gflop_per_s"] = round(2 * 2048**3 / seconds / 1e9, 1)
    block = torch.empty(64 * 1024**2, device=args.device)
    seconds = best_time(lambda: block.mul_(1.0), args.device)
    rates["memory_gb_per_s"] = round(2 * block.nbytes / seconds / 1e9, 1)
    return rates


def best_time(work, device: str) -> float:
    times = []
    for _ in range(5):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)


def measure_memory(name: str, args) -> dict:
    """Peak memory in GiB of a process that builds everything and runs a stage in one way, once."""
    peaks = {}
    for way in ("ours", "stock"):
        command = [sys.executable, __file__, *sys.argv[1:], "--stages", name, "--only", way]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[f"{way}_peak_gib"] = round(float(output.strip().splitlines()[-1]), 3)
    return peaks


def peak_memory_gib(device: str) -> float:
    """Most memory that this process has held so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**30
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**20


def count_equal_captions(num_scenes: int, dtype: str, device: str) -> dict:
    """Share of scenes that the default model captions the same in `dtype` as in float32, and the scores of both."""
    from transformers import pipeline

    from enclap_hf import DEFAULT_MODEL
    from enclap_hf.metrics import AudioCaptioningMetrics
    from enclap_hf.sound_scenes import make_scene

    scenes = [make_scene(seed) for seed in range(num_scenes)]
    clips = [{"array": scene.audio, "sampling_rate": scene.sampling_rate} for scene in scenes]
    captions = {}
    for number_type in ("float32", dtype):
        caption = pipeline("audio-captioning", model=DEFAULT_MODEL, dtype=getattr(torch, number_type), device=device)
        captions[number_type] = [result["text"] for result in caption(clips, batch_size=8)]
    equal = sum(a == b for a, b in zip(captions["float32"], captions[dtype], strict=True))
    references = [list(scene.captions) for scene in scenes]
    metric = AudioCaptioningMetrics("cider_d")
    scores = {
        number_type: round(metric.compute(predictions=texts, references=references)["cider_d"], 4)
        for number_type, texts in captions.items()
    }
    return {"scenes": num_scenes, "equal_captions": equal, "share": round(equal / num_scenes, 4), "cider_d": scores}


def print_table(stages: dict, ceiling: dict) -> None:
    print(
        f"{'stage':10}{'ours s':>10}{'stock s':>10}{'ratio':>8}{'GFLOP/s':>9}{'of peak':>9}{'GiB':>8}{'stock':>8}  same"
    )
    for name, row in stages.items():
        memory = f"{row.get('ours_peak_gib', ''):>8}{row.get('stock_peak_gib', ''):>8}"
        rate = f"{row['gflop_per_s']:9.0f}{row['share_of_peak']:9.0%}" if "gflop" in row else f"{'':18}"
        print(f"{name:10}{row['ours_s']:10.3f}{row['stock_s']:10.3f}{row['ratio']:8.2f}{rate}{memory}  {row['same']}")
    print("machine: " + ", ".join(f"{name} {value}" for name, value in ceiling.items()))


def main() -> None:
    keep_freed_memory()  # for both ways, as the command line and the training scripts do
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    result = {"arguments": {name: value for name, value in vars(args).items() if name != "only"}}
    if args.stages:
        stages = make_stages(Bench(args))
        if args.only:
            run_stage(stages[args.stages[0]](), args.only)
            print(peak_memory_gib(args.device))
            return
        result["machine"] = measure_ceiling(args)
        result["stages"] = {}
        for name in args.stages:
            stage = stages[name]()
            row = result["stages"][name] = time_stage(stage, args)
            if not args.cold:
                row["gflop"] = round(count_flop(stage, args.dtype) / 1e9, 1)
                row["gflop_per_s"] = round(row["gflop"] / row["ours_s"], 1)
                row["share_of_peak"] = round(row["gflop_per_s"] / result["machine"][f"{args.dtype}_gflop_per_s"], 3)
            if args.memory:
                row.update(measure_memory(name, args))
        print_table(result["stages"], result["machine"])
        if {"greedy", "beam"} <= result["stages"].keys():
            beam, greedy = (result["stages"][name]["ours_s"] for name in ("beam", "greedy"))
            result["beam_over_greedy"] = round(beam / greedy, 3)
            print(f"beam search of {args.num_beams} costs {beam / greedy:.2f} x greedy")
    if args.scenes:
        result["equal_captions"] = count_equal_captions(args.scenes, args.dtype, args.device)
        print(
            "default model, {scenes} scenes: {equal_captions} captions the same ({share}), CIDEr-D {cider_d}".format(
                **result["equal_captions"]
            )
        )
    if args.backends:
        result["backends"] = compare_backends(Bench(args), args)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
