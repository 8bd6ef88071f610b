"""The scripts: from a folder of sounds to an evaluated repository with a card, also through kills; and the recipes."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import (
    AutoConfig,
    BartConfig,
    BartForConditionalGeneration,
)

from conftest import CAPTIONS, build_tokenizer, make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.training.recipes import expand_recipe
from enclap_hf.training.run_arguments import check_arguments
from enclap_hf.training.run_setup import build_captioner
from training_runs import (
    EXAMPLES,
    RECIPES,
    TINY,
    load_script,
    make_recipe,
    read_losses,
    train,
    write_repository_and_clips,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A repository of a tiny captioner, and seven clips in Clotho's layout."""
    folder = tmp_path_factory.mktemp("work")
    write_repository_and_clips(folder)
    return folder


def test_from_a_folder_of_sounds_to_an_evaluated_repository_with_a_card(work, tmp_path, monkeypatch, capsys):
    results = train(monkeypatch, make_recipe(work, tmp_path))
    assert {"train_loss", "train_step_time_s", "train_peak_memory_gib", "eval_cider_d", "test_cider_d"} <= set(results)
    assert results["test_caption_loss"] > 0 and results["test_mcm_loss"] > 0
    printed = capsys.readouterr().out
    with open(tmp_path / "trainer_state.json") as file:
        logged = {
            entry["step"]: entry["eval_cider_d"] for entry in json.load(file)["log_history"] if "eval_loss" in entry
        }
    assert [results[f"{place}_eval_step"] for place in ("first", "last")] == list(logged) == [2, 4]
    assert [results[f"{place}_eval_cider_d"] for place in ("first", "last")] == list(logged.values())
    first, last = (f"{logged[step]:.4f} after step {step}" for step in (2, 4))
    assert f"cider_d of the validation clips: {first}, {last}" in printed
    assert f"{tmp_path} holds model.safetensors, README.md, all_results.json, predictions_validation.csv" in printed
    assert "Median step" in printed and json.loads(printed.strip().splitlines()[-1]) == results

    model, processor = (cls.from_pretrained(str(tmp_path)) for cls in (EnClapForConditionalGeneration, EnClapProcessor))
    assert os.path.isdir(tmp_path / "codec") and os.path.isdir(tmp_path / "clap"), "complete without another repository"
    rows = read_predictions(tmp_path / "predictions_test.csv")
    assert [row["file_name"] for row in rows] == [f"clip [{i}].wav" for i in range(7)]
    assert set(rows[0]) >= {"file_name", "candidate", "references", "cider_d"}
    assert json.loads(rows[0]["references"]) == CAPTIONS[:3]
    inputs = processor(audio=str(work / "audio" / "clip [5].wav"))
    caption = processor.batch_decode(model.eval().generate(**inputs, num_beams=1, max_length=12))[0]
    assert caption == rows[5]["candidate"]

    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\n") and "audio-captioning" in card and "random weights" in card
    assert f"| clotho.csv test | 7 | {results['test_bleu_1']:.3f} |" in card and rows[0]["candidate"].strip() in card
    assert results["test_metric_versions"]["enclap-hf"] in card and str(work) not in card
    assert json.loads((tmp_path / "model_card.json").read_text())["scores"][1]["num_clips"] == 7
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert {"caption_loss", "mcm_loss"} <= set(state["log_history"][0])
    assert any({"eval_caption_loss", "eval_mcm_loss", "eval_cider_d"} <= set(entry) for entry in state["log_history"])
    assert any(name.startswith("events.out") for _, _, files in os.walk(tmp_path) for name in files), "tensorboard"


def test_the_same_command_goes_on_where_it_was_and_overrides_come_behind_the_recipe(work, tmp_path, monkeypatch):
    whole = make_recipe(work, tmp_path / "whole", validation_data=None, test_data=None, eval_strategy="no")
    short = make_recipe(work, tmp_path / "short", validation_data=None, test_data=None, eval_strategy="no")
    fixed = ["--load_best_model_at_end", "False", "--lr_scheduler_type", "constant"]
    train(monkeypatch, whole, *fixed)
    train(monkeypatch, short, *fixed, "--max_steps", "2")
    assert len(read_losses(tmp_path / "short")) == 2
    train(monkeypatch, short, *fixed)
    assert read_losses(tmp_path / "short") == pytest.approx(read_losses(tmp_path / "whole"), rel=1e-6)


