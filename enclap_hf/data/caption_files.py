"""Predictions and references of captioners: the tables that training reads, with what a scorer needs of a row."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .caption_clips import CaptionDataError
from .caption_tables import PATH_COLUMNS, NameColumns, find_name_columns, half_caption_error, is_numbered
from .recording_names import strip_audio_extension, unescape_formula
from .table_files import Table, read_table

CANDIDATE_COLUMNS = ("candidate", "caption", "prediction", "text")


@dataclass
class CaptionRow:
    """One clip of a file: its name, its caption, its references where the file has them, and why it has no caption.

    `other_names` are those under which the recording may be on a disk, such as the many of a stretch of a video.
    """

    file_name: str | None
    caption: str | None
    references: list[str] = field(default_factory=list)
    error: str | None = None
    other_names: tuple[str, ...] = ()


def read_caption_file(path: Path | str, encoding: str = "utf-8") -> list[CaptionRow]:
    """Read a file of captions.

    Args:
        path: any table that [`~enclap_hf.data.caption_tables.read_caption_table`] reads, or one without names. The
            clips are named by the same columns; their captions are in `candidate`, `caption`, `prediction` or `text`;
            references in `caption_1`, `caption_2`, ..., or as a list in `references`, `captions` or `caption`; `error`
            is of a recording that could not be captioned. Empty reference cells are passed over.
        encoding: of the file; a byte order mark counts over it.
    Returns:
        one row a line, in the file's order. The caption is None for a JSON null, and beside an error where it is empty
        or left out.
    Raises:
        CaptionDataError: a ValueError: another kind of file, no such columns, a line that cannot be read or that is the
            rest of the caption before it, or no lines.
    """
    table = read_table(path, encoding)
    if not table.rows:
        raise CaptionDataError(f"{path} has no rows; expected one for every clip.")
    columns = find_name_columns(table)
    if table.is_csv:
        _refuse_half_captions(table, columns)
    rows = []
    for index, row in enumerate(table.rows):
        names = columns.read(row) or [str(row[name]) for name in PATH_COLUMNS if row.get(name)]
        rows.append(_to_row(row, names, table.locate(index)))
    return rows


def _refuse_half_captions(table: Table, columns: NameColumns) -> None:
    """Raise CaptionDataError for the rest of a caption behind a line break, if it has as many cells as the header.

    It names a recording without an ending behind one that has an ending, and reads like a text; or its stretch of a
    video begins at no time.
    """
    has_ending = False
    for index, row in enumerate(table.rows):
        names = columns.read(row)
        name = names[0] if names else ""
        cells = [cell for cell in row.values() if isinstance(cell, str)]
        is_text = " " in name.strip() or any(cell[:1].isspace() and cell.strip() for cell in cells)
        had_ending, has_ending = has_ending, strip_audio_extension(name) != name
        if had_ending and not has_ending and is_text:
            raise half_caption_error(table.locate(index), name)
        if columns.video and not _is_time(row.get(columns.video[1])):
            raise half_caption_error(table.locate(index), str(row.get(columns.video[0])))


def _is_time(cell: str | None) -> bool:
    """Whether a cell holds a number of seconds, or none."""
    try:
        return not cell or float(cell) >= 0
    except ValueError:
        return False


def _to_row(row: dict, names: list[str], place: str) -> CaptionRow:
    """Sort one row's columns."""
    column = next((name for name in CANDIDATE_COLUMNS if name in row), None)
    caption = row.get(column)
    references = [*_read_list(row.get("references"), place), *_read_list(row.get("captions"), place)]
    if isinstance(caption, list):
        references, caption = [*caption, *references], None
    references += [row[name] for name in sorted(filter(is_numbered, row), key=lambda name: int(name[8:]))]
    references = [text for text in references if not (text is None or (isinstance(text, str) and not text.strip()))]
    for text in [caption, *references]:
        if not (text is None or isinstance(text, str)):
            raise CaptionDataError(f"{place}: got {text!r} where a caption should be; expected a string.")
    error = row.get("error") or None
    if error is not None and not caption:
        caption = None  # csv has an empty cell there, jsonl no key
    elif not references and column is None:
        raise CaptionDataError(
            f"{place}: got the columns {', '.join(map(str, row))}; expected a caption in one of "
            f"{', '.join(CANDIDATE_COLUMNS)}, or references in caption_1, caption_2, ... or `references`."
        )
    reason = None if error is None else " ".join(str(error).split())
    name = names[0] if names else None
    return CaptionRow(name, _read_text(caption), [_read_text(text) for text in references], reason, tuple(names[1:]))


def _read_list(value, place: str) -> Iterable[str]:
    """Captions of a cell: a list, in csv also as JSON, or one text."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise CaptionDataError(f"{place}: `references` is not a JSON list ({error}).") from None
    return [value] if isinstance(value, str) else value or []


def _read_text(caption: str | None) -> str | None:
    """A caption on one line."""
    return None if caption is None else " ".join(unescape_formula(caption).splitlines())
