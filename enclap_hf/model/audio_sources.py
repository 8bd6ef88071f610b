"""Opens a recording in whatever form people hold it: path, bytes, file object, stream, samples, `datasets` audio."""

from __future__ import annotations

import io
import numbers
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .audio_arrays import as_whole_number, check_sampling_rate, put_frames_first, read_array
from .audio_av import import_av
from .audio_bytes import FileView, ReplayedStream, buffer_stream
from .audio_decoding import RAW_FORMATS, ArrayDecoder, RawDecoder
from .audio_errors import audio_error, make_label, unreadable_error
from .audio_formats import find_extension, is_streamable
from .audio_reader import AudioReader, start_av_decoder, start_file_decoder

_SPECIAL_FILES = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)
_HEAD_BYTES = 64


@dataclass(frozen=True, eq=False)
class AudioPart:
    """Samples of a recording that an `AudioReader` gave; reading it gives the very same.

    Args:
        samples: float32 (channels, num_samples), however many channels.
        sampling_rate: Hz.
        name: what messages call the recording.
    """

    samples: np.ndarray
    sampling_rate: int
    name: str
    # Known by this and not by its class: a repository's code may be loaded twice, for its processor and its pipeline.
    is_audio_part: ClassVar[bool] = True


def open_audio(
    audio: Any,
    sampling_rate: int | None = None,
    *,
    name: str | None = None,
    raw_format: str | None = None,
    raw_sampling_rate: int | None = None,
    raw_channels: int = 1,
) -> AudioReader:
    """Open one recording, to read it block by block or in part.

    Memory does not grow with its length, for a path, a seekable file and encoded bytes. A file object that cannot seek
    (standard input, a socket) is decoded as it comes where PyAV is installed and the format allows it: wav, flac, mp3,
    ogg, opus, aac, webm, mkv, au, wma, flv, amr, ac3, mpegts. Others (mp4 and m4a, avi, aiff, caf, w64, rf64), whose
    parts must be looked up, are first copied: to memory up to 64 MB, else to a temporary file.

    Args:
        audio: what [`~enclap_hf.model.audio_loading.load_audio`] takes.
        sampling_rate: Hz, for samples that come without their rate.
        name: what messages call the recording; without it, its path or a description.
        raw_format: for a path, bytes or file object that holds samples without a header: s8, u8, s16le, s16be, s24le,
            s24be, s32le, s32be, f32le, f32be, f64le or f64be.
        raw_sampling_rate: Hz of such samples.
        raw_channels: of such samples, interleaved.
    Returns:
        AudioReader: a context manager; `blocks()` and `read(start, num_samples)` give the samples.
    Raises:
        AudioLoadError: see `load_audio`. What is wrong further on is raised when it is reached.
        ValueError: `raw_format` is unknown, or comes without `raw_sampling_rate`.
    """
    raw = check_raw(raw_format, raw_sampling_rate, raw_channels, make_label(audio, name))
    return open_source(audio, sampling_rate, name, raw=raw)


def check_raw(
    raw_format: str | None = None,
    raw_sampling_rate: int | None = None,
    raw_channels: int = 1,
    label: str = "samples without a header",
) -> tuple[str, int, int] | None:
    """Format, Hz and channels of samples without a header; None where there are none.

    Raises:
        AudioLoadError: the rate is outside 1 to 384 kHz.
        ValueError: the format is unknown, or something is missing.
    """
    if raw_format is None:
        if raw_sampling_rate is not None or raw_channels != 1:
            raise ValueError(
                "Got `raw_sampling_rate` or `raw_channels` without `raw_format`, which says that samples have no "
                f"header; pass one of {', '.join(RAW_FORMATS)}, or leave them out."
            )
        return None
    if raw_format not in RAW_FORMATS:
        raise ValueError(f"Got `raw_format` {raw_format!r}; expected one of {', '.join(RAW_FORMATS)}.")
    channels = as_whole_number(raw_channels)
    if raw_sampling_rate is None or channels is None or channels < 1:
        raise ValueError(
            f"Got `raw_sampling_rate` {raw_sampling_rate!r} and `raw_channels` {raw_channels!r}; samples without a "
            "header need a rate in Hz and at least one channel."
        )
    return raw_format, check_sampling_rate(raw_sampling_rate, label), channels


