"""A stock `Trainer` and `Seq2SeqTrainer` train, evaluate, save and push as completely as the package's own."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments, pipeline

from conftest import CAPTIONS, SAMPLING_RATE, build_model, build_processor, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.encoder_sources import PLACES_FILE
from enclap_hf.model.repository import HANDLER_FILE, list_code_files
from enclap_hf.training.data_collator import warn_of_no_captions

TRAINERS = {"Trainer": (Trainer, TrainingArguments), "Seq2SeqTrainer": (Seq2SeqTrainer, Seq2SeqTrainingArguments)}
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors"}
PROCESSOR_FILES = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
ENCODER_FILES = {f"{name}/{file}" for name in ("codec", "clap") for file in ("config.json", "model.safetensors")}
CODE_FILES = {*list_code_files(), "requirements.txt"}
assert HANDLER_FILE in CODE_FILES
REPOSITORY = MODEL_FILES | PROCESSOR_FILES | ENCODER_FILES | CODE_FILES
CHECKPOINT_BYTES = 2_000_000  # the tiny captioner, its optimizer's state and its tokenizer


def make_model(seed: int = 0, **overrides) -> EnClapForConditionalGeneration:
    model = build_model(seed, **overrides)
    model.generation_config.max_length = 12
    return model


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> str:
    """A folder that a processor was saved to, which holds its encoders."""
    folder = str(tmp_path_factory.mktemp("place-of-the-encoders"))
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[str]:
    """Six recordings of unlike lengths."""
    folder = tmp_path_factory.mktemp("sounds")
    paths = [str(folder / f"{i}.wav") for i in range(6)]
    for i, path in enumerate(paths):
        soundfile.write(path, make_clip(0.4 + 0.15 * i, seed=i), SAMPLING_RATE, subtype="FLOAT")
    return paths


@pytest.fixture(scope="module")
def recordings(sounds) -> list[dict]:
    return [{"audio": path, "caption": CAPTIONS[i % len(CAPTIONS)]} for i, path in enumerate(sounds)]


@pytest.fixture(scope="module")
def clips(recordings) -> list[dict]:
    """The recordings' prepared codes."""
    processor = build_processor()
    made = [processor(audio=row["audio"], text=row["caption"]) for row in recordings]
    return [{name: row[name][0] for name in ("audio_codes", "clap_embedding", "labels")} for row in made]


def map_recordings(recordings: list[dict], encoders: str) -> datasets.Dataset:
    processor = EnClapProcessor.from_pretrained(encoders)
    columns = {name: [row[name] for row in recordings] for name in recordings[0]}
    data = datasets.Dataset.from_dict(columns)
    return data.map(lambda row: dict(processor(audio=row["audio"], text=row["caption"])), remove_columns=["caption"])


