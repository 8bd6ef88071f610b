"""Decoders of audio files, and the buffer that their blocks are gathered in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .audio_arrays import average_channels, check_sampling_rate, scale_to_float32
from .audio_errors import AudioLoadError, audio_error, damaged_error, no_samples_error, undecodable_error
from .audio_formats import AV_FORMATS, find_extension, is_text

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = 1 << 18
# A header may claim any length; room beyond this is made when samples arrive.
MAX_RESERVED_SAMPLES = 1 << 32


class Wanted(NamedTuple):
    """How much of a clip is read: `max_duration_s` from its start (None: all), mixed down where `mono`."""

    max_duration_s: float | None = None
    mono: bool = True


@dataclass(frozen=True, eq=False)
class LoadedAudio:
    """One decoded clip.

    Args:
        samples: float32 array, full scale at -1 and 1: the mean of the channels (num_samples,), or each of them
            (channels, num_samples).
        sampling_rate: samples per second (Hz), as recorded.
    """

    samples: np.ndarray
    sampling_rate: int


def decode_file(file: BinaryIO, label: str, wanted: Wanted) -> LoadedAudio:
    """Decode an encoded file from its start, by its content."""
    try:
        file.seek(0)
        head = bytes(file.read(64))
        file.seek(0)
    except OSError as error:
        raise audio_error(
            label, f"it cannot be read ({error}).", "Check the disk or the connection it is on."
        ) from None
    if not head:
        raise audio_error(label, "it is empty (0 bytes).", "Record or download it again.")
    extension = find_extension(file, label)
    if extension in (".raw", ".pcm"):  # soundfile would ask for the rate and type of such a file
        raise audio_error(
            label, "samples without a header.", "Read them with numpy.fromfile, and pass them with `sampling_rate=`."
        )
    try:
        import soundfile
    except ImportError:
        raise AudioLoadError("Reading audio files needs soundfile. Run: pip install soundfile") from None
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.SoundFileError as error:
        file.seek(0)
        reason = getattr(error, "error_string", str(error))
        return _decode_with_av(file, label, wanted, head, extension, reason)
    with sound:
        buffer = SampleBuffer(label, sound.samplerate, wanted, sound.frames)
        try:
            # Not `sound.blocks()`: where a file ends early, that repeats old samples up to the length in the header.
            while not buffer.is_full:
                block = sound.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
                if not len(block):
                    break
                buffer.append(block)
        except soundfile.SoundFileError as error:
            raise damaged_error(label, getattr(error, "error_string", str(error))) from None
        buffer.warn_if_short(sound.frames)
    return buffer.finish()


def _decode_with_av(
    file: BinaryIO, label: str, wanted: Wanted, head: bytes, extension: str, soundfile_reason: str
) -> LoadedAudio:
    """Decode with PyAV what soundfile cannot open."""
    try:
        import av
    except ImportError:
        raise undecodable_error(label, head, extension, soundfile_reason, has_av=False) from None
    if is_text(head):  # ffmpeg takes some short texts for empty audio
        raise undecodable_error(label, head, extension, soundfile_reason, has_av=True)
    buffer = None
    try:
        # Titles in an old encoding must not stop the sound from being read.
        with av.open(file, options={"format_whitelist": AV_FORMATS}, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise audio_error(label, "it has no audio track.", "Pass a file with sound.")
            for frame in container.decode(audio=0):
                if buffer is None:
                    buffer = SampleBuffer(label, frame.sample_rate, wanted, 0)
                if frame.sample_rate != buffer.sampling_rate:
                    raise audio_error(label, "its sampling rate changes midway.", "Convert it to wav first.")
                if frame.samples:
                    planes = frame.to_ndarray()  # (channels, T), or (1, T * channels) interleaved
                    buffer.append(planes.T if frame.format.is_planar else planes.reshape(frame.samples, -1))
                if buffer.is_full:
                    break
    except av.error.FFmpegError as error:
        if buffer is None:
            raise undecodable_error(label, head, extension, soundfile_reason, has_av=True) from None
        raise damaged_error(label, error.strerror) from None
    if buffer is None:
        raise no_samples_error(label)
    return buffer.finish()


class SampleBuffer:
    """One growing signal: takes blocks of any channel count, so that a long clip is in memory once."""

    def __init__(self, label: str, sampling_rate: Any, wanted: Wanted, expected_samples: int):
        self.label = label
        self.sampling_rate = check_sampling_rate(sampling_rate, label)
        self.mono = wanted.mono
        max_s = wanted.max_duration_s
        self.limit = None if max_s is None else max(1, round(max_s * self.sampling_rate))
        self.num_samples = 0
        self._expected_samples = expected_samples
        self._samples = None  # (num_samples, channels), made with the first block, which tells how many channels

    @property
    def is_full(self) -> bool:
        """Whether `max_duration_s` is reached."""
        return self.limit is not None and self.num_samples >= self.limit

    def append(self, block: np.ndarray) -> None:
        """Add a block (num_samples, channels)."""
        if self.limit is not None:
            block = block[: self.limit - self.num_samples]
        block = average_channels(block)[:, None] if self.mono else scale_to_float32(block)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            position_s = (self.num_samples + int(np.argmin(finite))) / self.sampling_rate
            raise audio_error(
                self.label,
                f"it holds NaN or infinite samples, the first at {position_s:.3f} s.",
                "Replace them, for example with numpy.nan_to_num, or export the clip again.",
            )
        if self._samples is None:
            self._samples = self._reserve(block.shape[1])
        if block.shape[1] != self._samples.shape[1]:
            raise audio_error(self.label, "its number of channels changes midway.", "Convert it to wav first.")
        end = self.num_samples + len(block)
        if end > len(self._samples):
            try:
                room = max(end, len(self._samples) * 3 // 2)
                self._samples.resize((room, self._samples.shape[1]), refcheck=False)
            except MemoryError:
                raise audio_error(
                    self.label,
                    f"memory ends after {self.num_samples / self.sampling_rate:.0f} s of it.",
                    "Split it, or set `max_duration_s`.",
                ) from None
        self._samples[self.num_samples : end] = block
        self.num_samples = end

    def _reserve(self, num_channels: int) -> np.ndarray:
        """Room for as much as the file promises, within reason; it takes no memory until it is written to."""
        reserved = min(max(0, self._expected_samples), self.limit or MAX_RESERVED_SAMPLES, MAX_RESERVED_SAMPLES)
        try:
            return np.empty((reserved, num_channels), np.float32)
        except MemoryError:
            return np.empty((0, num_channels), np.float32)

    def warn_if_short(self, expected_samples: int) -> None:
        """Say so where a file holds clearly less than its header promises, as a cut-off mp3 does."""
        expected = expected_samples if self.limit is None else min(expected_samples, self.limit)
        # libsndfile says 2 ** 63 - 1 where it does not know.
        if self.num_samples < 0.99 * expected < 1 << 60:
            logger.warning(
                "%s: it ends after %.2f s, though its header promises %.2f s. The file may be cut off.",
                self.label,
                self.num_samples / self.sampling_rate,
                expected / self.sampling_rate,
            )

    def finish(self) -> LoadedAudio:
        """The clip; gives back memory that was reserved and not used."""
        if not self.num_samples:
            raise no_samples_error(self.label)
        self._samples.resize((self.num_samples, self._samples.shape[1]), refcheck=False)
        samples = self._samples[:, 0] if self.mono else np.ascontiguousarray(self._samples.T)
        return LoadedAudio(samples, self.sampling_rate)
