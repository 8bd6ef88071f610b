"""Decoders: each gives the samples of one recording in order, block by block, whatever the recording's length.

They share one interface: `sampling_rate`, `num_channels`, `num_samples` (None where unknown), `read(max_samples)` ->
float32 (n, channels) with no rows at the end, `seek(sample)` -> whether that is possible and exact, `missing` (what the
file promised and does not hold, known at the end) and `close()`.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from .audio_arrays import check_sampling_rate, scale_to_float32
from .audio_bytes import FileView
from .audio_chatter import silence_c_libraries
from .audio_errors import AudioLoadError, audio_error, damaged_error, unreadable_error
from .audio_headers import HeaderFacts, inspect_header, read_promised_share
from .audio_links import find_next_link, inspect_stream, is_ogg_cut, skip_id3

BLOCK_SAMPLES = 1 << 15
# A block that holds a damage is read again up to it, in steps that are twice made smaller.
_STEP_RATIO = 1 << 5
_SMALLEST_STEP = BLOCK_SAMPLES // _STEP_RATIO**2
# libsndfile says 2 ** 63 - 1 where it does not know.
_UNKNOWN_SAMPLES = 1 << 60
# A file that is shorter than it promises by less than this is whole: encoders pad and trim.
_WHOLE_SHARE = 0.99
# What libsndfile finds exactly wherever reading begins; the others depend on what comes before.
_EXACT_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF")
_EXACT_SUBTYPES = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")


# Numpy's names for samples without a header; it has none for 24 bits.
RAW_FORMATS = {
    **{"s8": "i1", "u8": "u1", "s16le": "<i2", "s16be": ">i2", "s24le": "", "s24be": ""},
    **{"s32le": "<i4", "s32be": ">i4", "f32le": "<f4", "f32be": ">f4", "f64le": "<f8", "f64be": ">f8"},
}


class SoundfileDecoder:
    """Decodes with libsndfile to the true end of a file: headers are mended, and chained streams read one by one.

    Args:
        file: a seekable binary file object.
        label: what messages call the recording.
    Raises:
        soundfile.SoundFileError: libsndfile cannot open it.
        AudioLoadError: the sampling rate is out of range.
    """

    def __init__(self, file: BinaryIO, label: str):
        self.label = label
        self.missing: str | None = None
        self._file = file
        self._scanned = FileView(file)  # for looking at headers, without raising
        self._sound = None
        self._open_link(0)
        self.sampling_rate = check_sampling_rate(self._sound.samplerate, label)
        self.num_channels = self._sound.channels
        self._first_frames = self._sound.frames
        self._is_flac = self._sound.format == "FLAC"
        self._exact = self._is_flac or (self._sound.format in _EXACT_FORMATS and self._sound.subtype in _EXACT_SUBTYPES)
        self.note = None
        if self._header.goes_on:
            self.note = "its sound goes on behind the end that its header states, and is read to the end of the file."

    @property
    def num_samples(self) -> int | None:
        """Samples a channel, where the file states them and nothing speaks against it."""
        if self._start or self._stream.is_open or self._first_frames >= _UNKNOWN_SAMPLES:
            return None
        is_chained = self._stream.kind == "ogg" and self._find_next_link() is not None
        return None if is_chained else self._first_frames

    @property
    def stated_duration_s(self) -> float:
        """Seconds of the first stream, a guess where none are stated; 0 where there is none."""
        frames = self._first_frames
        if self._stream.kind == "mpeg" and self._stream.is_open:  # of a view that claims to be far longer
            frames = frames * (self._view.true_size - skip_id3(self._scanned, 0)) / self._view.size
        return frames / self.sampling_rate if frames < _UNKNOWN_SAMPLES else 0.0

    @property
    def is_certain(self) -> bool:
        """Whether the number of samples was held against the bytes that are there."""
        return self._exact and (not self._is_flac or self._stream.is_certain)

    def _open_link(self, start: int) -> None:
        """Open the stream that begins at an offset of the file."""
        soundfile = import_soundfile()
        self.close()
        self._start = start
        self._header = HeaderFacts() if start else inspect_header(self._scanned)
        self._stream = inspect_stream(self._scanned, start)
        edits = self._header.edits or self._stream.edits
        hides_end = self._stream.kind == "mpeg" and self._stream.is_open
        self._view = FileView(self._file, start, edits, self._stream.end, hides_end)
        with silence_c_libraries():
            self._sound = soundfile.SoundFile(self._view)
        # soundfile seeks after every read where it can, and mp3 and opus then begin anew with slightly other samples.
        self._sound.seekable = lambda: False
        self._position = 0
        self._step = BLOCK_SAMPLES

    def read(self, max_samples: int = BLOCK_SAMPLES) -> np.ndarray:
        """The next samples, float32 (n, channels)."""
        while self._sound is not None:
            # Wide blocks are short, so that a header that claims 1,024 channels takes no more memory. Nothing is asked
            # for behind the stated end: libsndfile would decode tags and further streams, and stumble.
            limits = (max_samples, self._step, BLOCK_SAMPLES * 16 // self._sound.channels)
            count = min(max(1, min(limits)), self._sound.frames - self._position)
            block = self._read_block(count) if count > 0 else ()
            if len(block):
                self._position += len(block)
                return block
            self._finish_link()
        return np.empty((0, self.num_channels), np.float32)

    def _read_block(self, count: int) -> np.ndarray:
        """Up to `count` samples of the current stream; those in front of a damage before it is reported."""
        soundfile = import_soundfile()
        try:
            # Not `sound.blocks()`: where a file ends early, that repeats old samples up to the length in the header.
            with silence_c_libraries():
                block = self._sound.read(count, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            if self._view.error is None and self._step > _SMALLEST_STEP:
                return self._read_carefully()
            if self._stream.kind == "mpeg" and self._find_next_link() is None:
                return np.empty((0, self.num_channels), np.float32)  # what follows are not frames
            raise self._fail(error) from None
        if self._view.error is not None:
            raise unreadable_error(self.label, self._view.error)
        return block

    def _read_carefully(self) -> np.ndarray:
        """Read a block that failed again, from where it began and in smaller steps from there on."""
        soundfile = import_soundfile()
        position, step = self._position, self._step // _STEP_RATIO
        self._open_link(self._start)
        self._step = step
        try:
            with silence_c_libraries():
                self._position = self._sound.seek(position)
        except soundfile.SoundFileError as error:
            raise self._fail(error) from None
        return self._read_block(step)

    def _fail(self, error: Exception) -> AudioLoadError:
        """The error of a stream that cannot be decoded further."""
        if self._view.error is not None:
            return unreadable_error(self.label, self._view.error)
        return damaged_error(self.label, getattr(error, "error_string", str(error)))

    def _finish_link(self) -> None:
        """Go on with the stream that follows, or note what is missing."""
        share = self._header.promised_share * read_promised_share(self._sound, self._scanned)
        expected = 0 if self._stream.is_open else self._sound.frames * share
        if self._position < _WHOLE_SHARE * expected < _UNKNOWN_SAMPLES:
            self.missing = describe_missing(self._position, expected, self.sampling_rate)
        elif self._stream.kind == "ogg" and is_ogg_cut(self._scanned, self._start):
            self.missing = f"it ends after {self._position / self.sampling_rate:.2f} s, within a page of its stream"
        following = self._find_next_link()
        if following is None:
            self.close()
            return
        self._open_link(following)
        if self._sound.samplerate != self.sampling_rate:
            raise audio_error(self.label, "its sampling rate changes midway.", "Convert it to wav first.")

    def _find_next_link(self) -> int | None:
        """Offset of the stream that follows."""
        found = find_next_link(self._stream.kind, self._scanned, self._start, self._view.find_file_offset())
        if self._scanned.error is not None:
            raise unreadable_error(self.label, self._scanned.error)
        return found

    def seek(self, sample: int) -> bool:
        """Go to a sample, where the format allows it and the sample is in the first stream."""
        if not self._exact or not sample <= self._first_frames < _UNKNOWN_SAMPLES:
            return False
        if self._sound is None or self._start:
            self._open_link(0)
        self._position = self._sound.seek(sample)
        self.missing = None
        return self._position == sample

    def close(self) -> None:
        """Give libsndfile's memory back; the file stays open."""
        if self._sound is not None:
            self._sound.close()
            self._sound = None


