"""CLAP's windows of a recording that is too long to be held: it is decoded and resampled block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .audio_arrays import average_channels
from .audio_reader import AudioReader
from .audio_resampling import resample_blocks
from .clap_windows import MAX_LOOKS, changing_length_error, read_fused_windows


class LongRecording:
    """An open recording, read anew for each look at it.

    Args:
        reader: of the recording.
        extractor: whose windows are wanted.
        mono: whether the peak is that of the mean of the channels.
        device: where spectrograms are computed.

    Attributes:
        peak: the highest absolute sample of what the windows show, known once they are read.
    """

    def __init__(self, reader: AudioReader, extractor: Any, mono: bool, device: str | torch.device):
        self.peak = 0.0
        self._reader = reader
        self._extractor = extractor
        self._mono = mono
        self._device = device

    def read_windows(self, rng: np.random.Generator | None = None) -> torch.Tensor:
        """What `prepare_clap_windows` makes of the whole recording: (windows, mel frames, mel bins).

        Raises:
            AudioLoadError: it cannot be read to its end, or its length changes meanwhile.
        """
        length = self._count_samples()
        if self._extractor.long_clips == "middle":
            return self._read_middle(length)
        return read_fused_windows(
            lambda: (self._extractor.round_samples(part) for part in self._resampled()),
            self._extractor.log_mel,
            self._extractor.window_mel_frames,
            length,
            self._reader.name,
            rng,
        )

    def _read_middle(self, expected: int) -> torch.Tensor:
        """The window in the middle: (1, mel frames, mel bins)."""
        length, rate = self._extractor.clap_window_length, self._reader.sampling_rate
        for _ in range(MAX_LOOKS):
            start = (expected - length + 1) // 2
            shown = [count * rate // self._extractor.clap_sampling_rate for count in (start, start + length)]
            kept, position = [], 0
            for part in self._resampled(*shown):
                wanted = part[max(0, start - position) : max(0, start + length - position)]
                if len(wanted):
                    kept.append(wanted.clone())
                position += len(part)
            if position == expected:
                return self._extractor.prepare_clap_windows(torch.cat(kept))[0]
            expected = position
        raise changing_length_error(self._reader.name)

    def _count_samples(self) -> int:
        """At CLAP's rate; for formats whose headers are guesses, by decoding the recording."""
        rate, wanted = self._reader.sampling_rate, self._extractor.clap_sampling_rate
        count = self._reader.num_samples if self._reader.is_certain else None
        if count is None:
            count = sum(block.shape[1] for block in self._reader.blocks())
        return count if rate == wanted else round(count * wanted / rate)

    def _blocks(self, start: int = 0, end: int | None = None) -> Iterator[np.ndarray]:
        """The mono recording; the peak is that of the samples from `start` to `end`."""
        self.peak, position = 0.0, 0
        for block in self._reader.blocks():
            mono = average_channels(block.T)
            shown = (mono[None] if self._mono else block)[:, max(0, start - position) :]
            if end is not None:
                shown = shown[:, : max(0, end - max(position, start))]
            if shown.size:
                self.peak = max(self.peak, float(shown.max()), -float(shown.min()))
            position += len(mono)
            yield mono

    def _resampled(self, start: int = 0, end: int | None = None) -> Iterator[torch.Tensor]:
        """Parts at CLAP's rate."""
        blocks = self._blocks(start, end)
        rates = self._reader.sampling_rate, self._extractor.clap_sampling_rate
        for part in resample_blocks(blocks, *rates, self._reader.name):
            yield torch.from_numpy(part).to(self._device)
