"""Reads csv, json and JSON lines files of captions, for training and for scoring alike, and says where one is broken.

What could be read in two ways is refused with its line, since nobody looks at the captions that a training reads:

* a quotation mark that opens a cell and is not closed there. Others would put the rows after it into that caption. Text
  such as `a 12" record` needs none, and a cell in quotation marks may go on over several lines, unless one of these
  looks like a row by itself;
* another number of cells than the header has, as half a caption behind a line break leaves it;
* two columns, or two values of one JSON object, of the same name; and NUL characters, which are UTF-16 read as UTF-8.
"""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from .caption_clips import CaptionDataError

TABLE_EXTENSIONS = (".csv", ".tsv", ".json", ".jsonl")
# A mark at the head of a file tells its encoding. UTF-32's begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Args:
        path: the file.
        rows: columns and cells of each; of csv, cells are text.
        numbers: of each row, the line on which it begins, or in a JSON list its place, from 1.
        is_wrapped: whether they came in the `data` of a JSON object, as WavCaps ships them.
    """

    path: str
    rows: list[dict]
    numbers: list[int]
    is_wrapped: bool = False

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def is_csv(self) -> bool:
        """Whether a line break of a caption can have made two rows of one."""
        return self.path.lower().endswith((".csv", ".tsv"))

    def locate(self, index: int) -> str:
        """Where a row is, for messages."""
        unit = "entry" if self.path.lower().endswith(".json") else "line"
        return f"{self.path}, {unit} {self.numbers[index]}"


def read_table(path: str | os.PathLike, encoding: str = "utf-8") -> Table:
    """Read a table.

    Args:
        path: .csv, .tsv, .json or .jsonl.
        encoding: of the file; a byte order mark counts over it.
    Raises:
        CaptionDataError: another kind of file, or one that cannot be read, is not in `encoding`, or is broken.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    if extension not in TABLE_EXTENSIONS:
        raise CaptionDataError(f"Got {path}; expected a file that ends in {', '.join(TABLE_EXTENSIONS)}.")
    text = _read_text(path, encoding)
    if "\0" in text:
        raise CaptionDataError(
            f"{path}, line {_count_lines(text, text.index(chr(0)))}: a NUL character; if the file is UTF-16, say so as "
            "`encoding`, else it is damaged."
        )
    if extension == ".json":
        return _read_json(text, path)
    numbered = list((_read_json_lines if extension == ".jsonl" else _read_csv)(text, path))
    return Table(path, [row for _, row in numbered], [number for number, _ in numbered])


