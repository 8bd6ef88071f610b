"""The two frozen audio encoders: EnCodec's codes and CLAP's embedding of waveforms, in batches of any lengths.

Both stay in float32 and in evaluation mode. A clip's result does not depend on what it is batched with: EnCodec pads
every clip at its own end (`codec_encoder.py`), CLAP sees windows of one length. CLAP's linear layers multiply as the
captioner's do (`onednn_linear.py`). The weights and their files stay those of the stock models.
"""

import os

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import ClapAudioModelWithProjection, EncodecModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from .codec_encoder import CodecEncoder
from .onednn_linear import use_onednn

# Clips encoded together.
CODEC_BATCH_SIZE = {"cpu": 16, "cuda": 64}
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
        self._codec_encoder = None
        self.device = torch.device("cpu")
        if not isinstance(clap, dict):
            use_onednn(clap)

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
            # Weights of a mapped file begin at any byte, and the last bits of a product depend on where.
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
            if name == "clap":
                use_onednn(model)
            model = self._models[name] = model.eval().requires_grad_(False).to(self.device)
        return model

    @property
    def codec_encoder(self) -> CodecEncoder:
        """EnCodec's encoder and codebooks, arranged for speed on first use."""
        if self._codec_encoder is None:
            self._codec_encoder = CodecEncoder(self.codec, self.device)
        return self._codec_encoder

    def to(self, device: str | torch.device) -> "AudioEncoders":
        """Move both encoders, those not loaded yet as soon as they are."""
        self.device, self._codec_encoder = torch.device(device), None
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
        num_available = len(self.codec.quantizer.layers)
        if num_codebooks > num_available:
            raise ValueError(
                f"Asked for {num_codebooks} codebooks of a codec that has {num_available}; lower "
                "`num_codebooks` or use a codec with a higher bandwidth."
            )
        codes = [None] * len(waveforms)
        batch_size = CODEC_BATCH_SIZE.get(self.device.type, CODEC_BATCH_SIZE["cuda"])
        for group in group_by_length([len(waveform) for waveform in waveforms], batch_size):
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                clips = [waveforms[i].to(self.device, torch.float32) for i in group]
                latents = self.codec_encoder.encode(clips)
                group_codes = [self.codec_encoder.quantize(latent, num_codebooks) for latent in latents]
            for i, clip_codes in zip(group, group_codes, strict=True):
                codes[i] = clip_codes.cpu().clone()  # training refuses tensors that were made in inference mode
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
            if not longer.any():
                features = features[:, :1]  # the others are read of longer clips only
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                out = self.clap(features.to(self.device, torch.float32), is_longer=longer.to(self.device))
                embedding = nn.functional.normalize(out.audio_embeds, dim=-1)
            embeddings.append(embedding.cpu())
        return torch.cat(embeddings)  # out of inference mode, so that training can read it


def pad_codes(codes: list[torch.Tensor], codec_vocab_size: int) -> dict[str, torch.Tensor]:
    """Stack codes [(T, K)] into `audio_codes` (B, T, K), padded with the mask id, and `attention_mask` (B, T)."""
    masks = [torch.ones(len(clip), dtype=torch.long) for clip in codes]
    return {
        "audio_codes": pad_sequence(codes, batch_first=True, padding_value=codec_vocab_size),
        "attention_mask": pad_sequence(masks, batch_first=True),
    }


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
