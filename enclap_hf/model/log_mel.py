"""Log-mel spectrograms in dB, in blocks, so that the spectra of a long clip are never in memory as a whole."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

# Mel frames whose spectra are held in memory at once (five minutes at 100 frames a second).
MEL_BLOCK_FRAMES = 30_000


@dataclass(frozen=True)
class LogMel:
    """A log-mel spectrogram's settings; calling it computes one.

    Args:
        sampling_rate: Hz.
        hop_length: samples from one mel frame to the next.
        n_fft: samples of the periodic Hann window and of the Fourier transform.
        num_mel_bins: bins of the mel filter bank.
        frequency_min: Hz, lower edge of the lowest mel bin.
        frequency_max: Hz, upper edge of the highest mel bin.
        mel_scale: "htk", triangles of height 1, or "slaney", triangles of equal area.

    Raises:
        ValueError: the edges are not 0 <= minimum < maximum <= half of the sampling rate, or an unknown scale.
    """

    sampling_rate: int
    hop_length: int
    n_fft: int
    num_mel_bins: int
    frequency_min: float
    frequency_max: float
    mel_scale: str = "htk"

    def __post_init__(self):
        if self.mel_scale not in ("htk", "slaney"):
            raise ValueError(f'Got `mel_scale`={self.mel_scale!r}; expected "htk" or "slaney".')
        if not 0 <= self.frequency_min < self.frequency_max <= self.sampling_rate / 2:
            raise ValueError(
                f"Got `frequency_min`={self.frequency_min} and `frequency_max`={self.frequency_max} Hz; expected 0 <= "
                f"minimum < maximum <= {self.sampling_rate / 2} Hz, half of the sampling rate."
            )

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """(num_samples,) -> (mel frames, mel bins) in dB, without an upper or lower cut; a frame at every hop."""
        filters, window = make_mel_filters(self, samples.device), make_hann_window(self.n_fft, samples.device)
        padded = pad_by_reflection(samples, self.n_fft // 2)
        num_frames = len(samples) // self.hop_length + 1
        blocks = []
        for first in range(0, num_frames, MEL_BLOCK_FRAMES):
            frames = min(MEL_BLOCK_FRAMES, num_frames - first)
            start = first * self.hop_length
            part = padded[start : start + (frames - 1) * self.hop_length + self.n_fft]
            spectrum = torch.stft(part, self.n_fft, self.hop_length, window=window, center=False, return_complex=True)
            power = spectrum.real**2 + spectrum.imag**2  # (n_fft // 2 + 1, frames)
            with torch.autocast(samples.device.type, enabled=False):  # which would multiply in half precision
                blocks.append(10 * torch.log10((power.T @ filters).clamp(min=1e-10)))
        return torch.cat(blocks)


def pad_by_reflection(samples: torch.Tensor, width: int) -> torch.Tensor:
    """Reflect both ends of a clip; one shorter than the reflection is followed by zeros first."""
    samples = nn.functional.pad(samples, (0, max(0, width + 1 - len(samples))))
    return nn.functional.pad(samples[None], (width, width), mode="reflect")[0]


@functools.lru_cache(maxsize=8)
def make_mel_filters(mel: LogMel, device: torch.device) -> torch.Tensor:
    """Triangular filters, float32 (frequency bins, mel bins); made once for each setting."""
    filters = mel_filter_bank(
        num_frequency_bins=mel.n_fft // 2 + 1,
        num_mel_filters=mel.num_mel_bins,
        min_frequency=mel.frequency_min,
        max_frequency=mel.frequency_max,
        sampling_rate=mel.sampling_rate,
        norm="slaney" if mel.mel_scale == "slaney" else None,
        mel_scale=mel.mel_scale,
    )
    return torch.from_numpy(filters.astype(np.float32)).to(device)


@functools.lru_cache(maxsize=8)
def make_hann_window(num_samples: int, device: torch.device) -> torch.Tensor:
    """The periodic Hann window (num_samples,); made once for each size."""
    return torch.hann_window(num_samples, periodic=True, device=device)
