"""What is known of a recording before it is read: which state of it, and how long its header says that it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .audio_reader import read_stated_duration_s

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordingState:
    """By what a recording is known beside its address; None for what is not a file of this machine.

    Args:
        size: in bytes.
        modified_ns: time of the last change, in nanoseconds since 1970.
        is_whole: whether all of it was captioned; no part of what it is known by.
    """

    size: int | None = None
    modified_ns: int | None = None
    is_whole: bool = field(default=True, compare=False)


def find_path(recording: Any) -> str | None:
    """The path of a recording that is a file by its name, also of a `datasets` audio dict; None for all else."""
    if isinstance(recording, Mapping):
        held = [recording.get(name) for name in ("array", "raw", "bytes")]
        recording = recording.get("path") if all(content is None for content in held) else None
    return os.fsdecode(recording) if isinstance(recording, (str, os.PathLike)) else None


def name_recording(recording: Any) -> str | None:
    """The name of a recording that is a file, by its name or open; None for all else."""
    name = getattr(recording, "name", None) if hasattr(recording, "read") else find_path(recording)
    return name if isinstance(name, str) else None


def read_state(recording: Any) -> RecordingState:
    """The state of a recording as it is."""
    path = find_path(recording)
    try:
        status = None if path is None else os.stat(path)
    except (OSError, ValueError):
        status = None
    return RecordingState() if status is None else RecordingState(status.st_size, status.st_mtime_ns)


def read_duration_s(recording: Any, sampling_rate: int | None = None) -> float:
    """Seconds that a recording states, held against its size, without decoding it; 0 where none can be read.

    Args:
        recording: anything [`~enclap_hf.model.audio_loading.load_audio`] reads.
        sampling_rate: Hz, for samples that come without their rate.
    """
    path = find_path(recording)
    try:
        if path is None:
            return _read_samples_s(recording, sampling_rate)
        if not os.path.isfile(path):  # a pipe could be read only once
            return 0.0
        with open(path, "rb") as file:
            return read_stated_duration_s(file, f"`{path}`")
    except Exception as error:  # its reader will say more
        logger.debug("%s: no length (%r)", path or type(recording).__name__, error)
        return 0.0


def _read_samples_s(recording: Any, sampling_rate: int | None) -> float:
    """Seconds of samples in memory; 0 for all else."""
    if isinstance(recording, Mapping):
        samples = recording.get("array") if recording.get("array") is not None else recording.get("raw")
        return _read_samples_s(samples, recording.get("sampling_rate") or sampling_rate)
    shape = getattr(recording, "shape", None) or ((len(recording),) if isinstance(recording, list) else None)
    return max(shape) / sampling_rate if shape and sampling_rate else 0.0


def is_list(recordings: Any) -> bool:
    """Whether recordings have a number, and can be asked for one by one."""
    return hasattr(recordings, "__getitem__") and hasattr(recordings, "__len__")


def is_stream(inputs) -> bool:
    """Whether recordings come one by one, without a length: an iterator, or a column of a streamed data set."""
    if hasattr(inputs, "read") or not isinstance(inputs, Iterable) or hasattr(inputs, "column_names"):
        return False
    return not hasattr(inputs, "__len__") and not hasattr(inputs, "get_all_samples")
