"""Reads one clip from whatever people hold it in, as mono float32 samples at the rate it was recorded with.

Distinctive choices:
- The content decides the format, never the file's extension. soundfile reads wav, flac, mp3, ogg, opus and aiff; what
  it cannot open goes to PyAV where that is installed (m4a, mp4, webm, aac, wma, ...).
- The downmix is the plain mean of the channels, added up in channel order, so that a file and an array of the same
  samples give the same bits.
- Decoding goes block by block into one mono buffer: a two-hour stereo file takes the room of its mono signal, once.
- Nothing is resampled, cut or scaled unasked; what cannot be read raises an `AudioLoadError`, one line that names the
  clip, what is wrong with it and what to do.

One long file rather than several, because it is shipped flat beside the model code and needs no other module.
"""

from __future__ import annotations

import io
import logging
import math
import numbers
import operator
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

logger = logging.getLogger(__name__)

MIN_SAMPLING_RATE = 8_000
MAX_SAMPLING_RATE = 192_000

SOUNDFILE_EXTENSIONS = (
    *(".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
)
AV_EXTENSIONS = (
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".ac3", ".amr"),
    *(".webm", ".mkv", ".mka", ".wma", ".asf", ".avi"),
)
AUDIO_EXTENSIONS = SOUNDFILE_EXTENSIONS + AV_EXTENSIONS

# Only these demuxers may open a file. ffmpeg also knows playlists (m3u8, ffconcat), and a playlist in disguise would
# make it read other files and addresses.
AV_FORMATS = "mov,matroska,aac,ac3,eac3,amr,asf,avi,flv,mpeg,mpegts,wav,w64,aiff,caf,au,mp3,ogg,flac,ape,wv,tta"
_SOUNDFILE_MAGIC = (b"RIFF", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd")
_AV_INSTALL = 'pip install "enclap-hf[av]"'

# A first axis longer than this is time, not channels.
_MAX_ARRAY_CHANNELS = 16
_BLOCK_SAMPLES = 1 << 18
# A header may claim any length; room beyond this is made when samples arrive.
_MAX_RESERVED_SAMPLES = 1 << 32
# Float samples this far over full scale (24 dB) are integers that someone cast without scaling.
_SUSPICIOUS_PEAK = 16.0


class AudioLoadError(ValueError):
    """A clip cannot be read. The message is one line: which clip, what is wrong with it, what to do."""


@dataclass(frozen=True, eq=False)
class LoadedAudio:
    """One decoded clip.

    Args:
        samples: float32 array (num_samples,), the mean of the channels, full scale at -1 and 1.
        sampling_rate: samples per second (Hz), as recorded.
    """

    samples: np.ndarray
    sampling_rate: int


def load_audio(
    audio: Any, sampling_rate: int | None = None, *, name: str | None = None, max_duration_s: float | None = None
) -> LoadedAudio:
    """Read one clip as mono float32 samples.

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
    Returns:
        LoadedAudio: float32 samples (num_samples,), at least one, all finite, and the rate they were recorded with.
    Raises:
        AudioLoadError: nothing is there, it is not audio, it is damaged, it holds no or no finite samples, its
            sampling rate is unknown or outside 8 to 192 kHz, or a decoder for it is not installed.
        ValueError: `max_duration_s` is not a positive number.
    """
    if max_duration_s is not None and not 0 < max_duration_s < math.inf:
        raise ValueError(f"Got `max_duration_s` {max_duration_s}; expected a positive number of seconds, or None.")
    label = _label(audio, name)
    if sampling_rate is not None:
        sampling_rate = _check_sampling_rate(sampling_rate, label)
    if isinstance(audio, Mapping):
        return _load_dict(audio, sampling_rate, name, max_duration_s)
    if isinstance(audio, (str, os.PathLike)):
        return _load_path(os.fspath(audio), label, max_duration_s)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(audio), label, max_duration_s)
    if callable(getattr(audio, "get_all_samples", None)):
        return _load_decoder(audio, label, max_duration_s)
    if callable(getattr(audio, "read", None)):
        return _load_file_object(audio, label, max_duration_s)
    return _load_array(audio, sampling_rate, label, max_duration_s)


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


