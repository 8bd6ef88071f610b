"""Finds the audio files that paths, folders and patterns stand for."""

import glob
import logging
import os
import re
from collections.abc import Iterable

from ..model.audio_errors import audio_error
from ..model.audio_formats import AUDIO_EXTENSIONS
from ..model.audio_sources import expand_home, find_special_kind, is_url

logger = logging.getLogger(__name__)


def find_audio_files(paths: Iterable[str | os.PathLike]) -> list[str]:
    """List the audio files that paths, folders and glob patterns stand for.

    A name that exists is taken literally, whatever brackets or stars it holds, and a file so named is listed whatever
    its extension. Folders are searched with their sub-folders for `AUDIO_EXTENSIONS`, hidden files and folders left
    out; pipes, sockets and devices, of which opening one may wait for ever, are skipped with a warning. `**` in a
    pattern crosses folders. A plain name that does not exist is listed as it is, and so is a URL: `load_audio` then
    reports that one clip, and the others can go on.

    Args:
        paths: files, folders, patterns; one str or os.PathLike alone is taken as such.
    Returns:
        the files in the order of `paths`, those of one folder or pattern sorted by name, each file once.
    Raises:
        AudioLoadError: a folder holds no audio file, or a pattern matches none.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[str, str] = {}
    for path in paths:
        for file in _expand_path(os.fspath(path)):
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def _expand_path(path: str) -> list[str]:
    """The files that one path, folder or pattern stands for."""
    if is_url(path):
        return [path]
    path = expand_home(path)
    if os.path.isdir(path):
        files = _walk_folder(path)
        if not files:
            looked_for = ", ".join(AUDIO_EXTENSIONS)
            raise audio_error(f"`{path}`", "the folder holds no audio file.", f"Looked for {looked_for}.")
        return files
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    matches = glob.glob(_escape_existing_folders(path), recursive=True)
    files = {file for match in matches if os.path.isdir(match) for file in _walk_folder(match)}
    files.update(m for m in matches if _has_audio_extension(m) and not os.path.isdir(m) and _is_safe(m))
    if not files:
        problem = f"the pattern matches {len(matches)} files and folders, none of them audio." if matches else ""
        problem = problem or "no file has this name, and as a pattern it matches none."
        raise audio_error(f"`{path}`", problem, f"Check its spelling; the current folder is `{os.getcwd()}`.")
    return sorted(files)


def _walk_folder(folder: str) -> list[str]:
    """Audio files in a folder and its sub-folders, sorted; links are followed, each folder entered once."""
    files, entered = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real_parent = os.path.realpath(parent)
        if real_parent in entered:
            folders.clear()
            continue
        entered.add(real_parent)
        # Sorted, so that of two links to one folder it is always the same one that is entered.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        named = [os.path.join(parent, n) for n in names if _has_audio_extension(n) and not n.startswith(".")]
        files += [file for file in named if _is_safe(file)]
    return sorted(files)


def _is_safe(path: str) -> bool:
    """Whether opening a file that a folder or pattern brought cannot wait for ever; said where it could."""
    kind = find_special_kind(path)
    if kind is not None:
        logger.warning("`%s`: skipped, since it is a %s.", path, kind)
    return kind is None


def _escape_existing_folders(pattern: str) -> str:
    """Escape the leading folders of a pattern that exist under that very name, such as `take [2]`."""
    literal, rest = "", pattern
    for separator in re.finditer(r"[/\\]" if os.sep == "\\" else "/", pattern):
        if not os.path.isdir(pattern[: separator.end()]):
            break
        literal, rest = pattern[: separator.end()], pattern[separator.end() :]
    return glob.escape(literal) + rest


def _has_audio_extension(path: str) -> bool:
    """Whether a name ends like audio, in any case."""
    return os.path.splitext(path)[1].lower() in AUDIO_EXTENSIONS
