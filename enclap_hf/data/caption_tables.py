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
from collections.abc import Callable

from .caption_clips import BadClip, CaptionDataError, Clip
from .caption_folders import AudioFolder
from .excluded_clips import is_excluded
from .table_files import read_rows

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
    rows, is_wavcaps = read_rows(path, encoding)
    if not rows:
        raise CaptionDataError(f"{path} has no rows; expected one for every caption or recording.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    _check_columns(columns, path, audio_column=audio_column, caption_column=caption_column)
    name_row = _choose_layout(columns, path, is_wavcaps, audio_column, caption_column)
    table_folder = os.path.dirname(path) or "."
    folder = AudioFolder(table_folder if audio_dir is None else audio_dir)
    if only_folder is not None:
        rows = _choose_folder(rows, name_row, only_folder, path)
    grouped, bad, left_out, empty = {}, [], set(), set()
    for row in rows:
        names, captions = name_row(row), read_captions(row, caption_column)
        if not names:
            bad.append(BadClip(_describe_row(row), "the row names no recording"))
        elif excluded and is_excluded(names, excluded):
            left_out.add(names[0])
        else:
            if not captions:
                empty.add(names[0])
            grouped.setdefault(names[0], (names, []))[1].extend(captions)
    if excluded:
        log_excluded(path, len(left_out))
    clips, bad = _find_recordings(grouped, folder, bad)
    partly_empty = [clip.name for clip in clips if clip.name in empty]
    if partly_empty:
        logger.warning(
            "%s: empty captions beside others are passed over, in %d clips: %s",
            *(path, len(partly_empty), ", ".join(partly_empty[:_NUM_NAMED])),
        )
    return clips, bad


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
        numbered = sorted(filter(_is_numbered, row), key=lambda name: int(name[8:]))
        names = [*(["caption"] if "caption" in row else []), *numbered]
        names = names or [name for name in CAPTION_COLUMNS if name in row][:1]
    captions = []
    for name in names:
        value = row.get(name)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and text.strip():
                captions.append(" ".join(text.split()))
    return captions


def _find_recordings(
    grouped: dict[str, tuple[list[str], list[str]]], folder: AudioFolder, bad: list[BadClip]
) -> tuple[list[Clip], list[BadClip]]:
    """Clips of grouped rows; captions that repeat are kept once, recordings that two names claim are left out."""
    clips, owners = [], {}
    for name, (names, captions) in grouped.items():
        found = folder.find(names) if captions else BadClip(name, "its caption is empty")
        if isinstance(found, BadClip):
            bad.append(found)
        elif found in owners:
            bad.append(BadClip(name, f"{os.path.basename(found)} is the recording of {owners[found]} already"))
        else:
            owners[found] = name
            clips.append(Clip(name, found, tuple(dict.fromkeys(captions))))
    return clips, bad


# Layouts


def _check_columns(columns: list[str], path: str, **wanted: str | None) -> None:
    """Refuse columns that were named and are not there."""
    for argument, name in wanted.items():
        if name is not None and name not in columns:
            raise CaptionDataError(
                f"{path} has no column {name!r} (`{argument}`); its columns are {', '.join(map(repr, columns))}."
            )


def _choose_layout(
    columns: list[str], path: str, is_wavcaps: bool, audio_column: str | None, caption_column: str | None
) -> Callable[[dict], list[str]]:
    """A function from a row to the names that its recording may have, best first."""
    if caption_column is None and not any(name in CAPTION_COLUMNS or _is_numbered(name) for name in columns):
        names, video = [], None
    elif audio_column is not None:
        names, video = [audio_column], None
    elif is_wavcaps and "id" in columns:
        names, video = [name for name in _WAVCAPS_COLUMNS if name in columns], None
    else:
        names = [name for name in PATH_COLUMNS if name in columns][:1]
        video = next((video for video in _VIDEO_COLUMNS if {*video[:2]} <= {*columns}), None)
    if not names and video is None:
        raise CaptionDataError(f"{path} has the columns {', '.join(map(repr, columns))}; expected {EXPECTED_COLUMNS}.")

    def name_row(row: dict) -> list[str]:
        given = [row.get(name) for name in names]
        given = [os.path.normpath(str(name)) for name in given if name not in _NO_NAMES]
        of_video = [] if video is None else _youtube_names(*map(row.get, video), row.get("audiocap_id"))
        return [*of_video, *given] if names == ["id"] else [*given, *of_video]

    return name_row


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


def _choose_folder(rows: list[dict], name_row: Callable[[dict], list[str]], folder: str, path: str) -> list[dict]:
    """Rows whose recording is in one folder beside the table."""
    folders = [_first_folder(next(iter(name_row(row)), ""), os.path.dirname(path)) for row in rows]
    if folder not in folders:
        there = ", ".join(dict.fromkeys(filter(None, folders)))
        what = f"its entries are in {there}; name one of these" if there else "its entries name no folder"
        raise CaptionDataError(
            f"Got the split {folder!r}, and {path} has no entry in a folder {folder}/; {what}, leave `split` out to "
            "take all entries, or give each split a table of its own."
        )
    return [row for row, of_row in zip(rows, folders, strict=True) if of_row == folder]


def _first_folder(name: str, base: str) -> str:
    parts = (os.path.relpath(name, base or ".") if os.path.isabs(name) else name).split(os.sep)
    return parts[0] if len(parts) > 1 else ""


def _is_numbered(column) -> bool:
    return isinstance(column, str) and _NUMBERED_CAPTION.fullmatch(column) is not None


def _describe_row(row: dict) -> str:
    """A row for a message, not longer than a line."""
    text = ", ".join(f"{name}={value}" for name, value in row.items())
    return text if len(text) <= 80 else text[:77] + "..."
