"""Model cards: huggingface_hub reads them, their numbers are those of the JSON beside them, one command writes them."""

import importlib.util
import json
import math
import re
import shutil
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from enclap_hf import DEFAULT_MODEL
from enclap_hf.hub.model_card import PIPELINE_TAG, CaptionerCard, Example, Part, ScoreRow, render_card, write_card
from enclap_hf.hub.model_card_makers import make_default_card, make_run_card

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"
NAMES = sorted(path.stem for path in CARDS.glob("*.md"))
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
RECIPE = {
    "model_name_or_path": "facebook/bart-base",
    "train_data": ["owner/sounds"],
    "test_data": ["owner/sounds", "elsewhere/mine.csv.d/clips"],
    "steps": 4000,
    "max_steps": -1,
    "num_train_epochs": 15.0,
    "learning_rate": 6.5e-05,
    "per_device_train_batch_size": 16,
    "mcm_probability": 0.15,
    "lr_scheduler_kwargs": {"timescale": 1000},
    "warmup_steps": 0,
}
RESULTS = {
    "train_step_time_s": 0.1234,
    "train_peak_memory_gib": 2.345,
    "test_meteor": 0.24691,
    "test_cider_d": 0.78012,
    "test_vocabulary": 636,
    "test_fluency_error_rate": 0.00096,
    "test_samples": 957,
    "test_metric_versions": {"enclap-hf": "0.1.0", "java": "17.0.9", "meteor": "1.5"},
}


