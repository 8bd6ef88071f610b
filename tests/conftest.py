"""Tiny models of every part, built from configurations and seeds, clips of synthesised sound, and a stand-in Hub."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; threads that wait for each other would hold them up
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    EncodecConfig,
    EncodecModel,
    PreTrainedTokenizerFast,
)

from enclap_hf import EnClapConfig, EnClapFeatureExtractor, EnClapForConditionalGeneration, EnClapProcessor
from hub_server import StandInHub

SAMPLING_RATE = 24_000
CAPTIONS = ["a dog barks twice", "rain falls on a roof", "it doesn't stop, then a bell rings.", "people's voices"]
HUB_TOKENS = {
    "hf_writer": {"name": "me", "organisations": ["lab"], "write": True},
    "hf_reader": {"name": "guest", "organisations": [], "write": False},
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def build_codec(seed: int = 0) -> EncodecModel:
    torch.manual_seed(seed)
    config = EncodecConfig(
        num_filters=4,
        hidden_size=16,
        codebook_size=32,
        upsampling_ratios=[8, 5, 4, 2],
        target_bandwidths=[1.5],  # 4 codebooks of 5 bits at 75 frames a second
        num_lstm_layers=1,
    )
    model = EncodecModel(config).eval()
    for name, parameter in model.encoder.named_parameters():
        if name.endswith("original0"):  # the default start leaves the latent near zero
            parameter.data.mul_(3.0)
        elif name.endswith("bias"):  # and what is left of it the same for every sound
            parameter.data.zero_()
    # A fresh model's codebooks are zero, and so would be every code: fill them with latents of sound.
    sound = np.concatenate([make_clip(1.0, seed=100 + i) for i in range(4)])
    with torch.no_grad():
        residual = model.encoder(torch.from_numpy(sound)[None, None])  # (1, H, T)
        for layer in model.quantizer.layers:
            chosen = torch.randperm(residual.shape[2])[: model.config.codebook_size]
            layer.codebook.embed.copy_(residual[0, :, chosen].T)
            residual = residual - layer.decode(layer.encode(residual))
    return model


def build_clap(seed: int = 0, fusion: bool = False) -> ClapAudioModelWithProjection:
    torch.manual_seed(seed)
    config = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=16,
        patch_size=4,
        patch_stride=[4, 4],
        window_size=4,
        patch_embeds_hidden_size=8,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        num_hidden_layers=2,
        hidden_size=16,
        projection_dim=24,
        enable_fusion=fusion,
        aff_block_r=2,
    )
    return ClapAudioModelWithProjection(config).eval()


def build_feature_extractor(long_clips: str = "middle") -> EnClapFeatureExtractor:
    return EnClapFeatureExtractor(
        clap_sampling_rate=16_000,
        clap_window_s=2.0,
        n_fft=512,
        hop_length=160,
        num_mel_bins=16,
        frequency_max=8_000.0,
        max_codec_frames=253,
        long_clips=long_clips,
    )


def build_processor(long_clips: str = "middle") -> EnClapProcessor:
    return EnClapProcessor.from_encoders(
        build_feature_extractor(long_clips),
        build_tokenizer(),
        build_codec(),
        build_clap(fusion=long_clips == "fusion"),
        num_codebooks=4,
    )


def build_config(**overrides) -> EnClapConfig:
    fields = {
        "vocab_size": 320,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 256,
        "num_codebooks": 4,
        "codec_vocab_size": 32,
        "clap_dim": 24,
        "dropout": 0.0,
    }
    return EnClapConfig(**{**fields, **overrides})


def build_model(seed: int = 0, **overrides) -> EnClapForConditionalGeneration:
    torch.manual_seed(seed)
    model = EnClapForConditionalGeneration(build_config(**overrides)).eval()
    for parameter in model.parameters():  # larger than BART's start, so that captions differ from clip to clip
        if parameter.dim() > 1:
            parameter.data.mul_(8.0)
    return model


@pytest.fixture(scope="session")
def tiny_processor() -> EnClapProcessor:
    return build_processor()


@pytest.fixture(scope="session")
def fusion_processor() -> EnClapProcessor:
    return build_processor("fusion")


@pytest.fixture
def tiny_model() -> EnClapForConditionalGeneration:
    return build_model()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, and this process as a client of it with an empty cache, logged in with a token that may write."""
    (tmp_path / "hub").mkdir()
    with StandInHub(tmp_path / "hub", HUB_TOKENS) as hub:
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield hub
        assert hub.unknown_requests == []


def make_clip(duration_s: float, seed: int = 0, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """A gliding tone in noise: float32 (num_samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(duration_s * sampling_rate)) / sampling_rate
    tone = np.sin(2 * np.pi * (rng.uniform(200, 2000) * time + rng.uniform(50, 500) * time**2))
    return (0.4 * tone + 0.05 * rng.standard_normal(len(time))).astype(np.float32)


def make_inputs(lengths=(40, 57, 9), seed: int = 0, config: EnClapConfig | None = None, targets: bool = True) -> dict:
    """Random inputs of clips of `lengths` codec frames, padded as the collator pads, with unlike caption lengths."""
    config = config or build_config()
    rng = torch.Generator().manual_seed(seed)
    batch_size, num_frames = len(lengths), max(lengths)
    mask = torch.arange(num_frames) < torch.tensor(lengths)[:, None]  # (B, T)
    codes = torch.randint(config.codec_vocab_size, (batch_size, num_frames, config.num_codebooks), generator=rng)
    inputs = {
        "audio_codes": codes.masked_fill(~mask[..., None], config.codec_mask_token_id),
        "clap_embedding": torch.nn.functional.normalize(torch.randn(batch_size, config.clap_dim, generator=rng), dim=1),
        "attention_mask": mask.long(),
    }
    if targets:
        hidden = (torch.rand(codes.shape, generator=rng) < 0.3) & mask[..., None]
        inputs["mcm_targets"] = codes.masked_fill(~hidden, -100)
        inputs["audio_codes"] = inputs["audio_codes"].masked_fill(hidden, config.codec_mask_token_id)
        ids = torch.randint(5, config.vocab_size, (batch_size, 4 + batch_size), generator=rng)
        ids[:, 0] = config.bos_token_id
        for i in range(batch_size):
            ids[i, 4 + i] = config.eos_token_id
            ids[i, 5 + i :] = -100
        inputs["labels"] = ids
    return inputs


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    """A folder with a tiny captioner and its processor."""
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder
