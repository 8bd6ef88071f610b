"""Time the metrics on sound scenes with five references each; medians, and one last line of JSON.

SPICE keeps what it parsed, so it is timed another way: a first system with an empty cache, a second system with the
same references, and the second one again; and how much memory its Java process took at most.

python examples/benchmarks/benchmark_metrics.py
python examples/benchmarks/benchmark_metrics.py --metrics fast --num-clips 100 --num-runs 1
python examples/benchmarks/benchmark_metrics.py --metrics spice --captions clotho_eval.json --java-heap 1g
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from enclap_hf.metrics import METRIC_SETS, AudioCaptioningMetrics
from enclap_hf.metrics.java_runtime import MetricUnavailableError
from enclap_hf.sound_scenes.scene_captions import write_captions
from enclap_hf.sound_scenes.scene_plan import plan_scene

Captions = tuple[list[str], list[list[str]]]


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
    parser.add_argument("--num-clips", type=positive_int, default=1000, help="clips to score (default: %(default)s)")
    parser.add_argument("--num-runs", type=positive_int, default=3, help="timed runs (default: %(default)s)")
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="json list of clips with `candidate` and `references` in the place of sound scenes",
    )
    parser.add_argument("--java-heap", help="memory limit of each Java process, such as 1g")
    args = parser.parse_args()
    try:
        # Strict: a metric that is left out would be timed as if it were fast.
        options = {"strict": True, "java_heap": args.java_heap}
        args.metrics = {names: AudioCaptioningMetrics(names, **options) for names in args.metrics}
    except ValueError as error:
        parser.error(str(error))
    return args


def positive_int(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def make_captions(num_clips: int) -> Captions:
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


def read_captions(path: Path, num_clips: int) -> Captions:
    """The first clips of a file."""
    try:
        clips = json.loads(path.read_text(encoding="utf-8"))[:num_clips]
        return [clip["candidate"] for clip in clips], [list(clip["references"]) for clip in clips]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SystemExit(f"{path} is not a JSON list of clips with `candidate` and `references`: {error!r}") from None


def time_call(metrics: AudioCaptioningMetrics, captions: Captions) -> float:
    """Seconds of elapsed time of one computation."""
    began = time.perf_counter()
    metrics.compute(*captions)
    return time.perf_counter() - began


def time_runs(metrics: AudioCaptioningMetrics, captions: Captions, num_runs: int) -> float:
    """Median seconds over the runs; the first, in which Java and caches warm up, is not counted."""
    return statistics.median([time_call(metrics, captions) for _ in range(num_runs + 1)][1:])


def time_systems(metrics: AudioCaptioningMetrics, captions: Captions) -> dict[str, float]:
    """Seconds for a first and a second system, and for the second again; megabytes of the largest Java process."""
    candidates, references = captions
    # What another system might say: sentences of the same kind and nearly the same length.
    others = [candidate.partition(" ")[2] or "something" for candidate in candidates]
    with tempfile.TemporaryDirectory() as cache:
        metrics.cache_dir = cache
        result = {
            "first_system_seconds": round(time_call(metrics, (candidates, references)), 1),
            "second_system_seconds": round(time_call(metrics, (others, references)), 1),
            "again_seconds": round(time_call(metrics, (others, references)), 2),
        }
    return result | {"java_memory_mb": measure_children()}


def measure_children() -> int | None:
    """Megabytes that the largest process took which this one started; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(size * (1 if sys.platform == "darwin" else 1024) / 1e6)


def main() -> None:
    args = parse_arguments()
    captions = read_captions(args.captions, args.num_clips) if args.captions else make_captions(args.num_clips)
    medians, systems = {}, {}
    try:
        for names, metrics in args.metrics.items():
            if "spice" in metrics.metrics or "spider" in metrics.metrics or "spider_fl" in metrics.metrics:
                systems[names] = time_systems(metrics, captions)
            else:
                medians[names] = round(time_runs(metrics, captions, args.num_runs), 3)
    except MetricUnavailableError as error:
        raise SystemExit(f"A metric cannot be timed: {error}") from None
    num_clips = len(captions[0])
    what = f"{num_clips} clips, {sum(map(len, captions[1]))} references"
    for names, seconds in medians.items():
        print(f"{names}: {seconds} s for {what}, median of {args.num_runs} runs")
    for names, result in systems.items():
        print(
            f"{names}: {what}: first system {result['first_system_seconds']} s, second system "
            f"{result['second_system_seconds']} s, again {result['again_seconds']} s; Java took at most "
            f"{result['java_memory_mb']} MB"
        )
    print(
        json.dumps({"num_clips": num_clips, "num_runs": args.num_runs, "median_seconds": medians, "systems": systems})
    )


if __name__ == "__main__":
    main()
