"""The rows of `enclap caption`: how its output files are begun, taken up again, and written.

Output files name recordings by paths relative to the file's own folder, as audiofolder tables do, unless they were
given as absolute paths: so a row says which recording it is wherever the command is run from.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TextIO

from ..model.audio_loading import is_url

COLUMNS = ("file_name", "caption", "score", "error")
# How the files begin that this command writes.
CSV_HEADER = (",".join(COLUMNS) + "\n").encode()
JSONL_START = b'{"file_name": '


def check_output(args: argparse.Namespace) -> None:
    """Refuse an output that could not be written, or that would be lost."""
    if args.output is None:
        if args.resume or args.overwrite:
            raise ValueError("--resume and --overwrite concern --output; name a file with --output FILE.")
        return
    if not args.output.endswith((".jsonl", ".csv")):
        raise ValueError(f"Got --output {args.output}; expected a name that ends in .jsonl or .csv.")
    folder = os.path.dirname(args.output) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"The folder of --output {args.output} does not exist; make it first: mkdir -p {folder}")
    if args.resume and args.overwrite:
        raise ValueError("--resume keeps what --output has and --overwrite replaces it; pass one of them.")
    if os.path.exists(args.output) and not (args.resume or args.overwrite):
        raise ValueError(f"{args.output} exists; pass --resume to go on with it or --overwrite to replace it.")


def read_captioned(output: str) -> list[dict]:
    """The rows of an unfinished output that have a caption; one that a kill cut short is no row.

    Raises:
        ValueError: another program's file.
    """
    if not os.path.exists(output):
        return []
    with open(output, "rb") as file:
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    text = io.StringIO(whole.decode("utf-8", "replace"), newline="")  # a name may hold any character but a line feed
    start = CSV_HEADER if output.endswith(".csv") else JSONL_START
    try:
        if content[: len(start)] != start[: len(content)]:
            raise ValueError("another beginning")
        rows = list(csv.DictReader(text)) if output.endswith(".csv") else [json.loads(line) for line in text]
        return [row for row in rows if os.fspath(row["file_name"]) and row.get("caption")]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{output} was not written by this command; name another --output, or pass --overwrite."
        ) from None


def keep_captioned(output: str, rows: list[dict]) -> None:
    """Leave `rows` alone in an unfinished output; a stop in between leaves it as it was."""
    target = os.path.realpath(output)
    unfinished = f"{target}.part"
    with open(unfinished, "w", encoding="utf-8", newline="") as file:
        write = start_rows(file, output, is_new=True)
        for row in rows:
            write(row)
    shutil.copymode(target, unfinished)
    os.replace(unfinished, target)


def identify(path: str, folder: str) -> str:
    """What tells recordings apart, for a path relative to `folder`."""
    return path if is_url(path) else printable(os.path.abspath(os.path.join(folder, path)))


def printable(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of a file name that are none become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def name_in_output(path: str, output: str) -> str:
    """A recording's path as an output file states it."""
    if os.path.isabs(path) or is_url(path):
        return path
    try:
        return os.path.relpath(path, os.path.dirname(output) or ".")
    except ValueError:  # on another drive of Windows
        return os.path.abspath(path)


def start_rows(file: TextIO, output: str, is_new: bool) -> Callable[[dict], None]:
    """A function that writes one row to an open output, whose header it has written where that was missing."""
    if not output.endswith(".csv"):
        return lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
    writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    if is_new:
        writer.writeheader()
    return writer.writerow


@contextlib.contextmanager
def open_writer(output: str | None) -> Iterator[Callable[[str, dict | list[dict]], None]]:
    """A function that writes one recording's rows, to a file or to the terminal."""
    if output is None:
        yield print_row
        return
    is_new = not os.path.exists(output) or os.path.getsize(output) == 0
    with open(output, "a", encoding="utf-8", newline="") as file:
        write = start_rows(file, output, is_new)

        def write_rows(path: str, result: dict | list[dict]) -> None:
            for row in make_rows(name_in_output(path, output), result):
                write(row)
            file.flush()

        yield write_rows


def make_rows(path: str, result: dict | list[dict]) -> list[dict]:
    """Rows of one recording: one per caption, best first, or one with the reason that there is none."""
    results = result if isinstance(result, list) else [result]
    path, rows = printable(path), []
    for entry in results:
        if entry["text"] is None:
            rows.append({"file_name": path, "error": printable(entry["error"])})
        else:
            rows.append({"file_name": path, "caption": entry["text"]})
            if "score" in entry:
                rows[-1]["score"] = round(entry["score"], 6)
    return rows


def print_row(path: str, result: dict | list[dict]) -> None:
    """One recording's captions on the terminal; failures are said on the error stream alone."""
    for row in make_rows(path, result):
        if "caption" in row:
            score = f"{row['score']:.3f}\t" if "score" in row else ""
            print(f"{row['file_name']}\t{score}{row['caption']}", flush=True)
