"""Finds recordings by their names, and the table of captions of a folder with sounds."""

import os
from collections.abc import Iterator

from ..model.audio_loading import AUDIO_EXTENSIONS
from .caption_clips import BadClip, CaptionDataError

TABLE_EXTENSIONS = (".csv", ".tsv", ".json", ".jsonl")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.json", "captions.csv")
# Files that `datasets` reads, whatever lies beside them.
_DATASETS_EXTENSIONS = (".parquet", ".arrow", ".tar")
_SAVED_BY_DATASETS = ("state.json", "dataset_dict.json")


def strip_audio_extension(name: str) -> str:
    """A name without the ending of a recording; `1.5 m` stays as it is."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in AUDIO_EXTENSIONS else name


def walk_folders(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and its sub-folders with their files in order; links are followed, each folder is entered once."""
    entered = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in entered:  # links may lead in circles
            folders.clear()
            continue
        entered.add(os.path.realpath(parent))
        folders.sort()
        yield parent, sorted(files)


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
            # Videos have dozens of possible names: the index below knows them, without asking the disk for each.
            if name is names[0] or os.sep in name:
                path = os.path.join(self.folder, name)  # an absolute name stays as it is
                if os.path.isfile(path):
                    return path
        self._index()
        for name in names:
            base = os.path.basename(name) if os.sep in name else name
            found = self._by_name.get(base) or self._by_stem.get(base) or []
            if not found and "." in base:
                found = self._by_stem.get(strip_audio_extension(base), [])
            if len(found) > 1:
                wanted = strip_audio_extension(os.path.join(self.folder, name))
                found = [path for path in found if strip_audio_extension(path) == wanted] or found
            if len(found) > 1:
                return BadClip(names[0], f"{len(found)} recordings have this name: {found[0]}, {found[1]}")
            if found:
                return found[0]
        return BadClip(names[0], f"no such recording in {self.folder}")

    def _index(self) -> None:
        """List the folder once."""
        if self._by_name is not None:
            return
        self._by_name = {}
        for parent, files in walk_folders(self.folder):
            for name in files:
                stem = strip_audio_extension(name)
                if stem != name:
                    self._by_name.setdefault(name, []).append(os.path.join(parent, name))
                    self._by_stem.setdefault(stem, []).append(os.path.join(parent, name))


def find_table(path: str, split: str | None = None) -> tuple[str, str | None] | None:
    """The table that a path stands for.

    Args:
        path: a table, a folder, or the name of a data set on the Hub.
        split: wanted part of a folder.
    Returns:
        the table, and the folder that its entries have to be in (None: all entries); None where the path is for
        `datasets`.
    Raises:
        CaptionDataError: a table that does not exist or would have to have splits, a folder with several tables of
            which none is named, or with sounds and no table.
    """
    if path.lower().endswith(TABLE_EXTENSIONS):
        if not os.path.isfile(path):
            raise CaptionDataError(f"{path} does not exist; the current folder is {os.getcwd()}.")
        if split is not None:
            raise CaptionDataError(
                f"Got the split {split!r} of {path}, and a table has no splits; leave `split` out and name the table "
                "of that split as `path`."
            )
        return path, None
    is_path = os.path.isabs(path) or path.startswith(".") or (path.count("/") > 1 and "://" not in path)
    if is_path and not os.path.exists(path):
        raise CaptionDataError(f"{path} does not exist; the current folder is {os.getcwd()}.")
    if not os.path.isdir(path) or any(os.path.isfile(os.path.join(path, name)) for name in _SAVED_BY_DATASETS):
        return None
    own = _choose_metadata(path, os.listdir(path))
    if split is None:
        return _find_only_table(path) if own is None else (own, None)
    folder = os.path.join(path, split)
    table_of_split = _choose_metadata(folder, os.listdir(folder)) if os.path.isdir(folder) else None
    if table_of_split is not None:
        return table_of_split, None
    return _find_only_table(path, split) if own is None else (own, split)


def _find_only_table(path: str, split: str | None = None) -> tuple[str, None] | None:
    """The one table below a folder that has none of its own; None where there are files for `datasets`."""
    tables, has_sounds = {}, False
    for parent, files in walk_folders(path):
        if any(name.lower().endswith(_DATASETS_EXTENSIONS) for name in files):
            return None
        table = _choose_metadata(parent, files)
        if table is not None:
            tables[os.path.relpath(parent, path)] = table
        has_sounds = has_sounds or any(strip_audio_extension(name) != name for name in files)
    chosen = [table for folder, table in tables.items() if split is None or split in folder.split(os.sep)]
    if len(chosen) == 1:
        return chosen[0], None
    if tables:
        wanted = "no `split`" if split is None else f"the split {split!r}"
        raise CaptionDataError(
            f"{path} has tables of captions in the folders {', '.join(tables)}, and got {wanted}; name one of them."
        )
    if has_sounds:
        others = [name for name in sorted(os.listdir(path)) if name.lower().endswith(TABLE_EXTENSIONS)]
        named = f", or one of {', '.join(others)} as `path`" if others else ""
        raise CaptionDataError(
            f"{path} has sounds and no table of captions; expected metadata.csv or captions.csv with "
            f"file_name,caption beside them{named}."
        )
    return None


def _choose_metadata(folder: str, files: list[str]) -> str | None:
    """The table of an audiofolder among a folder's files."""
    return next((os.path.join(folder, name) for name in METADATA_FILES if name in files), None)
