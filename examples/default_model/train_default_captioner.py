"""Training of the default captioner on cached features, in one process per core that average their gradients.

Beside the published losses a head that is thrown away names the events of every frame from the encoder's states: a
caption's few words say little about where in the clip its sounds are, and this teaches it in a fraction of the steps.
"""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from tqdm import tqdm
from train_default_codec import one_cycle
from train_default_data import KINDS, frame_activity, keep_freed_memory
from train_default_features import NUM_CODEBOOKS, FeatureStore
from transformers import AutoTokenizer, EncodecModel

from enclap_hf import DataCollatorForEnClap, EnClapConfig, EnClapForConditionalGeneration
from enclap_hf.model.encodec_frames import CodecModel
from enclap_hf.sound_scenes import parse_caption

BATCH = 32  # of each process
PEAK_LR = 1.5e-3
EVENT_LOSS_WEIGHT = 0.3


def build_captioner(vocab_size: int, codec: EncodecModel, clap_dim: int) -> EnClapForConditionalGeneration:
    """Untrained captioner whose code embeddings and positions start with structure, see the functions below."""
    config = EnClapConfig(
        vocab_size=vocab_size,
        d_model=160,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=512,
        dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=0.04,
        num_codebooks=NUM_CODEBOOKS,
        codec_vocab_size=codec.config.codebook_size,
        clap_dim=clap_dim,
        label_smoothing=0.05,
        mcm_loss_weight=0.1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    model = EnClapForConditionalGeneration(config)
    start_codes_from_codebooks(model, codec)
    start_positions_from_sinusoids(model)
    return model


@torch.no_grad()
def start_codes_from_codebooks(model: EnClapForConditionalGeneration, codec: EncodecModel) -> None:
    """Start each code as its codebook vector under one random projection: a frame is then its quantised latent."""
    encoder = model.model.encoder
    books = [layer.codebook.embed for layer in codec.quantizer.layers[: len(encoder.embed_encodec)]]
    spread = torch.stack([book.var(0).sum() for book in books]).sum().sqrt()  # about the latent's length
    projection = torch.randn(books[0].shape[1], model.config.d_model) * 0.3 / spread
    for table, book in zip(encoder.embed_encodec, books, strict=True):
        table.weight[: len(book)] = book @ projection
    encoder.clap_projection.weight.normal_(std=0.3)  # entries of a unit vector are small


@torch.no_grad()
def start_positions_from_sinusoids(model: EnClapForConditionalGeneration, amplitude: float = 0.15) -> None:
    """Give the encoder's learned positions sinusoids as initial values."""
    table = model.model.encoder.embed_positions.weight
    position = torch.arange(len(table))[:, None]
    rate = torch.exp(torch.arange(0, table.shape[1], 2) * (-math.log(1000.0) / table.shape[1]))
    table[:, 0::2] = amplitude * torch.sin(position * rate)
    table[:, 1::2] = amplitude * torch.cos(position * rate)


def plan_batches(features: FeatureStore, rank: int, num_processes: int, rng: np.random.Generator):
    """Batches of scene indices without end, drawn at random, of alike lengths, shared out among processes."""
    lengths = np.array([len(clips[0]) for clips in features.codes])
    step = BATCH * num_processes
    while True:
        order = rng.permutation(len(features))
        pools = np.array_split(order, -(-len(order) // 2000))
        order = np.concatenate([pool[lengths[pool].argsort()] for pool in pools])
        groups = [order[i : i + step] for i in range(0, len(order) - step + 1, step)] or [np.resize(order, step)]
        for k in rng.permutation(len(groups)):
            yield groups[k][rank::num_processes]


def fit_captioner(rank: int, features: FeatureStore, work: Path, steps: int, seed: int, num_processes: int) -> None:
    """Body of one training process; process 0 draws the bar and writes the model."""
    torch.set_num_threads(1)
    keep_freed_memory()
    if num_processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{work}/gloo", rank=rank, world_size=num_processes)
    torch.manual_seed(seed)  # the same initial weights in every process
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    codec = CodecModel.from_pretrained(work / "codec", dtype=torch.float32)
    model = build_captioner(len(tokenizer), codec, len(features.embeddings[0][0])).train()
    head = nn.Sequential(nn.LayerNorm(model.config.d_model), nn.Linear(model.config.d_model, len(KINDS)))
    nn.init.constant_(head[1].bias, -3.0)
    parameters = [*model.parameters(), *head.parameters()]
    torch.manual_seed(seed * 1000 + rank + 1)
    collate = DataCollatorForEnClap(codec_vocab_size=model.config.codec_vocab_size, max_codec_frames=300)
    labels = [tokenizer(list(info.captions))["input_ids"] for info in features.scenes.info]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = one_cycle(optimizer, steps)
    batches = plan_batches(features, rank, num_processes, np.random.default_rng([seed, 33]))
    rng = np.random.default_rng([seed, 44, rank])
    began, log = time.perf_counter(), []
    bar = tqdm(range(steps), desc="captioner", mininterval=5.0, disable=rank > 0)
    for step in bar:
        clips, picked = [], next(batches)
        for i in picked:
            copy = int(rng.integers(features.num_copies))
            clips.append(
                {
                    "audio_codes": features.codes[i][copy],
                    "clap_embedding": features.embeddings[i][copy],
                    "labels": labels[i][rng.integers(len(labels[i]))],
                }
            )
        batch = collate(clips)
        output = model(**batch)
        event_loss = frame_event_loss(head, output.encoder_last_hidden_state, batch["attention_mask"], features, picked)
        optimizer.zero_grad()
        (output.loss + EVENT_LOSS_WEIGHT * event_loss).backward()
        if num_processes > 1:
            average_gradients(parameters, num_processes)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            log.append([step, round(output.caption_loss.item(), 4), round(time.perf_counter() - began)])
            losses = {"caption": output.caption_loss, "mcm": output.mcm_loss, "events": event_loss}
            bar.set_postfix({name: f"{loss.item():.3f}" for name, loss in losses.items()})
        if rank == 0 and (step % 500 == 499 or step == steps - 1):
            model.save_pretrained(work / "captioner")
            (work / "captioner" / "log.json").write_text(json.dumps(log))


def frame_event_loss(head, states, attention_mask, features: FeatureStore, picked) -> torch.Tensor:
    """Cross entropy of the events of each frame, from the encoder's states (B, T + 3, D); sum over kinds."""
    num_frames = attention_mask.shape[1]
    active = np.stack([frame_activity(features.scenes.info[i], 0.0, num_frames) for i in picked])
    losses = nn.functional.binary_cross_entropy_with_logits(
        head(states[:, 2:-1]), torch.from_numpy(active), reduction="none"
    )
    return (losses.sum(-1) * attention_mask).sum() / attention_mask.sum()


def average_gradients(parameters: list, num_processes: int) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= num_processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def train_captioner(features: FeatureStore, work: Path, steps: int, seed: int, num_processes: int) -> None:
    """Train the captioner and write it to `work`/captioner."""
    rendezvous = work.resolve() / "gloo"
    rendezvous.unlink(missing_ok=True)
    arguments = (features, work.resolve(), steps, seed, num_processes)
    if num_processes == 1:
        fit_captioner(0, *arguments)
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.start_processes(fit_captioner, arguments, nprocs=num_processes, start_method="fork")


@torch.no_grad()
def caption_features(model, tokenizer, features: FeatureStore, copy: int = 0, **search) -> list[str]:
    """Caption every scene from its features, greedily unless `search` says otherwise."""
    model.eval()
    search = {"num_beams": 1, "do_sample": False, "max_length": 80, "no_repeat_ngram_size": 0, **search}
    collate = DataCollatorForEnClap(codec_vocab_size=model.config.codec_vocab_size, training=False)
    order = sorted(range(len(features)), key=lambda i: len(features.codes[i][copy]))
    captions = [""] * len(features)
    for start in tqdm(range(0, len(order), 50), desc="captions", unit="batch", mininterval=5.0):
        picked = order[start : start + 50]
        batch = collate(
            [{"audio_codes": features.codes[i][copy], "clap_embedding": features.embeddings[i][copy]} for i in picked]
        )
        texts = tokenizer.batch_decode(model.generate(**batch, **search), skip_special_tokens=True)
        for i, text in zip(picked, texts, strict=True):
            captions[i] = text
    return captions


def score_captioner(model, tokenizer, features: FeatureStore, copy: int = 0, **search) -> dict:
    """Precision and recall of the named events by number of events, whole sets right, relation right given the set."""
    captions = caption_features(model, tokenizer, features, copy, **search)
    counts = {"one": [0, 0, 0, 0, 0], "several": [0, 0, 0, 0, 0]}  # hits, named, true, whole sets, scenes
    relations, orders = [], []
    for info, caption in zip(features.scenes.info, captions, strict=True):
        parsed, true = parse_caption(caption), [event[0] for event in info.events]
        hits = len(set(true) & set(parsed.kinds))
        row = counts["one" if len(true) == 1 else "several"]
        for place, value in enumerate((hits, len(parsed.kinds), len(true), set(true) == set(parsed.kinds), 1)):
            row[place] += value
        if len(true) > 1 and hits == len(true):
            relations.append(parsed.relation == info.relation)
            if info.relation == parsed.relation == "then" and len(parsed.kinds) == len(true):
                orders.append(list(parsed.kinds) == true)
    scores = {}
    for name, (hits, named, true, whole, scenes) in counts.items():
        scores[f"{name}_precision"] = round(hits / max(1, named), 4)
        scores[f"{name}_recall"] = round(hits / max(1, true), 4)
        scores[f"{name}_whole_set"] = round(whole / max(1, scenes), 4)
    scores["relation_right"] = round(float(np.mean(relations)) if relations else 0.0, 4)
    scores["order_right"] = round(float(np.mean(orders)) if orders else 0.0, 4)
    return {**scores, "scenes": len(captions)}
