"""Fills model cards (`model_card.py`) for a training run and for the bundled model; `published_cards.py` the others."""

import json
import os
from collections.abc import Sequence

from ..metrics.metric_sets import METRIC_NAMES
from ..version import __version__
from .export import read_json
from .model_card import CaptionerCard, Example, Part, ScoreRow, is_hub_id

PAPER = "https://arxiv.org/abs/2401.17690"
PACKAGE = f"[enclap-hf](https://pypi.org/project/enclap-hf/) {__version__}"
# "meteor" alone is another metric on the Hub, with scores twice as high.
METRIC_LABELS = {
    "meteor": "METEOR 1.5",
    "cider_d": "CIDEr-D",
    "spice": "SPICE",
    "spider": "SPIDEr",
    "spider_fl": "SPIDEr-FL",
    "fense": "FENSE",
    "rouge_l": "ROUGE-L",
    "clap_similarity": "CLAP similarity",
}
# Arguments of a recipe that a card has, in its order.
RECIPE_LABELS = {
    "num_train_epochs": "epochs",
    "steps": "optimiser steps",
    "per_device_train_batch_size": "clips in a batch, of one process",
    "max_frames_per_batch": "codec frames in a batch, of one process",
    "gradient_accumulation_steps": "batches accumulated",
    "num_processes": "processes",
    "learning_rate": "peak learning rate",
    "lr_scheduler_type": "schedule",
    "lr_scheduler_kwargs": "schedule settings",
    "warmup_steps": "warm-up steps",
    "weight_decay": "weight decay",
    "max_grad_norm": "largest gradient norm",
    "label_smoothing": "label smoothing",
    "mcm_probability": "masked codec modelling: share of codes hidden",
    "mcm_span": "masked codec modelling: frames in a span",
    "mcm_loss_weight": "masked codec modelling: weight of its loss",
    "seed": "seed",
}
ENCODEC, ENCODEC_LICENCE = "facebook/encodec_24khz", "cc-by-nc-4.0"


def make_run_card(
    name: str,
    repo_id: str,
    recipe: dict,
    results: dict,
    num_parameters: int,
    encoders: Sequence[str] = (),
    examples: Sequence[Example] = (),
) -> CaptionerCard:
    """Card of a run of `examples/run_captioning.py`.

    Args:
        name: the model's.
        repo_id: what a user passes to load it.
        recipe: arguments of the run by their names, with `steps` taken and `num_processes`; data sets are paths or ids.
        results: all_results.json.
        num_parameters: of the captioner.
        encoders: repositories that EnCodec and CLAP came from.
        examples: recordings with their captions.
    """
    start = recipe.get("model_name_or_path")
    training_data = name_datasets(recipe.get("train_data", ()))
    is_whole = recipe.get("use_codes", True)
    has_encodec = ENCODEC in encoders
    scores = list_run_scores(recipe, results)
    return CaptionerCard(
        name=name,
        summary=f"An [EnCLAP]({PAPER}) captioner of {num_parameters:,} parameters: it writes one sentence about a "
        "sound recording.",
        load_from=json.dumps(repo_id, ensure_ascii=False),
        warning=None if is_whole else "An ablation, trained without the frames that it is given: not meant for use.",
        license=ENCODEC_LICENCE if has_encodec else None,
        licence_note="It holds the published EnCodec weights, whose licence, CC-BY-NC 4.0, permits no commercial use."
        if has_encodec
        else "The licence is that of the weights that training started from, and of `codec/` and `clap/`.",
        datasets=[name for name in training_data if is_hub_id(name)],
        base_models=[path for path in (start, *encoders) if path and is_hub_id(path) and not os.path.exists(path)],
        examples=list(examples),
        scores=scores,
        score_note="Corpus scores against all references of a clip." if scores else "No evaluation was run.",
        metric_versions=results.get("test_metric_versions") or results.get("eval_metric_versions") or {},
        speed=describe_training_speed(results),
        training_data=f"{', '.join(training_data) or 'None'}, from {describe_start(start)}.",
        recipe=describe_recipe(recipe),
        how_made=f"With `examples/run_captioning.py` of {PACKAGE}; all_results.json has the run's figures.",
    )


