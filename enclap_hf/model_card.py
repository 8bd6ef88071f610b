"""Model cards, written from a run's results: a number in a card is a number of the JSON beside it."""

from huggingface_hub import EvalResult, ModelCardData


def write_default_card(training: dict, evaluation: dict) -> str:
    """The card of the model inside the package.

    Args:
        training: the training's report, one entry for each stage of `examples/train_default_model.py`.
        evaluation: what `examples/evaluate_default_model.py --output` wrote.
    Returns:
        the card as Markdown, with its metadata in front.
    """
    searched = next(name for name in evaluation["conditions"] if name.startswith("beam"))
    metadata = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="enclap-hf",
        tags=["audio-captioning", "enclap"],
        model_name="enclap-default",
        eval_results=list_results(evaluation, searched),
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{default_card_text(training, evaluation)}"


def list_results(evaluation: dict, condition: str) -> list[EvalResult]:
    """The model index: scores of one condition."""
    scores = evaluation["conditions"][condition]
    values = {
        "CIDEr-D": scores["cider_d"],
        "Precision of named events, one event": scores["one event"]["precision"],
        "Recall of named events, one event": scores["one event"]["recall"],
        "Precision of named events, two and three events": scores["two and three events"]["precision"],
        "Recall of named events, two and three events": scores["two and three events"]["recall"],
        "Relation right": scores["relation"],
    }
    return [
        EvalResult(
            task_type="audio-captioning",
            dataset_type="synthesised-sound-scenes",
            dataset_name=f"{evaluation['num_scenes']} sound scenes from seed {evaluation['first_seed']}",
            metric_type=name.lower(),
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in values.items()
    ]


def format_scores(conditions: dict[str, dict]) -> str:
    """Scores of `examples/evaluate_default_model.py` as a Markdown table, a row for each condition."""
    lines = [
        "| condition | 1 event: precision | recall | 2-3 events: precision | recall | relation | order | CIDEr-D |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, scores in conditions.items():
        one, several = scores["one event"], scores["two and three events"]
        values = [one["precision"], one["recall"], several["precision"], several["recall"]]
        values += [scores["relation"], scores["order"], scores["cider_d"]]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def default_card_text(training: dict, evaluation: dict) -> str:
    """The card's body."""
    run, codec, clap, captioner = (training[stage] for stage in ("run", "codec", "clap", "captioner"))
    last_seed = evaluation["first_seed"] + evaluation["num_scenes"] - 1
    minutes = {stage: training[stage]["minutes"] for stage in ("codec", "clap", "features", "captioner")}
    times = ", ".join(f"{stage} {value} min" for stage, value in minutes.items())
    return f"""# The default model of enclap-hf

A small EnCLAP captioner that the package carries, so that a fresh machine without a network captions sounds at once.
**It knows {run["kinds"]} kinds of synthesised sounds and nothing else**: of a real recording it names whatever of
these sounds most alike. For real recordings use a model trained on them: `enclap caption --model MODEL recordings/`.

```python
from transformers import pipeline
import enclap_hf

pipeline("audio-captioning", model=enclap_hf.DEFAULT_MODEL)("recording.wav")
```

## Training data

{run["num_scenes"]:,} sound scenes of 3.5 to 7 seconds, synthesised by `enclap_hf.sound_scenes`: one to three events,
one after another, together, or over a background, with five captions each from a grammar that knows what was placed.
The encoders and the captioner also heard the scenes damaged: quieter, band-limited, mp3-like, with noise. No recording
and no pretrained weight was used.

## Parts and sizes

| part | parameters | notes |
|---|---|---|
| codec | {codec["parameters"]:,} | EnCodec's encoder, 25 frames a second, 8 codebooks of 256 codes; no decoder |
| CLAP tower | {clap["parameters"]:,} | HTSAT, trained against the captions (contrastive) and the events (tags) |
| captioner | {captioner["parameters"]:,} | EnCLAP with masked codec modelling |

Weights are stored as 16-bit floats and compute in 32 bits. The codec was trained to predict the log-mel spectrogram and
the sounding events from its latents; it has no decoder, so codes cannot be turned back into sound.

## Scores

On {evaluation["num_scenes"]:,} scenes of seeds {evaluation["first_seed"]} to {last_seed}, which no stage of training
saw. Precision and recall are of the events named; the relation (then, while, background) is judged where all events are
named, the order where that relation is a right "then"; CIDEr-D is against the five captions of a scene.

{format_scores(evaluation["conditions"])}

`python examples/evaluate_default_model.py` prints this table.

## Training

Seed {run["seed"]}, {run["cpu_cores"]} CPU cores, torch {run["torch"]}: {times}. Made by

    python examples/train_default_model.py --output enclap_hf/default_model

and described in `training_report.json`; the scores are in `evaluation.json`. {run.get("note", "")}

## Licence

Apache-2.0, as the package.
"""
