"""Samples that are decoded already: which arrays hold a clip, and how its channels become one float32 signal."""

from __future__ import annotations

import numbers
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .audio_errors import audio_error, no_samples_error

MIN_SAMPLING_RATE = 1_000
MAX_SAMPLING_RATE = 384_000

# A first axis longer than this is time, not channels.
MAX_ARRAY_CHANNELS = 16


def read_array(audio: Any, label: str) -> np.ndarray:
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
            f"`{type(audio).__name__}` is not a kind of audio.",
            "Pass a path, bytes, a binary file object, samples with `sampling_rate=`, or a `datasets` audio dict.",
        )
    try:
        array = np.asarray(audio)
    except (TypeError, ValueError) as error:
        raise audio_error(label, f"it is not an array of numbers ({error}).", "Pass float or int16 samples.") from None
    if array.size == 0:
        raise no_samples_error(label)
    if array.dtype.kind not in "fiu":
        problem = f"values of type {array.dtype} are not audio samples."
        raise audio_error(label, problem, "Pass float32 or int16 samples.")
    if array.dtype.kind != "f" and array.dtype.newbyteorder("=") not in (np.int8, np.int16, np.int32, np.uint8):
        raise audio_error(
            label,
            f"the full scale of {array.dtype} samples is not known.",
            "Cast them to the type they were recorded in (int16, int32, uint8), or scale them to [-1, 1] as float32.",
        )
    return array


def put_frames_first(array: np.ndarray, label: str) -> np.ndarray:
    """A view (num_samples, channels) of one clip's samples."""
    if array.ndim == 1:
        return array[:, None]
    if array.ndim == 2 and min(array.shape) <= MAX_ARRAY_CHANNELS:
        # (channels, T) unless only the second axis can be channels
        return array if array.shape[0] > MAX_ARRAY_CHANNELS else array.T
    raise audio_error(
        label,
        f"got audio of shape {array.shape}; expected one clip, (num_samples,) or (channels, num_samples) with at most "
        f"{MAX_ARRAY_CHANNELS} channels.",
        "Pass a list to caption several clips.",
    )


def average_channels(block: np.ndarray) -> np.ndarray:
    """The plain mean over channels: float32 (num_samples, channels) -> (num_samples,), always a new array."""
    # In channel order: numpy's own sum picks its order by memory layout, and the last bit would follow it.
    mean = block[:, 0].copy()
    for channel in range(1, block.shape[1]):
        mean += block[:, channel]
    if block.shape[1] > 1:
        mean /= block.shape[1]
    return mean


def scale_to_float32(samples: np.ndarray) -> np.ndarray:
    """Floats as they are, integers scaled to [-1, 1); a new array."""
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is reported as that
        scaled = samples.astype(np.float32)
    if samples.dtype == np.uint8:  # 8-bit audio is unsigned, silence at 128
        scaled -= 128
        scaled /= 128
    elif samples.dtype.kind == "i":
        scaled /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    return scaled


def check_sampling_rate(rate: Any, label: str) -> int:
    """The rate as an int, once it is known to be one that audio comes in."""
    whole = as_whole_number(rate)
    if whole is None or not MIN_SAMPLING_RATE <= whole <= MAX_SAMPLING_RATE:
        raise audio_error(
            label,
            f"got sampling rate {rate!r}; allowed are {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz.",
            "Pass the rate the clip was recorded with, or resample it first.",
        )
    return whole


def as_whole_number(value: Any) -> int | None:
    """An int for whole numbers of any type (16000, 16000.0, numpy, torch), None for all else."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None