def resample_audio(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample a mono clip with soxr at its HQ setting.

    Args:
        samples: float array (num_samples,).
        from_rate: sampling rate of `samples`, Hz.
        to_rate: wanted sampling rate, Hz.
    Returns:
        float32 array of about num_samples * to_rate / from_rate samples, never fewer than one; `samples` themselves
        where the rates are equal and they are float32 already.
    Raises:
        ValueError: `samples` is not a non-empty one-dimensional float array, or a rate is not a positive whole number.
        AudioLoadError: soxr is needed and not installed.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind != "f":
        raise ValueError(
            f"Got samples of shape {samples.shape} and dtype {samples.dtype}; expected floats of shape "
            "(num_samples,), at least one. `load_audio` makes them from any clip."
        )
    for argument, rate in (("from_rate", from_rate), ("to_rate", to_rate)):
        if _as_whole_number(rate) is None or rate <= 0:
            raise ValueError(f"Got `{argument}` {rate!r}; expected a positive whole number of Hz.")
    samples = samples.astype(np.float32, copy=False)
    if from_rate == to_rate:
        return samples
    try:
        import soxr
    except ImportError:
        raise AudioLoadError("Resampling needs soxr, which is not installed. Run: pip install soxr") from None
    resampled = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    # soxr rounds a clip shorter than half an output sample down to nothing; a clip that exists stays one.
    return resampled if resampled.size else samples.mean(keepdims=True)


def expand_home(path: str) -> str:
    """Replace a leading `~` unless a file has that very name."""
    return path if os.path.exists(path) else os.path.expanduser(path)


def is_url(path: str) -> bool:
    """Whether a string is an address rather than a path; one letter before the colon would be a Windows drive."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", path) is not None


# Kinds of input


def _load_dict(
    audio: Mapping, sampling_rate: int | None, name: str | None, max_duration_s: float | None
) -> LoadedAudio:
    """Read a `datasets` audio dict, decoded or not."""
    path = audio.get("path")
    name = name or (str(path) if path else None)
    samples = audio.get("array")
    if samples is None:
        samples = audio.get("raw")
    if samples is not None:
        own_rate = audio.get("sampling_rate")
        return load_audio(
            samples, sampling_rate if own_rate is None else own_rate, name=name, max_duration_s=max_duration_s
        )
    if audio.get("bytes") is not None:
        return load_audio(audio["bytes"], name=name, max_duration_s=max_duration_s)
    if path:
        return load_audio(path, name=name, max_duration_s=max_duration_s)
    raise audio_error(
        _label(audio, name),
        "it holds no audio.",
        'Expected {"array": samples, "sampling_rate": Hz}, {"path": file} or {"bytes": encoded file}.',
    )


def _load_path(path: str | bytes, label: str, max_duration_s: float | None) -> LoadedAudio:
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
        return _load_file_object(file, label, max_duration_s)


def _load_file_object(file: Any, label: str, max_duration_s: float | None) -> LoadedAudio:
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
        return _decode(io.BytesIO(content), label, max_duration_s)
    try:
        return _decode(file, label, max_duration_s)
    finally:
        file.seek(position)


def _load_decoder(decoder: Any, label: str, max_duration_s: float | None) -> LoadedAudio:
    """Read an audio decoder object of `datasets` (torchcodec's, told by its methods)."""
    try:
        if max_duration_s is not None and hasattr(decoder, "get_samples_played_in_range"):
            # One second more, since a stream may start some way after zero; `_load_array` cuts to the length.
            decoded = decoder.get_samples_played_in_range(0.0, max_duration_s + 1.0)
        else:
            decoded = decoder.get_all_samples()
    except (RuntimeError, ValueError, OSError) as error:
        raise audio_error(
            label, f"its decoder failed ({error}).", "Check that the file plays, or replace it."
        ) from error
    return _load_array(decoded.data, _check_sampling_rate(decoded.sample_rate, label), label, max_duration_s)


def _load_array(audio: Any, sampling_rate: int | None, label: str, max_duration_s: float | None) -> LoadedAudio:
    """Read samples that are decoded already."""
    frames = _frames_first(_as_numpy(audio, label), label)
    if sampling_rate is None:
        raise audio_error(
            label,
            "samples alone do not tell their sampling rate.",
            'Pass `sampling_rate=` in Hz, or a dict {"array": samples, "sampling_rate": Hz}.',
        )
    mono = _MonoBuffer(label, sampling_rate, max_duration_s, len(frames))
    for start in range(0, len(frames), _BLOCK_SAMPLES):
        if mono.is_full:
            break
        mono.append(frames[start : start + _BLOCK_SAMPLES])
    loaded = mono.finish()
    if frames.dtype.kind == "f":
        peak = max(float(loaded.samples.max()), -float(loaded.samples.min()))
        if peak > _SUSPICIOUS_PEAK:
            logger.warning(
                "%s: float samples reach %g, where full scale is 1. If they are integers cast to float, pass the "
                "integers, or divide by their full scale (32768 for 16 bits).",
                label,
                peak,
            )
    return loaded


def _as_numpy(audio: Any, label: str) -> np.ndarray:
    """Samples as a numpy array of a type whose scale is known; a view where possible."""
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that is imported already
    if torch is not None and isinstance(audio, torch.Tensor):
        try:
            if audio.is_floating_point() and audio.dtype != torch.float64:
                audio = audio.to(torch.float32)  # numpy has no bfloat16
            audio = audio.numpy(force=True)
        except (RuntimeError, TypeError) as error:
            raise audio_error(label, f"the tensor has no plain samples ({error}).", "Pass a dense tensor.") from None
    is_list = isinstance(audio, Sequence)
    if is_list and len(audio) and not isinstance(audio[0], numbers.Number):
        raise audio_error(
            label,
            f"it is a batch of {len(audio)}, and one clip was expected.",
            "Load each clip on its own; for the channels of one clip, pass an array (channels, num_samples).",
        )
    if not (is_list or hasattr(audio, "__array__")):
        raise audio_error(
            label,
            f"`{type(audio).__name__}` is no kind of audio.",
            "Pass a path, bytes, a binary file object, samples with `sampling_rate=`, or a `datasets` audio dict.",
        )
    try:
        array = np.asarray(audio)
    except (TypeError, ValueError) as error:
        raise audio_error(label, f"it is no array of numbers ({error}).", "Pass float or int16 samples.") from None
    if array.size == 0:
        raise _no_samples(label)
    if array.dtype.kind not in "fiu":
        problem = f"values of type {array.dtype} are no audio samples."
        raise audio_error(label, problem, "Pass float32 or int16 samples.")
    if array.dtype.kind != "f" and array.dtype not in (np.int8, np.int16, np.int32, np.uint8):
        raise audio_error(
            label,
            f"the full scale of {array.dtype} samples is not known.",
            "Cast them to the type they were recorded in (int16, int32, uint8), or scale them to [-1, 1] as float32.",
        )
    return array


def _frames_first(array: np.ndarray, label: str) -> np.ndarray:
    """A view (num_samples, channels) of one clip's samples."""
    if array.ndim == 1:
        return array[:, None]
    if array.ndim == 2 and min(array.shape) <= _MAX_ARRAY_CHANNELS:
        # (channels, T) unless only the second axis can be channels
        return array if array.shape[0] > _MAX_ARRAY_CHANNELS else array.T
    raise audio_error(
        label,
        f"got audio of shape {array.shape}; expected one clip, (num_samples,) or (channels, num_samples) with at most "
        f"{_MAX_ARRAY_CHANNELS} channels.",
        "Pass a list to caption several clips.",
    )


# Decoding


def _decode(file: BinaryIO, label: str, max_duration_s: float | None) -> LoadedAudio:
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
    extension = _file_extension(file, label)
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
        return _decode_with_av(file, label, max_duration_s, head, extension, reason)
    with sound:
        mono = _MonoBuffer(label, sound.samplerate, max_duration_s, sound.frames)
        try:
            # Not `sound.blocks()`: where a file ends early, that repeats old samples up to the length in the header.
            while not mono.is_full:
                block = sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
                if not len(block):
                    break
                mono.append(block)
        except soundfile.SoundFileError as error:
            raise _damaged(label, getattr(error, "error_string", str(error))) from None
        mono.warn_if_short(sound.frames)
    return mono.finish()


def _decode_with_av(
    file: BinaryIO, label: str, max_duration_s: float | None, head: bytes, extension: str, soundfile_reason: str
) -> LoadedAudio:
    """Decode with PyAV what soundfile cannot open."""
    try:
        import av
    except ImportError:
        raise _undecodable(label, head, extension, soundfile_reason, has_av=False) from None
    if _is_text(head):  # ffmpeg takes some short texts for empty audio
        raise _undecodable(label, head, extension, soundfile_reason, has_av=True)
    mono = None
    try:
        # Titles in an old encoding must not stop the sound from being read.
        with av.open(file, options={"format_whitelist": AV_FORMATS}, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise audio_error(label, "it has no audio track.", "Pass a file with sound.")
            for frame in container.decode(audio=0):
                if mono is None:
                    mono = _MonoBuffer(label, frame.sample_rate, max_duration_s, 0)
                if frame.sample_rate != mono.sampling_rate:
                    raise audio_error(label, "its sampling rate changes midway.", "Convert it to wav first.")
                if frame.samples:
                    planes = frame.to_ndarray()  # (channels, T), or (1, T * channels) interleaved
                    mono.append(planes.T if frame.format.is_planar else planes.reshape(frame.samples, -1))
                if mono.is_full:
                    break
    except av.error.FFmpegError as error:
        if mono is None:
            raise _undecodable(label, head, extension, soundfile_reason, has_av=True) from None
        raise _damaged(label, error.strerror) from None
    if mono is None:
        raise _no_samples(label)
    return mono.finish()


class _MonoBuffer:
    """One growing mono signal: takes blocks of any channel count, so that a long clip is in memory once."""

    def __init__(self, label: str, sampling_rate: Any, max_duration_s: float | None, expected_samples: int):
        self.label = label
        self.sampling_rate = _check_sampling_rate(sampling_rate, label)
        self.limit = None if max_duration_s is None else max(1, round(max_duration_s * self.sampling_rate))
        self.num_samples = 0
        reserved = min(max(0, expected_samples), self.limit or _MAX_RESERVED_SAMPLES, _MAX_RESERVED_SAMPLES)
        try:
            self._samples = np.empty(reserved, np.float32)  # takes no memory until it is written to
        except MemoryError:
            self._samples = np.empty(0, np.float32)

    @property
    def is_full(self) -> bool:
        """Whether `max_duration_s` is reached."""
        return self.limit is not None and self.num_samples >= self.limit

    def append(self, block: np.ndarray) -> None:
        """Add the channel mean of a block (num_samples, channels)."""
        if self.limit is not None:
            block = block[: self.limit - self.num_samples]
        mean = _channel_mean(block)
        finite = np.isfinite(mean)
        if not finite.all():
            position_s = (self.num_samples + int(np.argmin(finite))) / self.sampling_rate
            raise audio_error(
                self.label,
                f"it holds NaN or infinite samples, the first at {position_s:.3f} s.",
                "Replace them, for example with numpy.nan_to_num, or export the clip again.",
            )
        end = self.num_samples + len(mean)
        if end > len(self._samples):
            try:
                self._samples.resize(max(end, len(self._samples) * 3 // 2), refcheck=False)
            except MemoryError:
                raise audio_error(
                    self.label,
                    f"memory ends after {self.num_samples / self.sampling_rate:.0f} s of it.",
                    "Split it, or set `max_duration_s`.",
                ) from None
        self._samples[self.num_samples : end] = mean
        self.num_samples = end

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
            raise _no_samples(self.label)
        self._samples.resize(self.num_samples, refcheck=False)
        return LoadedAudio(self._samples, self.sampling_rate)


def _channel_mean(block: np.ndarray) -> np.ndarray:
    """The plain mean over channels as float32 (num_samples,), always a new array."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite, which `append` reports
        # In channel order: numpy's own sum picks its order by memory layout, and the last bit would follow it.
        mean = _scaled_to_float32(block[:, 0])
        for channel in range(1, block.shape[1]):
            mean += _scaled_to_float32(block[:, channel])
        if block.shape[1] > 1:
            mean /= block.shape[1]
    return mean


def _scaled_to_float32(samples: np.ndarray) -> np.ndarray:
    """Floats as they are, integers scaled to [-1, 1); a new array."""
    scaled = samples.astype(np.float32)
    if samples.dtype == np.uint8:  # 8-bit audio is unsigned, silence at 128
        scaled -= 128
        scaled /= 128
    elif samples.dtype.kind == "i":
        scaled /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    return scaled


# Words


def _check_sampling_rate(rate: Any, label: str) -> int:
    """The rate as an int, once it is known to be one that audio comes in."""
    whole = _as_whole_number(rate)
    if whole is None or not MIN_SAMPLING_RATE <= whole <= MAX_SAMPLING_RATE:
        raise audio_error(
            label,
            f"got sampling rate {rate!r}; allowed are {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz.",
            "Pass the rate the clip was recorded with, or resample it first.",
        )
    return whole


def _as_whole_number(value: Any) -> int | None:
    """An int for whole numbers of any type (16000, 16000.0, numpy, torch), None for all else."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None


def _label(audio: Any, name: str | None) -> str:
    """What messages call a clip."""
    if name is None and isinstance(audio, (str, os.PathLike)):
        name = os.fsdecode(audio)
    elif name is None and isinstance(audio, Mapping):
        return f"audio dict with keys {sorted(map(str, audio))}"
    elif name is None and isinstance(audio, (bytes, bytearray, memoryview)):
        return f"audio of {memoryview(audio).nbytes} bytes"
    elif name is None and isinstance(getattr(audio, "name", None), str):
        name = audio.name
    if name is not None:
        # A whole encoded file passed as a string must not fill the screen.
        return f"`{name}`" if len(name) <= 4096 else f"`{name[:100]}...`"
    shape = getattr(audio, "shape", None)
    return f"{type(audio).__name__}" + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def audio_error(label: str, problem: str, remedy: str) -> AudioLoadError:
    """An error of one line, whatever characters the clip's name holds."""
    text = f"{label}: {problem} {remedy}"
    return AudioLoadError("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _no_samples(label: str) -> AudioLoadError:
    """The clip is well formed and holds nothing."""
    return audio_error(label, "it holds no samples.", "Leave it out, or record it again.")


def _damaged(label: str, reason: str | None) -> AudioLoadError:
    """The clip starts as audio and cannot be decoded to its end."""
    problem = f"it is damaged or cut off ({_plain_reason(reason)})."
    return audio_error(label, problem, "Record, download or convert it again.")


def _undecodable(label: str, head: bytes, extension: str, reason: str, has_av: bool) -> AudioLoadError:
    """No decoder can open the file; say the likeliest cause, judged by its first bytes."""
    formats = "Pass a wav, flac, mp3, ogg, opus or aiff file"
    formats += ", m4a, mp4 or webm." if has_av else f"; m4a, mp4, webm and others need {_AV_INSTALL}"
    if head.startswith(b"version https://git-lfs"):
        return audio_error(label, "it is a Git LFS pointer, not the file itself.", "Run: git lfs pull")
    if _is_text(head):
        return audio_error(label, f"it is text, not audio (it begins {head[:24].decode('ascii')!r}).", formats)
    if not has_av and (_is_av_container(head) or extension in AV_EXTENSIONS):
        return audio_error(label, "this format needs PyAV, which is not installed.", f"Run: {_AV_INSTALL}")
    if _is_av_container(head) or head.startswith(_SOUNDFILE_MAGIC):
        remedy = "Record, download or convert it again."
        remedy += "" if has_av else f" If it plays elsewhere, its codec may need {_AV_INSTALL}"
        return audio_error(label, f"it is damaged or cut off ({_plain_reason(reason)}).", remedy)
    return audio_error(label, f"its content is no audio that can be read ({_plain_reason(reason)}).", formats)


def _plain_reason(reason: str | None) -> str:
    """A decoder library's message, without its frame."""
    return (reason or "no reason given").strip().removeprefix("Error : ").rstrip(".")


def _is_text(head: bytes) -> bool:
    """Whether a file begins with printable characters only."""
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _is_av_container(head: bytes) -> bool:
    """Whether a file begins like a format that PyAV reads and soundfile does not."""
    return (
        head[4:8] == b"ftyp"  # mp4, m4a, mov
        or head.startswith((b"\x1aE\xdf\xa3", b"0&\xb2u", b"FLV", b"#!AMR", b"\x0bw"))  # mkv, wma, flv, amr, ac3
        or (head[:1] == b"\xff" and head[1:2] in (b"\xf0", b"\xf1", b"\xf8", b"\xf9"))  # raw aac
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )


def _file_extension(file: Any, label: str) -> str:
    """The extension in a file object's name, or else in what messages call it."""
    name = getattr(file, "name", None)
    return os.path.splitext(name if isinstance(name, str) else label.strip("`"))[1].lower()
