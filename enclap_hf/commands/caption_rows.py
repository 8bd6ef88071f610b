"""The rows of `enclap caption`: how recordings are named in them, and what they hold.

Output files name recordings by paths relative to the file's own folder, as audiofolder tables do, unless they were
given as absolute paths: so a row says which recording it is wherever the command is run from.
"""

import math
import os
from collections.abc import Iterator

from ..data.caption_writing import printable
from ..data.score_digits import count_digits
from ..data.table_formats import TIME_COLUMNS, TIME_DIGITS
from ..model.audio_loading import is_url
from ..model.caption_results import NUMBERS, CaptionedPiece, make_row

# Stands for standard input among the recordings.
STANDARD_INPUT = "-"
# What a spreadsheet takes for the start of a formula, or skips on its way to one.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
SCORE_DIGITS = 6


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
    if os.path.isabs(path) or is_url(path) or path == STANDARD_INPUT:
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


def make_rows(name: str, piece: CaptionedPiece) -> list[dict]:
    """Rows of a recording or a window of one: one per caption, best first, or one with the reason that there is none.

    Args:
        name: the recording's, as the output states it.
        piece: what was captioned.
    """
    row = make_row(piece)
    best = {"text": row.get("caption"), **{name: row.pop(name) for name in NUMBERS if name in row}}
    captions = row.pop("captions", []) or [best]
    row["file_name"] = printable(name)
    row |= {column: round(row[column], TIME_DIGITS) for column in TIME_COLUMNS if column in row}
    if "error" in row:
        return [{**row, "error": printable(row["error"])}]
    digits = count_digits([entry["score"] for entry in captions if entry.get("score") is not None], SCORE_DIGITS)
    return list(list_captions(row, captions, digits))


def list_captions(row: dict, captions: list[dict], digits: int) -> Iterator[dict]:
    """A row for each caption, its columns in their order."""
    times = {column: row[column] for column in ("file_name", *TIME_COLUMNS) if column in row}
    for entry in captions:
        known = {name: entry[name] for name in NUMBERS if entry.get(name) is not None and math.isfinite(entry[name])}
        known = {name: round(value, digits if name == "score" else SCORE_DIGITS) for name, value in known.items()}
        yield {**times, "caption": printable(entry["text"]), **known, "silent": row["silent"]}


def has_caption(row: dict) -> bool:
    """Whether a row is that of a captioned or silent recording, not of one that failed."""
    return row.get("caption") is not None and not row.get("error")


def is_silent(row: dict) -> bool:
    """Whether a row, of whichever format, says that there is no sound."""
    return str(row.get("silent", "")).lower() == "true"
