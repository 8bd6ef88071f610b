"""Model cards: their contents as a dataclass, one template, and a maker for each kind of model.

    a training run's results and recipe ---+
    a conversion --------------------------+--> CaptionerCard --> README.md (model_card_template.md)
    the reports of the bundled model ------+                  \\-> model_card.json, the same contents
    what is published of a checkpoint -----+

* Numbers come from the JSON of a run, a recipe, an evaluation or the literature; the template holds no digit.
* `pipeline_tag` is `audio-text-to-text`: the Hub has no tag for captioning, this one means text about a sound, and
  `automatic-speech-recognition` would promise a transcript and make the Hub print a `pipeline` line that cannot run.
* `library_name` is `transformers`: the Hub then prints the Auto class lines, which run (`trust_remote_code=True`), and
  counts downloads by config.json; `enclap-hf` is not among the libraries that it has lines for.
* Widget examples carry their captions, which the Hub shows although none of its inference providers runs the model.
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from huggingface_hub import EvalResult, ModelCard, ModelCardData

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model_card_template.md")
PIPELINE_TAG = "audio-text-to-text"
LIBRARY = "transformers"
TASK = ("audio-captioning", "Audio captioning")
TAGS = ["audio-captioning", "automated-audio-captioning", "enclap"]
CITATION = """@inproceedings{kim2024enclap,
  title = {{EnCLAP}: Combining Neural Audio Codec and Audio-Text Joint Embedding for Automated Audio Captioning},
  author = {Kim, Jaeyeon and Jung, Jaeyoon and Lee, Jinjoo and Woo, Sang Hoon},
  booktitle = {ICASSP},
  pages = {6735--6739},
  year = {2024},
  note = {arXiv 2401.17690}
}"""
INTENDED_USE = (
    "One English sentence about the sounds of a recording: for search, for cataloguing, as a description for people "
    "who do not hear it, as a start for training on your own data. Not for transcribing speech, naming speakers, or "
    "deciding anything about people."
)
LIMITS = (
    "It writes in the style of its training captions; speech is named as a sound, not transcribed.",
    "Sounds that training hardly had are named as the nearest known ones, with no sign of doubt.",
    "How often its counts and its order of events are right was not measured; do not rely on them.",
)


@dataclass
class ScoreRow:
    """Scores of one test: a row of the table, and an entry of the model index.

    Args:
        dataset: name of the data set; where it is a Hub data set, its id.
        metrics: score by label, in the order of the table.
        split: part of the data set that was scored.
        num_clips: clips that were scored.
        condition: how the clips were changed or captioned, where a table compares that.
        origin: "measured" with this package, "reported" or "re-run" by others, or "unverified".
        source, source_url: who reported it, and where.
        in_index: whether the model index has it, which leaderboards read.
    """

    dataset: str
    metrics: dict[str, float]
    split: str | None = None
    num_clips: int | None = None
    condition: str | None = None
    origin: str = "measured"
    source: str | None = None
    source_url: str | None = None
    in_index: bool = True


@dataclass
class Example:
    """A recording and its caption; `src` is its path in the repository, for the Hub's widget, if it is there."""

    recording: str
    caption: str
    src: str | None = None


@dataclass
class Part:
    """A part of the repository: what it is, where its weights are from, under which licence, and its size."""

    name: str
    source: str
    licence: str
    num_parameters: int | None = None


@dataclass
class CaptionerCard:
    """All that a card says. Texts are Markdown; `license` is the Hub's identifier, None where it is not known.

    `load_from` is Python: what `pipeline(model=...)` takes. `recipe` and `metric_versions` are written in their order.
    """

    name: str
    summary: str
    load_from: str
    training_data: str
    how_made: str
    license: str | None = None
    licence_note: str = ""
    language: str = "en"
    datasets: list[str] = field(default_factory=list)
    base_models: list[str] = field(default_factory=list)
    warning: str | None = None
    intended_use: str = INTENDED_USE
    limits: list[str] = field(default_factory=lambda: list(LIMITS))
    examples: list[Example] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    score_note: str = "No score is known."
    metric_versions: dict[str, str] = field(default_factory=dict)
    speed: str | None = None
    recipe: dict[str, object] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    citation: str = CITATION


def render_card(card: CaptionerCard) -> str:
    """Write a card as Markdown with its metadata in front, as `README.md` has it.

    Raises:
        ValueError: two rows of scores would be one entry of the model index.
    """
    results = list_results(card.scores)
    widget = [
        {"src": example.src, "example_title": tidy(example.recording), "output": {"text": tidy(example.caption)}}
        for example in card.examples
        if example.src
    ]
    data = ModelCardData(
        language=card.language,
        license=card.license,
        library_name=LIBRARY,
        pipeline_tag=PIPELINE_TAG,
        tags=TAGS,
        datasets=card.datasets or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        base_model=card.base_models or None,
        widget=widget or None,
        model_name=tidy(card.name) if results else None,
        eval_results=results or None,
    )
    text = ModelCard.from_template(
        data,
        template_path=TEMPLATE,
        card=card,
        name=tidy(card.name),
        examples=format_table(["recording", "caption"], [[e.recording, e.caption] for e in card.examples]),
        scores=format_scores(card.scores),
        versions=", ".join(f"{name} {version}" for name, version in card.metric_versions.items()),
        recipe=format_table(
            ["setting", "value"],
            [[name, f"{value:g}" if isinstance(value, float) else value] for name, value in card.recipe.items()],
        ),
        parts=format_parts(card.parts),
    )
    return f"{str(text).rstrip()}\n"


