"""Checkpoints in the original file formats, written from transformers' models; stand-ins for torchaudio, torchvision.

The names are written out here in the direction away from transformers, apart from the package's own maps.
"""

import importlib.machinery
import re
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, EncodecConfig, EncodecModel
from transformers.audio_utils import mel_filter_bank

PUBLISHED = Path(__file__).parent / "published_tiny"


def build_tiny_tower(fusion: bool = True, projection_dim: int = 32, seed: int = 0) -> ClapAudioModelWithProjection:
    """An HTSAT of LAION-CLAP's input sizes, with 8 channels and two stages."""
    torch.manual_seed(seed)
    config = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        depths=[2, 2],
        num_attention_heads=[2, 4],
        num_hidden_layers=2,
        hidden_size=16,
        projection_dim=projection_dim,
        enable_fusion=fusion,
        fusion_type="aff_2d" if fusion else None,
        aff_block_r=4,
    )
    tower = ClapAudioModelWithProjection(config).eval()
    for name, tensor in tower.state_dict().items():
        if tensor.is_floating_point():  # the default start is so small that all clips look alike
            tensor.add_(0.3 * torch.rand(tensor.shape) if "running" in name else 0.3 * torch.randn(tensor.shape))
    return tower


def build_tiny_codec(codebook_size: int = 64, num_codebooks: int = 4, seed: int = 0) -> EncodecModel:
    """An EnCodec of 75 frames a second with 4 filters."""
    torch.manual_seed(seed)
    bits = (codebook_size - 1).bit_length()
    config = EncodecConfig(
        num_filters=4,
        hidden_size=16,
        codebook_size=codebook_size,
        target_bandwidths=[num_codebooks * bits * 75 / 1000],
    )
    codec = EncodecModel(config).eval()
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_(std=0.05)
        layer.codebook.embed_avg.copy_(layer.codebook.embed)
    for name, parameter in codec.encoder.named_parameters():
        if name.endswith("original0"):
            parameter.data.mul_(3.0)
    return codec


def name_clap_tensors(tower: ClapAudioModelWithProjection) -> OrderedDict:
    """A tower's tensors under LAION-CLAP's names, with some of those that captioning does not need."""
    state, tensors = tower.state_dict(), OrderedDict()
    for name, tensor in state.items():
        name = name.replace("audio_model.audio_encoder.", "audio_branch.")
        if ".attention.self.query." in name:
            key, value = (
                name.replace("query", part).replace("audio_branch", "audio_model.audio_encoder")
                for part in ("key", "value")
            )
            tensor = torch.cat([tensor, state[key], state[value]])
            name = name.replace(".attention.self.query.", ".attn.qkv.")
        elif ".attention.self.key." in name or ".attention.self.value." in name:
            continue
        name = name.replace(".attention.self.", ".attn.").replace(".attention.output.dense.", ".attn.proj.")
        name = name.replace(".intermediate.dense.", ".mlp.fc1.")
        name = re.sub(r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2.", name)
        name = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        name = name.replace("audio_branch.batch_norm", "audio_branch.bn0")
        name = name.replace("audio_projection.linear1", "audio_projection.0")
        tensors[name.replace("audio_projection.linear2", "audio_projection.2")] = tensor.clone()
    width = tower.config.projection_dim
    windows = (tower.config.spec_size // 4 // tower.config.window_size) ** 2
    extra = {
        "logit_scale_a": torch.tensor(2.6),
        "text_branch.embeddings.word_embeddings.weight": torch.randn(7, 4),
        "text_projection.0.weight": torch.randn(width, 4),
        "audio_transform.sequential.0.weight": torch.randn(width, width),
        "audio_branch.tscam_conv.bias": torch.randn(527),
        "audio_branch.logmel_extractor.melW": torch.randn(513, 64),
        "audio_branch.layers.0.blocks.1.attn_mask": torch.zeros(windows, 64, 64),
    }
    tensors.update(extra)
    return tensors


def make_clap_checkpoint(tensors: dict) -> dict:
    """A training checkpoint as LAION-CLAP saves it, numpy learning rate included."""
    return {
        "epoch": 3,
        "name": "a run",
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items()),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(1e-4)}]},
    }


