"""The frames of CLAP's audio tower before pooling: continuous input without a codec, as HTSAT-BART reads it."""

import math

import torch

from .clap_encoder import ClapEncoder
from .feature_extraction_enclap import fill_window
from .fit_checks import check_mel_windows
from .frame_encoder import FrameEncoder


class ClapFrames(FrameEncoder):
    """Frames of the processor's CLAP tower, float32 (T, F), window after window of a recording.

    A window that the recording's end leaves unfilled is filled with its repetition, as for CLAP's vector, and gives the
    frames of the recording alone.

    Args:
        source: the folder of a CLAP, read when no processor that owns the encoder has one.
    """

    frame_encoder_type = "clap_frames"
    kind = "features"
    part = "clap"

    def __init__(self, source: str | ClapEncoder):
        self.clap = source if isinstance(source, ClapEncoder) else ClapEncoder(source)
        self.feature_extractor = None
        self.frame_dim = self.clap.frame_dim

    @classmethod
    def load(cls, source: str) -> "ClapFrames":
        return cls(source)

    def bind(self, processor) -> None:
        """Take the processor's log-mel windows, and its tower instead of a second copy.

        Raises:
            ValueError: the tower cannot read these windows.
        """
        self.feature_extractor = processor.feature_extractor
        self.clap = processor.clap_encoder or self.clap
        check_mel_windows(self.feature_extractor, self.clap)
        self.sampling_rate = self.feature_extractor.clap_sampling_rate
        self.frame_rate = self.clap.frames_per_window / self.feature_extractor.clap_window_s
        self.lookahead_s = self.feature_extractor.clap_window_s

    def save(self, folder: str) -> None:
        self.clap.save(folder)

    def to(self, device: str | torch.device) -> "ClapFrames":
        self.clap.to(device)
        return super().to(device)

    @property
    def is_loaded(self) -> bool:
        return self.clap.is_loaded

    @property
    def fingerprint(self) -> str:
        return self.clap.fingerprint

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """(num_samples,) -> (T, F)."""
        length = self.feature_extractor.clap_window_length
        parts = self.feature_extractor.round_samples(clip).split(length)
        windows = [self.feature_extractor.log_mel(fill_window(part, length)) for part in parts]
        frames = torch.cat([self.clap.encode_windows(window[None])[0] for window in windows])
        return frames[: max(1, math.ceil(len(clip) / self.sampling_rate * self.frame_rate - 1e-6))]
