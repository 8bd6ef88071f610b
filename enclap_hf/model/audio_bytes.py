"""Encoded files as the decoders see them: views that mend a header without changing the file, and buffered streams."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

# What a stream that cannot seek may take of memory; the rest goes to a temporary file.
MAX_BUFFERED_BYTES = 64 << 20
_COPIED_BYTES = 1 << 20
_HIDDEN_BYTES = 1 << 40


class Edit(NamedTuple):
    """Bytes shown in place of `num_replaced` bytes at `offset`."""

    offset: int
    num_replaced: int
    shown: bytes


class FileView:
    """A seekable file from `start` on, with edits laid over it; read-only, the file itself is not changed.

    The decoders call it from C, where an exception cannot travel and is printed instead. So nothing is raised here: a
    file that fails reads as ended, and `error` says why.

    Args:
        file: a seekable binary file object.
        start: where the view begins, bytes.
        edits: in ascending order, none before `start`.
        end: where the view ends, bytes; None is the end of the file.
        hides_end: True claims to be far longer than the file is. A decoder that takes its length from that of the file
            then reads until nothing comes; the last 128 bytes, where it looks for a tag, are zeros.
    """

    def __init__(
        self,
        file: BinaryIO,
        start: int = 0,
        edits: Iterable[Edit] = (),
        end: int | None = None,
        hides_end: bool = False,
    ):
        self.error: Exception | None = None
        self._file = file
        self._position = 0
        self._pieces: list[tuple[int, int | bytes]] = []  # (length, offset in the file or the bytes themselves)
        for edit in edits:
            self._pieces += [(edit.offset - start, start), (len(edit.shown), edit.shown)]
            start = edit.offset + edit.num_replaced
        file.seek(0, io.SEEK_END)
        end = file.tell() if end is None else end
        self._pieces.append((max(0, end - start), start))
        self.true_size = sum(length for length, _ in self._pieces)
        self.size = self.true_size + (_HIDDEN_BYTES if hides_end else 0)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes (all for a negative number), fewer at the end."""
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        if self._position >= self.size - 128 and self.size > self.true_size:
            content = bytes(max(0, end - self._position))
            self._position += len(content)
            return content
        parts, first = [], 0
        for length, source in self._pieces:
            start, stop = max(self._position - first, 0), min(end - first, length)
            if start < stop:
                is_shown = isinstance(source, bytes)
                parts.append(source[start:stop] if is_shown else self._read_file(source + start, stop - start))
                if len(parts[-1]) < stop - start:
                    break
            first += length
        content = b"".join(parts)
        self._position += len(content)
        return content

    def _read_file(self, offset: int, count: int) -> bytes:
        """Bytes of the file itself."""
        try:
            self._file.seek(offset)
            return bytes(self._file.read(count) or b"")
        except Exception as error:  # whatever a disk, a network file or a caller's own class raises
            self.error = self.error or error
            return b""

    def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer as far as the file goes."""
        target = memoryview(buffer).cast("B")
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; a place before the start is the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Position in the view."""
        return self._position

    def find_file_offset(self) -> int:
        """The file's own offset of the current position, which must be behind all edits."""
        length, source = self._pieces[-1]
        return source + length - (self.true_size - self._position)


class ReplayedStream:
    """A stream that cannot seek, begun anew after its first bytes were looked at.

    Args:
        head: the bytes that were read already.
        stream: the rest.
    """

    def __init__(self, head: bytes, stream: Any):
        self.error: Exception | None = None
        self._head = head
        # `read1` gives what a live stream has, where `read` waits for all that was asked for.
        self._read = getattr(stream, "read1", stream.read)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, b"" at the end; never raises, for the reason that `FileView` has."""
        if self._head:
            size = len(self._head) if size is None or size < 0 else size
            content, self._head = self._head[:size], self._head[size:]
            return content
        try:
            return bytes(self._read(size) or b"")
        except Exception as error:  # whatever a pipe, a socket or a caller's own class raises
            self.error = self.error or error
            return b""


def buffer_stream(stream: ReplayedStream) -> BinaryIO:
    """A seekable copy of a stream, in memory as long as it is short, else in a temporary file that closing deletes."""
    buffer: BinaryIO = io.BytesIO()
    while content := stream.read(_COPIED_BYTES):
        if isinstance(buffer, io.BytesIO) and buffer.tell() + len(content) > MAX_BUFFERED_BYTES:
            file = tempfile.TemporaryFile()  # noqa: SIM115, closed by the reader
            file.write(buffer.getbuffer())
            buffer = file
        buffer.write(content)
    buffer.seek(0)
    return buffer
