"""Reads lists of clips that a training must not see, such as those of a test set, and tells which clips they name."""

import json
from collections.abc import Iterable

from .caption_clips import CaptionDataError
from .recording_names import list_tails, normalise_name, strip_audio_extension


def read_excluded(path: str) -> frozenset[str]:
    """Read a list of clips.

    Args:
        path: WavCaps' blacklist, JSON such as {"AudioSet": ["Yabc.wav"], "FreeSound": ["123"]}; a JSON list; or a
            text file with one id or file name a line.
    Returns:
        ids and file names, without the endings of recordings.
    Raises:
        CaptionDataError: the file cannot be read, is of another form, or names no clip.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
        entries = _flatten(json.loads(text)) if path.lower().endswith(".json") else text.splitlines()
    except OSError as error:
        raise CaptionDataError(f"The list of clips to `exclude` {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise CaptionDataError(
            f"The list of clips to `exclude` {path} is of an unknown form ({error}); expected JSON with a list of ids "
            "or file names or an object of such lists, or UTF-8 text with one a line."
        ) from None
    names = frozenset(_normalize(str(entry).strip()) for entry in entries if str(entry).strip())
    if not names:
        raise CaptionDataError(f"The list of clips to `exclude` {path} names no clip.")
    return names


def is_excluded(names: Iterable[str], excluded: frozenset[str]) -> bool:
    """Whether a list names a clip, by one of its names with or without its ending and any of its leading folders."""
    return any(tail in excluded for name in names for tail in list_tails(_normalize(str(name))))


def _normalize(name: str) -> str:
    return strip_audio_extension(normalise_name(name))


def _flatten(content) -> list[str | int]:
    """Ids of a list, or of an object of lists."""
    lists = list(content.values()) if isinstance(content, dict) else [content]
    if not all(isinstance(entries, list) for entries in lists):
        raise ValueError(f"got {type(content).__name__} of other things than lists")
    entries = [entry for part in lists for entry in part]
    if not all(isinstance(entry, (str, int)) for entry in entries):
        raise ValueError("got entries that are not ids")
    return entries