def make_trainer(rows, encoders, kind="Seq2SeqTrainer", model=None, output_dir="run", collator=None, **arguments):
    """A stock trainer of a tiny captioner; `processing_class` knows its encoders by their place on this machine."""
    trainer_class, arguments_class = TRAINERS[kind]
    processor = EnClapProcessor.from_pretrained(encoders) if isinstance(encoders, str) else encoders
    fields = {
        "max_steps": 2,
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return trainer_class(
        model=make_model() if model is None else model,
        args=arguments_class(output_dir=str(output_dir), **{**fields, **arguments}),
        data_collator=DataCollatorForEnClap(processor) if collator is None else collator,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=processor,
    )


def list_files(folder) -> set[str]:
    """Paths of a folder's files, without those of its checkpoints."""
    found = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    return {path for path in found if not path.startswith("checkpoint-")}


def caption_alone(model, processor, path: str) -> str:
    return processor.batch_decode(model.eval().generate(**processor(audio=path)))[0]


# What it trains on


@pytest.mark.parametrize("kind", list(TRAINERS))
@pytest.mark.parametrize("form", ["clips", "recordings", "mapped", "arrays"])
def test_clips_train_in_every_form(recordings, clips, encoders, tmp_path, kind, form):
    """Codes, recordings and captions, and what `datasets.map` makes of them give the same first loss."""
    losses = []
    for chosen in ("clips", form):
        rows = clips
        if chosen == "recordings":
            rows = recordings
        elif chosen == "mapped":
            rows = map_recordings(recordings, encoders)
        elif chosen == "arrays":
            rows = [{name: np.asarray(value).tolist() for name, value in clip.items()} for clip in clips]
        by_hand = {"remove_unused_columns": False} if chosen == "recordings" else {}
        trainer = make_trainer(rows, encoders, kind, output_dir=tmp_path, **by_hand)
        before = trainer.model.mcm_heads[0].weight.clone()
        trainer.train()
        assert not torch.equal(trainer.model.mcm_heads[0].weight, before), "masked codec modelling was trained"
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("kind", list(TRAINERS))
def test_dropped_columns_are_named(recordings, clips, encoders, tmp_path, kind):
    """Trainer drops `audio` and `caption`, which the model does not take, and the collator got empty clips."""
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        make_trainer(recordings, encoders, kind, output_dir=tmp_path).train()


def test_clips_whose_captions_were_dropped_are_said_to_train_none(clips, encoders, tmp_path, caplog):
    rows = [{**clip, "caption": "rain"} for clip in clips]
    for row in rows:
        del row["labels"]
    warn_of_no_captions.cache_clear()
    make_trainer(rows, encoders, output_dir=tmp_path).train()
    assert caplog.text.count("no captions are trained") == 1 and "remove_unused_columns=False" in caplog.text
    caplog.clear()
    warn_of_no_captions.cache_clear()
    make_trainer(rows, encoders, output_dir=tmp_path, remove_unused_columns=False).train()
    assert "no captions are trained" not in caplog.text


def test_clips_of_unlike_parts_are_refused(clips, encoders):
    collator = DataCollatorForEnClap(EnClapProcessor.from_pretrained(encoders))
    for name in ("labels", "clap_embedding", "audio_codes"):
        lacking = {key: value for key, value in clips[1].items() if key != name}
        with pytest.raises(ValueError, match="clip 1 has"):
            collator([clips[0], lacking])
    with pytest.raises(ValueError, match="expected `audio_codes`, `audio_features` or `audio`"):
        collator([{"labels": [0, 2]}])


@pytest.mark.parametrize("kind", list(TRAINERS))
@pytest.mark.parametrize("mcm_probability", [0.0, 0.3])
def test_label_smoothing_of_a_trainer_is_refused_in_one_line(clips, encoders, tmp_path, kind, mcm_probability):
    """It takes the labels away from the model, which said `KeyError: 'logits'`."""
    processor = EnClapProcessor.from_pretrained(encoders)
    collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
    trainer = make_trainer(clips, processor, kind, output_dir=tmp_path, collator=collator, label_smoothing_factor=0.1)
    for run in (trainer.train, trainer.evaluate):
        with pytest.raises(ValueError, match="`label_smoothing` of its configuration") as error:
            run()
        assert "\n" not in str(error.value)


# Evaluation


def mean_caption_loss(model, clips) -> float:
    """Mean over batches of the caption loss of whole codes, by the model alone."""
    collator = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.0)
    with torch.no_grad():
        return sum(model.eval()(**collator(clips[start : start + 3])).loss.item() for start in (0, 3)) / 2


@pytest.mark.parametrize("kind", list(TRAINERS))
@pytest.mark.parametrize("mcm_probability", [0.15, 0.9])
@pytest.mark.parametrize("after_training", [False, True])
def test_evaluations_give_one_number_that_of_whole_codes(
    clips, encoders, tmp_path, kind, mcm_probability, after_training
):
    processor = EnClapProcessor.from_pretrained(encoders)
    collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
    trainer = make_trainer(clips, processor, kind, output_dir=tmp_path, collator=collator)
    if after_training:
        trainer.train()
    losses = {trainer.evaluate()["eval_loss"] for _ in range(3)}
    assert len(losses) == 1
    assert losses.pop() == pytest.approx(mean_caption_loss(trainer.model, clips), rel=1e-5)


@pytest.mark.parametrize("mcm_probability", [0.0, 0.15, 0.9])
def test_predictions_are_captions_of_whole_codes(clips, sounds, encoders, tmp_path, mcm_probability):
    processor = EnClapProcessor.from_pretrained(encoders)
    collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
    arguments = {"predict_with_generate": True, "generation_max_length": 12}
    trainer = make_trainer(clips, processor, output_dir=tmp_path, collator=collator, **arguments)
    expected = [caption_alone(trainer.model, processor, path) for path in sounds]
    assert len(set(expected)) > 1
    for _ in range(2):
        output = trainer.predict(clips)
        assert processor.batch_decode(output.predictions) == expected
        assert output.metrics["test_loss"] == pytest.approx(mean_caption_loss(trainer.model, clips), rel=1e-5)
        captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(clips))]
        assert processor.batch_decode(output.label_ids) == captions


def test_a_trainers_logits_are_those_of_whole_codes(clips, encoders, tmp_path):
    trainer = make_trainer(clips, encoders, "Trainer", output_dir=tmp_path)
    batch = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.0)(clips[:3])
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
    predictions = trainer.predict(clips[:3]).predictions
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-5)  # sums in another order


