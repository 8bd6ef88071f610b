"""The model inside the package: it captions, and its card says what was measured."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.sound_scenes import make_scene, parse_caption

ROOT = Path(__file__).parents[2]
FOLDER = Path(DEFAULT_MODEL)
# What each example recording was made of, see examples/make_example_sounds.py.
EXAMPLE_KINDS = {
    "dog_then_telephone.flac": {"dog", "telephone"},
    "rain_and_piano.ogg": {"piano", "rain"},
    "knocking.mp3": {"knocking"},
    "siren_over_engine.wav": {"siren", "engine"},
    "owl_then_thunder.opus": {"owl", "thunder"},
}


@pytest.fixture(scope="module")
def caption():
    from transformers import pipeline

    return pipeline("audio-captioning", model=DEFAULT_MODEL)


def test_the_repository_is_self_contained_and_small():
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size <= 15e6
    names = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*")}
    assert {"model.safetensors", "codec/model.safetensors", "clap/model.safetensors", "tokenizer.json"} <= names


def test_weights_are_small_on_disk_and_compute_in_float32():
    processor = EnClapProcessor.from_pretrained(DEFAULT_MODEL)
    for model in (EnClapForConditionalGeneration.from_pretrained(DEFAULT_MODEL), processor.codec, processor.clap):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert processor.codec.decoder is None


def test_the_example_recordings_are_named_in_every_format(caption):
    paths = sorted((ROOT / "examples/sounds").iterdir())
    assert {path.name for path in paths} == EXAMPLE_KINDS.keys()
    for path, result in zip(paths, caption([str(path) for path in paths], batch_size=2), strict=True):
        named = set(parse_caption(result["text"]).kinds)
        assert named == EXAMPLE_KINDS[path.name], (path.name, result["text"])


def test_unseen_scenes_of_one_event_are_named(caption):
    scenes = [make_scene(seed, num_events=1) for seed in range(600_000, 600_040)]
    clips = [{"array": scene.audio, "sampling_rate": scene.sampling_rate} for scene in scenes]
    results = caption(clips, batch_size=8, num_beams=1)
    right = sum(
        parse_caption(result["text"]).kinds == (scene.events[0].kind,)
        for scene, result in zip(scenes, results, strict=True)
    )
    assert right >= 36


def test_a_saved_copy_captions_alike(caption, tmp_path):
    from transformers import pipeline

    clip = str(ROOT / "examples/sounds/dog_then_telephone.flac")
    caption.save_pretrained(str(tmp_path))
    assert pipeline("audio-captioning", model=str(tmp_path))(clip) == caption(clip)


def test_the_first_line_says_what_the_default_model_knows():
    command = [sys.executable, "-m", "enclap_hf", "caption", str(ROOT / "examples/sounds/knocking.mp3")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "synthesised sounds only" in done.stderr.splitlines()[0] and "--model" in done.stderr.splitlines()[0]
    assert "knock" in done.stdout
