"""Runs of `enclap caption` with a model that is loaded once, for tests; fixtures are taken by assignment."""

import csv
import json
import os
from pathlib import Path

import pytest
import soundfile
from transformers import pipeline

from conftest import make_clip
from enclap_hf.cli import main
from enclap_hf.commands import caption as caption_command
from enclap_hf.commands.captioner_loading import ModelIdentity
from enclap_hf.commands.terminal_text import escape_controls

RATE = 24_000


@pytest.fixture(scope="module")
def captioner(repository):
    loaded = pipeline("audio-captioning", model=repository, device="cpu")
    loaded.processor.codec, loaded.processor.clap  # noqa: B018 - loaded now, their progress bars are not the command's
    return loaded


@pytest.fixture(autouse=True)
def load_once(monkeypatch, captioner):
    """The command loads its model anew each time; these tests give it one that is loaded."""
    monkeypatch.setattr(caption_command, "find_model", lambda args, **options: ModelIdentity(args.model or "default"))
    monkeypatch.setattr(caption_command, "load_pipeline", lambda args, model: captioner)


@pytest.fixture
def recordings(tmp_path) -> str:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for i, duration_s in enumerate((0.4, 0.9, 0.6)):
        soundfile.write(folder / f"clip{i}.wav", make_clip(duration_s, i), RATE, subtype="FLOAT")
    return str(folder)


def caption_of(captioner, path: str) -> str:
    return captioner(path)["text"]


def line_of(captioner, path: str, **options) -> str:
    """What is printed for a recording; the tests' model says control characters, too."""
    return f"{path}\t{escape_controls(captioner(path, **options)['text'])}"


def run(capsys, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit status, lines on the terminal, lines on the error stream."""
    try:
        status = main(["caption", "--model", "given", *arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return status, captured.out.split("\n")[:-1], captured.err.split("\n")[:-1]


def read_rows(path) -> list[dict]:
    if str(path).endswith(".csv"):
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]]


def names_in(path) -> list[str]:
    """Base names of the recordings, in the order of the rows."""
    return [os.path.basename(row["file_name"]) for row in read_rows(path)]


def assert_same_rows(rows: list[dict], expected: list[dict]) -> None:
    """The same rows in the same order; scores are sums whose order depends on the batch."""
    scores = [[float(row.get("score") or 0) for row in some] for some in (rows, expected)]
    texts = [[{**row, "score": None} for row in some] for some in (rows, expected)]
    assert texts[0] == texts[1] and scores[0] == pytest.approx(scores[1], abs=1e-4)
