"""Bringing predictions, references and another system's predictions together, clip by clip.

* One file may name a clip with more folders than the other: `scenes/audio/rain.wav` and `rain.wav` are one clip where
  nothing else in either file could be meant. `train/1.wav` and `test/1.wav` are two.
* Where nothing else is meant, the ending of a recording and the other names of a video's stretch tell it, too.
* A clip has no caption where its recording failed (an `error`, or a JSON null) or where no line of the file names it.
  An empty caption without an error is one that the model gave, and counts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .caption_files import CANDIDATE_COLUMNS, CaptionRow, read_caption_file
from .caption_tables import PATH_COLUMNS
from .recording_names import is_tail, list_tails, normalise_name, strip_audio_extension

NO_PREDICTION, NO_CAPTION = "no prediction", "no caption"
MISSING_RULES = ("skip", "empty", "error")
MAX_EXAMPLES = 3


@dataclass
class ScoredClip:
    """One clip to score: its references, each system's caption (None where it has none), and why one is lacking.

    `has_line` is False for a clip that only the references name; `reference_name` is how they name it.
    """

    file_name: str | None
    references: list[str]
    captions: list[str | None]
    reason: str = NO_PREDICTION
    has_line: bool = True
    reference_name: str | None = None


def read_predictions(path: Path | str, encoding: str = "utf-8") -> list[CaptionRow]:
    """Read a system's captions, one row a clip.

    Args:
        path: see [`read_caption_file`]. A file that was taken up again after a failure may have several rows for a
            recording, of which one at most has a caption: that one is kept.
        encoding: of the file.
    Returns:
        the rows, in the file's order; those without a caption have None.
    Raises:
        ValueError: as [`read_caption_file`], no captions at all, or two for one clip.
        OSError: no such file.
    """
    rows = read_caption_file(path, encoding)
    if all(row.caption is None for row in rows):
        failed = [row for row in rows if row.error]
        if failed:
            raise ValueError(
                f"No clip of {path} has a caption; expected one at least. The first failed with: {failed[0].error}"
            )
        raise ValueError(
            f"No line of {path} has a caption; expected one in a column of {', '.join(CANDIDATE_COLUMNS)}."
        )
    kept: dict[str | int, CaptionRow] = {}
    for number, row in enumerate(rows):
        key = number if row.file_name is None else normalise_name(row.file_name)
        earlier = kept.setdefault(key, row)
        if earlier is row or row.caption is None:
            continue
        if earlier.caption is not None:
            raise ValueError(
                f"{path} has two predictions for {row.file_name!r}; expected one a clip. Captions of windows cannot be "
                "scored: caption with --chunk-length-s 0."
            )
        kept[key] = row
    return list(kept.values())


def pair_references(predictions: list[CaptionRow], references: list[CaptionRow]) -> list[ScoredClip]:
    """Find the references of every prediction.

    Args:
        predictions: rows of [`read_predictions`].
        references: rows of the reference file; several rows with one file name add up.
    Returns:
        a clip for each prediction, in their order, and after them one for every reference that has no prediction.
    Raises:
        ValueError: a caption without references, names that could mean several clips, or rows without names that
            cannot be matched by order.
    """
    grouped: dict[str | int, ScoredClip] = {}
    for number, row in enumerate(references):
        key = number if row.file_name is None else normalise_name(row.file_name)
        grouped.setdefault(key, ScoredClip(row.file_name, [], [])).references.extend(_references_of(row))
    groups = list(grouped.values())
    other_names = {id(group): set() for group in groups}
    for number, row in enumerate(references):
        key = number if row.file_name is None else normalise_name(row.file_name)
        other_names[id(grouped[key])].update(row.other_names)
    names = [row.file_name for row in predictions]
    matches = match_names(names, [group.file_name for group in groups], ("predictions", "references"))
    if None not in names:
        _match_other_names(names, [(group.file_name, *other_names[id(group)]) for group in groups], matches)
    clips = []
    for row, match in zip(predictions, matches, strict=True):
        found = [] if match is None else groups[match].references
        if not found and row.caption is not None:
            raise ValueError(
                f"Got no references for {row.file_name or row.caption!r}; expected that file name among the "
                f"{len(groups)} of the reference file, such as {groups[0].file_name!r}."
            )
        reference_name = None if match is None else groups[match].file_name
        reason = row.error or NO_CAPTION
        clips.append(ScoredClip(row.file_name, found, [row.caption], reason, reference_name=reference_name))
    used = set(matches)
    unused = [group for number, group in enumerate(groups) if number not in used and group.references]
    return clips + [ScoredClip(group.file_name, group.references, [None], has_line=False) for group in unused]


def take_own_references(predictions: list[CaptionRow], path: Path | str) -> list[ScoredClip]:
    """Make clips of predictions whose file has the references, too.

    Args:
        predictions: rows of [`read_predictions`].
        path: the file's name, for messages.
    Returns:
        a clip for each prediction.
    Raises:
        ValueError: a caption without references.
    """
    if not all(row.references for row in predictions if row.caption is not None):
        raise ValueError(
            f"Got no references for a clip of {path}; expected caption_1, caption_2, ... there, or a file as "
            "--references."
        )
    return [ScoredClip(row.file_name, row.references, [row.caption], row.error or NO_CAPTION) for row in predictions]


def add_system(clips: list[ScoredClip], others: list[CaptionRow], path: Path | str) -> None:
    """Add another system's captions to the clips.

    Args:
        clips: of [`pair_references`] or [`take_own_references`].
        others: the other system's rows of [`read_predictions`].
        path: the other system's file, for messages.
    Raises:
        ValueError: a caption for a clip that is not there, names that could mean several clips, or rows without names
            that cannot be matched by order.
    """
    # Lines that are matched by order have no place for a clip that only the references name.
    by_order = any(row.file_name is None for row in others)
    lines = [clip for clip in clips if clip.has_line or not by_order]
    names = [clip.file_name for clip in lines]
    matches = match_names(names, [row.file_name for row in others], ("predictions", f"lines of {path}"))
    unknown = set(range(len(others))) - set(matches)
    for number in sorted(unknown):
        if others[number].caption is not None:
            raise ValueError(
                f"{path} has a prediction for {others[number].file_name!r}, which is not among the clips; expected the "
                "same clips in both files."
            )
    rows = {id(clip): others[match] for clip, match in zip(lines, matches, strict=True) if match is not None}
    for clip in clips:
        row = rows.get(id(clip))
        clip.captions.append(None if row is None else row.caption)
        if clip.captions[0] is not None and clip.captions[-1] is None:
            clip.reason = f"in {path}: {(row.error or NO_CAPTION) if row else NO_PREDICTION}"


def settle_missing(clips: list[ScoredClip], rule: str) -> tuple[list[ScoredClip], list[ScoredClip], list[ScoredClip]]:
    """Decide about clips for which a system has no caption.

    Args:
        clips: with the captions of all systems.
        rule: "skip" leaves them out for every system, "empty" gives them an empty caption if they have references,
            "error" refuses them.
    Returns:
        the clips to score, those left out, and those of the first that got an empty caption.
    Raises:
        ValueError: clips without a caption and the rule "error", or none are left to score.
    """
    lacking = [clip for clip in clips if None in clip.captions]
    if lacking and rule == "error":
        raise ValueError(
            f"{describe_lacking(lacking, len(clips))}; expected one for each. --missing skip leaves them out, "
            "--missing empty counts them as empty captions."
        )
    left_out = [clip for clip in lacking if rule == "skip" or not clip.references]
    if len(left_out) == len(clips):
        raise ValueError(f"{describe_lacking(left_out, len(clips))}; expected one clip at least that every system has.")
    ids_left_out = {id(clip) for clip in left_out}
    emptied = [clip for clip in lacking if id(clip) not in ids_left_out]
    for clip in emptied:
        clip.captions = ["" if caption is None else caption for caption in clip.captions]
    return [clip for clip in clips if id(clip) not in ids_left_out], left_out, emptied


def describe_lacking(lacking: list[ScoredClip], num_clips: int) -> str:
    """Say how many clips have no caption, and why the first few have none.

    Args:
        lacking: the clips.
        num_clips: of how many.
    Returns:
        a sentence without its full stop.
    """
    examples = [f"{clip.file_name or 'one without a name'} ({_shorten(clip.reason)})" for clip in lacking]
    rest = ", ..." if len(lacking) > MAX_EXAMPLES else ""
    return f"{len(lacking)} of {num_clips} clips have no caption: {', '.join(examples[:MAX_EXAMPLES])}{rest}"


def _shorten(text: str) -> str:
    """A reason, not longer than a line."""
    return text if len(text) <= 100 else text[:97] + "..."


def match_names(names: Sequence[str | None], others: Sequence[str | None], titles: tuple[str, str]) -> list[int | None]:
    """Find every clip of one file in another.

    Full names come first, then names of which one is the other's tail, as `audio/rain.wav` is of
    `/data/audio/rain.wav`, where that leaves no choice in either file. Files without names are matched by order.

    Args:
        names: of one file, each once.
        others: of the other file, each once.
        titles: what each of them holds, for messages.
    Returns:
        for each of `names` an index into `others`, or None.
    Raises:
        ValueError: a name that could mean several clips, or files without names and of unequal length.
    """
    if None in names or None in others:
        if len(names) != len(others):
            raise ValueError(
                f"Got {len(names)} {titles[0]} and {len(others)} {titles[1]} without names; expected the same number "
                f"in the same order, or a column {' or '.join(PATH_COLUMNS[:2])} in both."
            )
        return list(range(len(names)))
    own, other = _NameIndex(names), _NameIndex(others)
    matches = []
    for name in names:
        match = other.full.get(normalise_name(name))
        if match is None and (found := other.find(name)):
            _refuse_choice(name, [others[index] for index in found], titles[1])
            match = found[0]
            _refuse_choice(others[match], [names[index] for index in own.find(others[match])], titles[0])
        matches.append(match)
    return matches


def _refuse_choice(name: str, found: list[str], title: str) -> None:
    """Refuse a name that could mean several of another file."""
    if len(found) > 1:
        raise ValueError(
            f"Got {name!r}, which could be {found[0]!r} or {found[1]!r} of the {title}; expected one. Give the clips "
            "the same names in both files."
        )


def _match_other_names(names: Sequence[str], others: Sequence[tuple[str, ...]], matches: list[int | None]) -> None:
    """Fill the gaps of `matches`: find clips by all their names in the references, whatever their endings."""
    owners: dict[str, dict[int, str]] = {}
    for index, own in enumerate(others):
        for name in map(normalise_name, own):
            owners.setdefault(posixpath.basename(strip_audio_extension(name)), {})[index] = name
    taken = {match: names[number] for number, match in enumerate(matches) if match is not None}
    for number, name in enumerate(names):
        stem = strip_audio_extension(normalise_name(name))
        found = {
            index: other
            for index, other in (owners.get(posixpath.basename(stem), {}) if matches[number] is None else {}).items()
            if is_tail(stem, strip_audio_extension(other))
        }
        _refuse_choice(name, [others[index][0] for index in found], "references")
        for index in found:
            _refuse_choice(others[index][0], [taken[index], name] if index in taken else [name], "predictions")
            matches[number], taken[index] = index, name


class _NameIndex:
    """Names of a file, to be found by their tails."""

    def __init__(self, names: Sequence[str]) -> None:
        self.full = {normalise_name(name): index for index, name in enumerate(names)}
        self._whole: dict[str, list[int]] = {}
        self._by_tail: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            for number, tail in enumerate(list_tails(normalise_name(name))):
                (self._by_tail if number else self._whole).setdefault(tail, []).append(index)

    def find(self, name: str) -> list[int]:
        """Indices of the names that end in this one, or that this one ends in."""
        tails = list_tails(normalise_name(name))
        ending_in_this = self._by_tail.get(tails[0], []) if tails else []
        return sum((self._whole.get(tail, []) for tail in tails), []) + ending_in_this


def _references_of(row: CaptionRow) -> list[str]:
    """References of a row; a reference file may also have one caption a row."""
    if row.references:
        return row.references
    return [row.caption] if row.caption else []
