"""Reads the tables that caption data sets come as: csv, json and JSON lines of every layout in use.

    AudioCaps   audiocap_id, youtube_id, start_time, caption       one caption a row
    MusicCaps   ytid, start_s, end_s, caption
    WavCaps     {"data": [{"id", "caption", ...}]}
    Clotho      file_name, caption_1 .. caption_5
    EnCLAP      file_path, caption  or  file_path, caption_1 .. caption_5
    audiofolder file_name and a caption, in metadata.csv or metadata.jsonl

Columns tell the layout, not the file's name. Rows of one recording become one clip with all their captions.
"""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .caption_clips import BadClip, CaptionDataError, Clip
from .caption_folders import AudioFolder
from .excluded_clips import is_excluded
from .recording_names import normalise_name, strip_audio_extension, unescape_formula
from .table_files import Table, read_table

logger = logging.getLogger(__name__)

PATH_COLUMNS = ("file_path", "file_name", "audio", "audio_path", "path", "file", "filename", "id")
CAPTION_COLUMNS = ("caption", "captions", "text")
# Video, first second, last second.
_VIDEO_COLUMNS = (("youtube_id", "start_time", "end_time"), ("ytid", "start_s", "end_s"))
# Seconds of a stretch whose end is in no column: AudioSet's, from which AudioCaps is taken.
_VIDEO_DURATION_S = 10
# WavCaps ships `audio` with the first word in every entry and some `id` with the second; its `file_name` is the title
# that the uploader gave.
_NO_NAMES = (None, "", "wav_path", "Not found")
_WAVCAPS_COLUMNS = ("id", "file_path", "audio_path", "path", "audio")
# Clips that a message names.
_NUM_NAMED = 3
_NUMBERED_CAPTION = re.compile(r"caption_\d+")
EXPECTED_COLUMNS = (
    f"a recording ({', '.join(f'`{name}`' for name in PATH_COLUMNS)}) with `caption`, `captions` or `caption_1`, "
    "`caption_2`, ...; or AudioCaps' `youtube_id`, `start_time`, `caption`; or MusicCaps' `ytid`, `start_s`, `caption`"
)


def read_caption_table(
    path: str,
    audio_dir: str | None = None,
    encoding: str = "utf-8",
    *,
    audio_column: str | None = None,
    caption_column: str | None = None,
    only_folder: str | None = None,
    excluded: frozenset[str] = frozenset(),
) -> tuple[list[Clip], list[BadClip]]:
    """Read a table of captions and find its recordings.

    Args:
        path: .csv, .tsv, .json or .jsonl.
        audio_dir: where the recordings are, sub-folders included; None is the table's own folder.
        encoding: of the file; a byte order mark is passed over.
        audio_column: with the recordings' names; None takes those of the layout.
        caption_column: None takes the columns that [`read_captions`] finds.
        only_folder: take the entries whose names begin with this folder.
        excluded: clips to leave out, see [`~enclap_hf.data.excluded_clips.read_excluded`].
    Returns:
        clips in the order of their first rows, and what cannot be used: recordings that are not there or not to be
        told apart, clips without a caption.
    Raises:
        CaptionDataError: the file cannot be read, is not in `encoding`, or has other columns or folders.
    """
    table = read_table(path, encoding)
    if not table.rows:
        raise CaptionDataError(f"{path} has no rows; expected one for every caption or recording.")
    _check_columns(table.columns, path, audio_column=audio_column, caption_column=caption_column)
    name_row = _choose_layout(table, audio_column, caption_column)
    folder = AudioFolder((os.path.dirname(path) or ".") if audio_dir is None else audio_dir)
    chosen = range(len(table.rows)) if only_folder is None else _choose_folder(table, name_row, only_folder)
    grouped, bad, left_out = {}, [], set()
    for index in chosen:
        row = table.rows[index]
        names, captions = list(map(os.path.normpath, name_row(row))), read_captions(row, caption_column)
        if not names:
            bad.append(BadClip(_describe_row(row), "the row names no recording"))
        elif excluded and is_excluded(names, excluded):
            left_out.add(names[0])
        else:
            entry = grouped.setdefault(_choose_key(names[0], folder), _Entry(names, index))
            entry.captions += captions
            entry.has_empty_row |= not captions
    if excluded:
        log_excluded(path, len(left_out))
    return _find_recordings(list(grouped.values()), folder, table, bad)


