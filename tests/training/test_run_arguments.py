"""What run_captioning.py refuses before it loads or encodes anything, and what a run may be gone on with."""

import json
import os
import shutil
import sys

import datasets
import pytest
import torch

from conftest import CAPTIONS
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.feature_shards import FeatureSettings
from enclap_hf.training.clips import ShownAudio, StreamedClips
from training_runs import load_script, make_recipe, read_losses, train, write_repository_and_clips

NO_EVALUATION = {
    "validation_data": None, "test_data": None, "eval_strategy": "no", "load_best_model_at_end": None,
    "metric_for_best_model": None, "greater_is_better": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A repository of a tiny captioner, seven clips in Clotho's layout, and the same as a saved data set."""
    folder = tmp_path_factory.mktemp("work")
    write_repository_and_clips(folder)
    names = [str(folder / "audio" / f"clip [{i}].wav") for i in range(7)]
    rows = {"audio": names, "caption": [CAPTIONS[i % len(CAPTIONS)] for i in range(7)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "saved"))
    return folder


@pytest.fixture(scope="module")
def begun(work, tmp_path_factory):
    """The output folder of two steps."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        train(patch, make_recipe(work, folder, max_steps=2, features_dir=str(work / "features"), **NO_EVALUATION))
    return folder


def copy_run(begun, tmp_path) -> tuple[str, str]:
    """A copy of that folder, and its recipe with the copy as the output folder."""
    folder = str(tmp_path / "run")
    shutil.copytree(begun, folder)
    path = os.path.join(folder, "recipe.json")
    with open(path) as file:
        recipe = json.load(file)
    with open(path, "w") as file:
        json.dump({**recipe, "output_dir": folder}, file)
    return folder, path


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        (["--learning_rate", "0.5", "--seed", "99"], ["learning_rate=0.5", "seed=99"]),
        (["--mcm_span", "3"], ["mcm_span=3"]),
        (["--per_device_train_batch_size", "2"], ["clips_per_step=2"]),
        (["--captions_per_clip", "one"], ['captions_per_clip="one"']),
    ],
)
def test_a_run_is_not_gone_on_with_under_other_arguments(begun, tmp_path, monkeypatch, changed, names):
    """Otherwise nothing, or the rest alone, is trained with them, and the card says that all was."""
    folder, recipe = copy_run(begun, tmp_path)
    with pytest.raises(CaptionDataError, match="was begun with") as refusal:
        train(monkeypatch, recipe, *changed, "--max_steps", "4")
    _, here = str(refusal.value).split("this command has")
    assert all(name in here for name in names) and here.count("=") == len(names), refusal.value
    assert len(read_losses(folder)) == 2


def test_a_run_is_gone_on_with_under_arguments_that_decide_no_step(begun, tmp_path, monkeypatch):
    folder, recipe = copy_run(begun, tmp_path)
    same = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "3", "--save_steps", "1"]
    train(monkeypatch, recipe, *same, "--max_steps", "3")
    assert len(read_losses(folder)) == 3


def test_a_named_checkpoint_is_gone_on_from_whatever_the_arguments(begun, tmp_path, monkeypatch):
    folder, recipe = copy_run(begun, tmp_path)
    other = ["--learning_rate", "0.5"]
    checkpoint = ["--resume_from_checkpoint", os.path.join(folder, "checkpoint-2")]
    train(monkeypatch, recipe, "--max_steps", "3", "--save_steps", "1", *other, *checkpoint)
    assert len(read_losses(folder)) == 3
    with pytest.raises(CaptionDataError, match="was begun with learning_rate=0.5, and this command has"):
        train(monkeypatch, recipe, "--max_steps", "4")
    train(monkeypatch, recipe, "--max_steps", "4", *other)
    assert len(read_losses(folder)) == 4


@pytest.mark.parametrize("best", [False, True])
def test_a_finished_run_is_not_trained_further(work, tmp_path, monkeypatch, best):
    """Trainer takes one step before it looks whether any is left."""
    arguments = {"test_data": None} if best else {**NO_EVALUATION, "test_data": None}
    recipe = make_recipe(work, tmp_path, features_dir=str(work / "features"), max_steps=4, save_steps=2, **arguments)
    first = train(monkeypatch, recipe)
    weights = (tmp_path / "model.safetensors").read_bytes()
    os.remove(tmp_path / "model.safetensors")  # as a kill before the end leaves it
    again = train(monkeypatch, recipe)
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert not (tmp_path / "checkpoint-5").exists() and again["train_loss"] == first["train_loss"]
    if best:
        assert again["eval_cider_d"] == first["eval_cider_d"] and again["last_eval_step"] == 4


def test_scores_of_an_earlier_model_are_not_those_of_a_new_one(work, begun, tmp_path, monkeypatch, capsys):
    folder, recipe = copy_run(begun, tmp_path)
    source = json.dumps({"path": str(work / "clotho.csv"), "audio_dir": str(work / "audio")})
    assert "test_cider_d" in train(monkeypatch, recipe, "--test_data", source)
    shutil.rmtree(os.path.join(folder, "checkpoint-2"))
    assert "test_cider_d" not in train(monkeypatch, recipe, "--learning_rate", "0.01")
    assert "predictions_test.csv" not in os.listdir(folder)


def test_another_models_scores_are_not_put_beside_a_model(work, begun, monkeypatch):
    source = json.dumps({"path": str(work / "clotho.csv"), "audio_dir": str(work / "audio")})
    command = ["--model_name_or_path", str(work / "enclap"), "--test_data", source, "--output_dir", str(begun)]
    monkeypatch.setattr(sys, "argv", ["run_captioning.py", *command, "--use_cpu"])
    with pytest.raises(CaptionDataError, match="holds another model and its scores; choose another `output_dir`"):
        load_script("run_captioning").main()


def test_a_recipe_is_evaluated_without_training(work, begun, tmp_path, monkeypatch):
    recipe = make_recipe(work, tmp_path, model_name_or_path=str(begun), config_overrides=None)
    results = train(monkeypatch, recipe, "--do_train", "False", "--features_dir", str(work / "features"))
    assert "test_cider_d" in results and not (tmp_path / "model.safetensors").exists()


def test_features_are_prepared_without_training(work, tmp_path, monkeypatch, capsys):
    recipe = make_recipe(work, tmp_path, do_train=False, **NO_EVALUATION)
    monkeypatch.setattr(sys, "argv", ["run_captioning.py", recipe, "--prepare_only"])
    load_script("run_captioning").main()
    assert capsys.readouterr().out.splitlines()[-1] == f"The features are in {tmp_path}/_features/train-0."
    assert (tmp_path / "_features" / "train-0" / "features.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"do_train": False, **NO_EVALUATION}, "Got `train_data` without `do_train`; add --do_train"),
        ({"do_train": False, "train_data": None, **NO_EVALUATION}, "Got nothing to do; expected `do_train`"),
        ({"train_data": None}, "Got no `train_data`; expected at least one"),
        ({"config_overrides": None}, "Got no `model_name_or_path`; expected an EnCLAP or BART"),
        ({"validation_data": None}, "Got no `validation_data` to evaluate on"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing` in the model's configuration"),
        (
            {"metric_for_best_model": "fense"},
            "`metric_for_best_model`=fense, which cannot be computed: the metrics are",
        ),
        (
            {**NO_EVALUATION, "streaming": True, "save_strategy": "epoch"},
            "Got `save_strategy`=epoch, and a stream has no epochs",
        ),
        ({"streaming": True, "max_steps": -1, "num_train_epochs": 1}, "without `max_steps`; give --max_steps"),
        ({"model_name_or_path": "no/such/folder"}, "no/such/folder"),
        ({"resume_from_checkpoint": "no/checkpoint-9"}, "no/checkpoint-9, which is not a checkpoint"),
        ({"mcm_probability": 3}, "Got `mcm_probability`=3.0; expected a share from 0 to 1"),
        ({"mcm_span": 0}, "Got `mcm_span`=0; expected at least 1"),
        ({"captions_per_clip": "two"}, "Got `captions_per_clip`=two; expected all or one"),
        ({"max_train_clips": 0}, "Got `max_train_clips`=0; expected at least 1"),
        ({"config_overrides": "{bad"}, "Got `config_overrides` {bad, which is not JSON"),
        ({"config_overrides": "[1]"}, r"Got `config_overrides` \[1\]; expected an object"),
        ({"config_overrides": {"d_modell": 3}}, "Got `config_overrides` of d_modell, which EnClapConfig does not have"),
        ({"attention": "all"}, "Got --attention all, which nothing takes; expected: .*\\[RECIPE\\]"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_encoded(work, tmp_path, monkeypatch, changed, message):
    recipe = make_recipe(work, tmp_path / "run", **changed)
    with pytest.raises(CaptionDataError, match=message):
        train(monkeypatch, recipe)
    assert not (tmp_path / "run" / "_features").exists()


def test_a_recipe_behind_an_argument_is_refused(work, tmp_path, monkeypatch):
    recipe = make_recipe(work, tmp_path)
    with pytest.raises(CaptionDataError, match="recipe.json, which nothing takes; expected: .*\\[RECIPE\\]"):
        train(monkeypatch, "--seed=1", recipe, f"--output_dir={tmp_path}")


def test_the_help_shows_the_recipe_and_the_headers_examples(monkeypatch, capsys):
    for name, first in (("run_captioning", "[RECIPE]"), ("run_ablations", "PLAN")):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
        with pytest.raises(SystemExit):
            load_script(name).main()
        printed = capsys.readouterr().out
        assert printed.startswith(f"usage: {name}.py {first} [--argument VALUE ...]\n")
        assert f"    python examples/{name}.py examples/recipes/" in printed


def test_clips_are_captioned_where_nothing_else_is_said(work, begun, tmp_path, monkeypatch, capsys):
    source = json.dumps({"path": str(work / "clotho.csv"), "audio_dir": str(work / "audio")})
    command = ["--model_name_or_path", str(begun), "--test_data", source, "--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["run_captioning.py", *command, "--use_cpu", "--generation_max_length", "8"])
    load_script("run_captioning").main()
    assert "cider_d" in (tmp_path / "predictions_test.csv").read_text().splitlines()[0]
    assert f"{tmp_path} holds all_results.json, predictions_test.csv.\n" in capsys.readouterr().out


def test_a_stream_is_read_whole_whatever_the_workers(work, tmp_path, monkeypatch, caplog):
    fixed = {**NO_EVALUATION, "train_data": [str(work / "saved")], "streaming": True, "max_steps": 2}
    alone, workers = (make_recipe(work, tmp_path / name, **fixed) for name in ("alone", "workers"))
    train(monkeypatch, alone)
    with caplog.at_level("WARNING"):
        train(monkeypatch, workers, "--dataloader_num_workers", "2", "--max_train_clips", "3")
    assert read_losses(tmp_path / "workers") == read_losses(tmp_path / "alone")
    assert "`dataloader_num_workers` is set to 0" in caplog.text and "not heeded: max_train_clips" in caplog.text


def test_a_stream_refuses_workers(work, tiny_processor):
    shown = ShownAudio(codec_vocab_size=32)
    clips = StreamedClips([open_source(str(work / "saved"))], tiny_processor, FeatureSettings(4), shown, 12, seed=0)
    with pytest.raises(CaptionDataError, match="expected 0: set it to 0"):
        next(iter(torch.utils.data.DataLoader(clips, batch_size=None, num_workers=1)))
