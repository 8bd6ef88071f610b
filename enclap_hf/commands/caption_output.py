"""The rows of `enclap caption`: how its output files are begun, resumed and written.

Output files name recordings by paths relative to the file's own folder, as audiofolder tables do, unless they were
given as absolute paths: so a row says which recording it is wherever the command is run from.

A file only ever grows by all rows of one recording at once. Where that fails, as on a full disk, what was written of
them is cut off again: a file holds whole rows and nothing else.
"""

import argparse
import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable

from ..data.caption_writing import printable
from ..data.score_digits import count_digits
from ..data.table_formats import format_csv_row
from ..model.audio_loading import is_url
from .terminal_text import print_line

COLUMNS = ("file_name", "caption", "score", "silent", "error")
# Headers of the files that this command writes, and has written.
CSV_HEADERS = (COLUMNS, ("file_name", "caption", "score", "error"))
JSONL_START = b'{"file_name": '
# The longest that is put behind the output's name for a file beside it.
LONGEST_SUFFIX = ".manifest.json.part"
# What a spreadsheet takes for the start of a formula, or skips on its way to one.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
SCORE_DIGITS, PRINTED_SCORE_DIGITS = 6, 3


class OutputError(Exception):
    """The output cannot be written; the message says why in one line."""


def check_output(args: argparse.Namespace) -> None:
    """Refuse an output that could not be written, or that would be lost.

    Raises:
        ValueError: with the reason, and what to do.
    """
    if args.output is None:
        if args.resume or args.overwrite or args.escape_formulas:
            raise ValueError("--resume, --overwrite and --escape-formulas need --output; name a file: --output FILE.")
        return
    if not args.output.endswith((".jsonl", ".csv")):
        raise ValueError(f"Got --output {args.output}; expected a name that ends in .jsonl or .csv.")
    if args.escape_formulas and not args.output.endswith(".csv"):
        raise ValueError("--escape-formulas is for .csv, which spreadsheets open; leave it out for .jsonl.")
    if args.resume and args.overwrite:
        raise ValueError("--resume keeps what --output has and --overwrite replaces it; pass one of them.")
    folder = os.path.dirname(args.output) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"The folder of --output {args.output} does not exist; make it first: mkdir -p {folder}")
    if os.path.isdir(args.output):
        raise ValueError(f"--output {args.output} is a folder; name a file in it, such as {args.output}/captions.csv.")
    if os.path.exists(args.output) and not (args.resume or args.overwrite):
        raise ValueError(f"{args.output} exists; pass --resume to go on with it or --overwrite to replace it.")


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


def has_caption(row: dict) -> bool:
    """Whether a row is that of a captioned or silent recording, not of one that failed."""
    return row.get("caption") is not None and not row.get("error")


def replace_rows(output: str, rows: list[dict]) -> None:
    """Let an unfinished output hold `rows` and nothing else; a stop in between leaves it as it was.

    Raises:
        OutputError: the disk is full or the like; the output is as it was.
    """
    target = os.path.realpath(output)
    unfinished = f"{target}.part"
    try:
        with open(unfinished, "wb") as file:
            file.write(format_rows(output, rows, is_new=True))
        shutil.copymode(target, unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        raise OutputError(describe_failure(output, error)) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(unfinished)


# Names


def identify(path: str, folder: str) -> str:
    """What tells recordings apart, for a path relative to `folder`."""
    return path if is_url(path) else printable(os.path.abspath(os.path.join(folder, path)))


def identify_row(row: dict, output: str) -> str:
    """What tells recordings apart, for a row of an output."""
    folder = os.path.dirname(output)
    return identify(remove_escape(row["file_name"], folder), folder)


def remove_escape(name: str, folder: str) -> str:
    """The name that --escape-formulas was given, unless a file has the escaped one."""
    is_escaped = name.startswith("'") and name[1:].startswith(FORMULA_STARTS)
    return name[1:] if is_escaped and not os.path.lexists(os.path.join(folder, name)) else name


def name_in_output(path: str, output: str) -> str:
    """A recording's path as an output file states it."""
    if os.path.isabs(path) or is_url(path):
        return path
    try:
        return os.path.relpath(path, os.path.dirname(output) or ".")
    except ValueError:  # on another drive of Windows
        return os.path.abspath(path)


def escape_formulas(row: dict, output: str) -> dict:
    """A row whose name and caption no spreadsheet takes for a formula."""
    escaped = dict(row)
    for column in ("file_name", "caption"):
        if escaped.get(column, "").startswith(FORMULA_STARTS):
            escaped[column] = f"'{escaped[column]}"
    name = escaped["file_name"]
    if name != row["file_name"] and os.path.lexists(os.path.join(os.path.dirname(output), name)):
        escaped["file_name"] = f"./{row['file_name']}"  # another file has the escaped name
    return escaped


# Rows


def make_rows(path: str, result: dict | list[dict]) -> list[dict]:
    """Rows of one recording: one per caption, best first, or one with the reason that there is none."""
    results = result if isinstance(result, list) else [result]
    path, rows = printable(path), []
    scores = [entry["score"] for entry in results if entry.get("score") is not None]
    digits = count_digits(scores, SCORE_DIGITS)
    for entry in results:
        if entry["text"] is None:
            rows.append({"file_name": path, "error": printable(entry["error"])})
            continue
        row = {"file_name": path, "caption": printable(entry["text"])}
        score = entry.get("score")
        if score is not None and math.isfinite(score):
            row["score"] = round(score, digits)
        rows.append({**row, "silent": bool(entry.get("silent", False))})
    return rows


def format_rows(output: str, rows: list[dict], is_new: bool) -> bytes:
    """Rows as the output's format writes them, with its header where the file is new."""
    if not output.endswith(".csv"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    lines = [",".join(COLUMNS) + "\n"] if is_new else []
    return ("".join(lines) + "".join(format_csv_row(row, COLUMNS) for row in rows)).encode()


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


def start_writing(file: WholeRecordsFile, output: str, escapes: bool) -> Callable[[str, dict | list[dict]], list[dict]]:
    """A function that writes the rows of one recording and returns them; a missing header is written at once.

    Args:
        file: the open output.
        output: its name.
        escapes: whether names and captions are kept from being formulas.
    """
    if file.size == 0:
        file.append(format_rows(output, [], is_new=True))

    def write_rows(path: str, result: dict | list[dict]) -> list[dict]:
        rows = make_rows(name_in_output(path, output), result)
        if escapes:
            rows = [escape_formulas(row, output) for row in rows]
        file.append(format_rows(output, rows, is_new=False))
        return rows

    return write_rows


def print_rows(path: str, result: dict | list[dict]) -> list[dict]:
    """Print one recording's captions, with scores where there are several; failures go to the error stream alone."""
    rows = make_rows(path, result)
    captions = [row for row in rows if "caption" in row]
    digits = count_digits([row["score"] for row in captions if "score" in row], PRINTED_SCORE_DIGITS)
    for row in captions:
        score = [f"{row['score']:.{digits}f}"] if "score" in row and len(captions) > 1 else []
        print_line(row["file_name"], *score, row["caption"])
    return rows