def name_encodec_tensors(codec: EncodecModel) -> OrderedDict:
    """EnCodec's tensors under their original names."""
    tensors = OrderedDict()
    for name, tensor in codec.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        if name.startswith("quantizer"):
            name = name.replace("quantizer.layers", "quantizer.vq.layers").replace(".codebook.", "._codebook.")
        else:
            name = name.replace(".layers.", ".model.")
            # Of the decoder's own modules, only strided ones of the encoder's mirror image are transposed.
            module = re.match(r"decoder\.model\.(\d+)\.conv\.", name)
            transposed = module and int(module.group(1)) % 3 == 0 and 0 < int(module.group(1)) < 15
            name = name.replace(".conv.", ".convtr.convtr." if transposed else ".conv.conv.")
        tensors[name] = tensor.clone()
    return tensors


def save_original_sources(folder: Path) -> dict[str, str]:
    """Tiny sources in all three original formats: the arguments of `convert_checkpoints`, without `output`."""
    torch.save(make_clap_checkpoint(name_clap_tensors(build_tiny_tower())), folder / "clap.pt")
    torch.save(name_encodec_tensors(build_tiny_codec()), folder / "encodec.th")
    return {
        "enclap": str(PUBLISHED / "ckpt"),
        "clap": str(folder / "clap.pt"),
        "encodec": str(folder / "encodec.th"),
        "tokenizer": str(PUBLISHED / "tokenizer"),
    }


class StandInModule(types.ModuleType):
    """A package of which only what is set on it is ever called; any other name is an empty class."""

    __path__: list[str] = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class MelSpectrogram:
    """torchaudio's transform for the arguments that LAION-CLAP passes: HTK filters without normalisation."""

    def __init__(self, sample_rate, n_fft, win_length, hop_length, n_mels, f_min, f_max, **kwargs):
        expected = {"center": True, "pad_mode": "reflect", "power": 2.0, "norm": None, "onesided": True}
        assert kwargs == expected and win_length == n_fft
        self.n_fft, self.hop_length = n_fft, hop_length
        low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (f_min, f_max))
        corners = 700 * (10 ** (np.linspace(low, high, n_mels + 2) / 2595) - 1)
        bins = np.linspace(0, sample_rate // 2, n_fft // 2 + 1)
        rising = (bins[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
        falling = (corners[2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
        self.filters = torch.from_numpy(np.maximum(0, np.minimum(rising, falling)).astype(np.float32))

    def to(self, device):
        return self

    def __call__(self, samples):
        window = torch.hann_window(self.n_fft)
        spectrum = torch.stft(samples, self.n_fft, self.hop_length, window=window, return_complex=True)
        return self.filters.T @ spectrum.abs().pow(2)


class AmplitudeToDB:
    """torchaudio's transform of a power spectrogram, without a lower limit."""

    def __init__(self, top_db):
        assert top_db is None

    def __call__(self, power):
        return 10 * torch.log10(power.clamp(min=1e-10))


class Resize:
    """torchvision's transform of a tensor, bilinear."""

    def __init__(self, size, antialias=True):
        self.size, self.antialias = size, antialias

    def __call__(self, image):
        return torch.nn.functional.interpolate(
            image[None], size=self.size, mode="bilinear", align_corners=False, antialias=self.antialias
        )[0]


def install_stand_ins() -> None:
    """Put stand-ins for torchaudio and torchvision, which have no CPU build, where they are missing."""
    names = ["torchaudio", "torchaudio.transforms", "torchvision", "torchvision.transforms", "torchvision.datasets"]
    for name in [*names, "torchvision.ops", "torchvision.ops.misc"]:
        if name in sys.modules:
            continue
        module = sys.modules[name] = StandInModule(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        if "." in name:
            parent, child = name.rsplit(".", 1)
            setattr(sys.modules[parent], child, module)
    sys.modules["torchaudio"].transforms.MelSpectrogram = MelSpectrogram
    sys.modules["torchaudio"].transforms.AmplitudeToDB = AmplitudeToDB
    sys.modules["torchvision"].transforms.Resize = Resize


def slaney_filters() -> torch.Tensor:
    """librosa's default mel filters, of LAION-CLAP's sizes."""
    return torch.from_numpy(mel_filter_bank(513, 64, 50, 14_000, 48_000, "slaney", "slaney").astype(np.float32))
