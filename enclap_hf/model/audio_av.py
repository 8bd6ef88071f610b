"""The second decoder: PyAV reads what libsndfile does not (m4a, mp4, webm, aac, wma), and streams that cannot seek."""

from __future__ import annotations

import re
from typing import Any, BinaryIO, cast

import numpy as np

from .audio_arrays import check_sampling_rate, scale_to_float32
from .audio_bytes import FileView, ReplayedStream
from .audio_chatter import silence_c_libraries
from .audio_decoding import describe_missing
from .audio_errors import audio_error, damaged_error, no_samples_error, unreadable_error
from .audio_formats import AV_FORMATS
from .audio_links import inspect_stream, is_ogg_cut

# Formats whose length ffmpeg guesses from the bit rate.
_GUESSED_LENGTH = {"aac", "ac3", "eac3", "mp3", "amr", "mpeg", "mpegts", "flac", "ogg"}
# Shorter than promised by less than this share, or by less than this time, is whole: encoders pad and trim.
_WHOLE_SHARE = 0.99
_WHOLE_S = 0.1
# A wav of this size and more may come from a program that did not know its length.
_OPEN_BYTES = 0x7FFFF000
# Less than this may stand behind the sound of a stream: tags, and chunks of other content.
_READ_AHEAD_BYTES = 1 << 16


class AvDecoder:
    """Decodes one audio track with ffmpeg: the one that is flagged as default, else the first.

    Args:
        file: a `FileView`, or a `ReplayedStream` where the recording cannot seek.
        label: what messages call the recording.
    Raises:
        AudioLoadError: there is no audio track, no sample in it, or a sampling rate out of range.
        av.error.FFmpegError: ffmpeg cannot open it, or not decode its first samples.
    """

    note = None

    def __init__(self, file: Any, label: str):
        av = import_av()
        self.label = label
        self.missing: str | None = None
        self._file = file
        self._position = 0
        self._is_cut_ogg = self._states_frames = False
        if isinstance(file, FileView):
            self._is_cut_ogg = file.read(4) == b"OggS" and is_ogg_cut(cast(BinaryIO, file), 0)
            facts = inspect_stream(cast(BinaryIO, file))
            self._states_frames = facts.kind == "mpeg" and not facts.is_open
            file.seek(0)
        # Titles in an old encoding must not stop the sound from being read.
        # As `options` they would go to the tracks too, and up to PyAV 17 that crashes where a track is found late.
        allowed = {"format_whitelist": AV_FORMATS}
        with silence_c_libraries():
            self._container = av.open(file, container_options=allowed, metadata_errors="replace")
        try:
            self._track = _choose_track(self._container, label)
            if self._track.codec_context is None:  # PyAV 13 to 17 crash where such a track is decoded
                problem = "its sound is in a codec that no decoder here knows."
                raise audio_error(label, problem, "Convert it to wav or flac first.")
            self._frames = self._container.decode(self._track)
            self._waiting = self._decode_frame()
            if self._waiting is None:
                raise no_samples_error(label)
            self.sampling_rate = check_sampling_rate(self._waiting.sample_rate, label)
            self.num_channels = len(self._waiting.layout.channels)
        except BaseException:
            self.close()
            raise
        self._promised = self._find_promised_samples()

    @property
    def num_samples(self) -> None:
        """Unknown: what containers state counts an encoder's padding or leaves it out."""
        return None

    @property
    def stated_duration_s(self) -> float:
        """Seconds that the container states or that ffmpeg guesses; 0 where neither is."""
        return max(self._promised / self.sampling_rate, (self._container.duration or 0) / import_av().time_base)

    def read(self, max_samples: int = 0) -> np.ndarray:
        """The samples of the next frame, float32 (n, channels), however many it has."""
        av = import_av()
        try:
            frame, self._waiting = self._waiting, None
            if frame is None:
                frame = self._decode_frame()
        except av.error.FFmpegError as error:
            if self._file.error is not None:
                raise unreadable_error(self.label, self._file.error) from None
            raise damaged_error(self.label, error.strerror) from None
        if self._file.error is not None:
            raise unreadable_error(self.label, self._file.error)
        if frame is None:
            self._finish()
            return np.empty((0, self.num_channels), np.float32)
        if frame.sample_rate != self.sampling_rate:
            raise audio_error(self.label, "its sampling rate changes midway.", "Convert it to wav first.")
        planes = frame.to_ndarray()  # (channels, T), or (1, T * channels) interleaved
        block = scale_to_float32(planes.T if frame.format.is_planar else planes.reshape(frame.samples, -1))
        self._position += len(block)
        return block

    def _decode_frame(self) -> Any:
        """The next frame that holds samples, None at the end."""
        with silence_c_libraries():
            return next((frame for frame in self._frames if frame.samples), None)

    def _find_promised_samples(self) -> float:
        """Samples that the container states of the track; 0 where it states none."""
        if _GUESSED_LENGTH & set(self._container.format.name.split(",")) and not self._states_frames:
            return 0.0
        track = self._track
        duration_s = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
        stated = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", track.metadata.get("DURATION", ""))  # matroska's
        if not duration_s and stated:
            duration_s = 3600 * int(stated[1]) + 60 * int(stated[2]) + float(stated[3])
        if not duration_s and len(self._container.streams) == 1:
            duration_s = (self._container.duration or 0) / import_av().time_base
        is_open = self._container.format.name == "wav" and duration_s * self._bytes_per_s() >= _OPEN_BYTES
        return 0.0 if is_open else max(0.0, duration_s) * self.sampling_rate

    def _bytes_per_s(self) -> float:
        """Of the encoded track, as its header states."""
        return (self._track.codec_context.bit_rate or 0) / 8

    def _finish(self) -> None:
        """Note what the container promised and does not hold, or holds behind its stated end."""
        if isinstance(self._file, ReplayedStream) and len(self._file.read(_READ_AHEAD_BYTES)) == _READ_AHEAD_BYTES:
            self.missing = "its header states an end, behind which the stream goes on unread"
        short = self._promised - self._position
        if self._position < _WHOLE_SHARE * self._promised and short > _WHOLE_S * self.sampling_rate:
            self.missing = describe_missing(self._position, self._promised, self.sampling_rate)
        elif self._is_cut_ogg:
            self.missing = f"it ends after {self._position / self.sampling_rate:.2f} s, within a page of its stream"

    def seek(self, sample: int) -> bool:
        """ffmpeg's seeking is not exact to the sample."""
        return False

    def close(self) -> None:
        """Give ffmpeg's memory back; the file stays open."""
        self._container.close()


def import_av() -> Any:
    """PyAV, when it is first needed; None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


def _choose_track(container: Any, label: str) -> Any:
    """The audio track that a player would choose by itself."""
    tracks = list(container.streams.audio)
    if not tracks:
        raise audio_error(label, "it has no audio track.", "Pass a file with sound.")
    if not hasattr(tracks[0], "disposition"):  # an older PyAV; ffmpeg's own choice heeds the flag
        best = getattr(container.streams, "best", None)
        return (best and best("audio")) or tracks[0]
    for track in tracks:
        flags = getattr(track.disposition, "value", track.disposition)
        if (flags or 0) & 1:  # AV_DISPOSITION_DEFAULT; PyAV 12 has None for a track without a decoder
            return track
    return tracks[0]
