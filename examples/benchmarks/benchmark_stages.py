"""The benchmark's stages: each does one piece of work in this package's way, and in the stock way beside it.

Stock is: transformers' classes on the same weights, one clip at a time up to the encoder, every beam with a copy of its
clip's states; and for training the operations of the published code (eager attention, one lookup for each codebook,
masked-codec heads on all positions, all their logits kept).
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
import torch
from benchmark_models import CODEC_BANDWIDTH, Bench
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartEncoder

from enclap_hf import EnClapForConditionalGeneration
from enclap_hf.model.codec_encoder import encode_latent_alone

TIE = 2e-6  # difference of two distances, relative to the squared lengths they are made of, that is rounding


@dataclass
class Stage:
    """One piece of work. Both functions return what `compare` looks at; it returns what was found, or raises.

    `alone` gives of one clip by itself what `pick` takes of it from the batch; these are compared bit for bit.
    """

    name: str
    ours: Callable
    stock: Callable
    compare: Callable
    alone: Callable[[int], torch.Tensor] | None = None
    pick: Callable = operator.getitem

    def compare_clips(self, num_clips: int, whole) -> str:
        """Compare every clip of a batch with the same clip alone."""
        same = sum(torch.equal(self.pick(whole, i), self.alone(i)) for i in range(num_clips))
        return f"bits of {same} of {num_clips} clips as alone"


def make_stages(bench: Bench) -> dict[str, Callable[[], Stage]]:
    """How to make each stage, by its name, in the order of the table."""
    return {
        "audio": lambda: audio_stage(bench),
        "codec": lambda: codec_stage(bench),
        "clap": lambda: clap_stage(bench),
        "encoder": lambda: encoder_stage(bench),
        "greedy": lambda: search_stage(bench, "greedy", {**bench.decoding, "num_beams": 1}),
        "beam": lambda: search_stage(bench, "beam", bench.decoding),
        "caption": lambda: caption_stage(bench),
        "training": lambda: training_stage(bench),
    }


# Audio, EnCodec, CLAP


def audio_stage(bench: Bench) -> Stage:
    """Decode, resample twice and compute the mel; stock clip by clip, with transformers' numpy extractor."""

    def compare(ours, stock):
        theirs = torch.cat([features["input_features"] for _, features in stock])
        return f"mel {largest_difference(ours['input_features'], theirs, 0.05)} (dB)"

    bench.clap_extractor, bench.paths  # noqa: B018 (made here, not while the clock runs)
    return Stage(
        "audio",
        lambda: bench.processor.feature_extractor(bench.paths),
        lambda: [read_stock(bench, path) for path in bench.paths],
        compare,
    )


def read_stock(bench: Bench, path: str) -> tuple[torch.Tensor, dict]:
    samples, rate = soundfile.read(path, dtype="float32")
    wave = soxr.resample(samples, rate, 24_000)
    for_clap = soxr.resample(samples, rate, 48_000)
    for_clap = np.trunc(for_clap.clip(-1, 1) * 32767) / 32767
    features = bench.clap_extractor(for_clap, sampling_rate=48_000, return_tensors="pt")
    features["is_longer"] = torch.tensor([[False]])  # stock marks one clip of each batch at random
    return torch.from_numpy(wave), features


def codec_stage(bench: Bench) -> Stage:
    waves = [torch.from_numpy(read_codec_samples(path)) for path in bench.paths]
    codec = bench.processor.codec

    def stock():
        return [encode_stock(codec, wave.to(bench.device)) for wave in waves]

    def compare(ours, stock):
        stock = [codes.cpu() for codes in stock]
        ties = sum(count_ties(codec, *clip) for clip in zip(waves, ours, stock, strict=True))
        different = sum(int((a != b).sum()) for a, b in zip(ours, stock, strict=True))
        return f"{different} of {sum(map(torch.numel, stock))} codes differ" + f", from {ties} ties on" * bool(ties)

    return Stage(
        "codec",
        lambda: bench.processor.encode_frames(waves),
        stock,
        compare,
        lambda i: bench.processor.encode_frames([waves[i]])[0],
    )


def read_codec_samples(path: str) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(samples, rate, 24_000)


def encode_stock(codec, wave: torch.Tensor) -> torch.Tensor:
    """Codes (T, K) of one waveform."""
    return codec.encode(wave[None, None], bandwidth=CODEC_BANDWIDTH).audio_codes[0, 0].T


def count_ties(codec, wave: torch.Tensor, ours: torch.Tensor, stock: torch.Tensor) -> int:
    """In how many frames the codes (T, K) part; where they do, both have to be equally near but for rounding."""
    with torch.inference_mode():
        rest = encode_latent_alone(codec, wave.to(codec.device)).double().cpu()  # (T, H)
    same, num_ties = torch.ones(len(rest), dtype=torch.bool), 0
    for k, layer in enumerate(codec.quantizer.layers[: stock.shape[1]]):
        entries = layer.codebook.embed.double().cpu()
        distances = [(rest - entries[codes[:, k]]).pow(2).sum(1) for codes in (ours, stock)]
        size = rest.pow(2).sum(1) + entries[stock[:, k]].pow(2).sum(1)  # of what float32 rounds
        part = same & (ours[:, k] != stock[:, k])
        gaps = ((distances[0] - distances[1]).abs() / size)[part]
        check(bool((gaps < TIE).all()), f"codes differ that are {gaps.max() if len(gaps) else 0} apart")
        num_ties += int(part.sum())
        same &= ~part
        rest = rest - entries[stock[:, k]]
    return num_ties