def test_features_are_prepared_alone_and_then_taken_as_they_are(work, tmp_path, monkeypatch):
    script, recipe = load_script("run_captioning"), make_recipe(work, tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_captioning.py", recipe, "--prepare_only", "True"])
    script.main()
    manifests = sorted(tmp_path.glob("_features/*/features.json"))
    assert [path.parent.name for path in manifests] == ["test-0", "train-0", "validation-0"]
    assert not list(tmp_path.glob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in manifests]
    train(monkeypatch, recipe, "--max_steps", "2")
    assert [path.stat().st_mtime_ns for path in manifests] == before


@pytest.mark.parametrize(
    "switch",
    [
        {"mcm_probability": 0.0},
        {"use_clap": False},
        {"use_codes": False},
        {"num_codebooks": 1},
        {"mcm_span": 3, "mcm_probability": 0.4, "mcm_loss_weight": 2.0},
        {"max_frames_per_batch": 200, "captions_per_clip": "one"},
    ],
    ids=lambda switch: ",".join(switch),
)
def test_ablations_are_a_line_in_a_recipe(work, tmp_path, monkeypatch, switch):
    recipe = make_recipe(work, tmp_path, validation_data=None, eval_strategy="no", load_best_model_at_end=False)
    with open(recipe) as file:
        arguments = {**json.load(file), **switch, "max_steps": 1, "features_dir": str(work / "features")}
    del arguments["metric_for_best_model"], arguments["greater_is_better"]
    with open(recipe, "w") as file:
        json.dump(arguments, file)
    results = train(monkeypatch, recipe)
    assert ("test_mcm_loss" in results) == (arguments.get("mcm_probability", 1) > 0 and "use_codes" not in switch)
    config = AutoConfig.from_pretrained(str(tmp_path))
    assert config.num_codebooks == switch.get("num_codebooks", 4)
    assert config.mcm_loss_weight == switch.get("mcm_loss_weight", 0.7)
    assert config.clap_dim == (0 if "use_clap" in switch else 24)
    assert ("not meant for use" in (tmp_path / "README.md").read_text()) == ("use_codes" in switch)
    processor = EnClapProcessor.from_pretrained(str(tmp_path))
    assert processor(audio=make_clip(0.3), sampling_rate=24_000)["audio_codes"].shape[2] == config.num_codebooks


def test_a_stream_trains_and_is_taken_up(work, tmp_path, monkeypatch):
    import datasets

    names = [str(work / "audio" / f"clip [{i}].wav") for i in range(7)]
    dataset = datasets.Dataset.from_dict({"audio": names, "caption": [CAPTIONS[i % 4] for i in range(7)]})
    dataset.save_to_disk(str(tmp_path / "saved"))
    fixed = {
        "train_data": [str(tmp_path / "saved")], "validation_data": None, "test_data": None, "eval_strategy": "no",
        "load_best_model_at_end": None, "metric_for_best_model": None, "greater_is_better": None, "streaming": True,
        "lr_scheduler_type": "constant", "feature_batch_size": 2,
    }  # fmt: skip
    whole, short = (make_recipe(work, tmp_path / name, **fixed) for name in ("whole", "short"))
    train(monkeypatch, whole)
    train(monkeypatch, short, "--max_steps", "2")
    train(monkeypatch, short)
    assert len(read_losses(tmp_path / "whole")) == 4
    assert read_losses(tmp_path / "short") == pytest.approx(read_losses(tmp_path / "whole"), rel=1e-6)


def test_captions_longer_than_the_decoder_are_cut_and_counted(work, tmp_path, monkeypatch, caplog):
    recipe = make_recipe(work, tmp_path, validation_data=None, eval_strategy="no", load_best_model_at_end=False)
    with open(recipe) as file:
        arguments = {**json.load(file), "max_steps": 1, "features_dir": str(work / "features")}
    del arguments["metric_for_best_model"], arguments["greater_is_better"], arguments["test_data"]
    with open(recipe, "w") as file:
        json.dump(arguments, file)
    train(monkeypatch, recipe, "--max_caption_tokens", "6")
    assert "captions are longer than 6 tokens and are cut" in caplog.text


def test_a_bart_fills_all_but_the_audio_parts(tmp_path, tiny_processor):
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name != "max_position_embeddings"}
    bart = BartForConditionalGeneration(BartConfig(vocab_size=320, max_position_embeddings=128, **sizes))
    bart.save_pretrained(str(tmp_path))
    build_tokenizer().save_pretrained(str(tmp_path))
    model = build_captioner(str(tmp_path), tiny_processor, config_fields={"label_smoothing": 0.3})
    assert model.config.model_type == "enclap" and model.config.label_smoothing == 0.3
    assert (model.config.num_codebooks, model.config.codec_vocab_size, model.config.clap_dim) == (4, 32, 24)
    assert model.generation_config.num_beams == 4 and model.generation_config.max_length == 50
    theirs, ours = bart.state_dict(), model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert all(
        "embed_encodec" in name or "clap_projection" in name or "mcm_heads" in name for name in ours.keys() - theirs
    )


