"""What takes the captions of `enclap caption` as they come: the terminal, a table that grows, documents.

with sink:                            what is there is taken over or replaced
    sink.write(path, piece)           a recording, or a window of one; the last of a recording ends it
    sink.finish(counts)
"""

import argparse
import contextlib
import os
import sys
from dataclasses import replace

from ..data.caption_formats import FORMATS
from ..data.caption_writing import printable
from ..data.score_digits import count_digits
from ..model.caption_results import CaptionedPiece
from ..model.recordings import RecordingState
from .caption_documents import Document, sort_rows
from .caption_manifest import add_state, open_states, remove_states, write_manifest
from .caption_output import (
    OutputError,
    WholeRecordsFile,
    describe_failure,
    format_header,
    format_rows,
    read_rows,
    replace_rows,
)
from .caption_resume import Plan
from .caption_rows import escape_formulas, make_rows, name_in_output
from .caption_targets import Target
from .terminal_text import discard_rest, print_line

PRINTED_SCORE_DIGITS = 3


class LineSink(contextlib.AbstractContextManager):
    """Prints captions, with times for windows and scores where there are several.

    Failures are not printed here; nor are silent windows, unless a recording has nothing else.
    """

    def __init__(self):
        self._heard: set[str] = set()  # long recordings with a caption or a failure

    def __exit__(self, *_) -> None:
        """Nothing is held."""

    def finish(self, counts: dict[str, int]) -> None:
        """Nothing waits for the end."""

    def write(self, path: str, piece: CaptionedPiece) -> None:
        """Print a piece's captions."""
        rows = [] if piece.result is None else make_rows(path, piece)
        if piece.is_windowed:
            rows = [row for row in rows if not row.get("silent") and row.keys() & {"score", "error"}]
            if rows:
                self._heard.add(path)
            if piece.is_end and path not in self._heard:
                print_line(printable(path), "")
        captions = [row for row in rows if "caption" in row]
        digits = count_digits([row["score"] for row in captions if "score" in row], PRINTED_SCORE_DIGITS)
        for row in captions:
            times = [f"{format_time(piece.start_s)}-{format_time(piece.end_s)}"] if piece.is_windowed else []
            score = [f"{row['score']:.{digits}f}"] if "score" in row and len(captions) > 1 else []
            print_line(row["file_name"], *times, *score, row["caption"])


class StreamSink(contextlib.AbstractContextManager):
    """Writes one document in a format to standard output, as it comes."""

    def __init__(self, target: Target):
        self._writer = FORMATS[target.formats[0]](StandardOutput())

    def write(self, path: str, piece: CaptionedPiece) -> None:
        """Write a piece's rows."""
        if piece.result is not None:
            for row in make_rows(path, piece):
                self._writer.write(row)

    def __exit__(self, *_) -> None:
        """Nothing is held."""

    def finish(self, counts: dict[str, int]) -> None:
        """End the document."""
        self._writer.close()


class StandardOutput:
    """Standard output as the formats want it: UTF-8, with line ends as they are."""

    def write(self, text: str) -> None:
        """Write a text.

        Raises:
            BrokenPipeError: the reader has seen enough.
            OSError: it cannot be written for another reason, such as a full disk.
        """
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode())
            sys.stdout.buffer.flush()
        except OSError as error:
            discard_rest(sys.stdout)
            if isinstance(error, BrokenPipeError):
                raise
            raise OSError(f"The captions cannot be printed: {error.strerror or error}.") from error

    def flush(self) -> None:
        """Every text is written at once."""