def open_source(
    audio: Any,
    sampling_rate: int | None = None,
    name: str | None = None,
    *,
    raw: tuple[str, int, int] | None = None,
    buffers_streams: bool = False,
    max_duration_s: float | None = None,
) -> AudioReader:
    """`open_audio` for callers that know more.

    Args:
        audio: as there.
        sampling_rate: as there.
        name: as there.
        raw: format, Hz and channels of samples without a header.
        buffers_streams: copy what cannot seek before it is decoded, so that it gives the bits that the file would.
        max_duration_s: no more than this from the start will be wanted, of which a decoder object is told.
    """
    if getattr(audio, "is_audio_part", False) is True:
        start = lambda: ArrayDecoder(audio.samples.T, audio.sampling_rate)  # noqa: E731
        return AudioReader(start, audio.name, lambda: None, can_restart=True, was_heard=True)
    label = make_label(audio, name)
    if sampling_rate is not None:
        sampling_rate = check_sampling_rate(sampling_rate, label)
    again = {"raw": raw, "buffers_streams": buffers_streams, "max_duration_s": max_duration_s}
    if isinstance(audio, Mapping):
        return open_source(*_open_dict(audio, sampling_rate, name), **again)
    if isinstance(audio, (str, os.PathLike)):
        file = open_file(os.fspath(audio), label)
        return _open_encoded(file, label, raw, on_close=file.close)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return _open_encoded(io.BytesIO(audio), label, raw, on_close=lambda: None)
    if callable(getattr(audio, "get_all_samples", None)):
        return _open_decoder_object(audio, label, max_duration_s)
    if callable(getattr(audio, "read", None)):
        return _open_file_object(audio, label, raw, buffers_streams)
    pair = split_pair(audio)
    if pair is not None:
        return open_source(*pair, name, **again)
    if hasattr(audio, "data") and hasattr(audio, "sample_rate"):  # torchcodec's AudioSamples
        return _open_array(audio.data, check_sampling_rate(audio.sample_rate, label), label)
    return _open_array(audio, sampling_rate, label)


def split_pair(audio: Any) -> tuple[Any, Any] | None:
    """(samples, sampling rate) of a pair of them in either order, as gradio, librosa and soundfile hand them over."""
    if not isinstance(audio, (tuple, list)) or len(audio) != 2:
        return None
    for samples, rate in (audio, audio[::-1]):
        is_samples = hasattr(samples, "__array__") and getattr(samples, "ndim", 0) in (1, 2)
        is_samples = is_samples or (isinstance(samples, (list, tuple)) and len(samples) > 0)
        # What is a number and no rate, such as 8000.5, is refused as a rate and not as a pair.
        is_rate = as_whole_number(rate) is not None or isinstance(rate, (numbers.Number, np.bool_))
        if is_samples and is_rate and not getattr(rate, "ndim", 0):
            return samples, rate
    return None


def open_file(path: str | bytes, label: str) -> io.BufferedReader:
    """Open a file by its path.

    Args:
        path: `~` stands for the home folder.
        label: what messages call it.
    Raises:
        AudioLoadError: it is an address, a folder, a pipe or device, missing, or must not be read.
    """
    path = os.fsdecode(path)
    if is_url(path):
        raise audio_error(label, "it is an address, and nothing is downloaded here.", "Download it and pass the file.")
    path = expand_home(path)
    if os.path.isdir(path):
        raise audio_error(label, "it is a folder.", "Pass its files, as `find_audio_files` lists them.")
    special = find_special_kind(path)
    if special is not None:
        problem = f"it is a {special}, which may never end or never begin."
        raise audio_error(label, problem, 'Open it yourself, with mode "rb", and pass the file object.')
    try:
        return open(path, "rb")
    except FileNotFoundError:
        remedy = f"Check its spelling; the current folder is `{os.getcwd()}`."
        raise audio_error(label, "no such file.", remedy) from None
    except (OSError, ValueError) as error:  # ValueError: the name holds a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise audio_error(label, f"it cannot be opened ({reason}).", "Check its name and permissions.") from None


def find_special_kind(path: str) -> str | None:
    """What a path is where it is neither file nor folder: "named pipe", "socket" or "device"; else None."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((kind for is_kind, kind in _SPECIAL_FILES if is_kind(mode)), None)


def expand_home(path: str) -> str:
    """Replace a leading `~` unless a file has that very name."""
    return path if os.path.exists(path) else os.path.expanduser(path)


def is_url(path: str) -> bool:
    """Whether a string is an address rather than a path; one letter before the colon would be a Windows drive."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", path) is not None


