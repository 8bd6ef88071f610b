"""Reading predictions and references from csv, jsonl and json files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FILE_COLUMNS = ("file_name", "file", "file_path")
CAPTION_COLUMNS = ("candidate", "caption", "prediction", "text")
_NUMBERED_CAPTION = re.compile(r"caption_\d+")


@dataclass
class CaptionRow:
    """One clip of a file: its name, its caption, its references where the file has them, and why it has no caption."""

    file_name: str | None
    caption: str | None
    references: list[str] = field(default_factory=list)
    error: str | None = None


def read_caption_file(path: Path | str) -> list[CaptionRow]:
    """Read a file of captions.

    Args:
        path: .csv with a header, .jsonl with one object a line, or .json with a list of objects. Columns: `file_name`
            or `file` or `file_path`; `candidate`, `caption`, `prediction` or `text`; references as `caption_1`,
            `caption_2`, ... or as a list in `references`; `error` of a recording that could not be captioned. Empty
            reference cells are passed over.
    Returns:
        one row a line, in the file's order. The caption is None for a JSON null, and beside an error where it is empty
        or left out.
    Raises:
        ValueError: another kind of file, no such columns, a line that cannot be read, or no lines.
        OSError: no such file.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}
    if path.suffix.lower() not in readers:
        raise ValueError(f"Got {path}; expected a file that ends in {', '.join(readers)}.")
    try:
        records = list(readers[path.suffix.lower()](path))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    if not records:
        raise ValueError(f"{path} has no lines; expected one for every clip.")
    return [_to_row(record, f"{path}, line {line}") for line, record in records]


def _to_row(record: dict, place: str) -> CaptionRow:
    """Sort one record's columns."""
    file_name = next((record[name] for name in FILE_COLUMNS if record.get(name)), None)
    caption = next((record[name] for name in CAPTION_COLUMNS if name in record), None)
    listed = record.get("references")
    if isinstance(listed, str) and listed.strip().startswith("["):
        try:
            listed = json.loads(listed)
        except ValueError as error:
            raise ValueError(f"{place}: `references` is no JSON list ({error}).") from error
    references = [listed] if isinstance(listed, str) else list(listed or [])
    numbered = [name for name in record if isinstance(name, str) and _NUMBERED_CAPTION.fullmatch(name)]
    references += [record[name] for name in sorted(numbered, key=lambda name: int(name[8:]))]
    references = [text for text in references if not (text is None or (isinstance(text, str) and not text.strip()))]
    for text in [caption, *references]:
        if not (text is None or isinstance(text, str)):
            raise ValueError(f"{place}: got {text!r} where a caption should be; expected a string.")
    error = record.get("error") or None
    if error is not None and not caption:
        caption = None  # csv has an empty cell there, jsonl no key
    elif not references and not any(name in record for name in CAPTION_COLUMNS):
        raise ValueError(
            f"{place}: got the columns {', '.join(map(str, record))}; expected a caption in one of "
            f"{', '.join(CAPTION_COLUMNS)}, or references in caption_1, caption_2, ... or `references`."
        )
    name = None if file_name is None else str(file_name)
    return CaptionRow(name, caption, references, None if error is None else " ".join(str(error).split()))


def _read_csv(path: Path) -> Iterable[tuple[int, dict]]:
    """Records of a csv file, which may start with a byte order mark."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for record in reader:
                if None in record or None in record.values():
                    raise ValueError(
                        f"{path}, line {reader.line_num}: another number of cells than the header has; put text with "
                        "commas in quotation marks."
                    )
                yield reader.line_num, record
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error


def _read_jsonl(path: Path) -> Iterable[tuple[int, dict]]:
    """Records of a file with one JSON object a line."""
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _check_object(_parse_json(line, f"{path}, line {number}"), f"{path}, line {number}")


def _read_json(path: Path) -> Iterable[tuple[int, dict]]:
    """Records of a file with one JSON list."""
    records = _parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(records, list):
        raise ValueError(f"{path} holds one {type(records).__name__}; expected a list of objects.")
    for number, record in enumerate(records, start=1):
        yield number, _check_object(record, f"{path}, entry {number}")


def _parse_json(text: str, place: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place}: no JSON ({error}).") from error


def _check_object(record, place: str) -> dict:
    if not isinstance(record, dict):
        raise ValueError(f"{place}: got a {type(record).__name__}; expected an object with named columns.")
    return record
