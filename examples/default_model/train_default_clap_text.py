"""Train the text tower of the default model's CLAP, against its audio tower, which stays as it is.

    python examples/default_model/train_default_clap_text.py --repository enclap_hf/default_model

A smoke run on a CPU, half a minute, on a copy:

    cp -r enclap_hf/default_model /tmp/smoke
    python examples/default_model/train_default_clap_text.py --repository /tmp/smoke --num_scenes 40 --steps 5

The audio tower embeds scenes that neither it nor the captioner has heard, each as it is and damaged. At every step the
grammar words the scenes of a batch anew, and beside each caption it words wrong ones: an event is replaced, left out or
added, which is what a captioner gets wrong. The tower learns to tell the right caption from those and from the captions
of the other scenes. It reads the captioner's own tokens.

`evaluation` in the report: the area under the curve for captions of the scenes against shuffled ones, and against those
with one wrong event, on scenes of other seeds.
"""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from train_default_codec import one_cycle
from train_default_data import KINDS, damage
from transformers import AutoTokenizer, ClapTextConfig, ClapTextModelWithProjection, HfArgumentParser

from enclap_hf import EnClapProcessor, make_scene
from enclap_hf.model.repository import update_json
from enclap_hf.sound_scenes.scene_captions import TEMPLATES, write_captions

FIRST_SEED = 2_000_000  # of the scenes that it learns from; neither the audio tower nor the captioner does
FIRST_HELD_OUT_SEED = 910_000
NUM_WRONG = 1  # captions with a wrong event beside each right one
BATCH = 64
MAX_POSITIONS = 82  # 80 tokens


@dataclass
class ClapTextArguments:
    """What is trained on how much."""

    repository: str = field(metadata={"help": "folder of the captioner, which gets `clap_text/`"})
    num_scenes: int = field(default=3000, metadata={"help": "scenes to learn from"})
    num_held_out: int = field(default=200, metadata={"help": "scenes to evaluate on"})
    steps: int = field(default=1000, metadata={"help": "optimiser steps"})
    seed: int = field(default=0, metadata={"help": "seed of initial values and draws"})
    cache: str | None = field(default=None, metadata={"help": "folder that keeps embedded scenes for another run"})


@dataclass
class EmbeddedScenes:
    """What the audio tower says of scenes, and what is in them.

    Args:
        embeddings: (scenes, 2, C): as they are, damaged.
        events: of each, its relation, kinds and counts as `write_captions` takes them.
    """

    embeddings: torch.Tensor
    events: list[tuple[str, list[str], list[int | None]]]


def embed_scenes(processor: EnClapProcessor, first_seed: int, num_scenes: int) -> EmbeddedScenes:
    """Make scenes and embed them, a few at a time."""
    embeddings, events = [], []
    for start in tqdm(range(first_seed, first_seed + num_scenes, 8), desc="scenes", mininterval=5.0):
        scenes = [make_scene(seed) for seed in range(start, min(start + 8, first_seed + num_scenes))]
        damaged = [damage(scene.audio, np.random.default_rng([scene.seed, 1])) for scene in scenes]
        audio = [sound for scene, other in zip(scenes, damaged, strict=True) for sound in (scene.audio, other)]
        prepared = processor.prepare(audio, scenes[0].sampling_rate)
        rows = processor.clap_encoder.embed(prepared["input_features"], prepared["is_longer"])
        embeddings.append(rows.unflatten(0, (-1, 2)))
        for scene in scenes:
            kinds, counts = [event.kind for event in scene.events], [event.count for event in scene.events]
            events.append((scene.relation, kinds, counts))
    return EmbeddedScenes(torch.cat(embeddings), events)


def open_scenes(processor: EnClapProcessor, cache: str | None, first_seed: int, num_scenes: int) -> EmbeddedScenes:
    """Embedded scenes, from the cache where they are in it."""
    if cache is None:
        return embed_scenes(processor, first_seed, num_scenes)
    path = Path(cache, f"{first_seed}-{num_scenes}.pt")
    if not path.exists():
        scenes = embed_scenes(processor, first_seed, num_scenes)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"embeddings": scenes.embeddings, "events": scenes.events}, path)
    return EmbeddedScenes(**torch.load(path))


def write_wrong_caption(rng: np.random.Generator, relation: str, kinds: list[str], counts: list[int | None]) -> str:
    """A caption in which one event is replaced, left out, or more than there is."""
    others = [kind for kind in KINDS if kind not in kinds]
    change = rng.choice(["replace", "leave out", "add"])
    kinds, counts, place = list(kinds), list(counts), int(rng.integers(len(kinds)))
    if change == "leave out" and len(kinds) > 1:
        del kinds[place], counts[place]
    elif change == "add" and len(kinds) < 3:
        place = int(rng.integers(len(kinds) + 1))
        kinds.insert(place, str(rng.choice(others)))
        counts.insert(place, None)
    else:
        kinds[place], counts[place] = str(rng.choice(others)), None
    fitting = [name for name, number in TEMPLATES if number == len(kinds)]
    return write_captions(rng, relation if relation in fitting else str(rng.choice(fitting)), kinds, counts, 1)[0]


def build_tower(tokenizer, projection_dim: int) -> ClapTextModelWithProjection:
    """An untrained RoBERTa of two layers."""
    return ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=MAX_POSITIONS,
            projection_dim=projection_dim,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-5,
            initializer_factor=1.0,
        )
    )


