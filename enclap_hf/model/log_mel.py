"""Log-mel spectrograms in dB, in blocks, so that the spectra of a long clip are never in memory as a whole."""

import functools
from collections.abc import Iterable, Iterator
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
        return torch.cat(list(self.in_blocks([samples])))

    def in_blocks(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The same of samples that come in parts, each (num_samples,): blocks of (mel frames, mel bins), in order."""
        size, step = (MEL_BLOCK_FRAMES - 1) * self.hop_length + self.n_fft, MEL_BLOCK_FRAMES * self.hop_length
        for padded in cut_blocks(reflect_ends(parts, self.n_fft // 2), size, step, self.n_fft):
            filters, window = make_mel_filters(self, padded.device), make_hann_window(self.n_fft, padded.device)
            spectrum = torch.stft(padded, self.n_fft, self.hop_length, window=window, center=False, return_complex=True)
            power = spectrum.real**2 + spectrum.imag**2  # (n_fft // 2 + 1, frames)
            with torch.autocast(padded.device.type, enabled=False):  # which would multiply in half precision
                yield 10 * torch.log10((power.T @ filters).clamp(min=1e-10))


def reflect_ends(parts: Iterable[torch.Tensor], width: int) -> Iterator[torch.Tensor]:
    """The parts of a clip, between reflections of its ends; a clip shorter than these is followed by zeros first."""
    parts = iter(parts)
    first = next(parts)
    while len(first) <= width and (part := next(parts, None)) is not None:
        first = torch.cat([first, part])
    first = nn.functional.pad(first, (0, max(0, width + 1 - len(first))))
    yield first[1 : width + 1].flip(0)
    yield first
    end = first[-width - 1 :]
    for part in parts:
        yield part
        end = torch.cat([end, part[-width - 1 :]])[-width - 1 :]
    yield end[:-1].flip(0)


def cut_blocks(parts: Iterable[torch.Tensor], size: int, step: int, min_size: int) -> Iterator[torch.Tensor]:
    """Blocks of `size` samples that begin at every `step`, and what remains where that is at least `min_size`."""
    held, count = [], 0
    for part in parts:
        held.append(part)
        count += len(part)
        while count >= size:
            joined = held[0] if len(held) == 1 else torch.cat(held)
            yield joined[:size]
            held, count = [joined[step:]], count - step
    if count >= min_size:
        yield torch.cat(held)


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
