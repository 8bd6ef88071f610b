"""The two frozen audio encoders: EnCodec's codes and CLAP's embedding of waveforms, in batches of any lengths.

Both stay in float32 and in evaluation mode. A clip's result does not depend on what it is batched with: EnCodec pads
every clip at its own end (`encode_codec_latents`), CLAP sees windows of one length.
"""

import os

import torch
from safetensors import safe_open
from torch import nn
from transformers import ClapAudioModelWithProjection, EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecResnetBlock
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

# Clips encoded together. On a CPU the convolutions of more clips fall out of the cache.
CODEC_BATCH_SIZE = {"cpu": 4, "cuda": 64}
CLAP_BATCH_SIZE = {"cpu": 8, "cuda": 128}


class CodecModel(EncodecModel):
    """`EncodecModel` that may be stored without its decoder, which captioning never runs."""

    _keys_to_ignore_on_load_missing = [r"^decoder\."]


class AudioEncoders:
    """EnCodec and the CLAP audio tower, each loaded when first needed.

    Args:
        codec: a loaded `EncodecModel`, or a source: keyword arguments of `from_pretrained`, with the repository as
            `pretrained_model_name_or_path`.
        clap: the same for `ClapAudioModelWithProjection`.
    """

    def __init__(self, codec: EncodecModel | dict, clap: ClapAudioModelWithProjection | dict):
        self._models = {"codec": codec, "clap": clap}
        self.device = torch.device("cpu")

    def __deepcopy__(self, memo) -> "AudioEncoders":
        return self  # frozen: a copied processor shares them

    @property
    def codec(self) -> EncodecModel:
        """EnCodec, float32, in evaluation mode."""
        return self._load("codec", CodecModel)

    @property
    def clap(self) -> ClapAudioModelWithProjection:
        """The CLAP audio tower, float32, in evaluation mode."""
        return self._load("clap", ClapAudioModelWithProjection)

    def _load(self, name: str, model_class: type) -> nn.Module:
        model = self._models[name]
        if isinstance(model, dict):
            source, model = model, model_class.from_pretrained(**model, dtype=torch.float32)
            if name == "codec" and not stores_decoder(source):
                model.decoder = None  # random weights must not pass for it
            model = self._models[name] = model.eval().requires_grad_(False).to(self.device)
        return model

    def to(self, device: str | torch.device) -> "AudioEncoders":
        """Move both encoders, those not loaded yet as soon as they are."""
        self.device = torch.device(device)
        for model in self._models.values():
            if not isinstance(model, dict):
                model.to(self.device)
        return self

    def save_pretrained(self, save_directory: str) -> None:
        """Write `codec/` and `clap/`, each with its config.json and model.safetensors."""
        self.codec.save_pretrained(os.path.join(save_directory, "codec"))
        self.clap.save_pretrained(os.path.join(save_directory, "clap"))

    def encode_codes(self, waveforms: list[torch.Tensor], num_codebooks: int) -> list[torch.Tensor]:
        """Encode waveforms into EnCodec codes.

        Args:
            waveforms: mono clips (num_samples,) at the codec's sampling rate, at least one sample each.
            num_codebooks: K, how many of the codec's codebooks are kept.
        Returns:
            per clip, int64 (T, K) on the CPU with T = ceil(num_samples / hop length).
        Raises:
            ValueError: the codec has fewer codebooks.
        """
        codec, codes = self.codec, [None] * len(waveforms)
        if num_codebooks > len(codec.quantizer.layers):
            raise ValueError(
                f"Asked for {num_codebooks} codebooks of a codec that has {len(codec.quantizer.layers)}; lower "
                "`num_codebooks` or use a codec with a higher bandwidth."
            )
        batch_size = CODEC_BATCH_SIZE.get(self.device.type, CODEC_BATCH_SIZE["cuda"])
        for group in group_by_length([len(waveform) for waveform in waveforms], batch_size):
            clips = [waveforms[i].to(self.device, torch.float32) for i in group]
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                for i, latent in zip(group, encode_codec_latents(codec, clips), strict=True):
                    codes[i] = quantize_latent(codec, latent, num_codebooks).cpu()
        return codes

    def embed_features(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> torch.Tensor:
        """Embed log-mel features with CLAP.

        Args:
            input_features: (B, windows, mel frames, mel bins) from the feature extractor.
            is_longer: bool (B, 1), clips whose three extra windows are fused.
        Returns:
            float32 (B, C) on the CPU, each row of length 1.
        """
        batch_size = CLAP_BATCH_SIZE.get(self.device.type, CLAP_BATCH_SIZE["cuda"])
        embeddings = []
        for features, longer in zip(input_features.split(batch_size), is_longer.split(batch_size), strict=True):
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                out = self.clap(features.to(self.device, torch.float32), is_longer=longer.to(self.device))
            embeddings.append(nn.functional.normalize(out.audio_embeds, dim=-1).cpu())
        return torch.cat(embeddings)


def stores_decoder(source: dict) -> bool:
    """Whether the weights of a codec that was just loaded from `source` hold its decoder."""
    arguments = {name: value for name, value in source.items() if name != "force_download"}
    try:
        path = cached_file(arguments.pop("pretrained_model_name_or_path"), SAFE_WEIGHTS_NAME, **arguments)
    except OSError:  # other kinds of files come from stock models, which are complete
        return True
    with safe_open(path, "pt") as file:
        return any(key.startswith("decoder.") for key in file.keys())  # noqa: SIM118


def group_by_length(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Split clip indices into batches of similar length, longest first so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def quantize_latent(codec: EncodecModel, latent: torch.Tensor, num_codebooks: int) -> torch.Tensor:
    """Residual vector quantisation with the first K codebooks: (H, T) -> (T, K)."""
    residual, codes = latent.unsqueeze(0), []
    for layer in codec.quantizer.layers[:num_codebooks]:
        indices = layer.encode(residual)
        residual = residual - layer.decode(indices)
        codes.append(indices[0])
    return torch.stack(codes, dim=1)


def encode_codec_latents(codec: EncodecModel, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
    """EnCodec's latent of each waveform, (num_samples,) -> (H, T), as each would have alone.

    Alone, a clip is padded at its end by every strided layer, by reflection. A causal encoder lets the whole batch run
    at once, if each of those layers first writes a clip's own reflection behind its end: what follows is never read.
    """
    config = codec.config
    batchable = config.use_causal_conv and config.norm_type == "weight_norm" and not config.normalize
    # Reflection at the start needs more frames than the widest padding, also in the last layer.
    min_samples = config.hop_length * max(config.kernel_size, config.last_kernel_size)
    if not batchable or len(waveforms) == 1 or len(waveforms[-1]) < min_samples:
        return [encode_latent_alone(codec, waveform) for waveform in waveforms]
    lengths = [len(waveform) for waveform in waveforms]
    num_samples = -(-max(lengths) // config.hop_length) * config.hop_length
    states = waveforms[0].new_zeros(len(waveforms), 1, num_samples)
    for i, waveform in enumerate(waveforms):
        states[i, 0, : lengths[i]] = waveform
    for layer in codec.encoder.layers:
        states, lengths = run_codec_layer(layer, states, lengths)
    return [latent[:, :length] for latent, length in zip(states, lengths, strict=True)]


def encode_latent_alone(codec: EncodecModel, waveform: torch.Tensor) -> torch.Tensor:
    """EnCodec's latent of one waveform, scaled first where the codec asks for it: (num_samples,) -> (H, T)."""
    if codec.config.normalize:
        waveform = waveform / (waveform.pow(2).mean().sqrt() + 1e-8)
    channels = waveform.expand(1, codec.config.audio_channels, -1)
    return codec.encoder(channels)[0]


def run_codec_layer(layer: nn.Module, states: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, list[int]]:
    """Run one layer of EnCodec's encoder on (B, channels, L), of which each clip owns its first `lengths[i]`."""
    if isinstance(layer, EncodecResnetBlock):
        branch = states
        for part in layer.block:
            branch, _ = run_codec_layer(part, branch, lengths)
        return layer.shortcut(states) + branch, lengths
    if not isinstance(layer, EncodecConv1d):
        return layer(states), lengths
    stride = layer.conv.stride[0]
    for i, length in enumerate(lengths):
        missing = -length % stride
        if missing:
            states[i, :, length : length + missing] = states[i, :, length - 1 - missing : length - 1].flip(-1)
    return layer(states), [-(-length // stride) for length in lengths]
