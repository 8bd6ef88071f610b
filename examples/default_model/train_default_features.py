"""What the default captioner is trained on: codec codes and CLAP embeddings of each scene, as it is and damaged."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from train_default_data import (
    KINDS,
    SHARD_SIZE,
    SceneStore,
    average_precision,
    compute_clap_mel,
    damage,
    keep_freed_memory,
    load_shard,
    run_shards,
)

from enclap_hf.model.clap_encoder import ClapEncoder
from enclap_hf.model.encodec_frames import EncodecFrames

NUM_CODEBOOKS = 8


def make_feature_shard(
    folder: str, shard: int, num_scenes: int, scenes_folder: Path, first_seed: int, encoders: dict, num_copies: int
) -> int:
    """Encode the scenes of one shard, copy 0 clean, the others damaged; a finished shard is left alone."""
    path = Path(folder) / f"{shard:05d}.npz"
    if path.exists():
        return num_scenes
    torch.set_num_threads(1)
    keep_freed_memory()
    codec, clap = EncodecFrames(str(encoders["codec"])), ClapEncoder(str(encoders["clap"]))
    codec.limit_codebooks(NUM_CODEBOOKS)
    infos, audio, _ = load_shard(scenes_folder, shard)
    waveforms = []
    for i, info in enumerate(infos[:num_scenes]):
        clean = audio[info.start : info.start + info.num_samples].astype(np.float32) / 32767.0
        rng = np.random.default_rng([first_seed + shard * SHARD_SIZE + i, 2])
        waveforms += [clean] + [damage(clean, rng, mp3_like_share=0.35) for _ in range(num_copies - 1)]
    codes = codec.encode([torch.from_numpy(waveform) for waveform in waveforms])
    mels = torch.stack([compute_clap_mel(waveform) for waveform in waveforms])
    embeddings = clap.embed(mels[:, None], torch.zeros(len(mels), 1, dtype=torch.bool))
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        codes=torch.cat(codes).numpy().astype(np.uint8),
        num_frames=np.array([len(clip) for clip in codes]),
        embeddings=embeddings.numpy().astype(np.float16),
    )
    temporary.rename(path)
    return num_scenes


class CodeProbe(nn.Module):
    """A reader without a sense of order: sum of learned code embeddings, mean and maximum over the frames, an MLP."""

    def __init__(self, num_kinds: int, dim: int = 96):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(257, dim, padding_idx=256) for _ in range(NUM_CODEBOOKS))
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 256), nn.GELU(), nn.Linear(256, num_kinds))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        frames = sum(table(codes[..., k]) for k, table in enumerate(self.tables))  # (B, T, K) -> (B, T, dim)
        real = (codes[..., :1] != 256).float()
        pooled = [(frames * real).sum(1) / real.sum(1), (frames - 1e4 * (1 - real)).amax(1)]
        return self.mlp(torch.cat(pooled, dim=1))


def probe_codes(training: "FeatureStore", held_out: "FeatureStore", steps: int, seed: int) -> dict:
    """How well the clean codes alone tell which events a held-out scene holds, without their order."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 55])
    probe = CodeProbe(len(KINDS))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3)
    for step in tqdm(range(steps), desc="probe", mininterval=5.0):
        picked = rng.integers(len(training), size=64)
        logits = probe(training.padded_codes(picked))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, training.scenes.tags(picked))
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = torch.cat([probe(held_out.padded_codes([i])) for i in range(len(held_out))])
    tags = held_out.scenes.tags(range(len(held_out)))
    scores = {}
    for name, rows in (("one", tags.sum(1) == 1), ("several", tags.sum(1) > 1)):
        ranked = logits[rows].argsort(dim=1, descending=True)
        whole = [
            set(kinds[: int(true.sum())].tolist()) == set(true.nonzero()[:, 0].tolist())
            for kinds, true in zip(ranked, tags[rows], strict=True)
        ]
        scores[f"{name}_set_right"] = round(float(np.mean(whole)), 4)
        scores[f"{name}_map"] = round(average_precision(logits[rows], tags[rows]), 4)
    return scores


class FeatureStore:
    """Features of all scenes of a store: `codes[i][copy]` (T, K) uint8, `embeddings[i][copy]` (C,).

    Args:
        folder: where the shards lie or will lie.
        scenes: the scenes.
        codec, clap: folders of the two encoders.
        num_copies: copies of a scene, the first clean, the others damaged.
        num_processes: processes that make what is missing.
    """

    def __init__(
        self, folder: Path, scenes: SceneStore, codec: Path, clap: Path, num_copies: int = 2, num_processes: int = 2
    ):
        num_shards = -(-len(scenes) // SHARD_SIZE)
        if not all((folder / f"{k:05d}.npz").exists() for k in range(num_shards)):
            run_shards(
                make_feature_shard,
                folder,
                len(scenes),
                num_processes,
                f"features {folder.name}",
                scenes_folder=scenes.folder,
                first_seed=scenes.first_seed,
                encoders={"codec": codec, "clap": clap},
                num_copies=num_copies,
            )
        self.scenes, self.num_copies = scenes, num_copies
        self.codes, self.embeddings = [], []
        for k in range(num_shards):
            with np.load(folder / f"{k:05d}.npz") as shard:
                clips = np.split(shard["codes"], np.cumsum(shard["num_frames"])[:-1])
                self.codes += [clips[i : i + num_copies] for i in range(0, len(clips), num_copies)]
                self.embeddings += list(shard["embeddings"].reshape(-1, num_copies, shard["embeddings"].shape[-1]))

    def __len__(self) -> int:
        return len(self.codes)

    def padded_codes(self, indices, copy: int = 0) -> torch.Tensor:
        """Codes (B, T, K) of some scenes, 256 behind the shorter ones."""
        clips = [torch.from_numpy(self.codes[i][copy].astype(np.int64)) for i in indices]
        return nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=256)

    def codebook_perplexity(self) -> list[float]:
        """Codes in effective use, per codebook, over the clean copies."""
        codes = np.concatenate([clips[0] for clips in self.codes])
        shares = [np.bincount(column, minlength=256) / len(column) for column in codes.T]
        return [round(float(np.exp(-np.sum(share * np.log(share + 1e-12)))), 1) for share in shares]