def list_run_scores(recipe: dict, results: dict) -> list[ScoreRow]:
    """Scores of the validation and test data in all_results.json."""
    rows = []
    for prefix, split in (("eval", "validation"), ("test", "test")):
        metrics = {label_metric(m): results[f"{prefix}_{m}"] for m in METRIC_NAMES if f"{prefix}_{m}" in results}
        datasets = ", ".join(name_datasets(recipe.get(f"{split}_data", ()))) or split
        if metrics:
            rows.append(ScoreRow(datasets, metrics, split, results.get(f"{prefix}_samples")))
    return rows


def label_metric(name: str) -> str:
    """A metric's name for readers: "bleu_4" -> "BLEU 4"."""
    if name.startswith("bleu_"):
        return name.upper().replace("_", " ")
    return METRIC_LABELS.get(name, name.replace("_", " "))


def name_datasets(paths: Sequence[str]) -> list[str]:
    """Ids of Hub data sets, and of folders and files here the last part of their paths alone."""
    return [
        path if is_hub_id(path) and not os.path.exists(path) else os.path.basename(os.path.normpath(path))
        for path in paths
    ]


def describe_start(start: str | None) -> str:
    """What training started from."""
    if start is None:
        return "random weights"
    return (
        f"`{os.path.basename(os.path.normpath(start))}`"
        if os.path.exists(start)
        else f"[{start}](https://hf.co/{start})"
    )


def describe_recipe(recipe: dict) -> dict[str, object]:
    """A recipe's settings by their names for readers, in the order of a card."""
    settings = {**recipe, **(recipe.get("config_overrides") or {})}
    if (settings.get("max_steps") or 0) > 0:
        settings.pop("num_train_epochs", None)
    described = {label: settings.get(name) for name, label in RECIPE_LABELS.items()}
    return {
        label: json.dumps(value) if isinstance(value, dict) else value
        for label, value in described.items()
        if value not in (None, {}, "")
    }


def describe_training_speed(results: dict) -> str | None:
    """Step time and memory of a run, where it took a step."""
    if "train_step_time_s" not in results:
        return None
    memory = results.get("train_peak_memory_gib")
    peak = "" if memory is None else f", in at most {memory:.2f} GiB of memory"
    return f"A training step took {results['train_step_time_s']:.3f} s (median){peak}."


def describe_window(front_end: dict) -> str:
    """How much of a recording the codes show; a limit."""
    window_s = front_end["max_codec_frames"] * front_end["codec_hop_length"] / front_end["codec_sampling_rate"]
    return f"Of a longer recording its codes show the first {window_s:.1f} s; only CLAP has an impression of the rest."


def make_default_card(folder: str) -> CaptionerCard:
    """Card of the model inside the package, or of another that `examples/default_model/train_default_model.py` trained.

    Args:
        folder: the model, with training_report.json, with evaluation.json as
            `examples/default_model/evaluate_default_model.py --output` writes it, and perhaps with recordings in
            `sounds/`.
    """
    training, evaluation, model, processor = (
        read_json(os.path.join(folder, f"{name}.json"))
        for name in ("training_report", "evaluation", "config", "processor_config")
    )
    run = dict(training["run"])
    note = run.pop("note", "")
    kinds, num_scenes = run["kinds"], run["num_scenes"]
    return CaptionerCard(
        name="The default model of enclap-hf",
        summary="A small EnCLAP captioner that the package carries, so that a fresh machine without a network captions "
        "sounds at once.",
        warning=f"It knows {kinds} kinds of synthesised sounds and nothing else.",
        load_from="enclap_hf.DEFAULT_MODEL",
        license="apache-2.0",
        licence_note="Apache-2.0, as the package.",
        intended_use="A first look at the package, tests, and demonstrations. For real recordings use a model trained "
        "on them: `enclap caption --model MODEL recordings/`.",
        limits=[
            "Of a real recording it names whatever of its sounds is most alike.",
            describe_window(processor["feature_extractor"]),
            "There is no decoder: its codes cannot be turned back into sound.",
        ],
        examples=list_default_examples(folder, evaluation),
        scores=list_scene_rows(evaluation),
        score_note=f"On {evaluation['num_scenes']:,} scenes, seeds from {evaluation['first_seed']} on, which no stage "
        "of training saw. Precision and recall are of the events named; the relation (then, while, background) is "
        'judged where all events are named, the order where that relation is a right "then"; CIDEr-D is against all '
        "captions of a scene. `python examples/default_model/evaluate_default_model.py` prints this table.",
        metric_versions=evaluation.get("versions", {}),
        speed=describe_captioning_speed(evaluation),
        training_data=f"{num_scenes:,} sound scenes, synthesised by `enclap_hf.sound_scenes`: events one after "
        "another, together, or over a background, with captions from a grammar that knows what was placed. They were "
        "also heard damaged: quieter, band-limited, mp3-like, with noise. No recording and no pretrained weight was "
        "used.",
        recipe={name.removeprefix("num_").replace("_", " "): value for name, value in run.items()}
        | {f"{stage}: minutes": entry["minutes"] for stage, entry in training.items() if "minutes" in entry},
        parts=list_default_parts(training, model, processor),
        how_made=f"""By

```bash
python examples/default_model/train_default_model.py --output enclap_hf/default_model
python examples/default_model/evaluate_default_model.py --output enclap_hf/default_model/evaluation.json
python examples/write_model_cards.py
```

Its figures are in `training_report.json` and `evaluation.json`. {note}""".rstrip(),
    )


