"""Compare ways of choosing a caption on sound scenes that the captioner has not heard: a table with intervals.

    python examples/benchmarks/compare_decoding.py                               # the package's model, 1,000 scenes
    python examples/benchmarks/compare_decoding.py --num_scenes 20               # a look, in a minute
    python examples/benchmarks/compare_decoding.py --model DIR --output decoding.json
    python examples/benchmarks/compare_decoding.py --fense                       # also FENSE, where its weights are

Each scene is encoded once, and candidates that several ways share are written once; a way's time is that of encoding,
of writing and scoring its candidates, and of ranking, one clip at a time on one thread. In brackets are 95 % bootstrap
intervals over the scenes: of the score for the first way, of the difference to the first way for the others.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from tqdm import tqdm
from transformers import HfArgumentParser
from transformers.modeling_outputs import BaseModelOutput

from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.metrics import cider_d
from enclap_hf.metrics.fense import compute_fluency_errors, compute_sbert_similarity, penalise_errors
from enclap_hf.metrics.java_runtime import MetricUnavailableError
from enclap_hf.model.candidates import compute_clip_seed, generate_candidates
from enclap_hf.model.caption_choice import CandidateSearch
from enclap_hf.model.caption_scores import score_sequences
from enclap_hf.model.clap_text import compare_with_captions
from enclap_hf.model.repeated_events import names_event_twice
from enclap_hf.model.reranking import ClipCandidates, gather_candidates, rank_candidates, read_mixture
from enclap_hf.sound_scenes import Scene, make_scene
from enclap_hf.sound_scenes.scene_scores import CaptionCounts, count_named_events

NUM_DRAWS = 2000
MIXTURES = {
    "likelihood": "likelihood",
    "consensus": "consensus",
    "CLAP": "clap",
    "CLAP .25, consensus .75": {"clap": 0.25, "consensus": 0.75},
    "CLAP .5, consensus .5": {"clap": 0.5, "consensus": 0.5},
    "CLAP .2, consensus .6, likelihood .2": {"clap": 0.2, "consensus": 0.6, "likelihood": 0.2},
}


@dataclass
class ComparisonArguments:
    """What is compared on what."""

    model: str = field(default=DEFAULT_MODEL, metadata={"help": "directory or Hub repository of the captioner"})
    num_scenes: int = field(default=1000, metadata={"help": "scenes"})
    first_seed: int = field(default=0, metadata={"help": "seed of the first scene; training uses 900,000 and above"})
    num_candidates: int = field(default=30, metadata={"help": "candidates of a scene"})
    candidates: list[str] = field(default_factory=lambda: ["nucleus"], metadata={"help": "beam, nucleus and both"})
    seed: int = field(default=0, metadata={"help": "seed of the samples"})
    fense: bool = field(default=False, metadata={"help": "also score by FENSE, whose weights are downloaded"})
    output: str | None = field(default=None, metadata={"help": "write scores and captions to this JSON file"})


@dataclass
class Way:
    """One row of the table: a search, or candidates and a mixture to rank them by."""

    name: str
    num_beams: int = 1
    search: CandidateSearch | None = None
    rerank: str | dict | None = None
    captions: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def list_ways(args: ComparisonArguments, has_text_tower: bool) -> list[Way]:
    """The rows, the one that others are compared with first."""
    ways = [Way("beam 4", num_beams=4), Way("greedy")]
    for kind in args.candidates:
        search = CandidateSearch(args.num_candidates, kind, args.seed)
        for name, rerank in MIXTURES.items():
            if has_text_tower or "clap" not in read_mixture(rerank):
                ways.append(Way(f"{args.num_candidates} {kind}, {name}", search=search, rerank=rerank))
    return ways


def timed(function: Callable, *args, **kwargs) -> tuple:
    """What a function returns, and the seconds that it took."""
    began = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - began


@torch.inference_mode()
def caption_scene(model, processor, scene: Scene, ways: list[Way]) -> torch.Tensor | None:
    """Let every way caption a scene; returns its CLAP vector (1, C)."""
    prepared, seconds = timed(processor.prepare, scene.audio, scene.sampling_rate)
    inputs, seconds_to_encode = timed(processor.encode_prepared, prepared)
    states, seconds_in_encoder = timed(lambda: model.model.encoder(**inputs)[0])
    seconds += seconds_to_encode + seconds_in_encoder
    mask, clap = inputs["attention_mask"], inputs.get("clap_embedding")
    clip_seeds = [compute_clip_seed(prepared["input_values"][0])]
    score = partial(score_sequences, model, encoder_outputs=BaseModelOutput(states), attention_mask=mask)
    score = partial(score, decoding=model.find_decoding())
    written: dict[CandidateSearch, tuple] = {}
    for way in ways:
        if way.search is None:
            options = {"num_beams": way.num_beams, "attention_mask": mask}
            ids, taken = timed(model.generate, encoder_outputs=BaseModelOutput(states), **options)
            way.captions.append(processor.batch_decode(ids)[0])
            way.seconds.append(seconds + taken + timed(score, ids)[1])
            continue
        if way.search not in written:
            ids, taken = timed(lambda way=way: generate_candidates(model, states, mask, way.search, clip_seeds)[0])
            texts, seconds_to_decode = timed(processor.batch_decode, ids)
            scores, seconds_to_score = timed(score, ids)
            candidates, _ = gather_candidates(texts, scores.tolist())
            written[way.search] = (candidates, taken + seconds_to_decode, seconds_to_score, timed(score, ids[:1])[1])
        candidates, taken, of_all, of_one = written[way.search]
        weights = read_mixture(way.rerank)
        caption, seconds_to_rank = timed(choose_caption, processor, candidates, clap, weights)
        way.captions.append(caption)
        way.seconds.append(seconds + taken + seconds_to_rank + of_one + ("likelihood" in weights) * of_all)
    return clap


def choose_caption(processor, candidates: ClipCandidates, clap, weights: dict[str, float]) -> str:
    """The best of a clip's candidates."""
    if "clap" in weights:
        cosines = compare_with_captions(processor.clap_text_encoder, clap, [candidates.texts])[0]
        candidates = replace(candidates, similarities=cosines)
    return candidates.texts[rank_candidates(candidates, weights)[0]]


