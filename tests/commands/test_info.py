"""`enclap info` tells what a model is from its files, here and on the Hub; `enclap completion` serves three shells."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

from conftest import build_model, build_processor
from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.cli import main
from enclap_hf.commands import completion
from enclap_hf.hub.export import push_repository
from enclap_hf.model.repository import save_repository


def info(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["info", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("complete"))
    save_repository(build_model(), build_processor(), folder)
    return folder


def test_the_numbers_are_those_of_the_loaded_model(capsys, folder):
    status, out, err = info(capsys, folder, "--json")
    told = json.loads(out)
    model, processor = EnClapForConditionalGeneration.from_pretrained(folder), EnClapProcessor.from_pretrained(folder)
    assert (status, err) == (0, "")
    assert told["captioner"]["num_parameters"] == sum(tensor.numel() for tensor in model.parameters())
    assert told["encoders"]["clap"]["num_parameters"] == sum(
        tensor.numel() for tensor in processor.clap.state_dict().values()
    )
    codec = told["encoders"]["codec"]
    assert (codec["num_codebooks"], codec["codebook_size"], codec["family"]) == (4, 32, "encodec")
    assert codec["frames_per_s"] == processor.frame_encoder.frame_rate
    assert told["window_s"] == pytest.approx(253 * 320 / 24_000, abs=1e-3)
    files = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    assert (told["num_files"], told["num_bytes"]) == (len(files), sum(map(os.path.getsize, files)))


def test_the_bundled_model_has_its_licence_and_scores(capsys):
    status, out, _ = info(capsys)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith(" "))
    assert status == 0 and lines["model"] == DEFAULT_MODEL and lines["licence"] == "apache-2.0"
    assert "8 codebooks of 256" in lines["frames"] and lines["window"].startswith("20.36 s")
    assert "synthesised sound scenes" in lines["scores"] and "CIDEr-D" in lines["scores"]


def test_a_repository_on_the_hub_has_the_same_numbers(hub, folder, capsys, monkeypatch):
    push_repository(folder, "lab/captioner")
    here, there = (json.loads(info(capsys, place, "--json")[1]) for place in (folder, "lab/captioner"))
    for same in ("captioner", "encoders", "window_s"):
        assert here[same] == there[same]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    status, _, err = info(capsys, "lab/other")
    assert status == 2 and "is not in the cache" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{folder}/config.json", "is a file; pass the folder that holds it"),
        ("{folder}/codec", "holds a model of type 'encodec'; pass a folder or repository of an EnCLAP captioner"),
        ("{folder}/nowhere/at/all", "There is no folder "),
        ("lab/nowhere", "the Hub has no lab/nowhere, or it is private"),
    ],
)
def test_what_is_no_captioner_is_said_in_one_line(hub, folder, capsys, name, said):
    status, out, err = info(capsys, name.format(folder=folder))
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("enclap info: ") and said in err


def test_a_damaged_file_is_said_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "enclap"}')
    (tmp_path / "model.safetensors").write_bytes(b"short")
    status, _, err = info(capsys, str(tmp_path))
    assert status == 2 and err.count("\n") == 1 and "model.safetensors: it is cut off" in err


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_gets_code_that_names_the_command(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "enclap" in capsys.readouterr().out


def test_the_shell_is_told_commands_and_options_and_no_large_library_is_loaded(tmp_path):
    """As the code for bash asks: the line, the cursor, and an answer on file descriptor 8."""
    code = "import sys; from enclap_hf.cli import main\ntry: main([])\nfinally: print(*sys.modules, file=sys.stderr)"
    for line, expected in (("enclap ca", "caption"), ("enclap convert --publ", "--published")):
        environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
        answer = tmp_path / "answer"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)},
            capture_output=True,
            text=True,
        )
        assert expected in answer.read_text().split(), done.stderr
        assert "torch" not in done.stderr.split()


def test_completion_without_its_library_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 2
    assert 'pip install "enclap-hf[completion]"' in capsys.readouterr().err
