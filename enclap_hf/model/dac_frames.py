"""Codes of the Descript Audio Codec, at 16, 24 and 44.1 kHz."""

import torch
from torch import nn
from transformers import DacConfig, DacModel

from .frame_encoder import CodecFrames

# Seconds of later sound that reach a frame: the encoder's convolutions, generously.
CONVOLUTIONS_REACH_S = 0.5


class DacFrames(CodecFrames):
    """DAC's codes. A clip is padded with zeros to whole frames, as DAC's own feature extractor does."""

    frame_encoder_type = "dac"
    lookahead_s = CONVOLUTIONS_REACH_S

    @classmethod
    def model_class(cls) -> type[DacModel]:
        return DacModel

    def read_config(self, config: DacConfig) -> None:
        self.sampling_rate, self.hop_length = config.sampling_rate, config.hop_length
        self.frame_rate = config.sampling_rate / config.hop_length
        self.num_codebooks, self.codebook_size = config.n_codebooks, config.codebook_size

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """(num_samples,) -> (T, K)."""
        padded = nn.functional.pad(clip, (0, -len(clip) % self.hop_length))
        out = self.model.encode(padded[None, None], n_quantizers=self.kept_codebooks)
        return out.audio_codes[0].t()  # (1, K, T) -> (T, K)
