"""What the caption formats share: rows in, text out, and how times and captions become cues.

A row is a dict with `file_name`, `start_s` and `end_s` (seconds from the start of the recording, None where unknown),
`duration_s` (of the stretch), `caption`, `score`, `silent` and `error`, of which only the first must be there. Rows of
one recording follow each other in the order of time; several captions of one stretch follow each other, best first.
"""

import math
import re
from typing import TextIO

# Line breaks of every kind, tabs and other controls, which would end a cue or a cell, and runs of spaces.
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
# At the head of a text it would be taken for the mark of its encoding, and elsewhere it shows nothing.
_BYTE_ORDER_MARK = "\ufeff"


class CaptionFormat:
    """Writes rows in one format.

    A format is a subclass with the three `format_` methods, as far as it needs them, and an entry in
    [`FORMATS`](caption_formats.py).

    Args:
        file: open for text in UTF-8 with `newline=""`, as line ends are part of a format. What begins the document is
            written at once.
    Attributes:
        name: of the format.
        suffix: of its files, with the dot.
        has_file_column: whether a document says which recording a row is of, and so can hold several.
    """

    name: str
    suffix: str
    has_file_column = False

    def __init__(self, file: TextIO):
        self._file = file
        self._put(self.format_beginning())

    def write(self, row: dict) -> None:
        """Write a row, and pass it on to whoever reads the file meanwhile.

        Args:
            row: see the top of this file.
        Raises:
            ValueError: the format needs what the row lacks, such as an end.
        """
        self._put(self.format_row(row))

    def close(self) -> None:
        """Write what ends the document; the file stays open."""
        self._put(self.format_end())

    def format_beginning(self) -> str:
        """What stands before the first row."""
        return ""

    def format_row(self, row: dict) -> str:
        """A row, with its line end; nothing for a row that the format leaves out."""
        raise NotImplementedError

    def format_end(self) -> str:
        """What stands behind the last row."""
        return ""

    def _put(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._file.flush()


class CueFormat(CaptionFormat):
    """A format of cues: one for every stretch that has a caption, none for silence and failures.

    Of several captions of a stretch, the first is taken. Times are whole ticks: cues that do not overlap before they
    are rounded do not overlap afterwards, and none is shorter than a tick.

    Attributes:
        ticks_per_s: of the format's times.
    """

    ticks_per_s = 1000

    def __init__(self, file: TextIO):
        self._stretch: tuple | None = None
        self._file_name: str | None = None
        self._end_s, self._end = 0.0, 0
        super().__init__(file)

    def format_row(self, row: dict) -> str:
        """The cue of a row, or nothing."""
        stretch = (row["file_name"], row.get("start_s"), row.get("end_s"))
        if stretch == self._stretch:
            return ""
        self._stretch = stretch
        text = join_lines(row.get("caption") or "")
        if row.get("silent") or row.get("error") or not text:
            return ""
        return self.format_cue(*self.round_times(row), text)

    def format_cue(self, start: int, end: int, text: str) -> str:
        """A cue.

        Args:
            start: in ticks.
            end: in ticks, after `start`.
            text: one line without controls, not empty.
        """
        raise NotImplementedError

    def round_times(self, row: dict) -> tuple[int, int]:
        """Start and end in ticks.

        Raises:
            ValueError: the row has none, or they are not in order.
        """
        start_s, end_s = row.get("start_s"), row.get("end_s")
        if start_s is None or end_s is None:
            raise ValueError(
                f"The format {self.name} needs the times of every caption, and `{row['file_name']}` came without; "
                "write csv, json, jsonl or txt."
            )
        if not 0 <= start_s <= end_s < math.inf:
            raise ValueError(
                f"Got a caption of `{row['file_name']}` from {start_s} to {end_s} s; expected a start of 0 or more and "
                "an end that is not before it."
            )
        start, end = round(start_s * self.ticks_per_s), round(end_s * self.ticks_per_s)
        if row["file_name"] == self._file_name and start_s >= self._end_s:
            start = max(start, self._end)
        end = max(end, start + 1)
        self._file_name, self._end_s, self._end = row["file_name"], end_s, end
        return start, end


def join_lines(text: str) -> str:
    """A text as one line that UTF-8 can hold, with single spaces and no controls."""
    return _SPACES.sub(" ", printable(text).replace(_BYTE_ORDER_MARK, "")).strip()


def printable(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of a file name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def format_clock(ticks: int, point: str) -> str:
    """Milliseconds as hours, minutes and seconds; hours have two digits or more.

    Args:
        ticks: in milliseconds.
        point: what stands before the milliseconds.
    """
    seconds, milliseconds = divmod(ticks, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"
