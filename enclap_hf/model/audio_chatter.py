"""Keeps C libraries from writing on standard output and standard error.

mpg123, which decodes mp3 inside libsndfile, prints a line for each odd frame on standard error ("Note: Illegal
Audio-MPEG-Header ..."), and libsndfile's reader of MIDI sample dumps prints wrong checksums on standard output, among
the caller's own rows. Neither can be told to stop. The process's file descriptors 1 and 2 stay untouched, because other
threads write on them: what changes for the time of a call is where the C library's streams `stdout` and `stderr` lead.
Python does not use those streams, so its own output appears as ever. ffmpeg is treated alike, for versions of PyAV that
do not take its messages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_num_silent = 0


def _find_streams() -> list[ctypes.c_void_p]:
    """The C library's variables for its two streams; beyond glibc and macOS they are constants or out of reach."""
    names = {"linux": ("stdout", "stderr"), "darwin": ("__stdoutp", "__stderrp")}.get(sys.platform, ())
    if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":
        return []
    try:
        return [ctypes.c_void_p.in_dll(ctypes.CDLL(None), name) for name in names]
    except (OSError, ValueError):
        return []


def _open_nothing() -> int | None:
    """A C stream that leads nowhere, kept for the life of the process."""
    try:
        open_stream = ctypes.CDLL(None).fopen
        open_stream.restype = ctypes.c_void_p
        return open_stream(os.devnull.encode(), b"w")
    except (OSError, AttributeError, TypeError):
        return None


_streams = _find_streams()
_originals = [stream.value for stream in _streams]
_nothing = _open_nothing() if _streams else None


def _start_anew() -> None:
    """In a forked process, where other threads and the calls that they were in are gone."""
    global _lock, _num_silent
    _lock = threading.Lock()
    _num_silent = 0
    _lead_to(_originals)


def _lead_to(targets: list[int | None]) -> None:
    """Set both streams."""
    for stream, target in zip(_streams, targets, strict=True):
        stream.value = target


if _nothing and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@contextlib.contextmanager
def silence_c_libraries() -> Iterator[None]:
    """Let what C code prints vanish; from any number of threads at once."""
    global _num_silent
    if not _nothing:
        yield
        return
    with _lock:
        _num_silent += 1
        if _num_silent == 1:
            _lead_to([_nothing] * len(_streams))
    try:
        yield
    finally:
        with _lock:
            _num_silent -= 1
            if _num_silent == 0:
                _lead_to(_originals)
