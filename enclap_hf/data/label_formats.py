"""Captions as labels of sound editors, and as plain text and tables of cues: Audacity, Raven, tsv, txt.

These formats know no quotation marks: what is in a cell or line stands there as it is.
"""

import os

from .caption_writing import CueFormat, join_lines, printable


class AudacityFormat(CueFormat):
    """A label track of Audacity, `.txt`: start, end, text, with tabs between.

    Source: https://manual.audacityteam.org/man/importing_and_exporting_labels.html
    """

    name, suffix = "audacity", ".labels.txt"
    ticks_per_s = 1_000_000

    def format_cue(self, start: int, end: int, text: str) -> str:
        """A label."""
        return f"{format_seconds(start)}\t{format_seconds(end)}\t{text}\n"


class RavenFormat(CueFormat):
    """A selection table of Raven Pro, `.selections.txt`.

    Raven opens one in two ways. As a selection table, times count from the start of all recordings in the window, so
    those of a second recording begin where the first has ended. As a sound selection table, Raven opens the recordings
    of `Begin Path` itself, and `File Offset (s)` counts within each.

    A caption is about all frequencies; Raven wants bounds, and gets 0 and what a codec at 24 kHz can hear.
    """

    name, suffix = "raven", ".selections.txt"
    has_file_column = True
    ticks_per_s = 1_000_000
    columns = (
        *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
        *("Begin File", "Begin Path", "File Offset (s)", "Annotation"),
    )
    high_freq_hz = 12_000

    def __init__(self, file):
        self._num_selections = 0
        # Of the recording whose rows are written: where it begins, its length as far as it is known, and those before.
        self._recording: str | None = None
        self._offset_s = self._length_s = 0.0
        self._recordings: set[str] = set()
        super().__init__(file)

    def format_beginning(self) -> str:
        """The header."""
        return "\t".join(self.columns) + "\n"

    def format_row(self, row: dict) -> str:
        """The selection of a row, or nothing.

        Raises:
            ValueError: rows of recordings are mixed, so that it is unknown where each begins.
        """
        if row["file_name"] != self._recording:
            if row["file_name"] in self._recordings:
                raise ValueError(
                    f"Got rows of `{row['file_name']}` before and after those of another recording; a Raven table "
                    "needs all of one recording together. Write a table for each."
                )
            self._recording = row["file_name"]
            self._recordings.add(self._recording)
            self._offset_s += self._length_s
            self._length_s = 0.0
        self._length_s = max(self._length_s, row.get("end_s") or 0.0, row.get("duration_s") or 0.0)
        return super().format_row(row)

    def format_cue(self, start: int, end: int, text: str) -> str:
        """A selection."""
        self._num_selections += 1
        offset = round(self._offset_s * self.ticks_per_s)
        path = join_lines(printable(self._recording))
        cells = (
            *(self._num_selections, "Spectrogram 1", 1),
            *(format_seconds(offset + start), format_seconds(offset + end), 0, self.high_freq_hz),
            *(os.path.basename(path), path, format_seconds(start), text),
        )
        return "\t".join(map(str, cells)) + "\n"


class TsvFormat(CueFormat):
    """The tab-separated table of whisper, `.tsv`: start and end in milliseconds, text."""

    name, suffix = "tsv", ".tsv"

    def format_beginning(self) -> str:
        """The header."""
        return "start\tend\ttext\n"

    def format_cue(self, start: int, end: int, text: str) -> str:
        """A line of the table."""
        return f"{start}\t{end}\t{text}\n"


class TextFormat(CueFormat):
    """Captions alone, `.txt`, one a line, as whisper writes them."""

    name, suffix = "txt", ".txt"

    def round_times(self, row: dict) -> tuple[int, int]:
        """No times: there are none in this format, so a row may lack them."""
        return 0, 0

    def format_cue(self, start: int, end: int, text: str) -> str:
        """A line."""
        return f"{text}\n"


def format_seconds(microseconds: int) -> str:
    """Seconds with six decimals, which are exact to a sample at any rate below 500 kHz."""
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"
