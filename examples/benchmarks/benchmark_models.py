"""What the benchmark runs: random weights in the published shapes, clips of noise, and the stock models beside them."""

import copy
import os
import tempfile
from functools import cached_property

import numpy as np
import soundfile
import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapFeatureExtractor,
    EncodecConfig,
    EncodecModel,
)

from enclap_hf import (
    DEFAULT_MODEL,
    EnClapConfig,
    EnClapFeatureExtractor,
    EnClapForConditionalGeneration,
    EnClapProcessor,
)

# BART's layers, width and heads in each size; 64 wide heads and four times wider feed-forward layers in all.
SIZES = {"tiny": (2, 128), "base": (6, 768), "large": (12, 1024)}
VOCAB_SIZE = 50_265
CLIP_S, CLIP_SAMPLING_RATE = 10, 44_100
CODEC_BANDWIDTH, CODEC_FRAME_RATE = 12.0, 75  # kbit/s, Hz: 16 codebooks of 10 bits
NO_END = -1e4  # added to </s>, so that random weights write captions of full length


class Bench:
    """Everything that stages run on, each part made when first used, so that a process holds only what it runs."""

    def __init__(self, args):
        self.args, self.device, self.dtype = args, torch.device(args.device), getattr(torch, args.dtype)
        self.decoding = {"num_beams": args.num_beams, "max_length": args.num_tokens + 1}

    @cached_property
    def model(self) -> EnClapForConditionalGeneration:
        """The captioner in float32."""
        return build_model(self.args.size, self.args.dropout).to(self.device)

    @cached_property
    def captioner(self) -> EnClapForConditionalGeneration:
        """The captioner in the number type that is asked for."""
        if self.dtype == torch.float32:
            return self.model
        return build_model(self.args.size).to(self.device, self.dtype)

    @cached_property
    def stock(self) -> BartForConditionalGeneration:
        """transformers' BART with the same weights, in float32."""
        return build_stock(self.model).to(self.device)

    @cached_property
    def published(self) -> EnClapForConditionalGeneration:
        """The captioner as the published code trains it: eager attention, and `nn.Linear` itself."""
        model = build_model(self.args.size, self.args.dropout).to(self.device)
        model.set_attn_implementation("eager")
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.__class__ = nn.Linear
        return model

    @cached_property
    def processor(self) -> EnClapProcessor:
        """The published front end with random weights."""
        return build_processor().to(self.device)

    @cached_property
    def stock_clap(self) -> ClapAudioModelWithProjection:
        """The same audio tower as transformers has it: the processor's multiplies with oneDNN."""
        return build_clap().to(self.device)

    @cached_property
    def clap_extractor(self) -> ClapFeatureExtractor:
        """transformers' mel in numpy, with LAION-CLAP's filter bank."""
        return ClapFeatureExtractor(truncation="fusion", padding="repeatpad", frequency_min=50)

    @cached_property
    def paths(self) -> list[str]:
        """Recordings on disk."""
        self._folder = tempfile.TemporaryDirectory(prefix="enclap_benchmark_")  # removed with the bench
        durations = [length / CODEC_FRAME_RATE for length in self.lengths]
        return write_clips(self._folder.name, len(durations), durations)

    @cached_property
    def lengths(self) -> list[int]:
        """Codec frames of each clip."""
        return self.args.lengths or [CLIP_S * CODEC_FRAME_RATE] * self.args.batch_size

    @cached_property
    def batch(self) -> dict:
        """A training batch of random codes, 14 % of them hidden, in spans of 10 frames for each codebook by itself."""
        config, num_clips, num_frames = EnClapConfig(), len(self.lengths), max(self.lengths)
        rng = torch.Generator().manual_seed(3)
        codes = torch.randint(config.codec_vocab_size, (num_clips, num_frames, config.num_codebooks), generator=rng)
        starts = torch.rand(num_clips, num_frames - 9, config.num_codebooks, generator=rng).topk(11, dim=1).indices
        hidden = torch.zeros_like(codes, dtype=torch.bool)
        for offset in range(10):
            hidden.scatter_(1, starts + offset, True)
        clap = nn.functional.normalize(torch.randn(num_clips, config.clap_dim, generator=rng))
        labels = torch.randint(3, VOCAB_SIZE, (num_clips, self.args.num_tokens), generator=rng)
        batch = {
            "audio_codes": codes,
            "clap_embedding": clap,
            "attention_mask": (torch.arange(num_frames) < torch.tensor(self.lengths)[:, None]).long(),
            "labels": labels,
            "mcm_targets": torch.where(hidden, codes, -100),
        }
        return {name: value.to(self.device) for name, value in batch.items()}

    @property
    def inputs(self) -> dict:
        """The batch's audio."""
        return {name: self.batch[name] for name in ("audio_codes", "clap_embedding", "attention_mask")}

    def take_clip(self, i: int) -> dict:
        """The audio of one clip of the batch, without padding."""
        own = {name: value[i : i + 1] for name, value in self.inputs.items()}
        return {name: value if name == "clap_embedding" else value[:, : self.lengths[i]] for name, value in own.items()}

    @cached_property
    def encoder_states(self) -> torch.Tensor:
        """(B, T + 3, D), float32."""
        with torch.no_grad():
            return self.model.model.encoder(**self.inputs).last_hidden_state


