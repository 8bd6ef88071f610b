"""Reads one clip from whatever people hold it in, as float32 samples at the rate it was recorded with.

Distinctive choices:
- The content decides the format, never the file's extension. soundfile reads wav, flac, mp3, ogg, opus and aiff; what
  it cannot open goes to PyAV where that is installed (m4a, mp4, webm, aac, wma, ...).
- The downmix is the plain mean of the channels, added up in channel order, so that a file and an array of the same
  samples give the same bits.
- Decoding goes block by block into one mono buffer: a two-hour stereo file takes the room of its mono signal, once.
- Nothing is resampled, cut or scaled unasked; what cannot be read raises an `AudioLoadError`, one line that names the
  clip, what is wrong with it and what to do.
"""

from __future__ import annotations

import io
import logging
import math
import numbers
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .audio_arrays import check_sampling_rate, put_frames_first, read_array
from .audio_decoding import BLOCK_SAMPLES, LoadedAudio, SampleBuffer, Wanted, decode_file
from .audio_errors import AudioLoadError, audio_error, make_label  # noqa: F401
from .audio_formats import AUDIO_EXTENSIONS, AV_FORMATS  # noqa: F401 (names that other files take from here)
from .audio_resampling import resample_audio  # noqa: F401

logger = logging.getLogger(__name__)

# Float samples this far over full scale (24 dB) are integers that someone cast without scaling.
SUSPICIOUS_PEAK = 16.0


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
              not. Floats are taken as they are; int8, int16, int32 and uint8 are scaled to [-1, 1). Other integers
              have no agreed full scale and are refused;
            - a `datasets` audio dict: {"array", "sampling_rate"} ("raw" is read like "array") or {"path", "bytes"};
            - an audio decoder as `datasets` gives it: `get_all_samples()` with `.data` and `.sample_rate`.
        sampling_rate: Hz, for samples that come without their rate. Where the clip states its own, that one counts.
        name: what error messages call the clip; without it, its path or a description.
        max_duration_s: read at most this many seconds from the start. The rest is neither decoded nor checked.
        mono: the mean of the channels (num_samples,); False keeps the channels apart, (channels, num_samples).
    Returns:
        LoadedAudio: float32 samples, at least one, all finite, and the rate they were recorded with.
    Raises:
        AudioLoadError: nothing is there, it is not audio, it is damaged, it holds no or no finite samples, its
            sampling rate is unknown or outside 8 to 192 kHz, or a decoder for it is not installed.
        ValueError: `max_duration_s` is not a positive number.
    """
    if max_duration_s is not None and not 0 < max_duration_s < math.inf:
        raise ValueError(f"Got `max_duration_s` {max_duration_s}; expected a positive number of seconds, or None.")
    wanted = Wanted(max_duration_s, mono)
    label = make_label(audio, name)
    if sampling_rate is not None:
        sampling_rate = check_sampling_rate(sampling_rate, label)
    if isinstance(audio, Mapping):
        return _load_dict(audio, sampling_rate, name, wanted)
    if isinstance(audio, (str, os.PathLike)):
        return _load_path(os.fspath(audio), label, wanted)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return decode_file(io.BytesIO(audio), label, wanted)
    if callable(getattr(audio, "get_all_samples", None)):
        return _load_decoder(audio, label, wanted)
    if callable(getattr(audio, "read", None)):
        return _load_file_object(audio, label, wanted)
    return _load_array(audio, sampling_rate, label, wanted)


def as_audio_batch(audio: Any) -> tuple[list, bool]:
    """Tell one clip from several.

    A list, tuple, other sequence (a dataset column) or iterator of clips is a batch. Everything else is one clip: a
    path, bytes, a file object, a dict, an array or tensor of any shape, and a list whose first item is a number, which
    is one clip's samples.

    Args:
        audio: one clip as `load_audio` takes it, or several.
    Returns:
        the clips as a list, and True where `audio` was a batch. An empty list is a batch of no clips.
    """
    if isinstance(audio, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)) or hasattr(audio, "read"):
        return [audio], False
    if isinstance(audio, Sequence):
        is_batch = len(audio) == 0 or not isinstance(audio[0], numbers.Number)
        return (list(audio), True) if is_batch else ([audio], False)
    if isinstance(audio, Iterator):
        return list(audio), True
    return [audio], False


def expand_home(path: str) -> str:
    """Replace a leading `~` unless a file has that very name."""
    return path if os.path.exists(path) else os.path.expanduser(path)


def is_url(path: str) -> bool:
    """Whether a string is an address rather than a path; one letter before the colon would be a Windows drive."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", path) is not None


