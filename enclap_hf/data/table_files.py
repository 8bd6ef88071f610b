"""Reads the rows of csv, json and JSON lines files, and says where a file is broken."""

import codecs
import csv
import json
import os
from collections.abc import Iterator

from .caption_clips import CaptionDataError


def read_rows(path: str, encoding: str) -> tuple[list[dict], bool]:
    """Read a table.

    Args:
        path: .csv, .tsv, .json or .jsonl.
        encoding: of the file; a byte order mark is passed over.
    Returns:
        its rows, and whether they came as WavCaps ships them, in the `data` of a JSON object.
    Raises:
        CaptionDataError: the file cannot be read, is not in `encoding`, or is broken.
    """
    extension = os.path.splitext(path)[1].lower()
    try:
        encoding = codecs.lookup(encoding).name
        with open(path, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
            if extension == ".json":
                return _read_json(file, path)
            return list((_read_json_lines if extension == ".jsonl" else _read_csv)(file, path)), False
    except UnicodeDecodeError as error:
        raise CaptionDataError(
            f"{path} is not {encoding} text ({error.reason} at byte {error.start}); save it as UTF-8, or say its "
            "`encoding`, such as latin-1."
        ) from None
    except LookupError:
        raise CaptionDataError(f"Got the encoding {encoding!r}, which Python does not know; try latin-1.") from None
    except OSError as error:
        raise CaptionDataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read_csv(file, path: str) -> Iterator[dict]:
    """Rows of a csv file, tab-separated where its name ends in .tsv."""
    reader = csv.DictReader(file, delimiter="\t" if path.lower().endswith(".tsv") else ",")
    try:
        for row in reader:
            if None in row:
                raise CaptionDataError(
                    f"{path}, line {reader.line_num}: more cells than the header has; put captions with commas in "
                    "quotation marks."
                )
            yield row
    except csv.Error as error:
        raise CaptionDataError(f"{path}, line {reader.line_num}: {error}.") from None


def _read_json_lines(file, path: str) -> Iterator[dict]:
    """Rows of a file with one JSON object a line."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _check_object(_parse_json(line, f"{path}, line {number}"), f"{path}, line {number}")


def _read_json(file, path: str) -> tuple[list[dict], bool]:
    """Rows of a JSON list, alone or under `data` as in WavCaps, and whether they are under `data`."""
    content = _parse_json(file.read(), path)
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise CaptionDataError(f"{path} holds one {type(content).__name__}; expected a list, or `data` with a list.")
    rows = [_check_object(row, f"{path}, entry {number}") for number, row in enumerate(rows, start=1)]
    return rows, isinstance(content, dict)


def _parse_json(text: str, place: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise CaptionDataError(f"{place}: no JSON ({error}).") from None


def _check_object(row, place: str) -> dict:
    if not isinstance(row, dict):
        raise CaptionDataError(f"{place}: got a {type(row).__name__}; expected an object with named columns.")
    return row
