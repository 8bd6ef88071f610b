"""Captions as tables, with a row for everything, silence and failures too: csv, json, JSON lines."""

import csv
import io
import json
import math
from collections.abc import Sequence

from .caption_writing import CaptionFormat, printable

COLUMNS = ("file_name", "start_s", "end_s", "duration_s", "caption", "score", "confidence", "silent", "error")
TIME_COLUMNS = ("start_s", "end_s", "duration_s")
TIME_DIGITS = 6  # exact to a sample at any rate below 500 kHz
# JSON holds these as they are, but some programs end a line at them.
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


class CsvFormat(CaptionFormat):
    """Comma-separated values, `.csv`; empty where a row has no value."""

    name, suffix = "csv", ".csv"
    has_file_column = True

    def format_beginning(self) -> str:
        """The header."""
        return ",".join(COLUMNS) + "\n"

    def format_row(self, row: dict) -> str:
        """A record."""
        return format_csv_row(clean_row(row), COLUMNS)


class JsonLinesFormat(CaptionFormat):
    """JSON lines, `.jsonl`: an object a row."""

    name, suffix = "jsonl", ".jsonl"
    has_file_column = True

    def format_row(self, row: dict) -> str:
        """A line."""
        return format_json_row(row) + "\n"


class JsonFormat(CaptionFormat):
    """A JSON list, `.json`, with an object a row, each on its line."""

    name, suffix = "json", ".json"
    has_file_column = True

    def __init__(self, file):
        self._separator = "\n"
        super().__init__(file)

    def format_beginning(self) -> str:
        """Opens the list."""
        return "["

    def format_row(self, row: dict) -> str:
        """A line, behind what ends the one before it."""
        separator, self._separator = self._separator, ",\n"
        return separator + format_json_row(row)

    def format_end(self) -> str:
        """Closes the list."""
        return "\n]\n"


def clean_row(row: dict) -> dict:
    """A row with the known columns first, as UTF-8 and JSON can hold it; a score that is no number becomes None."""
    cleaned = {name: row[name] for name in (*COLUMNS, *row) if name in row}
    for name, value in cleaned.items():
        if isinstance(value, str):
            cleaned[name] = printable(value)
        elif isinstance(value, float):
            value = round(value, TIME_DIGITS) if name in TIME_COLUMNS else value
            cleaned[name] = value if math.isfinite(value) else None
    return cleaned


def format_json_row(row: dict) -> str:
    """A row as a JSON object on one line."""
    return json.dumps(clean_row(row), ensure_ascii=False).translate(_LINE_ENDS)


def format_csv_row(row: dict, columns: Sequence[str]) -> str:
    """One record of a csv, with its line end.

    Args:
        row: values by column; others are left out.
        columns: in the order of the header.
    """
    cells = {name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()}
    text = io.StringIO()
    # This line end has carriage returns in names quoted, too; without quotes they would end the row for readers.
    csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
