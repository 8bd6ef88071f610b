"""Log-mel spectrograms as continuous frames: what captioners read before there were codecs."""

import hashlib
import json

import torch

from .frame_encoder import FrameEncoder, read_settings, save_settings
from .log_mel import LogMel

# A frame as the captioner reads it: (dB - mean) / scale, which is near 0 and 1 for recordings of usual level.
MEAN_DB, SCALE_DB = -40.0, 30.0


class LogMelFrames(FrameEncoder):
    """Log-mel frames, float32 (T, F), with F mel bins.

    Args:
        sampling_rate: Hz.
        hop_length: samples from one frame to the next.
        n_fft: samples of the window and of the Fourier transform.
        num_mel_bins: F.
        frequency_min: Hz, lower edge of the lowest bin.
        frequency_max: Hz, upper edge of the highest bin; None is half of the sampling rate.

    Raises:
        ValueError: the edges are not 0 <= minimum < maximum <= half of the sampling rate.
    """

    frame_encoder_type = "log_mel"
    kind = "features"
    files = ("config.json",)

    def __init__(
        self,
        sampling_rate: int = 24_000,
        hop_length: int = 320,
        n_fft: int = 1024,
        num_mel_bins: int = 64,
        frequency_min: float = 50.0,
        frequency_max: float | None = None,
    ):
        frequency_max = sampling_rate / 2 if frequency_max is None else frequency_max
        self.settings = {
            "sampling_rate": sampling_rate,
            "hop_length": hop_length,
            "n_fft": n_fft,
            "num_mel_bins": num_mel_bins,
            "frequency_min": frequency_min,
            "frequency_max": frequency_max,
        }
        self.log_mel = LogMel(**self.settings, mel_scale="htk")
        self.sampling_rate, self.frame_rate = sampling_rate, sampling_rate / hop_length
        self.frame_dim = num_mel_bins
        self.lookahead_s = n_fft / sampling_rate

    @classmethod
    def load(cls, source: str) -> "LogMelFrames":
        settings = read_settings(source)
        return cls(**{name: value for name, value in settings.items() if name != "model_type"})

    def save(self, folder: str) -> None:
        save_settings(folder, {"model_type": self.frame_encoder_type, **self.settings})

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """(num_samples,) -> (T, F), one frame for each hop that has begun."""
        num_frames = -(-len(clip) // self.settings["hop_length"])
        return (self.log_mel(clip)[:num_frames] - MEAN_DB) / SCALE_DB

    @property
    def fingerprint(self) -> str:
        described = json.dumps([self.settings, MEAN_DB, SCALE_DB], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()
