"""A lock beside an output file, so that two runs never write it at once.

The operating system holds the lock for the process: it goes when the process ends, however it ends. So a lock file
that a killed process left is taken over, and needs no clearing away.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

# Byte that is locked on Windows, where a locked byte cannot be read: far behind the text.
LOCKED_BYTE = 1 << 30
HELD_ERRORS = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
# What file systems answer that have no locks.
NO_LOCK_ERRORS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}

# Locks of this process, which the system would grant it a second time.
_held: set[str] = set()


class OutputLockedError(Exception):
    """Another run writes this output."""


@contextlib.contextmanager
def lock_output(output: str) -> Iterator[bool]:
    """Hold the lock of an output file: `OUTPUT.lock`, beside the file that a link leads to.

    Yields:
        whether it is locked: False on a file system without locks.
    Raises:
        OutputLockedError: another run holds it; the message says which process.
        OSError: no file can be made beside the output.
    """
    path = f"{os.path.realpath(output)}.lock"
    if path in _held:
        raise OutputLockedError(describe_holder(output, f"process {os.getpid()}"))
    file, is_locked = take_lock(path, output)
    _held.add(path)
    try:
        note_holder(file)
        yield is_locked
    finally:
        _held.discard(path)
        # Windows deletes no open file, and elsewhere the next run must not lock a file that is about to go.
        if fcntl is None:
            os.close(file)
        with contextlib.suppress(OSError):
            os.remove(path)
        if fcntl is not None:
            os.close(file)


def take_lock(path: str, output: str) -> tuple[int, bool]:
    """Open and lock a lock file; returns its descriptor, and whether the file system has locks.

    Raises:
        OutputLockedError: another run holds it.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            lock_file(file)
        except OSError as error:
            if error.errno in NO_LOCK_ERRORS:
                return file, False
            holder = read_holder(file)
            os.close(file)
            if error.errno in HELD_ERRORS:
                raise OutputLockedError(describe_holder(output, holder)) from None
            raise
        if is_same_file(file, path):
            return file, True
        os.close(file)  # the holder removed it when it ended


def lock_file(file: int) -> None:
    """Lock an open file for this process, without waiting.

    Not `flock`: worker processes inherit such a lock, and would keep it for a while after this process was killed.
    """
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)


def is_same_file(file: int, path: str) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def note_holder(file: int) -> None:
    """Write into the lock file who holds it; on a full disk it stays empty."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def read_holder(file: int) -> str:
    """Who holds a lock, as far as its file says."""
    with contextlib.suppress(OSError):
        os.lseek(file, 0, os.SEEK_SET)
        return os.read(file, 200).decode("utf-8", "replace").strip()
    return ""


def describe_holder(output: str, holder: str) -> str:
    """The message for the second writer."""
    by = f" ({holder})" if holder else ""
    return f"{output} is being written by another run{by}; wait until it ends, or name another --output."
