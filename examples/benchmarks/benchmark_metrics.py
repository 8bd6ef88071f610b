"""Time the metrics on sound scenes with five references each; medians, and one last line of JSON.

python examples/benchmarks/benchmark_metrics.py
python examples/benchmarks/benchmark_metrics.py --metrics fast --num-clips 100 --num-runs 1
"""

import argparse
import json
import statistics
import time

import numpy as np

from enclap_hf.metrics import METRIC_SETS, AudioCaptioningMetrics
from enclap_hf.metrics.java_runtime import MetricUnavailableError
from enclap_hf.sound_scenes.scene_captions import write_captions
from enclap_hf.sound_scenes.scene_plan import plan_scene


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["fast", "meteor"],
        metavar="NAMES",
        help=f"what to time, one after the other: {', '.join(METRIC_SETS)}, or metrics with commas between them "
        "(default: fast meteor)",
    )
    parser.add_argument("--num-clips", type=positive_int, default=1000, help="scenes to score (default: %(default)s)")
    parser.add_argument("--num-runs", type=positive_int, default=3, help="timed runs (default: %(default)s)")
    args = parser.parse_args()
    try:
        # Strict: a metric that is left out would be timed as if it were fast.
        args.metrics = {names: AudioCaptioningMetrics(names, strict=True) for names in args.metrics}
    except ValueError as error:
        parser.error(str(error))
    return args


def positive_int(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def make_captions(num_clips: int) -> tuple[list[str], list[list[str]]]:
    """A candidate and five references of each scene, without making its sound."""
    candidates, references = [], []
    for seed in range(num_clips):
        rng = np.random.default_rng(seed)
        plan = plan_scene(rng, None, None, None, None)
        kinds = [kind.name for kind in plan.kinds]
        counts = [None] * len(kinds)
        candidates.append(write_captions(rng, plan.relation, kinds, counts)[0])
        references.append(list(write_captions(rng, plan.relation, kinds, counts)))
    return candidates, references


def time_runs(metrics: AudioCaptioningMetrics, captions: tuple[list[str], list[list[str]]], num_runs: int) -> float:
    """Median seconds of elapsed time over the runs; the first, in which Java and caches warm up, is not counted."""
    seconds = []
    for _ in range(num_runs + 1):
        began = time.perf_counter()
        metrics.compute(*captions)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    args = parse_arguments()
    captions = make_captions(args.num_clips)
    try:
        result = {names: round(time_runs(each, captions, args.num_runs), 3) for names, each in args.metrics.items()}
    except MetricUnavailableError as error:
        raise SystemExit(f"A metric cannot be timed: {error}") from None
    for names, seconds in result.items():
        print(f"{names}: {seconds} s for {args.num_clips} clips x 5 references, median of {args.num_runs} runs")
    print(json.dumps({"num_clips": args.num_clips, "num_runs": args.num_runs, "median_seconds": result}))


if __name__ == "__main__":
    main()
