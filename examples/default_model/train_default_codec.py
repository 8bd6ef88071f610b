"""Training of the default model's codec: an EnCodec encoder with its codebooks, without a decoder.

Distinctive choices:
* It is trained for the captioner, not for the ear: from each frame's latent, two small heads that are thrown away
  afterwards read the log-mel around the frame and which events sound (semantic distillation as in SpeechTokenizer,
  with the scene's own ground truth as the teacher).
* Its start is data-dependent: every convolution is scaled to unit variance, or the latent stays near zero.
* Codebooks start as residual k-means on half-whitened latents, or the later ones stay empty; the whitening is folded
  into the last convolution, so the result is a plain EncodecModel. Then the quantiser joins the training loop.
"""

import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from train_default_data import (
    FRAME,
    KINDS,
    MEL,
    SAMPLING_RATE,
    SceneStore,
    average_precision,
    compute_log_mel,
    damage,
    frame_activity,
)
from transformers import EncodecConfig, EncodecModel

ACTIVITY_HOLD_S = 0.3  # an event still counts as heard this long after its end: a causal encoder names it late
SHORT_CROP_S, CROP_S = 1.0, 3.0
CODEC_BATCH = 8


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """5 % linear warm-up, then a cosine down to 2 % of the peak."""
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def build_codec() -> EncodecModel:
    """Untrained EnCodec: 24 kHz mono, 25 frames a second, 8 codebooks of 256."""
    config = EncodecConfig(
        sampling_rate=SAMPLING_RATE,
        num_filters=16,
        hidden_size=96,
        kernel_size=31,  # at random, long filters already tell frequencies apart
        upsampling_ratios=[4, 5, 6, 8],  # the encoder takes them from the right: fast down, then wide
        num_lstm_layers=1,
        use_conv_shortcut=False,
        normalize=False,
        codebook_size=256,
        target_bandwidths=[1.6],  # 8 codebooks x 8 bits x 25 frames a second
    )
    return EncodecModel(config)


class CodecHeads(nn.Module):
    """What the latent must tell: the log-mel columns of the frame and the one before it, and the events."""

    def __init__(self, hidden_size: int, mel_outputs: int, num_kinds: int):
        super().__init__()
        self.mel = nn.Sequential(nn.Linear(hidden_size, 128), nn.GELU(), nn.Linear(128, mel_outputs))
        self.events = nn.Sequential(nn.Linear(hidden_size, 128), nn.GELU(), nn.Linear(128, num_kinds))
        nn.init.constant_(self.events[-1].bias, -3.0)

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mel(latent), self.events(latent)


def frame_mel(audio: torch.Tensor) -> torch.Tensor:
    """Mel targets (B, T, 4 * bins), about unit variance: the four columns that end last inside each frame."""
    hop = FRAME // 2
    mel = compute_log_mel(F.pad(audio, (MEL["n_fft"] - hop, 0)), hop, center=False)  # column j ends at (j + 1) * hop
    mel = (mel.clamp(min=-70.0) + 35.0) / 18.0
    mel = F.pad(mel, (0, 0, 2, 0), value=-2.0)
    return mel.unfold(1, 4, 2).flatten(2)  # (B, 2 T + 2, bins) -> (B, T, bins, 4) -> (B, T, 4 * bins)


def draw_crops(
    scenes: SceneStore, batch: int, crop_s: float, rng: np.random.Generator, clean: bool = False, mp3_like: float = 0.25
):
    """Random crops: audio (B, samples), mel targets (B, T, 4 * bins), activity (B, T, kinds)."""
    num_frames = int(crop_s * SAMPLING_RATE / FRAME)
    audio, activity = [], []
    for i in rng.integers(len(scenes), size=batch):
        # Half of the crops begin where the scene begins, as every clip does that the captioner will hear.
        latest = max(0, scenes.info[i].num_samples - num_frames * FRAME)
        start = int(rng.integers(latest + 1)) if rng.random() < 0.5 else 0
        crop = scenes.audio(i, start, num_frames * FRAME)
        audio.append(crop if clean or rng.random() < 0.2 else damage(crop, rng, mp3_like))
        activity.append(frame_activity(scenes.info[i], start / SAMPLING_RATE, num_frames, ACTIVITY_HOLD_S))
    audio = torch.from_numpy(np.stack(audio))
    return audio, frame_mel(audio), torch.from_numpy(np.stack(activity))


@torch.no_grad()
def scale_to_unit_variance(encoder: nn.Module, audio: torch.Tensor) -> None:
    """Rescale each convolution so that it gives unit variance on `audio` (B, samples)."""

    def rescale(module, _, output):
        spread = output.std() + 1e-6
        module.weight = module.weight / spread  # weight normalisation splits it up again
        module.bias /= spread
        return output / spread

    hooks = [m.register_forward_hook(rescale) for m in encoder.modules() if isinstance(m, nn.Conv1d)]
    encoder(audio[:, None])
    for hook in hooks:
        hook.remove()