def build_model(size: str, dropout: float = 0.0) -> EnClapForConditionalGeneration:
    """A captioner of the published shape with random weights, in evaluation mode."""
    layers, width = SIZES[size]
    config = EnClapConfig(
        vocab_size=VOCAB_SIZE,
        d_model=width,
        dropout=dropout,
        **{f"{part}_layers": layers for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": width // 64 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 4 * width for part in ("encoder", "decoder")},
    )
    torch.manual_seed(0)
    model = EnClapForConditionalGeneration(config).eval()
    model.final_logits_bias[0, config.eos_token_id] = NO_END
    return model


def build_stock(model: EnClapForConditionalGeneration) -> BartForConditionalGeneration:
    """transformers' BART with the same weights, and so the same captions of the same encoder outputs."""
    fields = model.config.to_dict()
    config = BartConfig(**{name: fields[name] for name in BartConfig().to_dict() if name in fields})
    stock = BartForConditionalGeneration(config).eval()
    missing = stock.load_state_dict(model.state_dict(), strict=False).missing_keys
    if missing:
        raise RuntimeError(f"Stock BART lacks {missing}; the comparison would be of two models.")
    stock.generation_config = copy.deepcopy(model.generation_config)
    return stock


def build_processor() -> EnClapProcessor:
    """The published front end with random weights."""
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_MODEL)
    return EnClapProcessor.from_encoders(EnClapFeatureExtractor(), tokenizer, build_codec(), build_clap())


def build_codec() -> EncodecModel:
    """EnCodec 24 kHz with random weights, and codebooks filled so that its codes differ."""
    torch.manual_seed(1)
    codec = EncodecModel(EncodecConfig(target_bandwidths=[1.5, 3.0, 6.0, 12.0, 24.0])).eval()
    with torch.no_grad():
        latents = codec.encoder(torch.randn(1, 1, 20 * 24_000))[0]
        for layer in codec.quantizer.layers:
            layer.codebook.embed.copy_(latents[:, torch.randperm(latents.shape[1])[: codec.config.codebook_size]].T)
    return codec


def build_clap() -> ClapAudioModelWithProjection:
    """The audio tower of LAION-CLAP with fusion (HTSAT-tiny) with random weights."""
    torch.manual_seed(2)
    return ClapAudioModelWithProjection(ClapAudioConfig(enable_fusion=True)).eval()


def write_clips(folder: str, num_clips: int, durations_s: float | list[float] = CLIP_S) -> list[str]:
    """Clips of decaying noise as flac files, of one duration or one each."""
    paths = []
    for i in range(num_clips):
        rng = np.random.default_rng(i)
        duration_s = durations_s[i] if isinstance(durations_s, list) else durations_s
        num_samples = round(duration_s * CLIP_SAMPLING_RATE)
        samples = np.clip(0.2 * rng.standard_normal(num_samples) * np.linspace(1, 0.1, num_samples), -1, 1)
        paths.append(os.path.join(folder, f"clip_{i}.flac"))
        soundfile.write(paths[-1], samples, CLIP_SAMPLING_RATE)
    return paths
