"""What was loaded from a repository without the package is saved and pushed as completely as what the package made."""

import os
import subprocess
import sys

import pytest
import soundfile
from transformers import pipeline

from conftest import SAMPLING_RATE, build_model, build_processor, make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.repository import list_code_files

MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors"}
PROCESSOR_FILES = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
ENCODER_FILES = {f"{name}/{file}" for name in ("codec", "clap") for file in ("config.json", "model.safetensors")}
CODE_FILES = {*list_code_files(), "requirements.txt"}
SHARED_FILES = {*CODE_FILES, "README.md", ".gitattributes"}

# The package is made impossible to import, wherever it may be installed.
STRANGER = """
import sys
sys.modules["enclap_hf"] = None
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline
clip, place = sys.argv[1:]
trusted = {"trust_remote_code": True}
model = AutoModelForSeq2SeqLM.from_pretrained(place, **trusted)
processor = AutoProcessor.from_pretrained(place, **trusted)
captioner = pipeline("audio-captioning", model=place, **trusted)
assert type(model).__module__.startswith("transformers_modules.")
model.push_to_hub("me/together", processor=processor)
model.push_to_hub("me/in-turn")
processor.push_to_hub("me/in-turn")
captioner.push_to_hub("me/of-pipeline")
processor.push_to_hub("me/processor")
model.save_pretrained("saved")
processor.save_pretrained("saved")
processor.save_pretrained("checkpoint-5")
captioner.save_pretrained("of-pipeline")
print(ascii(captioner(clip)["text"]))
for place in ("me/together", "me/in-turn", "me/of-pipeline", "saved", "of-pipeline"):
    print(ascii(pipeline("audio-captioning", model=place, **trusted)(clip)["text"]))
assert "enclap_hf" not in [name for name, module in sys.modules.items() if module is not None]
"""


@pytest.fixture
def clip_path(tmp_path) -> str:
    path = str(tmp_path / "clip.wav")
    soundfile.write(path, make_clip(0.8), SAMPLING_RATE, subtype="FLOAT")
    return path


def list_files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("source", ["hub", "folder"])
def test_everything_goes_on_without_the_package(hub, tmp_path, clip_path, source):
    """The model dropped its processor, a pipeline its handler, and the processor its encoders."""
    model, processor = build_model(), build_processor()
    model.generation_config.max_length = 14
    model.push_to_hub("lab/source", processor=processor)
    place = "lab/source"
    if source == "folder":
        place = str(tmp_path / "source-of-all")
        model.save_pretrained(place)
        processor.save_pretrained(place)
    expected = processor.batch_decode(model.generate(**processor(audio=clip_path)))[0]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_writer"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, clip_path, place],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**kept, **online, "HF_HOME": str(tmp_path / "stranger")},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [ascii(expected)] * 6

    whole = MODEL_FILES | PROCESSOR_FILES | ENCODER_FILES | SHARED_FILES
    for repository in ("me/together", "me/in-turn", "me/of-pipeline"):
        assert set(hub.files(repository)) == whole, repository
        assert not any(str(tmp_path).encode() in content for content in hub.files(repository).values())
    assert set(hub.files("me/processor")) == PROCESSOR_FILES | ENCODER_FILES | SHARED_FILES
    for folder in ("saved", "of-pipeline"):
        assert list_files(tmp_path / folder) == MODEL_FILES | PROCESSOR_FILES | ENCODER_FILES | CODE_FILES
    assert not {"codec", "clap", *CODE_FILES} & set(os.listdir(tmp_path / "checkpoint-5"))
    # With the package, they load as its own.
    assert pipeline("audio-captioning", model="me/together", device="cpu")(clip_path)["text"] == expected
    assert type(EnClapForConditionalGeneration.from_pretrained(str(tmp_path / "saved"))).__module__.startswith(
        "enclap_hf"
    )
    assert (
        EnClapProcessor.from_pretrained(str(tmp_path / "checkpoint-5"))(audio=clip_path)["audio_codes"].shape[1] == 60
    )
