"""EnCodec's codes and its latents before quantisation: 24 kHz (arranged for speed), 32 kHz, and 48 kHz in segments."""

import math

import numpy as np
import torch
from safetensors import safe_open
from transformers import EncodecConfig, EncodecModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from .codec_encoder import CodecEncoder
from .frame_encoder import BATCH_SIZE, CodecFrames, mix_channels
from .model_checks import LOADING

# Seconds of later sound that reach a frame of an EnCodec that is not causal: its convolutions', generously.
CONVOLUTIONS_REACH_S = 0.5


class CodecModel(EncodecModel):
    """`EncodecModel` that may be stored without its decoder, which captioning never runs."""

    _keys_to_ignore_on_load_missing = [r"^decoder\."]


class EncodecFrames(CodecFrames):
    """EnCodec's codes.

    The 24 kHz model, and others that are causal and know no segments, run batched (`codec_encoder.py`). What is stereo,
    scaled or cut into segments is encoded clip by clip with the stock model: the codes of the segments stand one behind
    the other, without those of the padding behind the clip's end.
    """

    frame_encoder_type = "encodec"
    _fast_encoder: CodecEncoder | None = None

    @classmethod
    def model_class(cls) -> type[EncodecModel]:
        return CodecModel

    def read_config(self, config: EncodecConfig) -> None:
        self.sampling_rate, self.hop_length = config.sampling_rate, math.prod(config.upsampling_ratios)
        self.num_channels = 1 if config.audio_channels == 1 else None
        self.frame_rate = self.sampling_rate / self.hop_length
        if config.chunk_length_s is not None:  # segments overlap, and each has all its frames
            frames_per_segment = math.ceil(config.chunk_length / self.hop_length)
            self.frame_rate = self.sampling_rate * frames_per_segment / (config.chunk_stride or config.chunk_length)
        self.lookahead_s = config.chunk_length_s or (0.0 if config.use_causal_conv else CONVOLUTIONS_REACH_S)
        self.num_codebooks, self.codebook_size = config.num_quantizers, config.codebook_size

    def read_model(self, folder: str) -> EncodecModel:
        model = super().read_model(folder)
        if not stores_decoder(str(folder)):
            model.decoder = None  # random weights must not pass for it
        return model

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_fast_encoder": None}

    def to(self, device: str | torch.device) -> "EncodecFrames":
        self._fast_encoder = None
        return super().to(device)

    @property
    def fast_encoder(self) -> CodecEncoder:
        """The encoder and its codebooks, arranged for speed on first use."""
        with LOADING:
            if self._fast_encoder is None:
                self._fast_encoder = CodecEncoder(self.model, self.device)
            return self._fast_encoder

    @property
    def is_stock(self) -> bool:
        """Whether clips need the stock model."""
        config = self.config
        return config.audio_channels > 1 or config.normalize or config.chunk_length_s is not None

    def prepare(self, samples: np.ndarray) -> torch.Tensor:
        """(channels, num_samples) -> (num_samples,), or (2, num_samples) for a stereo codec, of mono both alike."""
        if self.config.audio_channels == 1:
            return torch.from_numpy(mix_channels(samples).copy())
        channels = self.config.audio_channels
        if len(samples) != channels:
            samples = np.broadcast_to(mix_channels(samples), (channels, samples.shape[1]))
        return torch.from_numpy(samples.astype(np.float32))

    def encode(self, clips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Each clip as it is alone: int64 (T, K)."""
        if self.is_stock:
            return super().encode(clips)
        return self.encode_together(clips, lambda latent: self.fast_encoder.quantize(latent, self.kept_codebooks))

    def encode_together(self, clips: list[torch.Tensor], finish) -> list[torch.Tensor]:
        """Latents (T, H) of clips, in batches of similar length, each passed through `finish`."""
        frames = [None] * len(clips)
        batch_size = BATCH_SIZE.get(self.device.type, BATCH_SIZE["cuda"])
        for group in group_by_length([len(clip) for clip in clips], batch_size):
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                latents = self.fast_encoder.encode([clips[i].to(self.device, torch.float32) for i in group])
                finished = [finish(latent) for latent in latents]
            for i, clip_frames in zip(group, finished, strict=True):
                frames[i] = clip_frames.cpu().clone()  # training refuses tensors that were made in inference mode
        return frames

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """Segment after segment, the last as short as it is: (num_samples,) or (channels, num_samples) -> (T, K)."""
        channels = clip.expand(self.config.audio_channels, -1)
        length = self.config.chunk_length or channels.shape[1]
        starts = range(0, channels.shape[1], self.config.chunk_stride or length)
        # Not by the stock `encode`, which fails where the last segment but one is shorter than a whole one.
        return torch.cat([self.encode_segment(channels[:, start : start + length]) for start in starts])

    def encode_segment(self, segment: torch.Tensor) -> torch.Tensor:
        """(channels, num_samples) -> (T, K), scaled first where the codec asks for it."""
        if self.config.normalize:
            mono = segment.sum(0) / len(segment)
            segment = segment / (mono.pow(2).mean().sqrt() + 1e-8)
        latent = self.model.encoder(segment[None])
        codes = self.model.quantizer.encode(latent, self.choose_bandwidth())  # (K, 1, T)
        return codes[:, 0].t()[:, : self.kept_codebooks]

    def choose_bandwidth(self) -> float:
        """The lowest of the codec's bandwidths with as many codebooks as are kept, kbit/s."""
        count = self.model.quantizer.get_num_quantizers_for_bandwidth
        return next(width for width in sorted(self.config.target_bandwidths) if count(width) >= self.kept_codebooks)


class EncodecLatents(EncodecFrames):
    """EnCodec's latents before quantisation: continuous frames, float32 (T, H)."""

    frame_encoder_type = "encodec_latents"
    kind = "features"

    def read_config(self, config: EncodecConfig) -> None:
        super().read_config(config)
        if self.is_stock:
            raise ValueError(
                "Got an EnCodec that is stereo, scaled or cut into segments; expected one of a single channel without "
                "segments for latents, such as facebook/encodec_24khz."
            )
        self.num_codebooks = self.codebook_size = None
        self.frame_dim = config.hidden_size

    def encode(self, clips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Each clip as it is alone: float32 (T, H)."""
        return self.encode_together(clips, lambda latent: latent)


def stores_decoder(folder: str) -> bool:
    """Whether the weights of a codec hold its decoder."""
    path = cached_file(folder, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False)
    if path is None:  # several files come from stock models, which are complete
        return True
    with safe_open(path, "pt") as file:
        return any(key.startswith("decoder.") for key in file.keys())  # noqa: SIM118


def group_by_length(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Split clip indices into batches of similar length, longest first so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