@dataclass
class _Entry:
    """What the rows of one recording say: its names, best first, the first of its rows, its captions."""

    names: list[str]
    index: int
    captions: list[str] = field(default_factory=list)
    has_empty_row: bool = False


def _choose_key(name: str, folder: AudioFolder) -> str:
    """What tells a recording apart: its name in one spelling, but for a file of the very name that is written."""
    normalised = normalise_name(name)
    return name if name != normalised and os.path.isfile(os.path.join(folder.folder, name)) else normalised


def log_excluded(where: str, num_excluded: int) -> None:
    """Say how many clips an `exclude` list left out; none is a sign of the wrong list."""
    if num_excluded:
        logger.info("%s: %d clips are left out, which `exclude` names.", where, num_excluded)
    else:
        logger.warning("%s: `exclude` names none of its clips; is it the list of another data set?", where)


def read_captions(row: dict, column: str | None = None) -> list[str]:
    """Captions of a row, without blanks around them and without empty ones.

    Args:
        row: its columns.
        column: the only one to read; None reads `caption` and `caption_1`, ... if the row has one of them, else
            `captions`, else `text`.
    """
    if column is not None:
        names = [column]
    else:
        numbered = sorted(filter(is_numbered, row), key=lambda name: int(name[8:]))
        names = [*(["caption"] if "caption" in row else []), *numbered]
        names = names or [name for name in CAPTION_COLUMNS if name in row][:1]
    captions = []
    for name in names:
        value = row.get(name)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and text.strip():
                captions.append(" ".join(unescape_formula(text.strip()).split()))
    return captions


def _find_recordings(
    entries: list[_Entry], folder: AudioFolder, table: Table, bad: list[BadClip]
) -> tuple[list[Clip], list[BadClip]]:
    """Clips of grouped rows; captions that repeat are kept once, recordings that two names claim are left out."""
    clips, owners, partly_empty = [], {}, []
    for before, entry in zip([None, *entries], entries, strict=False):
        name = entry.names[0]
        found = folder.find(entry.names) if entry.captions else BadClip(name, "its caption is empty")
        if isinstance(found, BadClip):
            _refuse_half_captions(entry, before, table)
            bad.append(found)
        elif found in owners and normalise_name(name) == normalise_name(clips[owners[found]].name):
            earlier = clips[owners[found]]  # another spelling of its name
            captions = tuple(dict.fromkeys((*earlier.captions, *entry.captions)))
            clips[owners[found]] = Clip(earlier.name, found, captions)
        elif found in owners:
            owner = clips[owners[found]].name
            bad.append(BadClip(name, f"{os.path.basename(found)} is the recording of {owner} already"))
        else:
            owners[found] = len(clips)
            clips.append(Clip(name, found, tuple(dict.fromkeys(entry.captions))))
            partly_empty += [name] if entry.has_empty_row else []
    if partly_empty:
        logger.warning(
            "%s: empty captions beside others are passed over, in %d clips: %s",
            *(table.path, len(partly_empty), ", ".join(partly_empty[:_NUM_NAMED])),
        )
    return clips, bad


def _refuse_half_captions(entry: _Entry, before: _Entry | None, table: Table) -> None:
    """Raise CaptionDataError where a row without a recording reads like the rest of the caption before it.

    A caption that is broken over two lines may leave as many cells as the header has, if it holds commas enough.
    """
    name, earlier = entry.names[0], [] if before is None else before.names
    if not earlier or strip_audio_extension(name) != name or not table.is_csv:
        return
    # A table of names without endings may have names with blanks; video ids have none.
    if strip_audio_extension(earlier[0]) != earlier[0] or (len(earlier) > 1 and " " in name.strip()):
        raise half_caption_error(table.locate(entry.index), name)


def half_caption_error(place: str, name: str) -> CaptionDataError:
    """The error for a row that reads like the rest of the caption before it."""
    return CaptionDataError(
        f"{place}: no recording is called {name!r}; if it is the rest of a caption, join it to the line before, else "
        "remove the row."
    )


# Layouts


def _check_columns(columns: list[str], path: str, **wanted: str | None) -> None:
    """Refuse columns that were named and are not there."""
    for argument, name in wanted.items():
        if name is not None and name not in columns:
            raise CaptionDataError(
                f"{path} has no column {name!r} (`{argument}`); its columns are {', '.join(map(repr, columns))}."
            )


