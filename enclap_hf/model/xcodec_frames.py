"""Codes of X-Codec, which quantises what a speech model heard together with the sound; 50 frames a second at 16 kHz."""

import torch
from torch import nn
from transformers import XcodecConfig, XcodecModel

from .frame_encoder import CodecFrames


class XcodecFrames(CodecFrames):
    """X-Codec's codes. A clip is padded with zeros to whole frames. Its speech model attends to the whole clip."""

    frame_encoder_type = "xcodec"
    unread_tensors = ("acoustic_decoder.", "decoder_semantic.")

    @classmethod
    def model_class(cls) -> type[XcodecModel]:
        return XcodecModel

    def read_config(self, config: XcodecConfig) -> None:
        self.sampling_rate, self.hop_length = config.sample_rate, config.hop_length
        self.frame_rate = config.sample_rate / config.hop_length
        self.num_codebooks, self.codebook_size = config.num_quantizers, config.codebook_size

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """(num_samples,) -> (T, K)."""
        padded = nn.functional.pad(clip, (0, -len(clip) % self.hop_length))
        codes = self.model.encode(padded[None, None], bandwidth=self.choose_bandwidth()).audio_codes
        return codes[0].t()[:, : self.kept_codebooks]  # (1, K, T) -> (T, K)

    def choose_bandwidth(self) -> float:
        """The lowest of the codec's bandwidths with as many codebooks as are kept, kbit/s."""
        count = self.model.quantizer.get_num_quantizers_for_bandwidth
        return next(width for width in sorted(self.config.target_bandwidths) if count(width) >= self.kept_codebooks)
