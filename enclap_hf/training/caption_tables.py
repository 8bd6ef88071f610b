"""Reads the tables that caption data sets come as: csv, json and JSON lines of every layout in use.

    AudioCaps   audiocap_id, youtube_id, start_time, caption       one caption a row
    MusicCaps   ytid, start_s, end_s, caption
    WavCaps     {"data": [{"id", "caption", ...}]}
    Clotho      file_name, caption_1 .. caption_5
    EnCLAP      file_path, caption  or  file_path, caption_1 .. caption_5
    audiofolder file_name and a caption, in metadata.csv or metadata.jsonl

Columns tell the layout, not the file's name. Rows of one recording become one clip with all their captions.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..audio_loading import AUDIO_EXTENSIONS

PATH_COLUMNS = ("file_path", "file_name", "audio", "audio_path", "path", "file", "filename", "id")
CAPTION_COLUMNS = ("caption", "captions", "text")
_NUMBERED_CAPTION = re.compile(r"caption_\d+")
EXPECTED_COLUMNS = (
    f"a recording ({', '.join(f'`{name}`' for name in PATH_COLUMNS)}) with `caption`, `captions` or `caption_1`, "
    "`caption_2`, ...; or AudioCaps' `youtube_id`, `start_time`, `caption`; or MusicCaps' `ytid`, `start_s`, `caption`"
)


class CaptionDataError(ValueError):
    """A data set cannot be used. The message is one line: what came, what is expected, what to do."""


@dataclass(frozen=True)
class Clip:
    """A recording with its captions.

    Args:
        name: what tables and messages call it; unique in its data set.
        audio: a path, or {"bytes", "path"} as `datasets` holds undecoded audio.
        captions: at least one.
    """

    name: str
    audio: str | dict
    captions: tuple[str, ...]


@dataclass(frozen=True)
class BadClip:
    """A recording that cannot be used, and why."""

    name: str
    reason: str


def read_caption_table(
    path: str, audio_dir: str | None = None, encoding: str = "utf-8"
) -> tuple[list[Clip], list[BadClip]]:
    """Read a table of captions and find its recordings.

    Args:
        path: .csv, .tsv, .json or .jsonl.
        audio_dir: where the recordings are, sub-folders included; None is the table's own folder.
        encoding: of the file; a byte order mark is passed over.
    Returns:
        clips in the order of their first rows, and what had to be left out: recordings that are not there or not to be
        told apart, rows without a caption.
    Raises:
        CaptionDataError: the file cannot be read, is not in `encoding`, or has other columns.
    """
    rows = list(_read_rows(path, encoding))
    if not rows:
        raise CaptionDataError(f"{path} has no rows; expected one for every caption or recording.")
    columns = list(dict.fromkeys(name for row in rows[:100] for name in row))
    candidates = _choose_layout(columns, path)
    folder = AudioFolder(os.path.dirname(path) or "." if audio_dir is None else audio_dir)
    grouped, bad = {}, []
    for row in rows:
        names = candidates(row)
        captions = read_captions(row)
        if not names:
            bad.append(BadClip(_describe_row(row), "the row names no recording"))
        elif not captions:
            bad.append(BadClip(names[0], "its caption is empty"))
        else:
            grouped.setdefault(names[0], (names, []))[1].extend(captions)
    return _find_recordings(grouped, folder, bad)


def read_captions(row: dict, column: str | None = None) -> list[str]:
    """Captions of a row, of one column or of all caption columns, without blanks around them and without empty ones."""
    names = [column] if column else [*CAPTION_COLUMNS, *sorted(filter(_is_numbered, row), key=lambda n: int(n[8:]))]
    captions = []
    for name in names:
        value = row.get(name)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and text.strip():
                captions.append(" ".join(text.split()))
    return captions


class AudioFolder:
    """Finds recordings in a folder and its sub-folders by path, name, or name without extension."""

    def __init__(self, folder: str):
        if not os.path.isdir(folder):
            raise CaptionDataError(f"The folder of recordings {folder} does not exist; pass it as `audio_dir`.")
        self.folder = folder
        self._by_name: dict[str, list[str]] | None = None
        self._by_stem: dict[str, list[str]] = {}

    def find(self, names: list[str]) -> str | BadClip:
        """Path of the recording that the first fitting name tells, or why there is none."""
        for name in names:
            path = os.path.join(self.folder, name)  # an absolute name stays as it is
            if os.path.isfile(path):
                return path
        self._index()
        for name in names:
            base = os.path.basename(name)
            found = self._by_name.get(base) or self._by_stem.get(base) or []
            if len(found) > 1:
                return BadClip(names[0], f"{len(found)} recordings have this name: {found[0]}, {found[1]}")
            if found:
                return found[0]
        return BadClip(names[0], f"no such recording in {self.folder}")

    def _index(self) -> None:
        """List the folder once."""
        if self._by_name is not None:
            return
        self._by_name, entered = {}, set()
        for parent, folders, files in os.walk(self.folder, followlinks=True):
            if os.path.realpath(parent) in entered:  # links may lead in circles
                folders.clear()
                continue
            entered.add(os.path.realpath(parent))
            folders.sort()
            for name in sorted(files):
                stem, extension = os.path.splitext(name)
                if extension.lower() in AUDIO_EXTENSIONS:
                    self._by_name.setdefault(name, []).append(os.path.join(parent, name))
                    self._by_stem.setdefault(stem, []).append(os.path.join(parent, name))


def _find_recordings(grouped: dict, folder: AudioFolder, bad: list[BadClip]) -> tuple[list[Clip], list[BadClip]]:
    """Clips of grouped rows; captions that repeat are kept once, recordings that two names claim are left out."""
    clips, owners = [], {}
    for name, (names, captions) in grouped.items():
        found = folder.find(names)
        if isinstance(found, BadClip):
            bad.append(found)
        elif found in owners:
            bad.append(BadClip(name, f"{os.path.basename(found)} is the recording of {owners[found]} already"))
        else:
            owners[found] = name
            clips.append(Clip(name, found, tuple(dict.fromkeys(captions))))
    return clips, bad


def _choose_layout(columns: list[str], path: str) -> Callable[[dict], list[str]]:
    """A function from a row to the names that its recording may have, best first."""
    has_caption = any(name in columns for name in CAPTION_COLUMNS) or any(map(_is_numbered, columns))
    if has_caption:
        if {"youtube_id", "start_time"} <= set(columns):
            return lambda row: _youtube_names(row["youtube_id"], row["start_time"], row.get("audiocap_id"))
        if {"ytid", "start_s"} <= set(columns):
            return lambda row: _youtube_names(row["ytid"], row["start_s"], None)
        for name in PATH_COLUMNS:
            if name in columns:
                return lambda row: [os.path.normpath(str(row[name]))] if row.get(name) not in (None, "") else []
    raise CaptionDataError(f"{path} has the columns {', '.join(map(repr, columns))}; expected {EXPECTED_COLUMNS}.")


def _youtube_names(video: str, start_s, number) -> list[str]:
    """Names under which downloaders leave a stretch of a video."""
    if not video or start_s in (None, ""):
        return []
    start = str(start_s)
    whole = start.removesuffix(".0")
    names = [f"{video}_{start}", f"{video}_{whole}", f"Y{video}_{whole}", f"Y{video}", str(video)]
    return [*dict.fromkeys(names), *([str(number)] if number not in (None, "") else [])]


def _is_numbered(column) -> bool:
    return isinstance(column, str) and _NUMBERED_CAPTION.fullmatch(column) is not None


def _describe_row(row: dict) -> str:
    """A row for a message, not longer than a line."""
    text = ", ".join(f"{name}={value}" for name, value in row.items())
    return text if len(text) <= 80 else text[:77] + "..."


# Kinds of files


def _read_rows(path: str, encoding: str) -> Iterator[dict]:
    """Rows of a table as dicts."""
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_json_lines, ".json": _read_json}
    extension = os.path.splitext(path)[1].lower()
    if extension not in readers:
        raise CaptionDataError(f"Got {path}; expected a table that ends in {', '.join(readers)}.")
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") == "utf-8" else encoding
    try:
        with open(path, encoding=encoding, newline="") as file:
            yield from readers[extension](file, path)
    except UnicodeDecodeError as error:
        raise CaptionDataError(
            f"{path} is not {encoding.removesuffix('-sig')} text ({error.reason} at byte {error.start}); save it as "
            "UTF-8, or say its `encoding`, such as latin-1."
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


def _read_json(file, path: str) -> Iterator[dict]:
    """Rows of a JSON list, alone or under `data` as in WavCaps."""
    content = _parse_json(file.read(), path)
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise CaptionDataError(f"{path} holds one {type(content).__name__}; expected a list, or `data` with a list.")
    for number, row in enumerate(rows, start=1):
        yield _check_object(row, f"{path}, entry {number}")


def _parse_json(text: str, place: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise CaptionDataError(f"{place}: no JSON ({error}).") from None


def _check_object(row, place: str) -> dict:
    if not isinstance(row, dict):
        raise CaptionDataError(f"{place}: got a {type(row).__name__}; expected an object with named columns.")
    return row