# Hidden codes


def test_codes_are_hidden_in_training_alone(clips):
    model = make_model()
    torch.manual_seed(1)
    batch = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.5)(clips[:3])
    whole = {name: value for name, value in batch.items() if name != "mcm_targets"}
    hidden = batch["audio_codes"].masked_fill(batch["mcm_targets"] != -100, 32)
    with torch.no_grad():
        evaluated, asked = model.eval()(**batch), model(**batch, use_mcm=True)
        visible, blank = model(**whole), model(**{**whole, "audio_codes": hidden})
        trained = model.train()(**batch)
        refused = model(**batch, use_mcm=False)
    assert evaluated.mcm_loss is None and torch.equal(evaluated.loss, visible.loss)
    for output in (trained, asked):  # there is no dropout
        assert output.mcm_loss > 0 and torch.equal(output.caption_loss, blank.loss)
        assert torch.equal(output.loss, blank.loss + model.config.mcm_loss_weight * output.mcm_loss)
    assert refused.mcm_loss is None and torch.equal(refused.loss, visible.loss)
    assert not torch.equal(blank.loss, visible.loss)


def test_batches_whose_codes_come_hidden_give_the_same(clips):
    """As collators of one's own make them, and the released code did."""
    model = make_model()
    for seed, count in ((0, 3), (1, 1), (2, 6)):
        torch.manual_seed(seed)
        batch = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.3)(clips[:count])
        targets = batch["mcm_targets"]
        hidden = {**batch, "audio_codes": batch["audio_codes"].masked_fill(targets != -100, 32)}
        with torch.no_grad():
            drawn, given = model.train()(**batch), model(**hidden)
            evaluated = model.eval()(**hidden)
        for output in (given, evaluated):
            assert torch.equal(output.mcm_loss, drawn.mcm_loss) and torch.equal(output.loss, drawn.loss)
        assert torch.equal(model.generate(**hidden), model.generate(**{**hidden, "mcm_targets": None}))


def test_masked_codec_modelling_is_evaluated_on_request(clips, encoders, tmp_path):
    class WithMcm(Seq2SeqTrainer):
        def prediction_step(self, model, inputs, *args, **kwargs):
            return super().prediction_step(model, {**inputs, "use_mcm": True}, *args, **kwargs)

    model = make_model()
    stock = make_trainer(clips, encoders, output_dir=tmp_path, model=model)
    asking = WithMcm(model=model, args=stock.args, data_collator=stock.data_collator, eval_dataset=clips)
    asking.args.prediction_loss_only = True
    assert asking.evaluate()["eval_loss"] > stock.evaluate()["eval_loss"] + 0.5


# Resuming


RESUMED = {  # arguments, step, share of hidden codes
    "at the end of an epoch": ({"num_train_epochs": 3, "max_steps": -1, "per_device_train_batch_size": 3}, 2, 0.5),
    "at the end of a second one": ({"num_train_epochs": 3, "max_steps": -1, "per_device_train_batch_size": 6}, 2, 0.5),
    "within one, where nothing is hidden": ({"max_steps": 4, "per_device_train_batch_size": 2}, 2, 0.0),
}


@pytest.mark.parametrize(("case", "kind"), [*zip(RESUMED, ["Trainer", "Seq2SeqTrainer", "Trainer"], strict=True)])
def test_a_resumed_run_equals_an_unbroken_one(clips, encoders, tmp_path, kind, case):
    arguments, step, mcm_probability = RESUMED[case]
    arguments = {"save_strategy": "steps", "save_steps": step, "output_dir": tmp_path / "run", **arguments}
    runs = []
    for seed, checkpoint in ((0, None), (3, str(tmp_path / f"run/checkpoint-{step}"))):
        processor = EnClapProcessor.from_pretrained(encoders)
        collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
        model = make_model(seed, dropout=0.1)
        trainer = make_trainer(clips, processor, kind, model=model, collator=collator, **arguments)
        trainer.train(resume_from_checkpoint=checkpoint)
        runs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert runs[0] == runs[1] and len(runs[0]) > step


@pytest.mark.parametrize("mcm_probability", [0.0, 0.15])
def test_torchs_randomness_is_read_only_where_something_is_drawn(clips, mcm_probability):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=mcm_probability)(clips)
    assert torch.equal(torch.rand(1), expected) == (mcm_probability == 0)
    torch.manual_seed(0)
    DataCollatorForEnClap(32, max_codec_frames=20, mcm_probability=0.0)(clips)  # crops at random
    assert not torch.equal(torch.rand(1), expected)


# Saving


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
    # An upload beside the training may find what the next one was to bring, which then makes no commit.
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
