"""Score a captioner on sound scenes that it has not heard: events named, their relation, and CIDEr-D.

    python examples/default_model/evaluate_default_model.py                  # the package's own model on 1,000 scenes
    python examples/default_model/evaluate_default_model.py --num_scenes 20  # a look, in half a minute
    python examples/default_model/evaluate_default_model.py --model DIR --output scores.json

The scenes come from seeds that training never uses. Each condition is captioned anew: as they are (greedy, then with
beam search, each clip alone), 12 dB quieter, through a 16 kHz stereo mp3-like degradation, and in batches of mixed
lengths. First, captioning is timed on one thread, and the recordings of `examples/sounds` are captioned for the card.
"""

import json
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import HfArgumentParser, pipeline

from enclap_hf import DEFAULT_MODEL, version
from enclap_hf.hub.model_card import format_scores
from enclap_hf.hub.model_card_makers import list_scene_rows
from enclap_hf.metrics import cider_d
from enclap_hf.sound_scenes import Scene, degrade_audio, make_scene
from enclap_hf.sound_scenes.scene_scores import compute_precision, compute_recall, compute_share, count_named_events

SOUNDS = Path(__file__).parents[1] / "sounds"
NUM_TIMED_CLIPS, NUM_WARM_UP_CLIPS, TIMED_CLIP_S = 20, 3, 5.0


@dataclass
class EvaluationArguments:
    """What is scored on what."""

    model: str = field(default=DEFAULT_MODEL, metadata={"help": "directory or Hub repository of the captioner"})
    num_scenes: int = field(default=1000, metadata={"help": "scenes in each condition"})
    first_seed: int = field(default=0, metadata={"help": "seed of the first scene; training uses 900,000 and above"})
    num_beams: int = field(default=4, metadata={"help": "beams of the beam search"})
    batch_size: int = field(default=8, metadata={"help": "clips at a time, but for the first two rows"})
    num_processes: int = field(default=2, metadata={"help": "processes, of one torch thread each"})
    output: str | None = field(default=None, metadata={"help": "write the scores to this JSON file"})


@dataclass
class Condition:
    """One row of the table: how scenes are changed before they are captioned, and how captions are searched."""

    name: str
    num_beams: int
    batch_size: int
    degradation: dict = field(default_factory=dict)


def make_conditions(num_beams: int, batch_size: int) -> list[Condition]:
    """The rows of the table."""
    return [
        Condition("greedy", 1, 1),
        Condition(f"beam {num_beams}", num_beams, 1),
        Condition("12 dB quieter", num_beams, batch_size, {"gain_db": -12.0}),
        Condition("16 kHz stereo, mp3-like", num_beams, batch_size, {"mp3_like": True}),
        Condition(f"batches of {batch_size}, mixed lengths", num_beams, batch_size),
    ]


def caption_seeds(seeds: range, condition: Condition, model: str, show_progress: bool) -> list[str]:
    """Make, degrade and caption the scenes of some seeds; the work of one process."""
    torch.set_num_threads(1)

    def clips():
        for scene in map(make_scene, seeds):
            audio, sampling_rate = scene.audio, scene.sampling_rate
            if condition.degradation:
                rng = np.random.default_rng([scene.seed, 1])
                audio, sampling_rate = degrade_audio(audio, sampling_rate, rng=rng, **condition.degradation)
            yield {"array": audio, "sampling_rate": sampling_rate}

    caption = pipeline("audio-captioning", model=model)
    results = caption(clips(), batch_size=condition.batch_size, num_beams=condition.num_beams)
    bar = tqdm(results, total=len(seeds), desc=condition.name, unit="scene", leave=False, disable=not show_progress)
    return [result["text"] for result in bar]


