"""Reads one clip from whatever people hold it in, as float32 samples at the rate it was recorded with.

Distinctive choices:
- The content decides the format, never the file's extension. soundfile reads wav, flac, mp3, ogg, opus and aiff; what
  it cannot open goes to PyAV where that is installed (m4a, mp4, webm, aac, wma, ...).
- The stream decides the length, never the header: a recorder that was stopped, a pipe and a cut-off copy leave headers
  that promise too little or too much. What is missing of a promise is said.
- The downmix is the plain mean of the channels, added up in channel order, so that a file and an array of the same
  samples give the same bits.
- Decoding goes block by block into one mono buffer: a two-hour stereo file takes the room of its mono signal, once.
- Nothing is resampled, cut or scaled unasked; what cannot be read raises an `AudioLoadError`, one line that names the
  clip, what is wrong with it and what to do.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .audio_arrays import average_channels
from .audio_decoding import BLOCK_SAMPLES
from .audio_errors import AudioLoadError, audio_error, no_samples_error
from .audio_formats import AUDIO_EXTENSIONS  # noqa: F401 (names that other files take from here)
from .audio_memory import check_memory, find_available_bytes
from .audio_reader import AudioReader
from .audio_resampling import resample_audio  # noqa: F401 (as above)
from .audio_sources import expand_home, is_url, open_audio, open_source, split_pair  # noqa: F401 (as above)

# A header may claim any length; room beyond this is made when samples arrive.
_MAX_RESERVED_SAMPLES = 1 << 32
# How often a growing signal looks for memory.
_CHECKED_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class LoadedAudio:
    """One decoded clip.

    Args:
        samples: float32 array, full scale at -1 and 1: the mean of the channels (num_samples,), or each of them
            (channels, num_samples).
        sampling_rate: samples per second (Hz), as recorded.
        partial_reason: what is missing of a clip that holds clearly less than its header promises; else None.
    """

    samples: np.ndarray
    sampling_rate: int
    partial_reason: str | None = None

    @property
    def is_partial(self) -> bool:
        """Whether the clip holds clearly less than its header promises."""
        return self.partial_reason is not None


def load_audio(
    audio: Any,
    sampling_rate: int | None = None,
    *,
    name: str | None = None,
    max_duration_s: float | None = None,
    mono: bool = True,
) -> LoadedAudio:
    """Read one clip as float32 samples.

    Args:
        audio: one of
            - a path (str or os.PathLike);
            - an encoded file as bytes, bytearray or memoryview;
            - a binary file object: read from its start and left at the position it had, or, where it cannot seek,
              read to its end;
            - samples as a numpy array, torch tensor or flat list of numbers: (num_samples,) or
              (channels, num_samples); (num_samples, channels) where the first dimension is above 16 and the second is
              not. Floats are taken as they are; int8, int16, int32 and uint8 are scaled to [-1, 1), in any byte order.
              Other integers have no agreed full scale and are refused;
            - a pair of samples and their sampling rate, in either order;
            - a `datasets` audio dict: {"array", "sampling_rate"} ("raw" is read like "array") or {"path", "bytes"};
            - an audio decoder as `datasets` gives it: `get_all_samples()` with `.data` and `.sample_rate`, or such
              samples themselves.
        sampling_rate: Hz, for samples that come without their rate. Where the clip states its own, that one counts.
        name: what error messages call the clip; without it, its path or a description.
        max_duration_s: read at most this many seconds from the start. The rest is neither decoded nor checked.
        mono: the mean of the channels (num_samples,); False keeps the channels apart, (channels, num_samples).
    Returns:
        LoadedAudio: float32 samples, at least one, all finite, and the rate they were recorded with.
    Raises:
        AudioLoadError: nothing is there, it is not audio, it is damaged, it holds no or no finite samples, its
            sampling rate is unknown or outside 1 to 384 kHz, memory does not suffice, or a decoder is not installed.
        ValueError: `max_duration_s` is not a positive number.
    """
    if max_duration_s is not None and not 0 < max_duration_s < math.inf:
        raise ValueError(f"Got `max_duration_s` {max_duration_s}; expected a positive number of seconds, or None.")
    with open_source(audio, sampling_rate, name, buffers_streams=True, max_duration_s=max_duration_s) as reader:
        limit = None if max_duration_s is None else max(1, round(max_duration_s * reader.sampling_rate))
        return load_start(reader, limit, mono)


def load_start(reader: AudioReader, max_samples: int | None, mono: bool = True) -> LoadedAudio:
    """Read an open recording from where it stands.

    Args:
        reader: of the recording.
        max_samples: read at most so many; None reads to the end.
        mono: as in [`load_audio`].
    Raises:
        AudioLoadError: it holds no samples, is damaged before that, or memory does not suffice.
    """
    buffer = _SampleBuffer(reader, max_samples, mono)
    while max_samples is None or buffer.num_samples < max_samples:
        left = BLOCK_SAMPLES if max_samples is None else min(BLOCK_SAMPLES, max_samples - buffer.num_samples)
        block = reader.read_block(left)
        if not len(block):
            break
        buffer.append(block)
    return LoadedAudio(buffer.finish(), reader.sampling_rate, reader.partial_reason)


def as_audio_batch(audio: Any) -> tuple[list, bool]:
    """Tell one clip from several.

    A list, tuple, other sequence (a dataset column), array of texts or iterable of clips is a batch. Everything else
    is one clip: a path, bytes, a file object, a dict, an array or tensor of any shape, a pair of samples and their
    rate, and a list whose first item is a number, which is one clip's samples.

    Args:
        audio: one clip as `load_audio` takes it, or several.
    Returns:
        the clips as a list, and True where `audio` was a batch. An empty list is a batch of no clips.
    Raises:
        AudioLoadError: it is a table with several columns, of which one must be chosen.
    """
    if isinstance(audio, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)) or hasattr(audio, "read"):
        return [audio], False
    if hasattr(audio, "get_all_samples") or hasattr(audio, "sample_rate") or split_pair(audio) is not None:
        return [audio], False
    check_no_table(audio)
    if isinstance(audio, Sequence):
        is_batch = len(audio) == 0 or not isinstance(audio[0], numbers.Number)
        return (list(audio), True) if is_batch else ([audio], False)
    if hasattr(audio, "__array__"):
        kind = getattr(getattr(audio, "dtype", None), "kind", "f")
        is_batch = kind in "OSTU" and getattr(audio, "ndim", 0) == 1
        return (np.asarray(audio).tolist(), True) if is_batch else ([audio], False)
    return (list(audio), True) if isinstance(audio, Iterable) else ([audio], False)


def check_no_table(audio: Any) -> None:
    """Raise AudioLoadError for a whole table, as of `datasets` or pandas, where one of its columns is meant."""
    if hasattr(audio, "column_names") or (hasattr(audio, "columns") and hasattr(audio, "iloc")):
        raise _table_error(audio)


def _table_error(table: Any) -> AudioLoadError:
    """A whole table came where one of its columns was meant."""
    names = getattr(table, "column_names", None)
    names = list(getattr(table, "columns", ()) if names is None or isinstance(names, Mapping) else names)
    example = "audio" if "audio" in names or not names else names[0]
    return audio_error(
        type(table).__name__,
        f"it is a whole table with the columns {', '.join(map(str, names)) or 'unknown'}.",
        f'Pass the column that holds the recordings, such as table["{example}"].',
    )


class _SampleBuffer:
    """One growing signal, so that a long clip is in memory once."""

    def __init__(self, reader: AudioReader, limit: int | None, mono: bool):
        self.num_samples = 0
        self._reader = reader
        self._mono = mono
        self._channels = 1 if mono else reader.num_channels
        expected = reader.num_samples or 0
        if limit is not None:
            expected = min(expected, limit)
        if reader.is_certain:
            check_memory(4 * expected * self._channels, reader.name, "its samples")
        self._unchecked_bytes = 0
        try:
            reserved = min(expected, _MAX_RESERVED_SAMPLES)
            self._samples = np.empty((reserved, self._channels), np.float32)  # takes no memory until it is written to
        except MemoryError:
            self._samples = np.empty((0, self._channels), np.float32)

    def append(self, block: np.ndarray) -> None:
        """Add samples (n, channels)."""
        if self._mono:
            block = average_channels(block)[:, None]
        end = self.num_samples + len(block)
        self._unchecked_bytes += block.nbytes
        if self._unchecked_bytes > _CHECKED_BYTES:
            self._unchecked_bytes = 0
            free = find_available_bytes()
            if free is not None and free < _CHECKED_BYTES:
                raise self._memory_error()
        if end > len(self._samples):
            try:
                self._samples.resize((max(end, len(self._samples) * 3 // 2), self._channels), refcheck=False)
            except MemoryError:
                raise self._memory_error() from None
        self._samples[self.num_samples : end] = block
        self.num_samples = end

    def _memory_error(self) -> AudioLoadError:
        seconds = self.num_samples / self._reader.sampling_rate
        return audio_error(
            self._reader.name, f"memory ends after {seconds:.0f} s of it.", "Split it, or set `max_duration_s`."
        )

    def finish(self) -> np.ndarray:
        """(num_samples,) or (channels, num_samples); gives back memory that was reserved and not used."""
        if not self.num_samples:
            raise no_samples_error(self._reader.name)
        self._samples.resize((self.num_samples, self._channels), refcheck=False)
        return self._samples[:, 0] if self._mono else np.ascontiguousarray(self._samples.T)