def list_default_parts(training: dict, model: dict, processor: dict) -> list[Part]:
    """Codec, CLAP tower and captioner, and how they were trained."""
    front_end = processor["feature_extractor"]
    frames_per_s = front_end["codec_sampling_rate"] / front_end["codec_hop_length"]
    weights = {
        "codec": f"EnCodec's encoder, {frames_per_s:g} frames a second, {model['num_codebooks']} codebooks of "
        f"{model['codec_vocab_size']} codes; trained to predict the log-mel spectrogram and the sounding events",
        "clap": "HTSAT, trained against the captions (contrastive) and the events (tags)",
        "captioner": "EnCLAP with masked codec modelling",
    }
    if "clap_text" in training:
        scores = training["clap_text"]["evaluation"]
        weights["clap_text"] = (
            "CLAP's text tower, a RoBERTa of two layers, trained against the audio tower as it was: by its cosine, "
            f"captions of {scores['scenes']} unseen scenes are told from shuffled ones with an area under the curve of "
            f"{scores['auc_against_shuffled']:.3f}, from captions with one wrong event of "
            f"{scores['auc_against_one_wrong_event']:.3f}"
        )
    return [Part(name, text, "Apache-2.0", training.get(name, {}).get("parameters")) for name, text in weights.items()]


def list_default_examples(folder: str, evaluation: dict) -> list[Example]:
    """Captions of the example recordings; those in `sounds/` are for the widget."""
    return [
        Example(name, caption, f"sounds/{name}" if os.path.exists(os.path.join(folder, "sounds", name)) else None)
        for name, caption in evaluation.get("examples", {}).items()
    ]


def list_scene_rows(evaluation: dict) -> list[ScoreRow]:
    """Scores of the default model's evaluation, a row for each condition; beam search is for the model index."""
    rows = []
    for name, scores in evaluation["conditions"].items():
        one, several = scores["one event"], scores["two and three events"]
        metrics = {
            "1 event: precision": one["precision"],
            "1 event: recall": one["recall"],
            "2-3 events: precision": several["precision"],
            "2-3 events: recall": several["recall"],
            "relation": scores["relation"],
            "order": scores["order"],
            "CIDEr-D": scores["cider_d"],
        }
        num_clips, in_index = evaluation["num_scenes"], name.startswith("beam")
        rows.append(ScoreRow("synthesised sound scenes", metrics, None, num_clips, name, in_index=in_index))
    return rows


def describe_captioning_speed(evaluation: dict) -> str | None:
    """Seconds a clip, where they were measured."""
    if "speed" not in evaluation:
        return None
    speed = evaluation["speed"]
    return (
        f"A clip of {speed['clip_s']:g} s takes {speed['seconds_per_clip']:.3f} s from samples to sentence, with a "
        f"beam of {speed['num_beams']}, on {speed['num_threads']} thread ({speed['cpu']}): the median of "
        f"{speed['num_clips']} clips, one at a time."
    )