def measure_speed(model: str, num_beams: int, first_seed: int) -> dict:
    """Time the pipeline on one thread, clip by clip; the first ones, which load and warm up, do not count."""
    torch.set_num_threads(1)
    caption = pipeline("audio-captioning", model=model)
    seconds = []
    for seed in range(first_seed, first_seed + NUM_WARM_UP_CLIPS + NUM_TIMED_CLIPS):
        scene = make_scene(seed, num_events=1 + seed % 2, duration_s=TIMED_CLIP_S)
        began = time.perf_counter()
        caption({"array": scene.audio, "sampling_rate": scene.sampling_rate}, num_beams=num_beams)
        seconds.append(time.perf_counter() - began)
    return {
        "seconds_per_clip": round(statistics.median(seconds[NUM_WARM_UP_CLIPS:]), 4),
        "clip_s": TIMED_CLIP_S,
        "num_clips": NUM_TIMED_CLIPS,
        "num_threads": 1,
        "num_beams": num_beams,
        "cpu": read_cpu_name(),
    }


def read_cpu_name() -> str:
    """The processor's name, or the machine's kind where the system does not tell."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def caption_examples(model: str, num_beams: int) -> dict[str, str]:
    """Captions of the example recordings, by file name."""
    paths = sorted(SOUNDS.iterdir())
    results = pipeline("audio-captioning", model=model)([str(path) for path in paths], num_beams=num_beams)
    return {path.name: result["text"] for path, result in zip(paths, results, strict=True)}


def score_captions(scenes: list[Scene], captions: list[str]) -> dict:
    """Precision and recall of named events by number of events, the share of right relations, and CIDEr-D.

    The relation (then, while, background) is judged where all events are named, in scenes of several; the order where
    that relation is "then" and right.
    """
    counts = [count_named_events(scene, caption) for scene, caption in zip(scenes, captions, strict=True)]
    relations = {scene.relation: [] for scene in scenes}
    for scene, count in zip(scenes, counts, strict=True):
        relations[scene.relation].append(count.relation_right)
    scores = {}
    for group, is_single in (("one event", True), ("two and three events", False)):
        of_group = [count for count in counts if (count.placed == 1) == is_single]
        scores[group] = {
            "precision": compute_precision(of_group),
            "recall": compute_recall(of_group),
            "scenes": len(of_group),
        }
    judged = {kind: right for kind, right in sorted(relations.items()) if any(value is not None for value in right)}
    return {
        **scores,
        "relation": compute_share([count.relation_right for count in counts]),
        "relation_scenes": sum(count.relation_right is not None for count in counts),
        "relation_by_kind": {kind: compute_share(right) for kind, right in judged.items()},
        "order": compute_share([count.order_right for count in counts]),
        "cider_d": cider_d(captions, [list(scene.captions) for scene in scenes])[0],
    }


def main() -> None:
    (args,) = HfArgumentParser(EvaluationArguments).parse_args_into_dataclasses()
    seeds = range(args.first_seed, args.first_seed + args.num_scenes)
    speed = measure_speed(args.model, args.num_beams, args.first_seed)  # first, while nothing else runs
    examples = caption_examples(args.model, args.num_beams)
    parts = [seeds[i :: args.num_processes] for i in range(args.num_processes)]
    scenes = [make_scene(seed) for part in parts for seed in tqdm(part, desc="scenes", leave=False)]
    rows = {}
    with ProcessPoolExecutor(args.num_processes, mp_context=get_context("spawn")) as processes:
        for condition in make_conditions(args.num_beams, args.batch_size):
            futures = [
                processes.submit(caption_seeds, part, condition, args.model, show_progress=part is parts[0])
                for part in parts
            ]
            captions = [caption for future in futures for caption in future.result()]
            rows[condition.name] = score_captions(scenes, captions)
    result = {
        "num_scenes": args.num_scenes,
        "first_seed": args.first_seed,
        "conditions": rows,
        "speed": speed,
        "examples": examples,
        "versions": {
            "enclap-hf": version.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    print(f"{args.num_scenes} scenes, seeds {seeds[0]} to {seeds[-1]}, {args.model}")
    print(format_scores(list_scene_rows(result)))
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    main()