class ArrayDecoder:
    """Gives out samples that are in memory already.

    Args:
        frames: (num_samples, channels) of a type whose scale is known.
        sampling_rate: Hz.
    """

    missing = None
    note = None

    def __init__(self, frames: np.ndarray, sampling_rate: int):
        self.sampling_rate = sampling_rate
        self.num_samples, self.num_channels = frames.shape
        self._frames = frames
        self._position = 0

    def read(self, max_samples: int = BLOCK_SAMPLES) -> np.ndarray:
        """The next samples, float32 (n, channels); a new array."""
        block = scale_to_float32(self._frames[self._position : self._position + max_samples])
        self._position += len(block)
        return block

    def seek(self, sample: int) -> bool:
        """Go to a sample."""
        self._position = min(sample, self.num_samples)
        return True

    def close(self) -> None:
        """Nothing is held but the caller's array."""


class RawDecoder:
    """Reads samples without a header.

    Args:
        file: a binary file object, seekable or not, at its first sample.
        sample_format: one of `RAW_FORMATS`.
        sampling_rate: Hz.
        num_channels: interleaved channels.
        label: what messages call the recording.
    """

    note = None

    def __init__(self, file: Any, sample_format: str, sampling_rate: int, num_channels: int, label: str):
        self.label = label
        self.sampling_rate = sampling_rate
        self.num_channels = num_channels
        self.missing: str | None = None
        self._dtype = np.dtype(RAW_FORMATS[sample_format]) if RAW_FORMATS[sample_format] else None
        self._width = 3 if self._dtype is None else self._dtype.itemsize
        self._big_endian = sample_format.endswith("be")
        self._file = file
        self._left = b""
        size = getattr(file, "size", None)
        self.num_samples = None if size is None else size // (self._width * num_channels)

    def read(self, max_samples: int = BLOCK_SAMPLES) -> np.ndarray:
        """The next samples, float32 (n, channels): what a slow stream has, at least one until it ends."""
        frame = self._width * self.num_channels
        content = self._left
        while len(content) < frame:
            part = self._file.read(max(frame, max_samples * frame) - len(content))
            if self._file.error is not None:
                raise unreadable_error(self.label, self._file.error)
            if not part:
                self.missing = "it ends within a sample" if content else None
                return np.empty((0, self.num_channels), np.float32)
            content += part
        whole = len(content) // frame * frame
        self._left = content[whole:]
        return self._scale(content[:whole]).reshape(-1, self.num_channels)

    def _scale(self, content: bytes) -> np.ndarray:
        """Bytes as float32 samples."""
        if self._dtype is not None:
            return scale_to_float32(np.frombuffer(content, self._dtype))
        parts = np.frombuffer(content, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(parts), 4), np.uint8)  # 24 bits are the upper ones of 32
        wide[:, 1:] = parts[:, ::-1] if self._big_endian else parts
        return scale_to_float32(wide.reshape(-1).view("<i4"))

    def seek(self, sample: int) -> bool:
        """Go to a sample of a file."""
        if self.num_samples is None:
            return False
        self._file.seek(min(sample, self.num_samples) * self._width * self.num_channels)
        self._left = b""
        return True

    def close(self) -> None:
        """The file stays open."""


def import_soundfile() -> Any:
    """The module, when it is first needed.

    Raises:
        AudioLoadError: it is not installed.
    """
    try:
        import soundfile
    except ImportError:
        raise AudioLoadError("Reading audio files needs soundfile. Run: pip install soundfile") from None
    return soundfile


def describe_missing(num_samples: int, expected: float, sampling_rate: int) -> str:
    """What is wrong with a file that holds clearly less than its header promises."""
    return (
        f"it ends after {num_samples / sampling_rate:.2f} s, though its header promises "
        f"{expected / sampling_rate:.2f} s"
    )