def write_card(card: CaptionerCard, markdown_path: str, json_path: str) -> None:
    """Write a card and, as JSON, the contents that its numbers are from."""
    with open(markdown_path, "w", encoding="utf-8") as file:
        file.write(render_card(card))
    with open(json_path, "w", encoding="utf-8") as file:
        json.dump(asdict(card), file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_card(json_path: str) -> CaptionerCard:
    """Read what [`write_card`] wrote as JSON.

    Args:
        json_path: a model_card.json.
    Raises:
        OSError: it cannot be read.
        ValueError: it is not the JSON of a card.
    """
    with open(json_path, encoding="utf-8") as file:
        content = json.load(file)
    parts = {"scores": ScoreRow, "examples": Example, "parts": Part}
    try:
        lists = {name: [kind(**row) for row in content.get(name, ())] for name, kind in parts.items()}
        return CaptionerCard(**{**content, **lists})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{json_path} is not the JSON of a model card: {error}.") from error


def list_results(rows: Sequence[ScoreRow]) -> list[EvalResult]:
    """Scores for the model index.

    Raises:
        ValueError: two rows would be one entry of the index.
    """
    kept = [row for row in rows if row.in_index]
    keys = [(row.dataset, row.condition, row.split) for row in kept]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"Got two rows of scores for {twice}; give them a `condition` that tells them apart.")
    return [
        EvalResult(
            task_type=TASK[0],
            task_name=TASK[1],
            dataset_type=row.dataset if is_hub_id(row.dataset) else make_slug(row.dataset),
            dataset_name=tidy(f"{row.dataset} {row.split or ''}"),
            dataset_config=row.condition,
            dataset_split=row.split,
            dataset_args=None if row.num_clips is None else {"num_clips": row.num_clips},
            metric_type=make_slug(metric),
            metric_name=metric,
            metric_value=value if isinstance(value, int) else round(value, 4),
            source_name=row.source if row.source_url else None,
            source_url=row.source_url,
        )
        for row in kept
        for metric, value in row.metrics.items()
        if not math.isnan(value)
    ]


def format_scores(rows: Sequence[ScoreRow]) -> str:
    """Scores as a Markdown table. Where rows compare conditions, data set and clips are the same and stay out of it."""
    fullest_first = sorted(rows, key=lambda row: -len(row.metrics))
    metrics = list(dict.fromkeys(metric for row in fullest_first for metric in row.metrics))
    columns: list[tuple[str, Callable[[ScoreRow], object]]] = [
        ("data set", lambda row: f"{row.dataset} {row.split or ''}"),
        ("clips", lambda row: row.num_clips),
    ]
    if any(row.condition for row in rows):
        columns = [("condition", lambda row: row.condition)]
    columns += [(name, read_metric(metric)) for metric, name in group_labels(metrics)]
    if any(row.origin != "measured" for row in rows):
        columns.append(("from", describe_origin))
    return format_table([name for name, _ in columns], [[read(row) for _, read in columns] for row in rows])


def read_metric(metric: str) -> Callable[[ScoreRow], object]:
    """What reads a metric of a row."""
    return lambda row: row.metrics.get(metric)


def group_labels(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Labels with their headings: of neighbours "a: x" and "a: y" the second is headed "y"."""
    groups = [label.rpartition(": ")[0] for label in labels]
    return [
        (label, label.rpartition(": ")[2] if group and group == before else label)
        for label, group, before in zip(labels, groups, ["", *groups], strict=False)
    ]


def describe_origin(row: ScoreRow) -> str:
    """Who says so, with a link."""
    source = row.source if row.source_url is None else f"[{row.source}]({row.source_url})"
    return ": ".join(text for text in (row.origin, source) if text)


def format_parts(parts: Sequence[Part]) -> str:
    """Parts as a Markdown table; their sizes where one is known."""
    sizes = any(part.num_parameters for part in parts)
    rows = [
        [part.name, *([part.num_parameters and f"{part.num_parameters:,}"] if sizes else []), part.source, part.licence]
        for part in parts
    ]
    return format_table(["part", *(["parameters"] if sizes else []), "weights", "licence"], rows)


def format_table(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table; nothing where there are no rows."""
    if not rows:
        return ""
    first, *others = (f"| {' | '.join(map(format_cell, row))} |" for row in (heads, *rows))
    return "\n".join([first, "|---" * len(heads) + "|", *others])


def format_cell(value: object) -> str:
    """A cell's text: numbers with three decimals, or two digits where they are small; "-" where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        is_rounding = abs(value) < 1e-12  # what float arithmetic leaves of zero
        return f"{value:.3f}" if abs(value) >= 0.01 or is_rounding else f"{value:.2g}"
    return tidy(str(value)).replace("|", "\\|").replace("<", "&lt;")


def tidy(text: str) -> str:
    """Text in one line."""
    return " ".join(text.split())


def make_slug(text: str) -> str:
    """Text as an identifier: "METEOR 1.5" -> "meteor-1.5"."""
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of those on the Hub, owner/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None