class RememberedSink(contextlib.AbstractContextManager):
    """A sink beside which a manifest says what it was made with, and what is finished."""

    def __init__(self, args: argparse.Namespace, target: Target, plan: Plan):
        self.args, self.target, self.plan = args, target, plan
        self._stack = contextlib.ExitStack()
        self._failed: dict[str, bool] = {}  # of recordings that have begun and not ended: whether a part failed

    def __enter__(self):
        # Outputs are changed only here, where recordings and model are known to be good.
        with contextlib.ExitStack() as stack:
            self._replace()
            if not self.plan.kept_rows and not self.plan.kept_by_path:
                remove_states(self.target.base)
            write_manifest(self.target.base, self.plan.manifest)
            self._states = stack.enter_context(contextlib.closing(open_states(self.target.base)))
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details) -> bool | None:
        return self._stack.__exit__(*details)

    def write(self, path: str, piece: CaptionedPiece) -> None:
        """Write a piece's rows, all or none, and note the recording's state before them.

        Raises:
            OutputError: it cannot be written any further; its rows are safe.
        """
        is_whole = self._is_whole_at_once(piece)
        if path not in self._failed:
            self._failed[path] = False
            self._remember(path, replace(piece.state, is_whole=is_whole))
            self._begin(path)
        if piece.result is not None:
            self._failed[path] |= "error" in piece.captions[0]
            self._write_rows(path, piece)
        if piece.is_end:
            failed = self._failed.pop(path)
            self._end(path, failed)
            if not failed and not is_whole:
                self._remember(path, replace(piece.state, is_whole=True))

    def finish(self, counts: dict[str, int]) -> None:
        """Once all is captioned: write what waits for that, and the manifest with the counts."""
        self.plan.manifest.counts = counts
        write_manifest(self.target.base, self.plan.manifest)
        self._states.close()  # Windows removes no open file
        remove_states(self.target.base)

    def _remember(self, path: str, state: RecordingState) -> None:
        name = printable(name_in_output(path, self.target.base))
        self.plan.manifest.recordings[name] = state
        add_state(self._states, name, state)

    def _is_whole_at_once(self, piece: CaptionedPiece) -> bool:
        """Whether the rows that are there tell by themselves that the recording is done."""
        return not piece.is_windowed

    def _replace(self) -> None:
        """Take over what is there, or replace it."""

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Open what rows are written to, to be closed with the stack."""

    def _begin(self, path: str) -> None:
        """Before the first rows of a recording."""

    def _write_rows(self, path: str, piece: CaptionedPiece) -> None:
        raise NotImplementedError

    def _end(self, path: str, failed: bool) -> None:
        """Behind the last rows of a recording."""


class TableSink(RememberedSink):
    """A csv or jsonl that grows: all rows of a recording or window at once."""

    def __init__(self, args: argparse.Namespace, target: Target, plan: Plan):
        super().__init__(args, target, plan)
        self._columns = target.columns if target.formats[0] == "csv" else None

    @property
    def _rows_file(self) -> str:
        return self.target.path

    def _replace(self) -> None:
        if os.path.exists(self._rows_file):
            replace_rows(self._rows_file, self.plan.kept_rows, self._columns)

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._file = stack.enter_context(contextlib.closing(WholeRecordsFile(self._rows_file)))
        if self._file.size == 0:
            self._file.append(format_header(self._columns))

    def _write_rows(self, path: str, piece: CaptionedPiece) -> None:
        rows = make_rows(name_in_output(path, self.target.path), piece)
        if self.args.escape_formulas:
            rows = [escape_formulas(row, self.target.path) for row in rows]
        self._file.append(format_rows(rows, self._columns))


class DocumentSink(TableSink):
    """One document of all recordings; until it is complete, its rows are in a journal beside it."""

    def __init__(self, args: argparse.Namespace, target: Target, plan: Plan, document: Document, paths: list[str]):
        super().__init__(args, target, plan)
        self._columns, self._document, self._paths = None, document, paths

    @property
    def _rows_file(self) -> str:
        return self._document.journal

    def finish(self, counts: dict[str, int]) -> None:
        """Write the document, and let the journal go where all is in it."""
        names = [printable(name_in_output(path, self.target.path)) for path in self._paths]
        self._document.write(sort_rows(read_rows(self._document.journal), names))
        super().finish(counts)
        self._file.close()
        if not counts["failed"]:
            remove_file(self._document.journal)


class FolderSink(RememberedSink):
    """A document for each recording, written when that is done; until then its rows are in a journal beside it."""

    def __init__(self, args: argparse.Namespace, target: Target, plan: Plan, documents: dict[str, Document]):
        super().__init__(args, target, plan)
        self._documents = documents
        self._journals: dict[str, WholeRecordsFile] = {}

    def _open(self, stack: contextlib.ExitStack) -> None:
        stack.callback(self._close)

    def _close(self) -> None:
        for file in self._journals.values():
            file.close()

    def _is_whole_at_once(self, piece: CaptionedPiece) -> bool:
        return False  # but when its document is written

    def _begin(self, path: str) -> None:
        self._journals[path] = open_journal(self._documents[path], self.plan.kept_by_path.get(path, []))

    def _write_rows(self, path: str, piece: CaptionedPiece) -> None:
        rows = make_rows(name_in_output(path, self._documents[path].journal), piece)
        self._journals[path].append(format_rows(rows, None))

    def _end(self, path: str, failed: bool) -> None:
        document = self._documents[path]
        self._journals.pop(path).close()
        rows = read_rows(document.journal)
        has_captions = any("caption" in row for row in rows)
        if has_captions:
            document.write(rows, self.args.escape_formulas)
        if not failed or not has_captions:
            remove_file(document.journal)


def open_journal(document: Document, kept_rows: list[dict]) -> WholeRecordsFile:
    """The journal of a document, with the rows of it that stay.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(document.journal) or ".", exist_ok=True)
    except OSError as error:
        raise OutputError(describe_failure(os.path.dirname(document.journal), error)) from error
    if os.path.exists(document.journal):
        replace_rows(document.journal, kept_rows, None)
    return WholeRecordsFile(document.journal)


def remove_file(path: str) -> None:
    """Remove a file that may not be there."""
    with contextlib.suppress(OSError):
        os.remove(path)


def format_time(seconds: float) -> str:
    """A time for people: 1:02:03.4."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