def compute_loss(audio: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the right caption for each scene, and of the right scene for each caption.

    Args:
        audio: (B, C).
        text: (B * (1 + wrong), C): the right captions, then the wrong ones, scene by scene.
        scale: of the cosines.
        same: bool (B, B), scenes with the same events; the captions of others among them are no wrong ones.
    """
    size = len(audio)
    target = torch.arange(size)
    right = scale * audio @ text[:size].T
    right = right.masked_fill(same & ~torch.eye(size, dtype=torch.bool), -1e4)
    wrong = scale * (audio[:, None] * text[size:].unflatten(0, (size, -1))).sum(2)  # (B, wrong)
    return 0.5 * (F.cross_entropy(torch.cat([right, wrong], dim=1), target) + F.cross_entropy(right.T, target))


def train_tower(
    scenes: EmbeddedScenes, tokenizer, steps: int, seed: int, evaluate=lambda tower: None
) -> ClapTextModelWithProjection:
    """Train a tower; `evaluate` is called from time to time, and what it returns shown."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 33])
    tower = build_tower(tokenizer, scenes.embeddings.shape[2]).train()
    log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
    parameters = [*tower.parameters(), log_scale]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = one_cycle(optimizer, steps)
    contents = [f"{sorted(set(kinds))}" for _, kinds, _ in scenes.events]
    bar = tqdm(range(steps), desc="text tower", mininterval=5.0)
    for step in bar:
        picked = rng.choice(len(contents), min(BATCH, len(contents)), replace=False)
        audio = scenes.embeddings[picked, rng.integers(2, size=len(picked))]
        captions = [write_captions(rng, *scenes.events[i], 1)[0] for i in picked]
        captions += [write_wrong_caption(rng, *scenes.events[i]) for i in picked for _ in range(NUM_WRONG)]
        words = tokenizer(captions, padding=True, return_tensors="pt")
        text = F.normalize(tower(words["input_ids"], words["attention_mask"]).text_embeds, dim=-1)
        same = torch.tensor([[contents[i] == contents[j] for j in picked] for i in picked])
        loss = compute_loss(audio, text, log_scale.exp().clamp(max=100.0), same)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", scale=f"{log_scale.exp().item():.0f}")
        if step % 500 == 499:
            bar.write(f"step {step + 1}: {evaluate(tower)}")
            tower.train()
    return tower.eval()


@torch.no_grad()
def evaluate_tower(tower: ClapTextModelWithProjection, tokenizer, scenes: EmbeddedScenes) -> dict:
    """Areas under the curve: captions of the scenes against shuffled ones, and against those with a wrong event."""
    rng = np.random.default_rng(44)
    audio = scenes.embeddings[:, 0]
    right = [write_captions(rng, *events, 1)[0] for events in scenes.events]
    wrong = [write_wrong_caption(rng, *events) for events in scenes.events]
    moved = (np.arange(len(right)) + rng.integers(1, len(right), size=len(right))) % len(right)
    shuffled = [right[i] for i in moved]
    tower.eval()
    cosines = {}
    for name, captions in (("right", right), ("shuffled", shuffled), ("wrong", wrong)):
        words = tokenizer(captions, padding=True, return_tensors="pt")
        text = tower(words["input_ids"], words["attention_mask"]).text_embeds
        cosines[name] = (audio * F.normalize(text, dim=-1)).sum(1)
    return {
        "auc_against_shuffled": round(area_under_curve(cosines["right"], cosines["shuffled"]), 4),
        "auc_against_one_wrong_event": round(area_under_curve(cosines["right"], cosines["wrong"]), 4),
        "better_than_one_wrong_event": round(float((cosines["right"] > cosines["wrong"]).float().mean()), 4),
        "mean_cosine_right": round(float(cosines["right"].mean()), 3),
        "mean_cosine_shuffled": round(float(cosines["shuffled"].mean()), 3),
        "scenes": len(right),
    }


def area_under_curve(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """How often one of the first is above one of the second; equal ones count half."""
    differences = positive[:, None] - negative[None]
    return float((differences > 0).double().mean() + 0.5 * (differences == 0).double().mean())


def add_tower(repository: str, tower: ClapTextModelWithProjection, tokenizer) -> None:
    """Put the tower into a captioner's folder, as 16-bit floats that are loaded in 32."""
    folder = Path(repository, "clap_text")
    tower.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    update_json(str(folder / "config.json"), {"dtype": "float32"})
    update_json(str(Path(repository, "processor_config.json")), {"clap_text_source": {"subfolder": "clap_text"}})


def make_tower(args: ClapTextArguments) -> dict:
    """Train, evaluate and write; returns what there is to report."""
    began = time.perf_counter()
    processor = EnClapProcessor.from_pretrained(args.repository)
    tokenizer = AutoTokenizer.from_pretrained(args.repository)
    scenes = open_scenes(processor, args.cache, FIRST_SEED, args.num_scenes)
    held_out = open_scenes(processor, args.cache, FIRST_HELD_OUT_SEED, args.num_held_out)
    tower = train_tower(scenes, tokenizer, args.steps, args.seed, lambda t: evaluate_tower(t, tokenizer, held_out))
    add_tower(args.repository, tower, tokenizer)
    stored = ClapTextModelWithProjection.from_pretrained(Path(args.repository, "clap_text"), dtype=torch.float32)
    return {
        "parameters": sum(parameter.numel() for parameter in stored.parameters()),
        "num_scenes": args.num_scenes,
        "steps": args.steps,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "evaluation": evaluate_tower(stored, tokenizer, held_out),
    }


def main() -> None:
    (args,) = HfArgumentParser(ClapTextArguments).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    report = make_tower(args)
    path = Path(args.repository, "training_report.json")
    entries = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**entries, "clap_text": report}, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
