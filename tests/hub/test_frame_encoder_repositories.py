"""Repositories of other frame encoders load from the Hub with the package, and without it through their own code."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from transformers import pipeline

import enclap_hf
from conftest import make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.cli import main
from enclap_hf.hub.export import find_missing_parts, push_repository
from enclap_hf.model import frame_encoder_families
from enclap_hf.model.repository import save_repository
from frame_encoder_models import build_captioner_for, build_frame_encoder, build_frame_processor
from toy_frame_encoder import ScaledFrames

WEIGHTS = {"config.json", "model.safetensors"}
# Of each encoder, the files of the parts that its repository has, with CLAP's vector and without.
PARTS = {
    "encodec_48": ({"codec": WEIGHTS, "clap": WEIGHTS}, {"codec": WEIGHTS}),
    "dac_44": ({"codec": WEIGHTS, "clap": WEIGHTS}, {"codec": WEIGHTS}),
    "mimi": ({"codec": WEIGHTS, "clap": WEIGHTS}, {"codec": WEIGHTS}),
    "xcodec": ({"codec": WEIGHTS, "clap": WEIGHTS}, {"codec": WEIGHTS}),
    "encodec_latents": ({"codec": WEIGHTS, "clap": WEIGHTS}, {"codec": WEIGHTS}),
    "log_mel": ({"codec": {"config.json"}, "clap": WEIGHTS}, {"codec": {"config.json"}}),
    "clap_frames": ({"clap": WEIGHTS}, {"clap": WEIGHTS}),
}


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("clip") / "clip.wav")
    soundfile.write(path, make_clip(0.8), 24_000, subtype="FLOAT")
    return path


def find_part_files(files) -> dict[str, set[str]]:
    """Files in sub-folders, by folder."""
    parts = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        if folder:
            parts.setdefault(folder, set()).add(name)
    return parts


@pytest.mark.parametrize("with_clap", [True, False], ids=["clap", "none"])
@pytest.mark.parametrize("name", PARTS)
def test_what_is_pushed_captions_from_the_hub(hub, clip_path, tmp_path, name, with_clap):
    processor = build_frame_processor(build_frame_encoder(name), with_clap)
    model = build_captioner_for(processor)
    expected = processor.batch_decode(model.generate(**processor(audio=clip_path)))[0]
    model.push_to_hub("me/captioner", processor=processor)
    assert find_part_files(hub.files("me/captioner")) == PARTS[name][0 if with_clap else 1]
    loaded = EnClapProcessor.from_pretrained("me/captioner")
    assert type(loaded.frame_encoder) is type(processor.frame_encoder)
    captioner = pipeline("audio-captioning", model="me/captioner", device="cpu")
    assert type(captioner.model) is EnClapForConditionalGeneration
    assert captioner(clip_path)["text"] == expected

    save_repository(captioner.model, captioner.processor, str(tmp_path / "folder"))
    assert find_missing_parts(str(tmp_path / "folder")) == []
    push_repository(str(tmp_path / "folder"), "me/again")
    again = pipeline("audio-captioning", model="me/again", device="cpu")
    assert again(clip_path)["text"] == expected


@pytest.mark.parametrize(
    ("name", "removed", "said"),
    [
        ("log_mel", "codec/config.json", "codec/ (config.json)"),
        ("log_mel", "clap/model.safetensors", "clap/ (config.json, model.safetensors)"),
        ("clap_frames", "clap/model.safetensors", "clap/ (config.json, model.safetensors)"),
        ("dac_44", "codec/model.safetensors", "codec/ (config.json, model.safetensors)"),
    ],
)
def test_a_missing_part_is_named(tmp_path, name, removed, said):
    processor = build_frame_processor(build_frame_encoder(name))
    save_repository(build_captioner_for(processor), processor, str(tmp_path))
    (tmp_path / removed).unlink()
    assert find_missing_parts(str(tmp_path)) == [said]


def test_an_encoder_of_another_package_is_pushed_with_its_own_files(hub, clip_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frame_encoder_families, "FRAME_ENCODERS", dict(frame_encoder_families.FRAME_ENCODERS))
    enclap_hf.register_frame_encoder("toy_scaled", ScaledFrames)
    processor = build_frame_processor(ScaledFrames(np.linspace(0.5, 1.2, 8)))
    model = build_captioner_for(processor)
    expected = processor.batch_decode(model.generate(**processor(audio=clip_path)))[0]
    save_repository(model, processor, str(tmp_path / "folder"))
    assert os.listdir(tmp_path / "folder" / "codec") == ["scales.npy"]
    assert main(["push", str(tmp_path / "folder"), "me/captioner"]) == 0
    assert find_part_files(hub.files("me/captioner")) == {"codec": {"scales.npy"}, "clap": WEIGHTS}
    capsys.readouterr()
    for place in ("me/captioner", str(tmp_path / "folder")):
        assert pipeline("audio-captioning", model=place, device="cpu")(clip_path)["text"] == expected
        assert main(["caption", clip_path, "--model", place]) == 0
        assert capsys.readouterr().out.startswith(f"{clip_path}\t")  # control characters are escaped
    (tmp_path / "folder" / "codec" / "scales.npy").unlink()
    assert find_missing_parts(str(tmp_path / "folder")) == ["codec/ (its files)"]


# The package is made impossible to import, wherever it may be installed.
STRANGER = """
import sys
sys.modules["enclap_hf"] = None
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline
repository, clip = sys.argv[1:]
trusted = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(repository, **trusted)
model = AutoModelForSeq2SeqLM.from_pretrained(repository, **trusted)
assert type(model).__module__.startswith("transformers_modules.")
print("encoder:", type(processor.frame_encoder).__name__)
print("caption:", ascii(processor.batch_decode(model.generate(**processor(audio=clip)))[0]))
captioner = pipeline("audio-captioning", model=repository, **trusted)
print("caption:", ascii(captioner(clip)["text"]))
assert "enclap_hf" not in [name for name, module in sys.modules.items() if module is not None]
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dac_44", "clap_frames"])
def test_without_the_package_it_captions_equally_from_the_hub(hub, clip_path, tmp_path, name):
    processor = build_frame_processor(build_frame_encoder(name))
    model = build_captioner_for(processor)
    expected = processor.batch_decode(model.generate(**processor(audio=clip_path)))[0]
    model.push_to_hub("me/captioner", processor=processor)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_writer"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, "me/captioner", clip_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**kept, "HF_HOME": str(tmp_path / "stranger"), "HF_ENDPOINT": hub.endpoint, **online},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    family = type(processor.frame_encoder).__name__
    assert done.stdout == f"encoder: {family}\n" + 2 * f"caption: {ascii(expected)}\n"
