"""`enclap convert` as a user types it: there and back, wrong usage, wrong files, upload."""

import os
from pathlib import Path

import pytest
from transformers import pipeline

from conftest import make_clip
from enclap_hf.cli import main
from enclap_hf.conversion.convert_original_checkpoints import convert_checkpoints
from original_formats import save_original_sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    return save_original_sources(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def converted(sources, tmp_path_factory) -> str:
    output = str(tmp_path_factory.mktemp("converted") / "enclap-tiny")
    convert_checkpoints(output=output, **sources)
    return output


def test_the_command_converts_there_and_back(sources, tmp_path, capsys):
    arguments = [text for name, value in sources.items() for text in (f"--{name}", value)]
    output = str(tmp_path / "out")
    assert main(["convert", *arguments, "--output", output]) == 0
    said = capsys.readouterr()
    assert said.out == "" and f"Wrote {output}." in said.err and "Reading CLAP" in said.err
    assert main(["convert", *arguments, "--output", output]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(["convert", "--to-original", output, "--output", str(tmp_path / "back")]) == 0
    assert sorted(os.listdir(tmp_path / "back")) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enclap", "x"], "--enclap needs --clap"),
        ([], "nothing to do"),
        (["--verify", "a.wav"], "is no folder"),
        (["--to-original", "x", "--verify", "a.wav"], "--to-original takes"),
        (["--to-original", "nowhere"], "nowhere cannot be loaded"),
    ],
)
def test_wrong_usage_is_said_in_one_line(tmp_path, capsys, arguments, message):
    assert main(["convert", *arguments, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and said[-1].startswith("enclap convert: ")
    assert os.listdir(tmp_path) == []


def test_a_converted_folder_is_pushed_and_loads_from_the_hub(converted, hub, capsys):
    arguments = ["convert", "--output", converted, "--push-to-hub"]
    assert main([*arguments, "lab/tiny", "--private"]) == 0
    commit = hub.repositories["lab/tiny"].branches["main"]
    assert capsys.readouterr().err.endswith(f"Uploaded: {hub.endpoint}/lab/tiny/commit/{commit}\n")
    assert hub.repositories["lab/tiny"].private
    folder = Path(converted)
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files = hub.files("lab/tiny")
    assert kept.items() <= files.items() and set(files) - set(kept) <= {"README.md", ".gitattributes"}
    captions = [
        pipeline("audio-captioning", model=place, device="cpu")(make_clip(0.7), sampling_rate=24_000)
        for place in (converted, "lab/tiny")
    ]
    assert captions[0] == captions[1]
    assert main([*arguments, "other/tiny"]) == 2
    assert "enclap convert: The Hub does not let this token write to other/tiny" in capsys.readouterr().err
