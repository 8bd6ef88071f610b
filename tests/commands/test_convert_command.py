"""`enclap convert` as a user types it: there and back, wrong usage, wrong files, upload."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from transformers import EncodecConfig, EncodecModel, pipeline

from conftest import make_clip
from enclap_hf.cli import main
from enclap_hf.conversion.convert_published import convert_checkpoints
from original_formats import PUBLISHED, save_original_sources


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
    assert main(["convert", "--to-published", output, "--output", str(tmp_path / "back")]) == 0
    assert sorted(os.listdir(tmp_path / "back")) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enclap", "x"], "x is not a folder; expected one with config.json"),
        (["--published", "both-large"], "both-large is not on the Hub; its authors keep it in the Google Drive folder"),
        ([], "nothing to do"),
        (["--verify", "a.wav"], "is not a folder"),
        (["--to-published", "x", "--verify", "a.wav"], "--to-published takes"),
        (["--to-published", "x", "--push-to-hub", "owner/name"], "--to-published takes"),
        (["--enclap", "x", "--clap", "laion/clap-htsat-fused", "--verify", "a.wav"], "reads LAION-CLAP's .pt file"),
        (["--to-published", "nowhere"], "nowhere cannot be loaded"),
    ],
)
def test_wrong_usage_is_said_in_one_line(tmp_path, capsys, arguments, message):
    assert main(["convert", *arguments, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and said[-1].startswith("enclap convert: ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options", [["--enclap", "x", "--clap", "y"], ["--to-published", "x"]])
@pytest.mark.parametrize("place", ["/proc/out", "n" * 300, "file/out"])
def test_an_output_that_cannot_be_made_is_said_before_anything_is_read(tmp_path, capsys, options, place):
    (tmp_path / "file").touch()
    assert main(["convert", *options, "--output", str(tmp_path / place)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Reading" not in said
    assert "cannot be written" in said or "does not exist" in said
    assert os.listdir(tmp_path) == ["file"]


def stop(*arguments, **options):
    raise KeyboardInterrupt


def test_ctrl_c_tells_the_truth_about_what_is_written(sources, converted, tmp_path, capsys, monkeypatch):
    """It said that what was written is kept, and nothing was."""
    from enclap_hf.commands import convert
    from enclap_hf.conversion import convert_published

    arguments = [text for name, value in sources.items() for text in (f"--{name}", value)]
    output = str(tmp_path / "out")

    def interrupt(target, name, *words: str) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patched:
            patched.setattr(target, name, stop)
            assert main(["convert", *words]) == 130
        return capsys.readouterr().err.splitlines()[-1]

    said = interrupt(convert_published, "write_card", *arguments, "--output", output)
    assert said == "enclap: interrupted; nothing was written." and os.listdir(tmp_path) == []
    said = interrupt(convert, "push_folder", *arguments, "--output", output, "--push-to-hub", "me/x")
    assert said == f"enclap: interrupted; {output} is complete, but it was not uploaded to me/x."
    assert {"config.json", "model.safetensors", "codec", "clap"} <= set(os.listdir(output))
    before = {path: path.read_bytes() for path in Path(output).rglob("*") if path.is_file()}
    said = interrupt(convert_published, "write_card", *arguments, "--output", output, "--overwrite")
    assert said == "enclap: interrupted; nothing was written."
    assert {path: path.read_bytes() for path in Path(output).rglob("*") if path.is_file()} == before
    said = interrupt(convert, "push_folder", "--output", converted, "--push-to-hub", "me/x")
    assert said == f"enclap: interrupted; {converted} is as it was, and was not uploaded."
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_full_disk_or_memory_is_one_line_and_leaves_nothing(sources, tmp_path, capsys, monkeypatch, error):
    from enclap_hf.conversion import convert_published

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(convert_published, "save_repository", fail)
    arguments = [text for name, value in sources.items() for text in (f"--{name}", value)]
    assert main(["convert", *arguments, "--output", str(tmp_path / "out"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith(". Nothing was written.\n") and os.listdir(tmp_path) == []
    assert "No space left on device" in said or "memory is full" in said


def test_recordings_to_compare_are_found_before_anything_is_converted(sources, tmp_path, capsys, monkeypatch):
    from enclap_hf.conversion import original_packages

    monkeypatch.setattr(original_packages, "import_packages", lambda: None)
    (tmp_path / "empty").mkdir()
    arguments = [text for name, value in sources.items() for text in (f"--{name}", value)]
    assert main(["convert", *arguments, "--output", str(tmp_path / "out"), "--verify", str(tmp_path / "empty")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "holds no audio file" in said and os.listdir(tmp_path) == ["empty"]


def save_models_of_other_kinds(folder) -> None:
    """What a user may take for the sources: a text, folders without and with another model, a 48 kHz codec."""
    (folder / "notes.txt").write_text("not a checkpoint")
    (folder / "empty").mkdir()
    (folder / "half").mkdir()
    shutil.copy(PUBLISHED / "tokenizer/vocab.json", folder / "half")
    stereo = EncodecConfig(num_filters=4, hidden_size=16, codebook_size=64, audio_channels=2, sampling_rate=48_000)
    EncodecModel(stereo).save_pretrained(folder / "stereo")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--clap", "{encodec}", "encodec.th is not a LAION-CLAP checkpoint: none of its tensors is in `audio_branch.`"),
        ("--encodec", "{clap}", "clap.pt is not an EnCodec checkpoint: none of its tensors is in `quantizer.vq.`"),
        ("--clap", "{enclap}", "holds a model of type 'bart'; expected one of type 'clap'"),
        ("--encodec", "{folder}/stereo", "EnCodec's sampling rate: 48000, but the captioner reads 24000"),
        ("--encodec", "{folder}/empty", "empty holds no config.json; expected one of type 'encodec'"),
        (
            "--encodec",
            "default",
            "--encodec: hf://facebook/encodec_24khz@c1dbe2ae3f1de713481a3b3e7c47f357092ee040 is not in",
        ),
        ("--clap", "{folder}/notes.txt", "notes.txt is damaged, or not a checkpoint"),
        ("--enclap", "{tokenizer}", "has no pytorch_model.bin; expected the published folder"),
        ("--enclap", "{clap}", "clap.pt is not a folder; expected one with config.json and pytorch_model.bin"),
        ("--tokenizer", "{folder}/empty", "holds no tokenizer (tokenizer.json or vocab.json and merges.txt)"),
        ("--tokenizer", "{folder}/half", "holds no tokenizer"),
        (
            "--tokenizer",
            "facebook/bart-large",
            "--tokenizer: there is no file or folder facebook/bart-large here. On the",
        ),
    ],
)
def test_a_wrong_source_is_said_in_one_line_and_leaves_nothing(sources, tmp_path, capsys, option, value, message):
    save_models_of_other_kinds(tmp_path)
    changed = {**sources, option.removeprefix("--"): value.format(folder=tmp_path, **sources)}
    (tmp_path / "work").mkdir()
    arguments = [text for name, path in changed.items() for text in (f"--{name}", path)]
    assert main(["convert", *arguments, "--output", str(tmp_path / "work/out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("enclap convert: ") and message in said[-1]
    assert os.listdir(tmp_path / "work") == []


def test_the_help_shows_examples_and_every_option_of_them(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "--help"])
    help_text = capsys.readouterr().out
    options, examples = help_text.split("examples:")
    assert stopped.value.code == 0 and examples.count("enclap convert") >= 5
    assert set(re.findall(r"--[a-z-]+", examples)) <= set(re.findall(r"--[a-z-]+", options))


def test_verifying_without_the_packages_is_refused_before_any_work(sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "encodec", None)
    arguments = [text for name, value in sources.items() for text in (f"--{name}", value)]
    assert main(["convert", *arguments, "--output", str(tmp_path / "out"), "--verify", "a.wav"]) == 2
    said = capsys.readouterr().err
    assert "`encodec` cannot be imported" in said and "Reading" not in said
    assert os.listdir(tmp_path) == []


def test_the_card_that_is_uploaded_loads_by_the_repositorys_name(converted, hub):
    before = Path(converted, "README.md").read_text()
    assert 'model="enclap-tiny"' in before
    assert main(["convert", "--output", converted, "--push-to-hub", "lab/converted"]) == 0
    files = hub.files("lab/converted")
    assert b'model="lab/converted"' in files["README.md"] and b"enclap-tiny" not in files["README.md"]
    assert json.loads(files["model_card.json"])["load_from"] == '"lab/converted"'
    assert Path(converted, "README.md").read_text() == before


def test_a_folder_in_the_published_format_is_not_written_in_it_again(sources, tmp_path, capsys):
    assert main(["convert", "--to-published", sources["enclap"], "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("enclap convert")]
    assert f"--to-published {sources['enclap']} is in the published format already; pass a folder that" in line
    assert os.listdir(tmp_path) == []


def test_a_converted_folder_is_pushed_and_loads_from_the_hub(converted, hub, capsys):
    arguments = ["convert", "--output", converted, "--push-to-hub"]
    assert main([*arguments, "lab/tiny", "--private"]) == 0
    commit = hub.repositories["lab/tiny"].branches["main"]
    assert capsys.readouterr().err.endswith(f"Uploaded: {hub.endpoint}/lab/tiny/commit/{commit}\n")
    assert hub.repositories["lab/tiny"].private
    folder = Path(converted)
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del kept["README.md"], kept["model_card.json"]  # they name the repository
    files = hub.files("lab/tiny")
    assert kept.items() <= files.items() and set(files) - set(kept) <= {
        "README.md",
        "model_card.json",
        ".gitattributes",
    }
    captions = [
        pipeline("audio-captioning", model=place, device="cpu")(make_clip(0.7), sampling_rate=24_000)
        for place in (converted, "lab/tiny")
    ]
    assert captions[0] == captions[1]
    assert main([*arguments, "other/tiny"]) == 2
    assert "enclap convert: The Hub does not let this token write to other/tiny" in capsys.readouterr().err
