"""`enclap caption --model` and `--device`: what cannot be loaded is said in one line that tells what to do."""

import shutil
from pathlib import Path

import pytest
import soundfile
import torch

from conftest import build_clap, build_codec, build_model, build_processor, make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.cli import main

PUBLISHED = str(Path(__file__).parents[1] / "published_tiny/ckpt")


@pytest.fixture
def recording(tmp_path) -> str:
    soundfile.write(tmp_path / "clip.wav", make_clip(0.4), 24_000)
    return str(tmp_path / "clip.wav")


def refuse(capsys, recording: str, *arguments: str) -> str:
    """The one line that is said."""
    capsys.readouterr()
    assert main(["caption", recording, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and captured.err.startswith("enclap: ")
    return captured.err


@pytest.mark.parametrize("name", ["/nonexist/x", "./runs", "runs/clotho/checkpoint-3", "../x", "owner/name/"])
def test_a_path_without_a_folder_is_no_name_of_the_hub(capsys, recording, name):
    said = refuse(capsys, recording, "--model", name)
    assert name in said and "no such folder" in said and "OWNER/NAME" in said


def test_a_file_is_no_model(capsys, recording):
    assert "is a file" in refuse(capsys, recording, "--model", recording)


def test_a_tilde_that_the_shell_left_is_the_home_folder(capsys, recording, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/mine" in refuse(capsys, recording, "--model", "~/mine")


def test_a_published_checkpoint_wants_converting(capsys, recording):
    """It used to end in transformers' TypeError about a processor."""
    said = refuse(capsys, recording, "--model", PUBLISHED)
    assert PUBLISHED in said and "published checkpoint" in said and "enclap convert" in said


def test_another_kind_of_model_is_named(capsys, recording, tmp_path):
    build_codec().save_pretrained(tmp_path / "codec")
    said = refuse(capsys, recording, "--model", str(tmp_path / "codec"))
    assert "encodec" in said and "expected enclap" in said


def test_missing_parts_are_named_as_this_package_writes_them(capsys, recording, repository, tmp_path):
    """It used to miss a preprocessor_config.json, which the package never writes."""
    model_alone = str(tmp_path / "model")
    build_model().save_pretrained(model_alone)
    said = refuse(capsys, recording, "--model", model_alone)
    assert model_alone in said and "processor_config.json" in said and "preprocessor" not in said
    assert "save_pretrained" in said and "the model (" not in said
    (tmp_path / "nothing").mkdir()
    assert "the model (config.json, model.safetensors)" in refuse(
        capsys, recording, "--model", str(tmp_path / "nothing")
    )
    without_codec = str(tmp_path / "without_codec")
    shutil.copytree(repository, without_codec)
    shutil.rmtree(without_codec + "/codec")
    said = refuse(capsys, recording, "--model", without_codec)
    assert "codec/ (config.json, model.safetensors)" in said and "clap/" not in said


def test_encoders_may_be_elsewhere_on_this_machine(capsys, recording, repository, tmp_path):
    encoders, checkpoint = str(tmp_path / "encoders"), str(tmp_path / "checkpoint-3")
    shutil.copytree(repository, encoders)
    shutil.copytree(repository, checkpoint)
    for name in ("codec", "clap"):
        shutil.rmtree(f"{checkpoint}/{name}")
    EnClapProcessor.from_pretrained(encoders).save_pretrained(checkpoint)
    assert main(["caption", recording, "--model", checkpoint, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{recording}\t")
    shutil.rmtree(encoders)
    said = refuse(capsys, recording, "--model", checkpoint)
    assert f"{encoders}/codec" in said and "does not exist" in said


def test_a_model_of_the_hub_is_checked_alike(capsys, recording, hub):
    assert "could not be loaded from the Hub" in refuse(capsys, recording, "--model", "lab/missing")
    build_clap().push_to_hub("lab/clap")
    assert "expected enclap" in refuse(capsys, recording, "--model", "lab/clap")
    build_model().push_to_hub("lab/model_alone")
    said = refuse(capsys, recording, "--model", "lab/model_alone")
    assert "processor_config.json" in said and "preprocessor" not in said
    model = build_model()
    model.generation_config.max_length = 12
    model.push_to_hub("lab/whole", processor=build_processor())
    capsys.readouterr()
    assert main(["caption", recording, "--model", "lab/whole", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{recording}\t")


@pytest.mark.parametrize("device", ["foo", "0", "cuda:99", "cuda:9x", "meta", "hpu"])
def test_a_device_that_is_not_there_lists_those_that_are(capsys, recording, repository, device):
    said = refuse(capsys, recording, "--model", repository, "--device", device)
    assert f"--device {device};" in said and "cpu" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_on_a_torch_without_it_says_so(capsys, recording, repository):
    """It used to end in forty lines of traceback."""
    said = refuse(capsys, recording, "--model", repository, "--device", "cuda")
    assert "--device cuda; the devices here are cpu" in said
    assert ("built without CUDA" in said) == (torch.version.cuda is None)


def test_listed_devices_are_accepted(capsys, recording, repository, monkeypatch):
    from enclap_hf.commands import captioner_loading

    monkeypatch.setattr(captioner_loading, "list_devices", lambda: ["cpu", "cuda:0", "cuda:1"])
    for device in ("cpu", "cpu:0", "cuda", "cuda:1"):
        captioner_loading.check_device(device)
    with pytest.raises(ValueError, match="cpu, cuda:0, cuda:1"):
        captioner_loading.check_device("cuda:2")