@pytest.mark.slow
def test_warm_start_from_a_bart_of_the_papers_base_size_takes_a_step(work, tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = BartConfig(encoder_layers=6, decoder_layers=6, d_model=768, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
                        encoder_attention_heads=12, decoder_attention_heads=12)  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(str(tmp_path / "bart"))
    build_tokenizer().save_pretrained(str(tmp_path / "bart"))
    recipe = make_recipe(work, tmp_path / "out", model_name_or_path=str(tmp_path / "bart"), config_overrides=None,
                         validation_data=None, test_data=None, eval_strategy="no", load_best_model_at_end=False,
                         metric_for_best_model=None, greater_is_better=None, save_strategy="no",
                         max_steps=1)  # fmt: skip
    assert train(monkeypatch, recipe)["train_loss"] > 0


# Processes


@pytest.mark.slow
def test_two_processes_give_the_captions_and_scores_of_one(work, tmp_path):
    """The script under torchrun: features, training, seven clips captioned and scored, one card."""
    found = []
    for num_processes, batch_size in ((1, 4), (2, 2)):
        folder = tmp_path / str(num_processes)
        recipe = make_recipe(work, folder, per_device_train_batch_size=batch_size, max_steps=2, eval_steps=1,
                             per_device_eval_batch_size=2, learning_rate=1e-5)  # fmt: skip
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
        script = os.path.join(EXAMPLES, "run_captioning.py")
        done = subprocess.run([sys.executable, *command, script, recipe], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(json.loads((folder / "all_results.json").read_text()))
    one, two = found
    compared = [name for name in one if name.startswith(("eval_", "test_", "first_", "last_"))]
    compared = [name for name in compared if not name.endswith(("runtime", "per_second", "versions", "time"))]
    assert {"test_cider_d", "eval_bleu_1", "test_caption_loss", "test_mcm_loss", "last_eval_cider_d"} <= set(compared)
    assert {name: two[name] for name in compared} == pytest.approx({name: one[name] for name in compared}, rel=1e-4)
    one, two = (read_predictions(tmp_path / name / "predictions_test.csv") for name in ("1", "2"))
    assert [row["candidate"] for row in two] == [row["candidate"] for row in one] and len(two) == 7


def read_predictions(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# Kills


@pytest.mark.slow
def test_killed_five_times_at_random_moments_the_losses_are_those_of_an_unbroken_run(work, tmp_path):
    """The script itself under SIGKILL; the moments are drawn anew in every run of the test."""
    fixed = {
        "validation_data": None, "test_data": None, "eval_strategy": "no", "load_best_model_at_end": None,
        "metric_for_best_model": None, "greater_is_better": None, "max_steps": 80, "save_steps": 2,
        "save_total_limit": 2, "features_dir": str(work / "features-killed"),
    }  # fmt: skip
    script = os.path.join(EXAMPLES, "run_captioning.py")
    whole, killed = (make_recipe(work, tmp_path / name, **fixed) for name in ("whole", "killed"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, script, whole], check=True, **quiet)

    def find_newest() -> int:
        return max((int(path.name.split("-")[1]) for path in (tmp_path / "killed").glob("checkpoint-*")), default=0)

    num_kills = 0
    for _ in range(5):
        process, before = subprocess.Popen([sys.executable, script, killed], **quiet), find_newest()
        while process.poll() is None and find_newest() == before:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        num_kills += process.wait() == -signal.SIGKILL
    assert num_kills >= 2, "the run is too short to be killed"
    subprocess.run([sys.executable, script, killed], check=True, **quiet)
    assert read_losses(tmp_path / "killed") == pytest.approx(read_losses(tmp_path / "whole"), rel=1e-6)


# Recipes


def list_recipes() -> list[str]:
    names = sorted(name for name in os.listdir(RECIPES) if name.endswith(".json"))
    return [name for name in names if not name.startswith(("ablations_", "deepspeed"))]


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_read_without_a_rest(name, tmp_path, monkeypatch):
    script = load_script("run_captioning")
    command = [os.path.join(RECIPES, name), "--output_dir", str(tmp_path), "--use_cpu", "True"]
    monkeypatch.setattr(sys, "argv", ["run_captioning.py", *command])
    model_args, data_args, training_args = script.parse_arguments()
    check_arguments(model_args, data_args, training_args)
    assert training_args.output_dir == str(tmp_path) and training_args.do_train
    assert all(script.parse_source(entry).path for entry in data_args.train_data)
    assert model_args.mcm_probability == 0.15 and model_args.mcm_span == 10


@pytest.mark.parametrize("name", [name for name in sorted(os.listdir(RECIPES)) if name.startswith("ablations_")])
def test_every_variant_of_a_plan_is_read_without_a_rest(name, tmp_path, monkeypatch):
    with open(os.path.join(RECIPES, name)) as file:
        plan = json.load(file)
    ablations, script = load_script("run_ablations"), load_script("run_captioning")
    args = ablations.AblationArguments(os.path.join(RECIPES, name), str(tmp_path))
    runs = ablations.make_runs(args, plan)
    assert len({run.folder for run in runs}) == len(plan["variants"]) * len(plan["seeds"])
    for run in runs[: len(plan["variants"])]:
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(run.arguments))
        monkeypatch.setattr(sys, "argv", ["run_captioning.py", str(path), "--use_cpu", "True", "--bf16", "False"])
        check_arguments(*script.parse_arguments())


@pytest.mark.parametrize(
    ("name", "start", "batch_size", "learning_rate", "warmup_steps"),
    [
        ("audiocaps_base", "facebook/bart-base", 16, 6.5e-5, 2000),
        ("audiocaps_large", "facebook/bart-large", 64, 3e-5, 2000),
        ("clotho_base", "facebook/bart-base", 64, 4e-5, 1000),
        ("clotho_large", "facebook/bart-large", 64, 2.5e-5, 1000),
        ("audiocaps_then_clotho_base", "output/audiocaps_base", 64, 2e-5, 0),
        ("audiocaps_then_clotho_large", "output/audiocaps_large", 64, 1.25e-5, 0),
    ],
)
def test_the_papers_trainings_are_those_of_the_paper(name, start, batch_size, learning_rate, warmup_steps):
    with open(os.path.join(RECIPES, f"{name}.json")) as file:
        recipe = json.load(file)
    found = [
        recipe[key] for key in ("model_name_or_path", "per_device_train_batch_size", "learning_rate", "warmup_steps")
    ]
    assert found == [start, batch_size, learning_rate, warmup_steps]
    assert (recipe["num_train_epochs"], recipe["weight_decay"], recipe["max_grad_norm"]) == (15, 0.01, 1.0)
    assert (recipe["seed"], recipe["lr_scheduler_type"]) == (1115, "inverse_sqrt")
    assert recipe.get("lr_scheduler_kwargs") == (None if warmup_steps else {"timescale": 1000})
    assert recipe["config_overrides"]["label_smoothing"] == 0.2 and recipe["mcm_loss_weight"] == 0.7


def test_a_recipe_that_holds_no_arguments_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("- max_steps\n")
    with pytest.raises(ValueError, match="recipe.yaml holds no arguments"):
        expand_recipe([str(tmp_path / "recipe.yaml")])
    (tmp_path / "recipe.yaml").write_text("max_steps: 3\ntrain_data:\n- {path: a.csv}\nseed: null\n")
    expected = ["--max_steps", "3", "--train_data", '{"path": "a.csv"}', "--seed", "4"]
    assert expand_recipe([str(tmp_path / "recipe.yaml"), "--seed", "4"]) == expected