def _read_text(path: str, encoding: str) -> str:
    """The decoded file."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
        encoding = codecs.lookup(marked or encoding).name
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CaptionDataError(
            f"{path} is not {encoding} text ({error.reason} at byte {error.start}); save it as UTF-8, or say its "
            "`encoding`, such as latin-1."
        ) from None
    except LookupError:
        raise CaptionDataError(f"Got the encoding {encoding!r}, which Python does not know; try latin-1.") from None
    except OSError as error:
        raise CaptionDataError(f"{path} cannot be read: {error.strerror or error}.") from None


# csv


def _read_csv(text: str, path: str) -> Iterator[tuple[int, dict]]:
    """Rows of a csv file, tab-separated where its name ends in .tsv, each with its first line."""
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    header = None
    for number, cells, lines in _split_csv(text, path, delimiter):
        if header is None:
            header = _check_header(cells, path)
            continue
        place = f"{path}, line {number}"
        if len(cells) > len(header):
            raise CaptionDataError(
                f"{place}: more cells than the header has ({len(cells)}, not {len(header)}); put captions with commas "
                "in quotation marks."
            )
        if len(cells) < len(header):
            if not "".join(cells).strip() and len(cells) == 1:
                continue  # blanks alone
            raise CaptionDataError(
                f"{place}: fewer cells than the header has ({len(cells)}, not {len(header)}); if it is the rest of a "
                "caption, join it to the line before."
            )
        _refuse_swallowed_rows(cells, lines, len(header), delimiter, place)
        yield number, {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _split_csv(text: str, path: str, delimiter: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """First line and cells of each record, and the lines that it stands on; empty lines are passed over."""
    lines = io.StringIO(text, newline="").readlines()
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise CaptionDataError(_describe_csv_error(str(error), path, number, reader.line_num)) from None
        if cells is None:
            return
        if cells:
            yield number, cells, lines[number - 1 : reader.line_num]


def _describe_csv_error(problem: str, path: str, first: int, last: int) -> str:
    """What is wrong with a record that begins on line `first` and fails on line `last`."""
    remedy = "Close it, or put the cell in quotation marks and double those inside of it."
    if "end of data" in problem:
        return f"{path}, line {first}: a quotation mark opens a cell and is not closed. {remedy}"
    if "field limit" in problem:
        return (
            f"{path}, line {first}: a cell of more than {csv.field_size_limit()} characters, as where a quotation mark "
            f"opens it and is not closed. {remedy}"
        )
    if "expected after" in problem:
        place = f"line {first}" if first == last else f"lines {first} to {last}"
        return f"{path}, {place}: a quotation mark that opens a cell is closed in the middle of it. {remedy}"
    return f"{path}, line {first}: {problem}."


def _refuse_swallowed_rows(cells: list[str], lines: list[str], num_columns: int, delimiter: str, place: str) -> None:
    """Raise CaptionDataError where a record goes on over lines of which one could be a row of its own."""
    if len(lines) < 2 or num_columns < 2:
        return
    inside = [line for cell in cells for line in io.StringIO(cell, newline="").readlines()[1:]]
    if any(line.count(delimiter) == num_columns - 1 for line in lines[1:]) or any(
        len(next(csv.reader([line], delimiter=delimiter))) == num_columns for line in inside
    ):
        raise CaptionDataError(
            f"{place}: a cell in quotation marks goes on over more lines, and one of them looks like a row. Close the "
            "quotation mark where the caption ends, or take the line breaks out of it."
        )


def _check_header(names: list[str], path: str) -> list[str]:
    """The columns; some may have no name, as those of a numbering have none."""
    doubled = next((name for name in names if name and names.count(name) > 1), None)
    if doubled is not None:
        raise CaptionDataError(f"{path} has two columns {doubled!r}; rename one of them, or remove it.")
    return names


# JSON


def _read_json_lines(text: str, path: str) -> Iterator[tuple[int, dict]]:
    """Rows of a file with one JSON object a line, each with its line."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _check_object(_parse_json(line, f"{path}, line {number}"), f"{path}, line {number}")


def _read_json(text: str, path: str) -> Table:
    """A JSON list, alone or under `data` as in WavCaps."""
    content = _parse_json(text, path)
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise CaptionDataError(f"{path} holds one {type(content).__name__}; expected a list, or `data` with a list.")
    rows = [_check_object(row, f"{path}, entry {number}") for number, row in enumerate(rows, start=1)]
    return Table(path, rows, list(range(1, len(rows) + 1)), isinstance(content, dict))


def _parse_json(text: str, place: str):
    try:
        return json.loads(text, object_pairs_hook=_make_object)
    except ValueError as error:
        raise CaptionDataError(f"{place}: not JSON ({error}).") from None


def _make_object(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object, whose names must differ."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"two values of {next(name for name in names if names.count(name) > 1)!r} in one object")
    return made


def _check_object(row, place: str) -> dict:
    if not isinstance(row, dict):
        raise CaptionDataError(f"{place}: got a {type(row).__name__}; expected an object with named columns.")
    if any(isinstance(value, str) and "\0" in value for value in row.values()):
        raise CaptionDataError(f"{place}: a NUL character, which no file name or caption has; remove it.")
    return row


def _count_lines(text: str, position: int) -> int:
    """The line of a character, from 1."""
    return len(io.StringIO(text[: position + 1], newline="").readlines())