def codec_loss(heads: CodecHeads, latent: torch.Tensor, mel: torch.Tensor, activity: torch.Tensor):
    """Loss and its two parts from a latent (B, T, hidden)."""
    mel_guess, event_logits = heads(latent)
    mel_loss = F.mse_loss(mel_guess, mel)
    event_loss = F.binary_cross_entropy_with_logits(event_logits, activity) * activity.shape[-1]
    return mel_loss + event_loss, mel_loss, event_loss


def fold_whitening(codec: EncodecModel, latents: torch.Tensor, power: float = 0.25) -> None:
    """Divide the latent's principal directions by their variance ** power, inside the last convolution."""
    mean = latents.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(latents.T).double())
    matrix = (vectors * values.clamp(min=values.max() * 1e-6) ** -power @ vectors.T).float()
    conv = codec.encoder.layers[-1].conv
    with torch.no_grad():
        conv.weight = torch.einsum("oi,ick->ock", matrix, conv.weight)
        conv.bias.copy_(matrix @ (conv.bias - mean))


@torch.no_grad()
def fill_codebooks(codec: EncodecModel, latents: torch.Tensor, seed: int, iterations: int = 15) -> None:
    """Residual k-means: one codebook after the other on what the earlier ones leave of `latents` (N, hidden)."""
    generator = torch.Generator().manual_seed(seed)
    residual = latents.clone()
    for layer in tqdm(codec.quantizer.layers, desc="k-means", unit="codebook"):
        book = layer.codebook
        embed = residual[torch.randperm(len(residual), generator=generator)[: book.codebook_size]].clone()
        if len(embed) < book.codebook_size:  # smoke runs
            embed = embed.repeat(-(-book.codebook_size // len(embed)), 1)[: book.codebook_size]
        for _ in range(iterations):
            book.embed.copy_(embed)
            nearest = book.quantize(residual)
            count = torch.bincount(nearest, minlength=book.codebook_size).float()
            total = torch.zeros_like(embed).index_add_(0, nearest, residual)
            spare = residual[torch.randint(len(residual), (book.codebook_size,), generator=generator)]
            embed = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], spare)
        book.embed.copy_(embed)
        nearest = book.quantize(residual)
        residual = residual - embed[nearest]


