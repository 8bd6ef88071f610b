"""Keeps C libraries from writing on standard error.

mpg123, which decodes mp3 inside libsndfile, prints a line for each odd frame and offers no way to stop it from outside
("Note: Illegal Audio-MPEG-Header ..."). The process's file descriptor 2 stays untouched, because other threads write on
it: what changes for the time of a call is where the C library's `stderr` stream leads. Python does not use that stream,
so its own messages appear as ever. ffmpeg prints nothing, since PyAV takes its messages.
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
_original: int | None = None


def _find_stream() -> ctypes.c_void_p | None:
    """The C library's variable `stderr`, on glibc and macOS; elsewhere it is a constant, or out of reach."""
    name = {"linux": "stderr", "darwin": "__stderrp"}.get(sys.platform)
    if name is None or (sys.platform == "linux" and platform.libc_ver()[0] != "glibc"):
        return None
    try:
        return ctypes.c_void_p.in_dll(ctypes.CDLL(None), name)
    except (OSError, ValueError):
        return None


def _open_nothing() -> int | None:
    """A C stream that leads nowhere, kept for the life of the process."""
    try:
        library = ctypes.CDLL(None)
        library.fopen.restype = ctypes.c_void_p
        return library.fopen(os.devnull.encode(), b"w")
    except (OSError, AttributeError, TypeError):
        return None


def _start_anew() -> None:
    """In a forked process: other threads, and the calls that they were in, are gone."""
    global _lock, _num_silent
    _lock = threading.Lock()
    if _num_silent:
        _num_silent, _stream.value = 0, _original


_stream = _find_stream()
_nothing = _open_nothing() if _stream is not None else None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@contextlib.contextmanager
def silence_c_libraries() -> Iterator[None]:
    """Let what C code prints on its `stderr` stream vanish; from any number of threads at once."""
    global _num_silent, _original
    if not _nothing:
        yield
        return
    with _lock:
        _num_silent += 1
        if _num_silent == 1:
            _original, _stream.value = _stream.value, _nothing
    try:
        yield
    finally:
        with _lock:
            _num_silent -= 1
            if _num_silent == 0:
                _stream.value = _original
