"""What a stock Trainer saves and pushes is complete and names no place of this machine; its checkpoints are small."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from conftest import SAMPLING_RATE, build_processor, make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.model.encoder_sources import PLACES_FILE
from enclap_hf.model.repository import HANDLER_FILE, list_code_files
from stock_trainers import TRAINERS, caption_alone, encode_recordings, make_trainer, write_recordings

MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors"}
PROCESSOR_FILES = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
ENCODER_FILES = {f"{name}/{file}" for name in ("codec", "clap") for file in ("config.json", "model.safetensors")}
CODE_FILES = {*list_code_files(), "requirements.txt"}
assert HANDLER_FILE in CODE_FILES
REPOSITORY = MODEL_FILES | PROCESSOR_FILES | ENCODER_FILES | CODE_FILES
CHECKPOINT_BYTES = 2_000_000  # the tiny captioner, its optimizer's state and its tokenizer


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> str:
    """A folder that a processor was saved to, which holds its encoders."""
    folder = str(tmp_path_factory.mktemp("place-of-the-encoders"))
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[dict]:
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def clips(recordings) -> list[dict]:
    return encode_recordings(recordings)


@pytest.fixture(scope="module")
def sounds(recordings) -> list[str]:
    return [row["audio"] for row in recordings]


def list_files(folder) -> set[str]:
    """Paths of a folder's files, without those of its checkpoints."""
    found = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    return {path for path in found if not path.startswith("checkpoint-")}


FOLDERS = ["final", "run", "checkpoints", "checkpoint-best", "a checkpoint-3 copied"]
STRATEGIES = ["end", "every_save", "checkpoint", "all_checkpoints"]