class StraightThroughQuantizer:
    """The codec's residual quantiser in the training loop: gradients pass, codebooks follow moving averages."""

    def __init__(self, codec: EncodecModel, decay: float = 0.99):
        self.books = [layer.codebook for layer in codec.quantizer.layers]
        self.decay = decay
        for book in self.books:
            book.cluster_size.fill_(1.0)
            book.embed_avg.copy_(book.embed)

    def __call__(self, latent: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Quantised latent (N, hidden) with straight-through gradient; a generator means: learn codebooks too."""
        residual = latent.detach()
        for book in self.books:
            nearest = book.quantize(residual)
            quantised = book.embed[nearest]
            if generator is not None:
                self._follow(book, residual, nearest, generator)
            residual = residual - quantised
        return latent - residual

    def _follow(self, book, residual, nearest, generator) -> None:
        count = torch.bincount(nearest, minlength=book.codebook_size).float()
        total = torch.zeros_like(book.embed).index_add_(0, nearest, residual)
        book.cluster_size.lerp_(count, 1 - self.decay)
        book.embed_avg.lerp_(total, 1 - self.decay)
        book.embed.copy_(book.embed_avg / book.cluster_size.clamp(min=1e-3)[:, None])
        dead = (book.cluster_size < 0.05).nonzero()[:, 0]
        if len(dead):
            fresh = residual[torch.randint(len(residual), (len(dead),), generator=generator)]
            book.embed[dead], book.embed_avg[dead], book.cluster_size[dead] = fresh, fresh, 1.0


@torch.no_grad()
def collect_latents(codec: EncodecModel, scenes: SceneStore, num_crops: int, rng: np.random.Generator) -> torch.Tensor:
    """Latents (N, hidden) of fresh crops, damaged as in training."""
    rows = []
    for _ in tqdm(range(-(-num_crops // CODEC_BATCH)), desc="latents", unit="batch", mininterval=5.0):
        audio, _, _ = draw_crops(scenes, CODEC_BATCH, CROP_S, rng)
        rows.append(codec.encoder(audio[:, None]).transpose(1, 2).flatten(0, 1))
    return torch.cat(rows)


@torch.no_grad()
def score_codec(codec, heads, scenes: SceneStore, quantise=None, num_crops: int = 160) -> dict:
    """On clean held-out crops: share of mel variance explained, mean average precision of the events by frame."""
    rng = np.random.default_rng(1)
    errors, variances, logits, targets = [], [], [], []
    for _ in range(max(1, min(num_crops, len(scenes)) // CODEC_BATCH)):
        audio, mel, activity = draw_crops(scenes, CODEC_BATCH, CROP_S, rng, clean=True)
        latent = codec.encoder(audio[:, None]).transpose(1, 2)
        if quantise is not None:
            latent = quantise(latent.flatten(0, 1), None).view_as(latent)
        mel_guess, event_logits = heads(latent)
        errors.append(F.mse_loss(mel_guess, mel))
        variances.append(mel.var())
        logits.append(event_logits.flatten(0, 1))
        targets.append(activity.flatten(0, 1))
    return {
        "mel_explained": round(1.0 - float(torch.stack(errors).mean() / torch.stack(variances).mean()), 4),
        "frame_event_map": round(average_precision(torch.cat(logits), torch.cat(targets)), 4),
    }


def train_codec(scenes: SceneStore, held_out: SceneStore, folder: Path, steps: int, seed: int) -> dict:
    """Train the codec and write it to `folder`; returns its part of the training report.

    Three phases: short crops first, since learning to hear spectra needs many steps rather than long memory; then
    crops long enough for the LSTM; the last with the quantiser in the loop.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11])
    codec = build_codec()
    heads = CodecHeads(codec.config.hidden_size, 4 * MEL["num_mel_bins"], len(KINDS))
    del codec.decoder  # never trained
    scale_to_unit_variance(codec.encoder, draw_crops(scenes, 4 * CODEC_BATCH, 1.0, rng)[0])
    report = {"parameters": sum(p.numel() for p in codec.encoder.parameters())}

    phases = [max(1, round(steps * share)) for share in (0.6, 0.3, 0.1)]
    fit = partial(_fit_codec, codec, scenes=scenes, held_out=held_out, rng=rng)
    fit(heads, phases[0], SHORT_CROP_S, peak_lr=2e-3)
    fit(heads, phases[1], CROP_S, peak_lr=1.5e-3)
    report["continuous"] = score_codec(codec, heads, held_out)

    latents = collect_latents(codec, scenes, min(len(scenes), 1600), rng)
    fold_whitening(codec, latents)
    latents = collect_latents(codec, scenes, min(len(scenes), 1600), rng)
    fill_codebooks(codec, latents, seed)
    quantise = StraightThroughQuantizer(codec)
    # The heads have to learn the whitened space anew.
    heads = CodecHeads(codec.config.hidden_size, 4 * MEL["num_mel_bins"], len(KINDS))
    fit(heads, phases[2], CROP_S, peak_lr=1e-3, quantise=quantise)
    report["quantised"] = score_codec(codec, heads, held_out, quantise)

    for book in quantise.books:  # only inference is left to them
        book.embed_avg.copy_(book.embed)
    for module in codec.encoder.modules():
        module.eval()
    report["minutes"] = round((time.perf_counter() - began) / 60, 1)
    save_codec(codec, folder)
    return report


def _fit_codec(codec, heads, steps, crop_s, peak_lr, scenes, held_out, rng, quantise=None) -> None:
    """One phase of codec training; `quantise` puts the quantiser between latent and heads."""
    generator = torch.Generator().manual_seed(steps)
    mp3_like = 0.05 if crop_s == SHORT_CROP_S else 0.2
    parameters = [*codec.encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = one_cycle(optimizer, steps)
    bar = tqdm(range(steps), desc="codec, quantised" if quantise else "codec", mininterval=5.0)
    for step in bar:
        audio, mel, activity = draw_crops(scenes, CODEC_BATCH, crop_s, rng, mp3_like=mp3_like)
        latent = codec.encoder(audio[:, None]).transpose(1, 2)  # (B, hidden, T) -> (B, T, hidden)
        commitment = 0.0
        if quantise is not None:
            learn = generator if step < steps * 0.9 else None
            quantised = quantise(latent.flatten(0, 1), learn).view_as(latent)
            commitment = 0.25 * F.mse_loss(latent, quantised.detach())
            latent = quantised
        loss, mel_loss, event_loss = codec_loss(heads, latent, mel, activity)
        optimizer.zero_grad()
        (loss + commitment).backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            bar.set_postfix(mel=f"{mel_loss.item():.3f}", events=f"{event_loss.item():.3f}")
        if step % 300 == 299:
            bar.write(f"codec step {step + 1}: {score_codec(codec, heads, held_out, quantise)}")


def save_codec(codec: EncodecModel, folder: Path) -> None:
    """Write config and 16-bit weights, the ones that are published and that the features are made with.

    There is no decoder, so a plain EncodecModel reports its keys as missing when it loads them.
    """
    codec.half().save_pretrained(folder)
