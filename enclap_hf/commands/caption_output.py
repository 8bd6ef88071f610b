"""The files that `enclap caption` writes rows to: how they are read again, replaced, and grow.

A file only ever grows by whole records: all rows of one recording, or of one window of a long one, at once. Where that
fails, as on a full disk, what was written of them is cut off again: a file holds whole rows and nothing else.
"""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Sequence

from ..data.table_formats import COLUMNS, TIME_COLUMNS, format_csv_row, format_json_row
from .caption_rows import has_caption

# Columns where recordings are not cut, and their length is not known.
WHOLE_COLUMNS = tuple(column for column in COLUMNS if column not in TIME_COLUMNS)
# Headers of the files that this command writes, and has written.
FORMER_HEADERS = (("file_name", "caption", "score", "silent", "error"), ("file_name", "caption", "score", "error"))
CSV_HEADERS = (COLUMNS, WHOLE_COLUMNS, *FORMER_HEADERS)
JSONL_START = b'{"file_name": '
# The longest that is put behind the output's name for a file beside it.
LONGEST_SUFFIX = ".manifest.json.part"


class OutputError(Exception):
    """The output cannot be written; the message says why in one line."""


def check_writable(output: str) -> None:
    """Find out whether an existing output may be changed; whether its folder takes files, the lock has shown.

    Raises:
        OutputError: it may not, or its name leaves no room for those of the files beside it.
    """
    try:
        os.path.getsize(os.path.realpath(output) + LONGEST_SUFFIX)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(describe_failure(f"{output}{LONGEST_SUFFIX}", error)) from error
    try:
        if os.path.exists(output):
            with open(output, "r+b"):
                pass
    except OSError as error:
        raise OutputError(describe_failure(output, error)) from error


def describe_failure(path: str, error: OSError) -> str:
    """Why a file cannot be written, in words."""
    return f"{path} cannot be written: {error.strerror or error}."


# Reading what is there


def read_rows(output: str) -> list[dict]:
    """The rows of an unfinished output; one that a kill cut short is left out.

    Raises:
        ValueError: another program's file.
    """
    if not os.path.exists(output):
        return []
    with open(output, "rb") as file:
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    text = io.StringIO(whole.decode("utf-8", "replace"), newline="")  # a name may hold any character but a line feed
    is_csv = output.endswith(".csv")
    starts = [(",".join(header) + "\n").encode() for header in CSV_HEADERS] if is_csv else [JSONL_START]
    try:
        if not any(content[: len(start)] == start[: len(content)] for start in starts):
            raise ValueError("another beginning")
        rows = list(csv.DictReader(text)) if is_csv else [json.loads(line) for line in text]
        return [row for row in rows if os.fspath(row["file_name"]) and (has_caption(row) or row.get("error"))]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{output} was not written by this command; name another --output, or pass --overwrite."
        ) from None


def replace_rows(output: str, rows: list[dict], columns: Sequence[str] | None) -> None:
    """Let an unfinished output hold `rows` and nothing else; a stop in between leaves it as it was.

    Raises:
        OutputError: the disk is full or the like; the output is as it was.
    """
    target = os.path.realpath(output)
    unfinished = f"{target}.part"
    try:
        with open(unfinished, "wb") as file:
            file.write(format_header(columns) + format_rows(rows, columns))
        shutil.copymode(target, unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        raise OutputError(describe_failure(output, error)) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(unfinished)


def format_rows(rows: list[dict], columns: Sequence[str] | None) -> bytes:
    """Rows as the output's format writes them.

    Args:
        rows: to be written.
        columns: of a csv that has them already; None for a jsonl.
    """
    if columns is None:
        return "".join(format_json_row(row) + "\n" for row in rows).encode()
    return "".join(format_csv_row(row, columns) for row in rows).encode()


def format_header(columns: Sequence[str] | None) -> bytes:
    """What stands before the rows."""
    return b"" if columns is None else (",".join(columns) + "\n").encode()


class WholeRecordsFile:
    """A file that grows by whole records.

    Args:
        path: made when missing, appended to otherwise.
    Raises:
        OutputError: it cannot be opened.
    """

    def __init__(self, path: str):
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise OutputError(describe_failure(path, error)) from error
        self.size = os.fstat(self._file).st_size

    def append(self, record: bytes) -> None:
        """Write a record, or nothing of it.

        Raises:
            OutputError: it could not be written.
        """
        try:
            num_written = 0
            while num_written < len(record):
                num_written += os.write(self._file, record[num_written:])
            self.size += len(record)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            if isinstance(error, OSError):
                raise OutputError(describe_failure(self.path, error)) from error
            raise

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