def clap_stage(bench: Bench) -> Stage:
    prepared = bench.processor.feature_extractor(bench.paths)
    features, is_longer = prepared["input_features"], prepared["is_longer"]

    def stock():
        return torch.cat([embed_stock(bench, features[i : i + 1], is_longer[i : i + 1]) for i in range(len(features))])

    def compare(ours, stock):
        return largest_difference(ours, stock.cpu(), 1e-5)

    embed = bench.processor.clap_encoder.embed
    return Stage(
        "clap",
        lambda: embed(features, is_longer),
        stock,
        compare,
        lambda i: embed(features[i : i + 1], is_longer[i : i + 1])[0],
    )


def embed_stock(bench: Bench, features: torch.Tensor, is_longer: torch.Tensor) -> torch.Tensor:
    out = bench.stock_clap(features.to(bench.device), is_longer=is_longer.to(bench.device))
    return nn.functional.normalize(out.audio_embeds, dim=-1)


# The captioner


def encoder_stage(bench: Bench) -> Stage:
    """BART's encoder over the slots; stock clip by clip."""
    clips = [bench.take_clip(i) for i in range(len(bench.lengths))]
    tolerance = 1e-4 if bench.dtype == torch.float32 else None

    def encode(inputs: dict) -> torch.Tensor:
        return bench.captioner.model.encoder(**inputs).last_hidden_state

    def pick(states: torch.Tensor, i: int) -> torch.Tensor:
        return states[i, : bench.lengths[i] + 3]

    def compare(ours, stock):
        own = [pick(ours, i) for i in range(len(clips))]
        return largest_difference(torch.cat(own), torch.cat(stock, dim=1)[0], tolerance)

    return Stage(
        "encoder",
        lambda: encode(bench.inputs),
        lambda: [stock_encoder(bench, clip) for clip in clips],
        compare,
        lambda i: encode(clips[i])[0],
        pick,
    )


def search_stage(bench: Bench, name: str, decoding: dict) -> Stage:
    """Decoding alone, of the same encoder states, as one batch in both ways."""
    states, mask = bench.encoder_states, bench.inputs["attention_mask"]

    def ours(**options):
        return generate_ours(bench.captioner, states, mask, {**decoding, **options})

    def stock(**options):
        return generate_stock(bench.stock, states, mask, {**decoding, **options})

    def alone(i: int) -> torch.Tensor:
        length = bench.lengths[i]
        return generate_ours(bench.captioner, states[i : i + 1, : length + 3], mask[i : i + 1, :length], decoding)[0]

    def compare(ours_ids, stock_ids):
        found = compare_captions(ours_ids, stock_ids, bench.dtype)
        if bench.dtype == torch.float32 and decoding["num_beams"] > 1:  # not timed: it keeps the scores of every step
            scores = [way(return_dict_in_generate=True, output_scores=True).sequences_scores for way in (ours, stock)]
            found += f", scores {largest_difference(*scores, 1e-4)}"
        return found

    return Stage(name, ours, stock, compare, alone)


def caption_stage(bench: Bench) -> Stage:
    """Recordings to captions; stock one by one."""

    def caption(paths: list[str]) -> torch.Tensor:
        return bench.captioner.generate(**bench.processor(audio=paths).to(bench.device), **bench.decoding)

    return Stage(
        "caption",
        lambda: caption(bench.paths),
        lambda: torch.cat([caption_stock(bench, path) for path in bench.paths]),
        lambda ours, stock: compare_captions(ours, stock, bench.dtype),
        lambda i: caption(bench.paths[i : i + 1])[0],
    )


def embed_slots(model: EnClapForConditionalGeneration, inputs: dict) -> torch.Tensor:
    """The encoder's input before positions, by one lookup for each codebook: (B, T + 3, D)."""
    encoder, codes = model.model.encoder, inputs["audio_codes"]
    frames = sum(table(codes[..., k]) for k, table in enumerate(encoder.embed_encodec))
    return encoder.build_slots(frames, inputs["clap_embedding"], inputs["attention_mask"])


def stock_encoder(bench: Bench, inputs: dict) -> torch.Tensor:
    """Encoder states (1, T + 3, D) by transformers' BART encoder, whose own positions are replaced by ours."""
    encoder, slots = bench.stock.model.encoder, embed_slots(bench.model, inputs)
    slots = slots + bench.model.model.encoder.embed_positions(slots[..., 0]) - encoder.embed_positions(slots[..., 0])
    mask = nn.functional.pad(inputs["attention_mask"], (3, 0), value=1)
    return encoder(inputs_embeds=slots, attention_mask=mask).last_hidden_state