# Kinds of input


def _load_dict(audio: Mapping, sampling_rate: int | None, name: str | None, wanted: Wanted) -> LoadedAudio:
    """Read a `datasets` audio dict, decoded or not."""
    path = audio.get("path")
    name = name or (str(path) if path else None)
    samples = audio.get("array")
    if samples is None:
        samples = audio.get("raw")
    if samples is not None:
        own_rate = audio.get("sampling_rate")
        return load_audio(samples, sampling_rate if own_rate is None else own_rate, name=name, **wanted._asdict())
    if audio.get("bytes") is not None:
        return load_audio(audio["bytes"], name=name, **wanted._asdict())
    if path:
        return load_audio(path, name=name, **wanted._asdict())
    raise audio_error(
        make_label(audio, name),
        "it holds no audio.",
        'Expected {"array": samples, "sampling_rate": Hz}, {"path": file} or {"bytes": encoded file}.',
    )


def _load_path(path: str | bytes, label: str, wanted: Wanted) -> LoadedAudio:
    """Read a file."""
    path = os.fsdecode(path)
    if is_url(path):
        raise audio_error(label, "it is an address, and nothing is downloaded here.", "Download it and pass the file.")
    path = expand_home(path)
    if os.path.isdir(path):
        raise audio_error(label, "it is a folder.", "Pass its files, as `find_audio_files` lists them.")
    try:
        file = open(path, "rb")  # noqa: SIM115, closed by the `with` below; only opening may fail here
    except FileNotFoundError:
        raise audio_error(
            label, "no such file.", f"Check its spelling; the current folder is `{os.getcwd()}`."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: the name holds a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise audio_error(label, f"it cannot be opened ({reason}).", "Check its name and permissions.") from None
    with file:
        return _load_file_object(file, label, wanted)


def _load_file_object(file: Any, label: str, wanted: Wanted) -> LoadedAudio:
    """Read an open file from its start, and leave it where it was."""
    try:
        if not (hasattr(file, "seekable") and file.seekable()):
            content = file.read()
            position = None
        else:
            position = file.tell()
            content = file.read(0)
    except (OSError, ValueError) as error:
        raise audio_error(label, f"it cannot be read ({error}).", 'Open it with mode "rb".') from None
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise audio_error(label, "it is open as text.", 'Open it with mode "rb".')
    if position is None:
        return decode_file(io.BytesIO(content), label, wanted)
    try:
        return decode_file(file, label, wanted)
    finally:
        file.seek(position)


def _load_decoder(decoder: Any, label: str, wanted: Wanted) -> LoadedAudio:
    """Read an audio decoder object of `datasets` (torchcodec's, told by its methods)."""
    try:
        if wanted.max_duration_s is not None and hasattr(decoder, "get_samples_played_in_range"):
            # One second more, since a stream may start some way after zero; `_load_array` cuts to the length.
            decoded = decoder.get_samples_played_in_range(0.0, wanted.max_duration_s + 1.0)
        else:
            decoded = decoder.get_all_samples()
    except (RuntimeError, ValueError, OSError) as error:
        raise audio_error(
            label, f"its decoder failed ({error}).", "Check that the file plays, or replace it."
        ) from error
    return _load_array(decoded.data, check_sampling_rate(decoded.sample_rate, label), label, wanted)


def _load_array(audio: Any, sampling_rate: int | None, label: str, wanted: Wanted) -> LoadedAudio:
    """Read samples that are decoded already."""
    frames = put_frames_first(read_array(audio, label), label)
    if sampling_rate is None:
        raise audio_error(
            label,
            "samples alone do not tell their sampling rate.",
            'Pass `sampling_rate=` in Hz, or a dict {"array": samples, "sampling_rate": Hz}.',
        )
    buffer = SampleBuffer(label, sampling_rate, wanted, len(frames))
    for start in range(0, len(frames), BLOCK_SAMPLES):
        if buffer.is_full:
            break
        buffer.append(frames[start : start + BLOCK_SAMPLES])
    loaded = buffer.finish()
    if frames.dtype.kind == "f":
        peak = max(float(loaded.samples.max()), -float(loaded.samples.min()))
        if peak > SUSPICIOUS_PEAK:
            logger.warning(
                "%s: float samples reach %g, where full scale is 1. If they are integers cast to float, pass the "
                "integers, or divide by their full scale (32768 for 16 bits).",
                label,
                peak,
            )
    return loaded