def bootstrap(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    """Drawn values of a ratio of sums over scenes, (NUM_DRAWS,); the same scenes are drawn for all that is compared."""
    draws = np.random.default_rng(0).integers(len(tops), size=(NUM_DRAWS, len(tops)))
    return tops[draws].sum(1) / np.maximum(bottoms[draws].sum(1), 1e-9)


def list_ratios(way: Way, scenes: list[Scene], confidences: list[float] | None, fense: list[float] | None) -> dict:
    """Scores of a way as numerators and denominators of each scene."""
    counts = [count_named_events(scene, caption) for scene, caption in zip(scenes, way.captions, strict=True)]
    one = np.ones(len(counts))
    ratios = {
        "CIDEr-D": (np.array(cider_d(way.captions, [list(scene.captions) for scene in scenes])[1]), one),
        "precision": columns(counts, "hits", "named"),
        "recall": columns(counts, "hits", "placed"),
        "relation": judged([count.relation_right for count in counts]),
        "order": judged([count.order_right for count in counts]),
        "repeated events": (np.array([names_event_twice(text) for text in way.captions], dtype=float), one),
        "words": (np.array([len(text.split()) for text in way.captions], dtype=float), one),
    }
    for name, values in (("CLAP", confidences), ("FENSE", fense)):
        if values is not None:
            ratios[name] = (np.array(values), one)
    return ratios


def columns(counts: list[CaptionCounts], top: str, bottom: str) -> tuple[np.ndarray, np.ndarray]:
    """Two of the counts, scene by scene."""
    return tuple(np.array([getattr(count, name) for count in counts], dtype=float) for name in (top, bottom))


def judged(values: list[bool | None]) -> tuple[np.ndarray, np.ndarray]:
    """Which are right, and which are judged."""
    right, is_judged = [value is True for value in values], [value is not None for value in values]
    return np.array(right, dtype=float), np.array(is_judged, dtype=float)


def compute_diversity(captions: list[str]) -> float:
    """Share of all bigrams of the captions that are different ones."""
    bigrams = [pair for text in captions for pair in zip(text.lower().split(), text.lower().split()[1:], strict=False)]
    return len(set(bigrams)) / max(len(bigrams), 1)


def score_way(way: Way, ratios: dict, baseline: dict | None) -> dict:
    """Scores with intervals; those of the differences where there is a baseline."""
    row = {"way": way.name, "ms per clip": round(1000 * statistics.median(way.seconds), 1)}
    for name, pair in ratios.items():
        drawn = bootstrap(*pair)
        if baseline is not None:
            drawn = drawn - bootstrap(*baseline[name])
        low, high = np.quantile(drawn, [0.025, 0.975])
        value = pair[0].sum() / max(pair[1].sum(), 1e-9)
        row[name] = {"value": round(float(value), 4), "interval": [round(float(low), 4), round(float(high), 4)]}
    return {**row, "different bigrams": round(compute_diversity(way.captions), 4)}


def compute_fense(captions: list[str], scenes: list[Scene]) -> list[float] | None:
    """FENSE of each scene; None, and a line, where its weights are not to be had."""
    try:
        similarities = compute_sbert_similarity(captions, [list(scene.captions) for scene in scenes])[1]
        return penalise_errors(similarities, compute_fluency_errors(captions)[1])[1]
    except MetricUnavailableError as error:
        print(f"FENSE is left out: {error}")
        return None


def format_table(rows: list[dict]) -> str:
    """The rows as a Markdown table."""

    def cell(value) -> str:
        if not isinstance(value, dict):
            return str(value)
        low, high = value["interval"]
        return f"{value['value']:.3f} [{low:.3f}, {high:.3f}]"

    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare(args: ComparisonArguments) -> dict:
    """Caption all scenes in all ways, and score them."""
    model = EnClapForConditionalGeneration.from_pretrained(args.model).eval()
    processor = EnClapProcessor.from_pretrained(args.model)
    tower = processor.clap_text_encoder
    ways, scenes, embeddings = list_ways(args, tower is not None), [], []
    caption_scene(model, processor, make_scene(args.first_seed), list_ways(args, tower is not None))  # warms up
    for seed in tqdm(range(args.first_seed, args.first_seed + args.num_scenes), desc="scenes", mininterval=5.0):
        scene = make_scene(seed)
        embeddings.append(caption_scene(model, processor, scene, ways))
        scenes.append(replace(scene, audio=scene.audio[:0]))
    rows, baseline = [], None
    for way in ways:
        confidences = None
        if tower is not None:
            cosines = compare_with_captions(tower, torch.cat(embeddings), [[text] for text in way.captions])
            confidences = [row[0] for row in cosines]
        fense = compute_fense(way.captions, scenes) if args.fense else None
        ratios = list_ratios(way, scenes, confidences, fense)
        rows.append(score_way(way, ratios, baseline))
        baseline = ratios if baseline is None else baseline
    captions = {way.name: way.captions for way in ways}
    return {"num_scenes": args.num_scenes, "first_seed": args.first_seed, "rows": rows, "captions": captions}


def main() -> None:
    (args,) = HfArgumentParser(ComparisonArguments).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    result = compare(args)
    last_seed = args.first_seed + args.num_scenes - 1
    print(f"{args.num_scenes} scenes, seeds {args.first_seed} to {last_seed}, {args.model}")
    print(format_table(result["rows"]))
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    main()