def _open_dict(audio: Mapping, sampling_rate: int | None, name: str | None) -> tuple[Any, Any, str | None]:
    """Content, rate and name of a `datasets` audio dict, decoded or not."""
    path = audio.get("path")
    name = name or (str(path) if path else None)
    samples = audio.get("array")
    if samples is None:
        samples = audio.get("raw")
    if samples is not None:
        own_rate = audio.get("sampling_rate")
        return samples, sampling_rate if own_rate is None else own_rate, name
    if audio.get("bytes") is not None:
        return audio["bytes"], None, name
    if path:
        return path, None, name
    if audio.get("audio") is not None:
        raise audio_error(
            make_label(audio, name), "it is a whole row of a table.", 'Pass its recording, such as row["audio"].'
        )
    raise audio_error(
        make_label(audio, name),
        "it holds no audio.",
        'Expected {"array": samples, "sampling_rate": Hz}, {"path": file} or {"bytes": encoded file}.',
    )


def _open_encoded(file: Any, label: str, raw: tuple | None, on_close: Any) -> AudioReader:
    """A seekable file, from its start."""
    extension = find_extension(file, label)
    if raw is None and extension in (".raw", ".pcm"):  # soundfile would ask for the rate and type of such a file
        on_close()
        raise audio_error(
            label, "samples without a header.", "Read them with numpy.fromfile, and pass them with `sampling_rate=`."
        )

    def start() -> Any:
        if raw is not None:
            return RawDecoder(FileView(file), *raw, label)
        return start_file_decoder(file, label, extension)

    return AudioReader(start, label, on_close, can_restart=True)


def _open_file_object(file: Any, label: str, raw: tuple | None, buffers_streams: bool) -> AudioReader:
    """A caller's file: from its start, and left where it was; what cannot seek, from where it is."""
    try:
        can_seek = hasattr(file, "seekable") and file.seekable()
        position = file.tell() if can_seek else None
        head = file.read(0 if can_seek else _HEAD_BYTES)
    except Exception as error:  # whatever a caller's own class raises
        raise audio_error(label, f"it cannot be read ({error}).", 'Open it with mode "rb".') from None
    if not isinstance(head, (bytes, bytearray, memoryview)):
        raise audio_error(label, "it is open as text.", 'Open it with mode "rb".')
    if can_seek:
        return _open_encoded(file, label, raw, on_close=lambda: file.seek(position))
    stream = ReplayedStream(bytes(head), file)
    if raw is not None and not buffers_streams:
        return AudioReader(lambda: RawDecoder(stream, *raw, label), label, lambda: None, can_restart=False)
    if is_streamable(bytes(head)) and not buffers_streams and import_av() is not None:
        extension = find_extension(file, label)
        start = lambda: start_av_decoder(stream, label, extension, bytes(head), "the stream ends early")  # noqa: E731
        return AudioReader(start, label, lambda: None, can_restart=False)
    try:
        buffer = buffer_stream(stream)
    except OSError as error:
        raise audio_error(label, f"it cannot be copied ({error}).", "Free space for temporary files.") from None
    if stream.error is not None:
        raise unreadable_error(label, stream.error)
    return _open_encoded(buffer, label, raw, on_close=buffer.close)


def _open_decoder_object(decoder: Any, label: str, max_duration_s: float | None) -> AudioReader:
    """An audio decoder object of `datasets` (torchcodec's, told by its methods)."""
    try:
        if max_duration_s is not None and hasattr(decoder, "get_samples_played_in_range"):
            # One second more, since a stream may start some way after zero; the caller cuts to the length.
            decoded = decoder.get_samples_played_in_range(0.0, max_duration_s + 1.0)
        else:
            decoded = decoder.get_all_samples()
    except Exception as error:  # a decoder may raise anything for a damaged file
        raise audio_error(
            label, f"its decoder failed ({error}).", "Check that the file plays, or replace it."
        ) from error
    return _open_array(decoded.data, check_sampling_rate(decoded.sample_rate, label), label)


def _open_array(audio: Any, sampling_rate: int | None, label: str) -> AudioReader:
    """Samples that are decoded already."""
    if isinstance(audio, Sequence) and not len(audio):
        audio = np.empty(0)
    frames = put_frames_first(read_array(audio, label), label)
    if sampling_rate is None:
        raise audio_error(
            label,
            "samples alone do not tell their sampling rate.",
            'Pass `sampling_rate=` in Hz, or a dict {"array": samples, "sampling_rate": Hz}.',
        )
    return AudioReader(lambda: ArrayDecoder(frames, sampling_rate), label, lambda: None, can_restart=True)
