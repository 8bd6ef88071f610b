"""An exported repository loads with the package, and without it through its own code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from transformers import pipeline

from conftest import build_model, build_processor, make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.repository import add_remote_code, list_code_files, save_repository

RATE = 24_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 14
    save_repository(model, build_processor(), folder)
    return folder


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("clip") / "clip.wav")
    soundfile.write(path, make_clip(0.8), RATE, subtype="FLOAT")
    return path


def test_a_repository_holds_model_processor_encoders_and_code(repository):
    files = set(os.listdir(repository))
    assert {"config.json", "generation_config.json", "model.safetensors", "processor_config.json"} <= files
    assert {"tokenizer.json", "requirements.txt", *list_code_files()} <= files
    for name in ("codec", "clap"):
        assert {"config.json", "model.safetensors"} <= set(os.listdir(os.path.join(repository, name)))
    config = json.loads(Path(repository, "config.json").read_text())
    assert config["model_type"] == "enclap"
    for entry in config["auto_map"].values():
        module, name = entry.split(".")
        assert f"class {name}(" in Path(repository, f"{module}.py").read_text()


def test_with_the_package_its_own_classes_load_and_nobody_is_asked_for_trust(repository, clip_path):
    captioner = pipeline("audio-captioning", model=repository, device="cpu")
    assert type(captioner.model) is EnClapForConditionalGeneration
    assert type(captioner.processor) is EnClapProcessor
    assert captioner(clip_path)["text"]


def test_saving_a_loaded_repository_again_keeps_it_complete(repository, clip_path, tmp_path):
    expected = pipeline("audio-captioning", model=repository, device="cpu")(clip_path)
    model = EnClapForConditionalGeneration.from_pretrained(repository)
    save_repository(model, EnClapProcessor.from_pretrained(repository), str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(name for name in os.listdir(repository) if name != "__pycache__")
    assert pipeline("audio-captioning", model=str(tmp_path), device="cpu")(clip_path) == expected


def test_adding_the_code_twice_changes_nothing(repository):
    def read():
        return {path.name: path.read_bytes() for path in Path(repository).iterdir() if path.is_file()}

    before = read()
    add_remote_code(repository)
    assert read() == before


# The package is made impossible to import, wherever it may be installed.
STRANGER = """
import sys
sys.modules["enclap_hf"] = None
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor
from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
from transformers import pipeline
repository, clip = sys.argv[1:]
trusted = {"trust_remote_code": True}
try:
    AutoConfig.from_pretrained(repository, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error), error
else:
    raise AssertionError("code of the repository ran unasked")
processor = AutoProcessor.from_pretrained(repository, **trusted)
assert type(AutoFeatureExtractor.from_pretrained(repository, **trusted)).__name__ == "EnClapFeatureExtractor"
inputs = processor(audio=clip)
for auto in (AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq):
    model = auto.from_pretrained(repository, **trusted)
    assert type(model).__module__.startswith("transformers_modules.")
    print("caption:", ascii(processor.batch_decode(model.generate(**inputs))[0]))
captioner = pipeline("audio-captioning", model=repository, **trusted)
print("caption:", ascii(captioner(clip)["text"]))
assert "enclap_hf" not in [name for name, module in sys.modules.items() if module is not None]
"""


@pytest.mark.slow
def test_without_the_package_the_repositorys_own_code_gives_the_same_caption(repository, clip_path, tmp_path):
    expected = pipeline("audio-captioning", model=repository, device="cpu")(clip_path)["text"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, repository, clip_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    captions = [line.removeprefix("caption: ") for line in done.stdout.splitlines() if line.startswith("caption: ")]
    assert captions == [ascii(expected)] * 3
