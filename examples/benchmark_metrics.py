"""Time the metrics on 1,000 sound scenes with five references each; medians, and one last line of JSON.

python examples/benchmark_metrics.py
"""

import json
import statistics
import time

from enclap_hf.metrics import AudioCaptioningMetrics
from enclap_hf.sound_scenes.scene_captions import write_captions
from enclap_hf.sound_scenes.scene_plan import plan_scene

NUM_CLIPS, NUM_RUNS = 1000, 3


def make_captions() -> tuple[list[str], list[list[str]]]:
    """A candidate and five references of each scene, without making its sound."""
    import numpy as np

    candidates, references = [], []
    for seed in range(NUM_CLIPS):
        rng = np.random.default_rng(seed)
        plan = plan_scene(rng, None, None, None, None)
        kinds = [kind.name for kind in plan.kinds]
        counts = [None] * len(kinds)
        candidates.append(write_captions(rng, plan.relation, kinds, counts)[0])
        references.append(list(write_captions(rng, plan.relation, kinds, counts)))
    return candidates, references


def time_runs(metrics: str, candidates: list[str], references: list[list[str]]) -> float:
    """Median seconds of elapsed time over the runs; the first, in which Java and caches warm up, is not counted."""
    seconds = []
    for _ in range(NUM_RUNS + 1):
        began = time.perf_counter()
        AudioCaptioningMetrics(metrics).compute(predictions=candidates, references=references)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    candidates, references = make_captions()
    result = {metrics: round(time_runs(metrics, candidates, references), 2) for metrics in ("fast", "meteor")}
    for metrics, seconds in result.items():
        print(f"{metrics}: {seconds} s for {NUM_CLIPS} clips x 5 references, median of {NUM_RUNS} runs")
    print(json.dumps({"num_clips": NUM_CLIPS, "median_seconds": result}))


if __name__ == "__main__":
    main()