@pytest.mark.parametrize(("name", "kind"), [*zip(FOLDERS, itertools.cycle(TRAINERS), strict=False)])
def test_every_folder_but_a_checkpoint_is_complete(clips, sounds, encoders, tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(clips, encoders, kind)
    trainer.train()
    trainer.save_model(None if name == "run" else name)
    assert list_files(name) == REPOSITORY | {"training_args.bin"}
    assert_names_no_place(Path(name), encoders, tmp_path)
    expected = caption_alone(trainer.model, trainer.processing_class, sounds[0])
    os.rename(name, "elsewhere")
    assert pipeline("audio-captioning", model="elsewhere", device="cpu")(sounds[0])["text"] == expected


def assert_names_no_place(folder: Path, *places) -> None:
    """No byte of a folder's files names a place of this machine."""
    for path in folder.rglob("*"):
        if path.is_file() and PLACES_FILE not in str(path):
            assert_no_place(path.read_bytes(), str(path), *places)


def assert_no_place(content: bytes, name: str, *places) -> None:
    for place in places:
        for spelling in (str(place), os.path.basename(place)):
            assert spelling.encode() not in content and spelling.encode("utf-16-le") not in content, (name, spelling)


def test_checkpoints_are_small_and_load_on_this_machine(clips, sounds, encoders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(clips, encoders, save_strategy="steps", save_steps=1, max_steps=3)
    trainer.train()
    expected = trainer.processing_class(audio=sounds[0])
    for step in (1, 2, 3):
        folder = Path(f"run/checkpoint-{step}")
        assert not {"codec", "clap", *CODE_FILES} & set(os.listdir(folder))
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < CHECKPOINT_BYTES
        assert_names_no_place(folder, encoders, tmp_path)
        assert encoders in (folder / PLACES_FILE).read_text()
        found = EnClapProcessor.from_pretrained(str(folder))(audio=sounds[0])
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    captioner = pipeline("audio-captioning", model="run/checkpoint-3", device="cpu")
    assert captioner(sounds[0])["text"] == caption_alone(trainer.model, trainer.processing_class, sounds[0])


@pytest.mark.parametrize("moment", ["before", "while training", "while training, without a use"])
def test_a_checkpoint_never_ends_a_run(clips, sounds, encoders, tmp_path, monkeypatch, caplog, moment):
    """Nor do the saves of a run that pushes, as far as the encoders are in memory."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "moved"
    EnClapProcessor.from_pretrained(encoders).save_pretrained(place)
    trainer = make_trainer(clips, str(place), save_strategy="steps", save_steps=1, max_steps=3)
    if moment == "while training":
        expected = trainer.processing_class(audio=sounds[0])
    else:
        expected = build_processor()(audio=sounds[0])

    def vanish(*_):
        if place.exists() and (moment == "before" or trainer.state.global_step == 1):
            os.rename(place, tmp_path / "gone")

    save = trainer.processing_class.save_pretrained
    monkeypatch.setattr(trainer.processing_class, "save_pretrained", lambda folder: (save(folder), vanish()))
    if moment == "before":
        vanish()
    trainer.train()
    assert trainer.state.global_step == 3 and not place.exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    if moment == "before":
        assert "is no longer to be found" in caplog.text
        with pytest.raises(OSError, match="does not exist"):
            trainer.save_model("final")
        return
    # The first checkpoint's fingerprints were computed from the weights, which have been in memory since.
    trainer.save_model("final")
    found = EnClapProcessor.from_pretrained("final")(audio=sounds[0])
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(OSError, match="moved.*does not exist"):
        EnClapProcessor.from_pretrained("run/checkpoint-3")(audio=sounds[0])


@pytest.mark.parametrize("part", ["codec", "clap"])
def test_a_checkpoint_refuses_other_encoders_in_the_place_of_its_own(encoders, tmp_path, part):
    place = tmp_path / "place"
    EnClapProcessor.from_pretrained(encoders).save_pretrained(place)
    EnClapProcessor.from_pretrained(str(place)).save_pretrained(tmp_path / "checkpoint-7")
    other = build_processor()
    for parameter in getattr(other, part).parameters():
        parameter.data.mul_(0.5)
    other.save_pretrained(place)
    with pytest.raises(ValueError, match=f"trained on another {part} .* fingerprint") as error:
        EnClapProcessor.from_pretrained(str(tmp_path / "checkpoint-7"))(
            audio=make_clip(0.3), sampling_rate=SAMPLING_RATE
        )
    assert "\n" not in str(error.value)


def test_a_processor_of_a_checkpoint_is_saved_in_full(sounds, encoders, tmp_path):
    processor = EnClapProcessor.from_pretrained(encoders)
    processor.save_pretrained(tmp_path / "checkpoint-1")
    again = EnClapProcessor.from_pretrained(str(tmp_path / "checkpoint-1"))
    again.save_pretrained(tmp_path / "checkpoint-2")
    EnClapProcessor.from_pretrained(str(tmp_path / "checkpoint-2")).save_pretrained(tmp_path / "full")
    assert list_files(tmp_path / "full") == PROCESSOR_FILES | ENCODER_FILES | CODE_FILES
    assert_names_no_place(tmp_path / "full", encoders, tmp_path)


def test_a_processor_in_memory_is_saved_in_full_and_its_checkpoints_say_where_to_find_it(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(clips, build_processor(), save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model("final")
    assert list_files("final") == REPOSITORY | {"training_args.bin"}
    with pytest.raises(OSError, match="load the processor that the training was given"):
        EnClapProcessor.from_pretrained("run/checkpoint-1")(audio=make_clip(0.3), sampling_rate=SAMPLING_RATE)


# Pushing


@pytest.mark.parametrize(("strategy", "kind"), [*zip(STRATEGIES, itertools.cycle(TRAINERS), strict=False)])
def test_every_push_is_a_complete_repository(hub, clips, sounds, encoders, tmp_path, monkeypatch, kind, strategy):
    monkeypatch.chdir(tmp_path)
    arguments = {"push_to_hub": True, "hub_model_id": "lab/trained", "hub_strategy": strategy, "hub_always_push": True}
    trainer = make_trainer(clips, encoders, kind, save_strategy="steps", save_steps=1, **arguments)
    trainer.train()
    commit = trainer.push_to_hub()
    repository = hub.repositories["lab/trained"]
    assert len(repository.commits) >= {"end": 2, "every_save": 3, "checkpoint": 4, "all_checkpoints": 4}[strategy]
    for pushed, message in repository.messages.items():
        if message == "initial commit" or message.endswith(", checkpoint"):
            continue
        files = hub.files("lab/trained", pushed)
        assert {path for path in files if "checkpoint" not in path} >= REPOSITORY | {"training_args.bin"}
    for pushed in repository.commits:
        for name, content in hub.files("lab/trained", pushed).items():
            assert PLACES_FILE not in name
            assert_no_place(content, name, encoders, tmp_path)
    expected = caption_alone(trainer.model, trainer.processing_class, sounds[0])
    captioner = pipeline("audio-captioning", model="lab/trained", revision=commit.oid, device="cpu")
    assert captioner(sounds[0])["text"] == expected


def test_references_to_the_hub_stay(hub, clips, sounds, tmp_path, monkeypatch):
    """In checkpoints, in folders and in pushes; only `include_encoders=True` writes them out."""
    monkeypatch.chdir(tmp_path)
    commit = build_processor().push_to_hub("lab/encoders")
    source = {"repo_id": "lab/encoders", "revision": commit.oid}
    processor = EnClapProcessor.from_pretrained("lab/encoders", revision=commit.oid)
    referring = EnClapProcessor(
        processor.feature_extractor,
        processor.tokenizer,
        codec_source={**source, "subfolder": "codec"},
        clap_source={**source, "subfolder": "clap"},
        num_codebooks=4,
    )
    arguments = {"push_to_hub": True, "hub_model_id": "me/trained", "hub_strategy": "checkpoint"}
    trainer = make_trainer(clips, referring, save_strategy="steps", save_steps=1, **arguments)
    trainer.train()
    trainer.push_to_hub()
    trainer.save_model("final")
    for folder in ("run/checkpoint-2", "final", "run"):
        saved = EnClapProcessor.from_pretrained(folder)
        assert saved.codec_source == {**source, "subfolder": "codec"}
        assert saved.clap_source == {**source, "subfolder": "clap"}
        assert not {"codec", "clap"} & set(os.listdir(folder))
    assert not [path for path in hub.files("me/trained") if path.startswith(("codec/", "clap/"))]
    expected = caption_alone(trainer.model, referring, sounds[0])
    assert pipeline("audio-captioning", model="me/trained", device="cpu")(sounds[0])["text"] == expected
    referring.save_pretrained("full", include_encoders=True)
    assert list_files("full") == PROCESSOR_FILES | ENCODER_FILES | CODE_FILES


# The package is made impossible to import, wherever it may be installed.
STRANGER = """
import sys
sys.modules["enclap_hf"] = None
from transformers import pipeline
sound, *places = sys.argv[1:]
for place in places:
    print("caption:", ascii(pipeline("audio-captioning", model=place, trust_remote_code=True)(sound)["text"]))
"""


@pytest.mark.slow
def test_who_has_not_the_package_loads_what_a_stock_trainer_saved_and_pushed(
    hub, clips, sounds, encoders, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(clips, encoders, hub_model_id="me/trained")
    trainer.train()
    trainer.push_to_hub()
    trainer.save_model("final")
    expected = caption_alone(trainer.model, trainer.processing_class, sounds[0])
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.endpoint}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, sounds[0], "me/trained", str(tmp_path / "final")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**kept, "HF_HOME": str(tmp_path / "stranger"), "HF_TOKEN": "hf_reader", **online},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"caption: {ascii(expected)}\n" * 2
