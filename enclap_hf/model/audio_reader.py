"""Reads one recording block by block, or a part of it, in memory that does not grow with the recording's length."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .audio_av import AvDecoder, import_av
from .audio_bytes import FileView, ReplayedStream
from .audio_decoding import BLOCK_SAMPLES, SoundfileDecoder, import_soundfile
from .audio_errors import AudioLoadError, audio_error, damaged_error, undecodable_error, unreadable_error
from .audio_formats import is_text

logger = logging.getLogger(__name__)

# Float samples this far over full scale (24 dB) are integers that someone cast without scaling.
SUSPICIOUS_PEAK = 16.0
# Above this the power spectrum of 1,024 samples, summed over a mel filter, leaves float32.
MAX_PEAK = 1e15


class AudioReader:
    """One open recording. `open_audio` makes it; use it in a `with` statement.

    Attributes:
        sampling_rate: Hz, as recorded.
        num_channels: of every block.
        name: what messages call the recording.
        partial_reason: what is missing of a recording that was read in part, known once its end is reached; else None.
    """

    def __init__(
        self,
        start_decoder: Callable[[], Any],
        name: str,
        on_close: Callable[[], None],
        can_restart: bool,
        was_heard: bool = False,
    ):
        """Open a recording.

        Args:
            start_decoder: makes a decoder that begins with the first sample.
            name: what messages call the recording.
            on_close: called once, also where opening fails.
            can_restart: False where `start_decoder` can be called once only, as for a pipe.
            was_heard: True for a part of a recording whose reader has already warned of its samples.
        Raises:
            AudioLoadError: the recording cannot be decoded.
        """
        self.name = name
        self.partial_reason: str | None = None
        self._start_decoder = start_decoder
        self._on_close = on_close
        self._can_restart = can_restart
        self._decoder = None
        self._waiting = None  # decoded and not given out yet
        self._position = 0  # of the next sample that `read_block` gives
        self._warned = was_heard
        try:
            with reading(name):
                self._decoder = start_decoder()
        except BaseException:
            on_close()
            raise
        self.sampling_rate: int = self._decoder.sampling_rate
        self.num_channels: int = self._decoder.num_channels
        if self._decoder.note:
            logger.warning("%s: %s", name, self._decoder.note)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def num_samples(self) -> int | None:
        """Samples a channel, as the file states them; None where it does not, or where that is known to be a guess."""
        with reading(self.name):
            return self._decoder.num_samples

    @property
    def is_certain(self) -> bool:
        """Whether `num_samples` was held against the bytes that are there."""
        return getattr(self._decoder, "is_certain", False)

    @property
    def is_partial(self) -> bool:
        """Whether less was read than the recording promised; known once its end is reached."""
        return self.partial_reason is not None

    def blocks(self, block_s: float = 10.0, start: int = 0) -> Iterator[np.ndarray]:
        """The recording in blocks, each float32 (channels, num_samples).

        Args:
            block_s: seconds of each block but the last, which holds what remains.
            start: first sample of the first block; no block where the recording ends before it.
        Raises:
            AudioLoadError: the recording is damaged; everything in front of the damage was given out before.
            ValueError: `block_s` is shorter than one sample.
        """
        size = round(block_s * self.sampling_rate)
        if size < 1:
            raise ValueError(f"Got `block_s` {block_s}; expected at least one sample, {1 / self.sampling_rate:g} s.")
        self._go_to(start)
        while True:
            block, error = self._gather(size)
            if block.shape[1]:
                yield block
            if error is not None:
                raise error
            if block.shape[1] < size:
                return

    def read(self, start: int, num_samples: int) -> np.ndarray:
        """A part of the recording, with the very samples that `blocks` gives.

        Files of uncompressed samples and flac are entered at `start`; others, whose samples depend on those before,
        are decoded from the last place that was read, or from their start, and what is not wanted is dropped.

        Args:
            start: first sample wanted.
            num_samples: how many.
        Returns:
            float32 (channels, num_samples), shorter or empty where the recording ends before.
        Raises:
            AudioLoadError: the recording is damaged in or before the part, or a stream would have to be read twice.
            ValueError: a negative number.
        """
        if start < 0 or num_samples < 0:
            raise ValueError(f"Got `start` {start} and `num_samples` {num_samples}; expected no negative number.")
        self._go_to(start)
        block, error = self._gather(num_samples)
        if error is not None:
            raise error
        return block

    def read_block(self, max_samples: int = BLOCK_SAMPLES) -> np.ndarray:
        """The next samples as they are decoded, float32 (n, channels), at most `max_samples`; no rows at the end."""
        if self._waiting is None:
            with reading(self.name):
                block = self._decoder.read(max_samples)
            if not len(block):
                self._finish()
                return block
            block = self._check_block(block)
        else:
            block, self._waiting = self._waiting, None
        if len(block) > max_samples:
            block, self._waiting = block[:max_samples], block[max_samples:]
        self._position += len(block)
        return block

    def close(self) -> None:
        """Close the decoder, and the file where it was opened here; a caller's file returns to where it was."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
            self._on_close()

    def _gather(self, num_samples: int) -> tuple[np.ndarray, AudioLoadError | None]:
        """(channels, up to `num_samples`), and the error that ended it early."""
        parts, found, error = [np.empty((0, self.num_channels), np.float32)], 0, None
        try:
            while found < num_samples:
                block = self.read_block(min(num_samples - found, BLOCK_SAMPLES))
                if not len(block):
                    break
                parts.append(block)
                found += len(block)
        except AudioLoadError as caught:
            error = caught
        return np.ascontiguousarray(np.concatenate(parts).T), error

    def _go_to(self, sample: int) -> None:
        """Make `sample` the next one, or the end where there are fewer."""
        if sample == self._position:
            return
        with reading(self.name):
            if self._decoder.seek(sample):
                self._position, self._waiting = sample, None
                return
        if sample < self._position:
            self._restart()
        while self._position < sample:
            if not len(self.read_block(min(sample - self._position, BLOCK_SAMPLES))):
                return

    def _restart(self) -> None:
        """Decode from the start again."""
        if not self._can_restart:
            raise audio_error(
                self.name, "it is a stream, of which that part has passed.", "Read it in order, or save it to a file."
            )
        with reading(self.name):
            self._decoder.close()
            self._decoder = self._start_decoder()
        self._position, self._waiting = 0, None

    def _check_block(self, block: np.ndarray) -> np.ndarray:
        """A block once its samples are known to be sound."""
        if block.shape[1] != self.num_channels:  # as radio streams do; every channel then gets the mean
            block = np.repeat(block.mean(axis=1, keepdims=True, dtype=np.float32), self.num_channels, axis=1)
        peak = max(float(block.max()), -float(block.min()))
        if not peak <= MAX_PEAK:  # NaN compares as False
            self._refuse_block(block, peak)
        if peak > SUSPICIOUS_PEAK and not self._warned:
            self._warned = True
            logger.warning(
                "%s: float samples reach %g, where full scale is 1. If they are integers cast to float, pass the "
                "integers, or divide by their full scale (32768 for 16 bits).",
                self.name,
                peak,
            )
        return block

    def _refuse_block(self, block: np.ndarray, peak: float) -> None:
        """Raise for samples that are not sound."""
        finite = np.isfinite(block).all(axis=1)
        if finite.all():
            problem = f"its samples reach {peak:g}, where full scale is 1."
            raise audio_error(self.name, problem, "Export it again with samples between -1 and 1.")
        position_s = (self._position + int(np.argmin(finite))) / self.sampling_rate
        raise audio_error(
            self.name,
            f"it holds NaN or infinite samples, the first at {position_s:.3f} s.",
            "Replace them, for example with numpy.nan_to_num, or export the clip again.",
        )

    def _finish(self) -> None:
        """At the end: say what is missing."""
        missing = self._decoder.missing
        if missing and self.partial_reason is None:
            self.partial_reason = missing
            logger.warning("%s: %s. The file may be cut off.", self.name, missing)


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises for one recording into an `AudioLoadError` that names it."""
    try:
        yield
    except AudioLoadError:
        raise
    except MemoryError:
        raise audio_error(name, "memory does not suffice for it.", "Split it, or set `max_duration_s`.") from None
    except Exception as error:  # damaged files make the decoders raise OSError, ValueError, struct.error, ...
        raise damaged_error(name, f"{type(error).__name__}: {error}") from error


def start_file_decoder(file: Any, name: str, extension: str) -> Any:
    """The decoder of a seekable encoded file, chosen by its content.

    Args:
        file: a seekable binary file object.
        name: what messages call it.
        extension: of its name, lower case; only makes messages better.
    Raises:
        AudioLoadError: no decoder can open it.
    """
    view = FileView(file)
    head = view.read(64)
    if view.error is not None:
        raise unreadable_error(name, view.error)
    if not head:
        raise audio_error(name, "it is empty (0 bytes).", "Record or download it again.")
    soundfile = import_soundfile()
    try:
        return SoundfileDecoder(file, name)
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", str(error))
    except AudioLoadError:
        raise
    except Exception as error:  # a damaged header; the second decoder may make more of it
        reason = f"{type(error).__name__}: {error}"
    return start_av_decoder(view, name, extension, head, reason)


def start_av_decoder(
    file: FileView | ReplayedStream, name: str, extension: str, head: bytes, soundfile_reason: str
) -> AvDecoder:
    """PyAV's decoder for what soundfile cannot open."""
    av = import_av()
    if av is None:
        raise undecodable_error(name, head, extension, soundfile_reason, has_av=False)
    if is_text(head):  # ffmpeg takes some short texts for empty audio
        raise undecodable_error(name, head, extension, soundfile_reason, has_av=True)
    if isinstance(file, FileView):
        file.seek(0)
    try:
        return AvDecoder(file, name)
    except AudioLoadError:
        raise
    except (av.error.FFmpegError, OSError, ValueError):
        if file.error is not None:
            raise unreadable_error(name, file.error) from None
        raise undecodable_error(name, head, extension, soundfile_reason, has_av=True) from None


def read_stated_duration_s(file: Any, name: str) -> float:
    """Seconds that a seekable encoded file states, without decoding more than its first samples; 0 for none.

    Args:
        file: a seekable binary file object.
        name: what messages call it.
    Raises:
        AudioLoadError: no decoder can open it.
    """
    with reading(name):
        decoder = start_file_decoder(file, name, "")
        try:
            return decoder.stated_duration_s
        finally:
            decoder.close()