class NameColumns(NamedTuple):
    """Columns that tell a row's recording: names, the best first, and the video and the times of which it is cut."""

    names: Sequence[str]
    video: tuple[str, str, str] | None

    def read(self, row: dict) -> list[str]:
        """Names that the recording of a row may have, best first."""
        given = [row.get(name) for name in self.names]
        given = [str(name) for name in given if name not in _NO_NAMES]
        of_video = [] if self.video is None else _youtube_names(*map(row.get, self.video), row.get("audiocap_id"))
        return [*of_video, *given] if self.names == ["id"] else [*given, *of_video]


def find_name_columns(table: Table) -> NameColumns:
    """The columns of a table that tell its recordings; there may be none."""
    columns = table.columns
    if table.is_wrapped and "id" in columns:
        return NameColumns([name for name in _WAVCAPS_COLUMNS if name in columns], None)
    video = next((video for video in _VIDEO_COLUMNS if {*video[:2]} <= {*columns}), None)
    return NameColumns([name for name in PATH_COLUMNS if name in columns][:1], video)


def _choose_layout(table: Table, audio_column: str | None, caption_column: str | None) -> Callable[[dict], list[str]]:
    """A function from a row to the names that its recording may have, best first."""
    columns = find_name_columns(table) if audio_column is None else NameColumns([audio_column], None)
    has_captions = any(name in CAPTION_COLUMNS or is_numbered(name) for name in table.columns)
    if not (columns.names or columns.video) or not (has_captions or caption_column is not None):
        named = ", ".join(map(repr, table.columns))
        raise CaptionDataError(f"{table.path} has the columns {named}; expected {EXPECTED_COLUMNS}.")
    return columns.read


def _youtube_names(video: str | None, start_s, end_s, number) -> list[str]:
    """Names under which downloaders leave a stretch of a video."""
    if not video or start_s in (None, ""):
        return []
    starts = _write_seconds(start_s)
    try:
        ends = _write_seconds(float(start_s) + _VIDEO_DURATION_S if end_s in (None, "") else end_s)
    except ValueError:
        ends = []
    names = [f"{video}_{start}" for start in starts]
    for start, end in zip(starts, ends, strict=False):
        names += [f"{video}_{start}_{end}", f"{video}_{start}-{end}", f"[{video}]-[{start}-{end}]"]
    names += [f"Y{name}" for name in names if name.startswith(f"{video}_")] + [f"Y{video}", str(video)]
    return [*dict.fromkeys(names), *([str(number)] if number not in (None, "") else [])]


def _write_seconds(seconds) -> list[str]:
    """The ways in which downloaders write a time: as it came, 30, 30.0, 30.000, and milliseconds."""
    try:
        value = float(seconds)
    except ValueError:
        return [str(seconds)]
    exact = f"{value:.3f}"
    return [str(seconds), exact.rstrip("0").rstrip("."), f"{value:.1f}", exact, f"{value * 1000:.0f}"]


def _choose_folder(table: Table, name_row: Callable[[dict], list[str]], folder: str) -> list[int]:
    """Rows whose recording is in one folder beside the table."""
    base = os.path.dirname(table.path)
    folders = [_first_folder(next(iter(name_row(row)), ""), base) for row in table.rows]
    if folder not in folders:
        there = ", ".join(dict.fromkeys(filter(None, folders)))
        what = f"its entries are in {there}; name one of these" if there else "its entries name no folder"
        raise CaptionDataError(
            f"Got the split {folder!r}, and {table.path} has no entry in a folder {folder}/; {what}, leave `split` out "
            "to take all entries, or give each split a table of its own."
        )
    return [index for index, of_row in enumerate(folders) if of_row == folder]


def _first_folder(name: str, base: str) -> str:
    """The folder beside a table that a recording is in; "" where it is in none."""
    parts = normalise_name(os.path.relpath(name, base or ".") if os.path.isabs(name) else name).split("/")
    return parts[0] if len(parts) > 1 else ""


def is_numbered(column) -> bool:
    """Whether a column is one of `caption_1`, `caption_2`, ..."""
    return isinstance(column, str) and _NUMBERED_CAPTION.fullmatch(column) is not None


def _describe_row(row: dict) -> str:
    """A row for a message, not longer than a line."""
    text = ", ".join(f"{name}={value}" for name, value in row.items())
    return text if len(text) <= 80 else text[:77] + "..."