def load_script():
    spec = importlib.util.spec_from_file_location("write_model_cards", ROOT / "examples/write_model_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_card_json(content: dict) -> CaptionerCard:
    """The dataclass back from its JSON."""
    lists = {"scores": ScoreRow, "examples": Example, "parts": Part}
    return CaptionerCard(
        **{key: [lists[key](**item) for item in value] if key in lists else value for key, value in content.items()}
    )


def collect(content) -> tuple[list[float], set[str]]:
    """Numbers of a JSON, and the numbers written in its texts and keys."""
    if isinstance(content, dict):
        content = [*content, *content.values()]
    if isinstance(content, list):
        parts = [collect(item) for item in content]
        return sum((part[0] for part in parts), []), set().union(*(part[1] for part in parts))
    if isinstance(content, str):
        return [], set(NUMBER.findall(content))
    return ([float(content)] if isinstance(content, int | float) and not isinstance(content, bool) else []), set()


def find_foreign_numbers(markdown: str, content: dict) -> list[str]:
    """Numbers of a card that are not in its JSON: not in a text of it, and no rounding of a number."""
    numbers, texts = collect(content)
    foreign = []
    for token in NUMBER.findall(markdown):
        mantissa = token.replace(",", "").split("e")[0]
        decimals = len(mantissa.partition(".")[2])
        value = math.nan if mantissa.count(".") > 1 else float(token.replace(",", ""))
        room = 0.5 * 10**-decimals + 1e-9 if decimals and "e" not in token else 0.0  # whole numbers are not rounded
        if token not in texts and not any(abs(value - number) <= room for number in numbers):
            foreign.append(token)
    return foreign


def read_tables(markdown: str) -> list[list[dict[str, str]]]:
    """The tables of a card: rows as heading -> cell."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()]
        heads, rows = [cell.strip() for cell in lines[0]], lines[2:]
        tables.append([[(head, cell.strip()) for head, cell in zip(heads, row, strict=True)] for row in rows])
    return tables


def read_index(markdown: str) -> list[EvalResult]:
    return ModelCard(markdown).data.eval_results or []


def test_there_is_a_card_for_the_default_model_and_each_published_checkpoint():
    assert len(NAMES) == 9 and {"enclap-default", "enclap-audiocaps-large", "enclap-both-base"} <= set(NAMES)


def test_the_cards_are_what_the_command_writes(tmp_path, monkeypatch, capsys):
    shutil.copytree(DEFAULT_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "model/README.md").unlink()
    arguments = ["--default_model", str(tmp_path / "model"), "--output", str(tmp_path / "cards")]
    monkeypatch.setattr(sys, "argv", ["write_model_cards.py", *arguments])
    load_script().main()
    assert "Wrote 9 cards" in capsys.readouterr().out
    for path in (tmp_path / "cards").iterdir():
        assert path.read_text() == (CARDS / path.name).read_text(), f"run examples/write_model_cards.py: {path.name}"
    assert (tmp_path / "model/README.md").read_text() == Path(DEFAULT_MODEL, "README.md").read_text()
    assert (CARDS / "enclap-default.md").read_text() == Path(DEFAULT_MODEL, "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_made_of_its_json_alone(name):
    content = json.loads((CARDS / f"{name}.json").read_text())
    assert content.keys() == {field.name for field in fields(CaptionerCard)}
    assert render_card(read_card_json(content)) == (CARDS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_in_the_json_beside_it(name):
    markdown, content = (CARDS / f"{name}.md").read_text(), json.loads((CARDS / f"{name}.json").read_text())
    assert find_foreign_numbers(markdown, content) == []


@pytest.mark.parametrize("name", NAMES)
def test_scores_stand_in_their_row_and_column_and_in_the_index(name):
    markdown, content = (CARDS / f"{name}.md").read_text(), json.loads((CARDS / f"{name}.json").read_text())
    tables = [table for table in read_tables(markdown) if table[0][0][0] in ("data set", "condition")]
    assert len(tables) == bool(content["scores"])
    for cells, row in zip(tables[0] if tables else [], content["scores"], strict=True):
        shown = [cell for head, cell in cells if head not in ("data set", "clips", "condition", "from")]
        assert [cell for cell in shown if cell != "-"] == [f"{value:.3f}" for value in row["metrics"].values()]
        assert row["condition"] is not None or ("clips", str(row["num_clips"])) in cells
        assert (row["origin"] == "measured") == (cells[-1][0] != "from")
    expected = [
        (row["condition"], row["num_clips"], metric, round(value, 4))
        for row in content["scores"]
        if row["in_index"]
        for metric, value in row["metrics"].items()
    ]
    found = [
        (r.dataset_config, r.dataset_args["num_clips"], r.metric_name, r.metric_value) for r in read_index(markdown)
    ]
    assert found == expected
    assert all(row["source_url"] for row in content["scores"] if row["in_index"] and row["origin"] != "measured")


def test_numbers_of_the_default_card_are_those_of_its_reports():
    """Prose is not exempt: a number typed into a maker would be in the card's own JSON, but in none of these."""
    folder = Path(DEFAULT_MODEL)
    names = ("training_report", "evaluation", "config", "processor_config")
    sources = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    front_end = sources["processor_config"]["feature_extractor"]
    frames_per_s = front_end["codec_sampling_rate"] / front_end["codec_hop_length"]
    sources["derived"] = [frames_per_s, front_end["max_codec_frames"] / frames_per_s]
    card = make_default_card(str(folder))
    constants = [card.citation, card.licence_note, "1 event 2-3 events", "1-event 2-3-events", PIPELINE_TAG]
    assert find_foreign_numbers(render_card(card), {**sources, "constants": constants}) == []


def test_a_changed_digit_is_foreign():
    content = json.loads((CARDS / "enclap-default.json").read_text())
    text = (CARDS / "enclap-default.md").read_text()
    score = next(row["metrics"]["CIDEr-D"] for row in content["scores"] if row["in_index"])
    cell, changed = f"| {score:.3f} |", f"| {score + 0.123:.3f} |"
    assert cell in text and find_foreign_numbers(text.replace(cell, changed), content)
    assert find_foreign_numbers("12,001 sound scenes", content) == ["12,001"]
    assert find_foreign_numbers("value: 2.2874", content) == ["2.2874"]


def test_the_template_holds_no_digit():
    import enclap_hf.hub.model_card

    assert not re.search(r"\d", Path(enclap_hf.hub.model_card.TEMPLATE).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_huggingface_hub_reads_the_metadata_and_writes_it_back(name):
    card = ModelCard.load(CARDS / f"{name}.md")
    assert str(card) == (CARDS / f"{name}.md").read_text()
    data = card.data
    assert (data.library_name, data.language, data.pipeline_tag) == ("transformers", "en", "audio-text-to-text")
    assert data.license in ("apache-2.0", "cc-by-nc-4.0") and "audio-captioning" in data.tags
    assert all(isinstance(result, EvalResult) for result in read_index(str(card)))
    written = yaml.safe_load(data.to_yaml())
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == data.to_dict() == written
    if data.eval_results:
        assert set(data.metrics) == {result.metric_type for result in data.eval_results}
        assert {result.task_type for result in data.eval_results} == {"audio-captioning"}


def test_the_widget_has_recordings_of_the_repository_with_their_captions():
    evaluation = json.loads(Path(DEFAULT_MODEL, "evaluation.json").read_text())
    widget = ModelCard.load(Path(DEFAULT_MODEL, "README.md")).data.widget
    assert len(widget) == 3
    for item in widget:
        recording = Path(DEFAULT_MODEL, item["src"])
        assert recording.read_bytes() == (ROOT / "examples/sounds" / recording.name).read_bytes()
        assert item["output"] == {"text": evaluation["examples"][recording.name]}


def test_the_default_card_does_without_note_speed_and_examples(tmp_path):
    for name in ("training_report", "evaluation", "config", "processor_config"):
        shutil.copy(Path(DEFAULT_MODEL, f"{name}.json"), tmp_path)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    for name in ("speed", "examples", "versions"):
        evaluation.pop(name, None)
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    training = json.loads((tmp_path / "training_report.json").read_text())
    training["run"].pop("note", None)
    training["run"]["a new setting"] = 77
    (tmp_path / "training_report.json").write_text(json.dumps(training))
    bare = render_card(make_default_card(str(tmp_path)))
    assert "## Speed" not in bare and "## Examples" not in bare and "Scored with" not in bare
    assert "| a new setting | 77 |" in bare and bare.endswith("```\n")
    evaluation["speed"] = {
        "seconds_per_clip": 0.4567,
        "clip_s": 5.0,
        "num_clips": 20,
        "num_threads": 1,
        "num_beams": 4,
        "cpu": "a CPU",
    }
    evaluation["versions"] = {"enclap-hf": "9.9.9"}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    card = render_card(make_default_card(str(tmp_path)))
    assert (
        "A clip of 5 s takes 0.457 s" in card
        and "a beam of 4, on 1 thread (a CPU)" in card
        and "Scored with enclap-hf 9.9.9." in card
    )


def test_the_card_of_a_training_run_holds_its_results(tmp_path):
    encoders = ["facebook/encodec_24khz", "/somewhere/clap"]
    card = make_run_card("trial", "me/trial", RECIPE, RESULTS, 12_345_678, encoders, [Example("a.wav", "a dog barks")])
    write_card(card, tmp_path / "README.md", tmp_path / "model_card.json")
    text, content = (tmp_path / "README.md").read_text(), json.loads((tmp_path / "model_card.json").read_text())
    assert content == asdict(card) and find_foreign_numbers(text, content) == []
    assert "| owner/sounds, clips test | 957 | 0.247 | 0.780 | 0.00096 | 636 |" in text
    for words in (
        *("12,345,678 parameters", "Scored with enclap-hf 0.1.0, java 17.0.9, meteor 1.5.", "0.123 s (median)"),
        *("| peak learning rate | 6.5e-05 |", "| epochs | 15 |", "| warm-up steps | 0 |", "| a.wav | a dog barks |"),
        'model="me/trial"',
    ):
        assert words in text
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.license == "cc-by-nc-4.0" and data.datasets == ["owner/sounds"]
    assert data.base_model == ["facebook/bart-base", "facebook/encodec_24khz"]
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "meteor-1.5": 0.2469, "cider-d": 0.7801, "fluency-error-rate": 0.001, "vocabulary": 636,
    }  # fmt: skip


def test_a_run_without_evaluation_and_an_ablation_say_so():
    text = render_card(
        make_run_card("trial", "trial", {"use_codes": False, "max_steps": 2, "num_train_epochs": 3}, {}, 10)
    )
    assert "No evaluation was run." in text and "not meant for use" in text and "epochs" not in text
    assert "random weights" in text and "## Speed" not in text
    data = ModelCard(text).data
    assert data.eval_results is None and data.license is None and "model-index" not in text


@pytest.mark.parametrize(
    "name", ['a "b": c', "---", "- x\n---\ny", "# %@{[|}] 'q' & *", "日本 — naïve 🐕", "{{ card.name }}"]
)
def test_special_characters_break_neither_metadata_nor_tables(name):
    card = CaptionerCard(
        name, "s", "'m'", "t", "h",
        examples=[Example(f"{name}.wav", name, "a.wav")],
        scores=[ScoreRow(name, {f"{name} metric": 0.5}, "test", 3)],
    )  # fmt: skip
    text = render_card(card)
    data = ModelCard(text).data
    line = " ".join(name.split())
    assert data.widget == [{"src": "a.wav", "example_title": f"{line}.wav", "output": {"text": line}}]
    assert data.model_name == line and data.eval_results[0].metric_value == 0.5
    assert f"\n# {line}\n" in text
    recording, caption = read_tables(text)[0][0]
    assert caption[1].replace("\\|", "|") == line and recording[1].replace("\\|", "|") == f"{line}.wav"


def test_two_scores_for_one_place_in_the_index_are_refused():
    rows = [ScoreRow("Clotho", {"SPIDEr": value}, "evaluation", 1045) for value in (0.1, 0.2)]
    with pytest.raises(ValueError, match="two rows of scores.*Clotho.*condition"):
        render_card(CaptionerCard("a", "b", "'c'", "d", "e", scores=rows))
    rows[1].in_index = False
    assert len(read_index(render_card(CaptionerCard("a", "b", "'c'", "d", "e", scores=rows)))) == 1