def generate_ours(model: EnClapForConditionalGeneration, states: torch.Tensor, mask: torch.Tensor, decoding: dict):
    outputs = BaseModelOutput(last_hidden_state=states.to(model.dtype))
    return model.generate(encoder_outputs=outputs, attention_mask=mask, **decoding)


def generate_stock(stock, states: torch.Tensor, mask: torch.Tensor, decoding: dict):
    outputs = BaseModelOutput(last_hidden_state=states.clone())  # it repeats them in place
    slot_mask = nn.functional.pad(mask, (3, 0), value=1)
    return stock.generate(encoder_outputs=outputs, attention_mask=slot_mask, **decoding)


def caption_stock(bench: Bench, path: str) -> torch.Tensor:
    """One recording to its caption, with transformers' own classes."""
    wave, features = read_stock(bench, path)
    codes = encode_stock(bench.processor.codec, wave.to(bench.device))[None]
    clap = embed_stock(bench, features["input_features"].float(), features["is_longer"])
    mask = torch.ones(codes.shape[:2], dtype=torch.long, device=bench.device)
    states = stock_encoder(bench, {"audio_codes": codes, "clap_embedding": clap, "attention_mask": mask})
    return generate_stock(bench.stock, states, mask, bench.decoding)


def compare_captions(ours: torch.Tensor, stock: torch.Tensor, dtype: torch.dtype) -> str:
    """float32 must give the same ids; other number types say how many captions are the same."""
    same = (ours == stock).all(1).float().mean().item()
    if dtype != torch.float32:
        return f"captions equal {same:.3f}"
    check(same == 1, f"only {same:.3f} of the captions are equal")
    return "ids equal"


# Training


def training_stage(bench: Bench) -> Stage:
    """Forward and backward of one batch; the gradients stay in the models and are compared there."""
    autocast = bench.dtype != torch.float32

    def ours():
        bench.model.train().zero_grad()
        with torch.autocast(bench.device.type, bench.dtype, enabled=autocast):
            loss = bench.model(**bench.batch).loss
        loss.backward()
        bench.model.eval()
        return loss.detach(), bench.model

    def stock():
        bench.published.train().zero_grad()
        loss = compute_published_loss(bench.published, bench.batch)
        loss.backward()
        return loss.detach(), bench.published

    exact = not autocast and not bench.args.dropout
    return Stage("training", ours, stock, lambda a, b: compare_gradients(a, b, 1e-5 if exact else None))


def compute_published_loss(model: EnClapForConditionalGeneration, batch: dict) -> torch.Tensor:
    """The losses by the published operations, which are given codes that are hidden already."""
    hidden = batch["mcm_targets"] != -100
    codes = batch["audio_codes"].masked_fill(hidden, model.config.codec_mask_token_id)
    slots = embed_slots(model, {**batch, "audio_codes": codes})
    mask = nn.functional.pad(batch["attention_mask"], (3, 0), value=1)
    states = BartEncoder.forward(model.model.encoder, inputs_embeds=slots, attention_mask=mask).last_hidden_state
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    decoded = model.model.decoder(
        input_ids=decoder_input_ids, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    logits = model.lm_head(decoded) + model.final_logits_bias
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=model.config.label_smoothing
    )
    mcm_logits = torch.stack([head(states) for head in model.mcm_heads], dim=2)  # (B, T + 3, K, codes)
    targets = nn.functional.pad(batch["mcm_targets"], (0, 0, 2, 1), value=-100)
    for k in range(model.config.num_codebooks):
        term = nn.functional.cross_entropy(mcm_logits[:, :, k].flatten(0, 1), targets[..., k].flatten())
        loss = loss + model.config.mcm_loss_weight * 0.5 ** (k + 1) * term
    return loss


def compare_gradients(ours, stock, tolerance: float | None) -> str:
    """Relative difference of the losses, and of all gradients taken as one vector."""
    (our_loss, our_model), (loss, model) = ours, stock
    loss_difference = float((our_loss.float() - loss).abs() / loss.abs())
    squared = norm = 0.0
    theirs = dict(model.named_parameters())
    for name, parameter in our_model.named_parameters():
        squared += float((parameter.grad.double() - theirs[name].grad.double()).pow(2).sum())
        norm += float(theirs[name].grad.double().pow(2).sum())
    difference = (squared / norm) ** 0.5
    if tolerance is not None:
        check(max(loss_difference, difference) <= tolerance, f"loss {loss_difference}, gradients {difference} apart")
    return f"loss {loss_difference:.1e}, gradients {difference:.1e} apart"


def largest_difference(ours: torch.Tensor, stock: torch.Tensor, tolerance: float | None) -> str:
    difference = float((ours.float() - stock.float()).abs().max())
    if tolerance is not None:
        check(difference <= tolerance, f"results are {difference} apart")
    return f"{difference:.1e} apart"


def check(holds: bool, problem: str) -> None:
    if not holds:
        raise RuntimeError(f"The two ways do not do the same work: {problem}.")
