"""Training of the default model's CLAP audio tower: captions, contrastively, and event tags together.

The text encoder and the tag head are thrown away; of a CLAP, the captioner hears the audio tower alone.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from train_default_codec import one_cycle
from train_default_data import KINDS, MEL, SceneStore, average_precision
from transformers import ClapAudioConfig, ClapAudioModelWithProjection

CLAP_BATCH = 64
CLAP_DIM = 128


def build_clap() -> ClapAudioModelWithProjection:
    """Untrained HTSAT: 128 x 128 image of 64 mels x 256 columns, 8 x 8 patches, three stages."""
    config = ClapAudioConfig(
        spec_size=128,
        num_mel_bins=MEL["num_mel_bins"],
        patch_size=8,
        patch_stride=[8, 8],
        window_size=4,
        patch_embeds_hidden_size=40,
        depths=[2, 2, 4],
        num_attention_heads=[2, 4, 8],
        num_hidden_layers=3,
        hidden_size=160,
        projection_dim=CLAP_DIM,
        enable_fusion=False,
        hidden_dropout_prob=0.0,
    )
    return ClapAudioModelWithProjection(config)


class CaptionTower(nn.Module):
    """Text side of the contrastive loss: a small transformer over caption tokens, averaged."""

    def __init__(self, vocab_size: int, dim: int = 128):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(96, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.project = nn.Linear(dim, CLAP_DIM)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.layers(self.tokens(ids) + self.positions[: ids.shape[1]], src_key_padding_mask=~mask)
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(self.project(pooled), dim=-1)


def contrastive_loss(audio: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy over the batch; pairs of other scenes with the `same` contents (B, B) do not count."""
    logits = scale * audio @ text.T
    logits = logits.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), -1e4)
    target = torch.arange(len(logits))
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def damage_mels(mels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another level and faint white noise, added where they are cheap: on the log-mel (B, columns, bins)."""
    gain = torch.rand(len(mels), 1, 1, generator=generator) * 24.0 - 18.0
    noise = torch.rand(len(mels), 1, 1, generator=generator) * 60.0 - 100.0
    return 10.0 * torch.log10(10.0 ** ((mels + gain) / 10.0) + 10.0 ** (noise / 10.0)).clamp(min=-10.0)


@torch.no_grad()
def score_clap(clap, tag_head, scenes: SceneStore, copy: int = 0) -> dict:
    """Held-out scenes: the loudest tag of one-event scenes right, mean average precision of all others."""
    clap.eval()
    logits = []
    for start in range(0, len(scenes), 100):
        indices = range(start, min(start + 100, len(scenes)))
        embedding = embed_mels(clap, scenes.mels(indices, [copy] * len(indices)))
        logits.append(tag_head(embedding))
    clap.train()
    logits, tags = torch.cat(logits), scenes.tags(range(len(scenes)))
    single = tags.sum(1) == 1
    right = tags[single].gather(1, logits[single].argmax(1, keepdim=True)).mean()
    # Whole set right when the number of events is known.
    order = logits.argsort(dim=1, descending=True)
    sets = [set(order[i, : int(tags[i].sum())].tolist()) == set(scenes.info[i].kinds) for i in range(len(scenes))]
    several = [ok for ok, one in zip(sets, single.tolist(), strict=True) if not one]
    return {
        "single_event_accuracy": round(float(right), 4),
        "several_events_map": round(average_precision(logits[~single], tags[~single]), 4),
        "several_events_set_right": round(float(np.mean(several)), 4),
    }


def embed_mels(clap: ClapAudioModelWithProjection, mels: torch.Tensor) -> torch.Tensor:
    """L2-normalised embeddings (B, C) of CLAP mels (B, columns, bins)."""
    return F.normalize(clap(input_features=mels[:, None]).audio_embeds, dim=-1)


def train_clap(scenes: SceneStore, held_out: SceneStore, tokenizer, folder: Path, steps: int, seed: int) -> dict:
    """Train the CLAP tower and write it to `folder`; returns its part of the training report."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 22])
    generator = torch.Generator().manual_seed(seed)
    clap, text = build_clap().train(), CaptionTower(len(tokenizer))
    tag_head = nn.Sequential(nn.Linear(CLAP_DIM, 256), nn.GELU(), nn.Linear(256, len(KINDS)))
    nn.init.constant_(tag_head[-1].bias, -3.0)
    log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
    with torch.no_grad():  # unit-length embeddings have small entries; the tag head needs a fair start
        tag_head[0].weight.mul_(math.sqrt(CLAP_DIM))
    parameters = [*clap.parameters(), *text.parameters(), *tag_head.parameters(), log_scale]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = one_cycle(optimizer, steps)
    contents = [f"{info.kinds}{info.relation}" for info in scenes.info]
    bar = tqdm(range(steps), desc="clap", mininterval=5.0, position=1)  # the codec's bar is above
    for step in bar:
        picked = rng.choice(len(scenes), min(CLAP_BATCH, len(scenes)), replace=False)
        mels = damage_mels(scenes.mels(picked, rng.integers(2, size=len(picked))), generator)
        captions = [scenes.info[i].captions[rng.integers(5)] for i in picked]
        words = tokenizer(captions, padding=True, return_tensors="pt")
        audio = embed_mels(clap, mels)
        caption = text(words["input_ids"], words["attention_mask"].bool())
        same = torch.tensor([[contents[i] == contents[j] for j in picked] for i in picked])
        pair_loss = contrastive_loss(audio, caption, log_scale.exp().clamp(max=50.0), same)
        tag_loss = F.binary_cross_entropy_with_logits(tag_head(audio), scenes.tags(picked)) * len(KINDS)
        optimizer.zero_grad()
        (pair_loss + tag_loss).backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            bar.set_postfix(pairs=f"{pair_loss.item():.3f}", tags=f"{tag_loss.item():.3f}")
        if step % 300 == 299:
            bar.write(f"clap step {step + 1}: {score_clap(clap, tag_head, held_out)}")
    report = {
        "parameters": sum(p.numel() for p in clap.parameters()),
        "clean": score_clap(clap, tag_head, held_out),
        "damaged": score_clap(clap, tag_head, held_out, copy=1),
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }
    clap.eval().half().save_pretrained(folder)  # the weights that are published and that the features are made with
    return report
