"""Finds recordings by their names, and the table of captions of a folder with sounds."""

import os
from collections.abc import Iterator

from .caption_clips import BadClip, CaptionDataError
from .recording_names import is_tail, normalise_name, spell_name, strip_audio_extension
from .table_files import TABLE_EXTENSIONS

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.json", "captions.csv")
# Files that `datasets` reads, whatever lies beside them.
_DATASETS_EXTENSIONS = (".parquet", ".arrow", ".tar")
SAVED_BY_DATASETS = ("state.json", "dataset_dict.json")


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
    """Finds recordings in a folder and its sub-folders by path, name, or name without extension, however spelled."""

    def __init__(self, folder: str):
        if not os.path.isdir(folder):
            raise CaptionDataError(f"The folder of recordings {folder} does not exist; pass it as `audio_dir`.")
        self.folder = folder
        self._by_name: dict[str, list[str]] | None = None
        self._by_stem: dict[str, list[str]] = {}

    def find(self, names: list[str]) -> str | BadClip:
        """Path of the recording that the first fitting name tells, or why there is none."""
        # Videos have dozens of possible names: the index knows them, without asking the disk for each.
        for name in [name for name in names if name is names[0] or "/" in name or "\\" in name]:
            for spelling in spell_name(name):
                path = os.path.join(self.folder, spelling)  # an absolute name stays as it is
                if os.path.isfile(path):
                    return path
        self._index()
        elsewhere = None
        for name in map(normalise_name, names):
            found = self._look_up(os.path.basename(name))
            fitting = [path for path in found if self._is_meant(name, path)]
            if len(fitting) > 1:
                wanted = strip_audio_extension(normalise_name(os.path.join(self.folder, name)))
                fitting = [p for p in fitting if strip_audio_extension(normalise_name(p)) == wanted] or fitting
            if len(fitting) > 1:
                reason = f"{len(fitting)} recordings have this name: {fitting[0]}, {fitting[1]}"
                return BadClip(names[0], reason)
            if fitting:
                return fitting[0]
            elsewhere = elsewhere or next(iter(found), None)
        other = f"; {elsewhere} is in another folder" if elsewhere else ""
        return BadClip(names[0], f"no such recording in {self.folder}{other}")

    def _look_up(self, base: str) -> list[str]:
        """Recordings of a name without its folders."""
        found = self._by_name.get(base) or self._by_stem.get(base) or []
        return found or (self._by_stem.get(strip_audio_extension(base), []) if "." in base else [])

    def _is_meant(self, name: str, path: str) -> bool:
        """Whether a normalised name and a file agree in all folders that both of them tell."""
        relative = normalise_name(os.path.relpath(path, self.folder))
        return is_tail(strip_audio_extension(name), strip_audio_extension(relative))

    def _index(self) -> None:
        """List the folder once."""
        if self._by_name is not None:
            return
        self._by_name = {}
        for parent, files in walk_folders(self.folder):
            for file in files:
                name = normalise_name(file)
                stem = strip_audio_extension(name)
                if stem != name:
                    self._by_name.setdefault(name, []).append(os.path.join(parent, file))
                    self._by_stem.setdefault(stem, []).append(os.path.join(parent, file))


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
    if not os.path.isdir(path) or any(os.path.isfile(os.path.join(path, name)) for name in SAVED_BY_DATASETS):
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
