"""Runs of the scripts in examples/ on a few clips, for tests."""

import csv
import importlib.util
import json
import os
import sys

import soundfile

from conftest import CAPTIONS, build_model, build_processor, make_clip
from enclap_hf.model.repository import save_repository

EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples")
RECIPES = os.path.join(EXAMPLES, "recipes")
TINY = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
}


def load_script(name: str):
    """A script of examples/ as a module."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(EXAMPLES, f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write_repository_and_clips(folder) -> None:
    """A repository of a tiny captioner, and seven clips in Clotho's layout."""
    save_repository(build_model(), build_processor(), str(folder / "enclap"))
    (folder / "audio").mkdir()
    with open(folder / "clotho.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *(f"caption_{j}" for j in range(1, 4))])
        for i in range(7):
            soundfile.write(folder / "audio" / f"clip [{i}].wav", make_clip(0.3 + 0.1 * i, i), 24_000)
            writer.writerow([f"clip [{i}].wav", *(CAPTIONS[(i + j) % len(CAPTIONS)] for j in range(3))])


def make_recipe(work, output_dir, **arguments) -> str:
    data = [{"path": str(work / "clotho.csv"), "audio_dir": str(work / "audio")}]
    recipe = {
        "description": "A trial.",
        "processor_name_or_path": str(work / "enclap"),
        "config_overrides": TINY,
        "output_dir": str(output_dir),
        "train_data": data,
        "validation_data": data,
        "test_data": data,
        "do_train": True,
        "max_steps": 4,
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-3,
        "predict_with_generate": True,
        "generation_num_beams": 1,
        "generation_max_length": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "cider_d",
        "greater_is_better": True,
        "report_to": "tensorboard",
        "use_cpu": True,
        **arguments,
    }
    os.makedirs(output_dir, exist_ok=True)
    path = os.path.join(output_dir, "recipe.json")
    with open(path, "w") as file:
        json.dump({name: value for name, value in recipe.items() if value is not None}, file)
    return path


def train(monkeypatch, *arguments: str) -> dict:
    """Run the script in this process; returns all_results.json."""
    script = load_script("run_captioning")
    monkeypatch.setattr(sys, "argv", ["run_captioning.py", *arguments])
    script.main()
    with open(os.path.join(os.path.dirname(arguments[0]), "all_results.json")) as file:
        return json.load(file)


def read_losses(output_dir) -> list[float]:
    with open(os.path.join(output_dir, "trainer_state.json")) as file:
        return [entry["loss"] for entry in json.load(file)["log_history"] if "loss" in entry]
