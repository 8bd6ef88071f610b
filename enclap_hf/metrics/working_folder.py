"""A temporary folder that does not outlive its process for long: the next one removes what a killed one left.

The folder is locked for as long as its process lives. The system drops the lock with the process, however it ends, so
a folder that can be locked has no owner. Where locks of that kind do not exist, folders of the last day are let be.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DAY_S = 86_400.0


@contextlib.contextmanager
def working_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder and remove it afterwards; first remove those of dead processes.

    Args:
        prefix: how the folder's name begins, and those of the folders to look through.
    Yields:
        path of the folder.
    Raises:
        OSError: the folder for temporary files cannot be written.
    """
    remove_left_overs(prefix)
    folder, handle = _make_locked(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_left_overs(prefix: str) -> list[Path]:
    """Remove folders whose processes are gone.

    Args:
        prefix: how the folders' names begin.
    Returns:
        the removed folders. Folders of other users, and what is not a folder, stay.
    """
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
                continue
            if fcntl is None:
                is_left_over, handle = time.time() - status.st_mtime > _DAY_S, None
            else:
                handle = os.open(folder, os.O_RDONLY)
                is_left_over = _lock(handle)
            if is_left_over:
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
            if handle is not None:
                os.close(handle)
    return removed


def _make_locked(prefix: str) -> tuple[Path, int | None]:
    """A new folder and the open handle that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        if fcntl is None:
            return folder, None
        # Between these two lines another process may take the folder for a left-over one, and remove it.
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                is_own = _lock(handle)
            except OSError:  # a file system without locks: nobody can take the folder for a left-over one
                is_own = True
            if is_own and folder.is_dir():
                return folder, handle
            os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open folder, unless another process has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
