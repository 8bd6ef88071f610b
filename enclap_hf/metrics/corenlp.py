"""The parser that SPICE needs: Stanford CoreNLP 3.6.0, which comes with no Python package.

    python -m enclap_hf.metrics.corenlp            # says the size, asks, downloads, unpacks
    python -m enclap_hf.metrics.corenlp --yes

Whoever has the two files already sets `ENCLAP_CORENLP` to their folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from .java_runtime import MetricUnavailableError, find_coco_file

VERSION = "3.6.0"
FILE_NAMES = (f"stanford-corenlp-{VERSION}.jar", f"stanford-corenlp-{VERSION}-models.jar")
URL = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
DOWNLOAD_LINE = "python -m enclap_hf.metrics.corenlp"


def cache_folder() -> Path:
    """Folder for what the metrics keep between calls.

    Returns:
        `ENCLAP_CACHE` where it is set, else `enclap-hf` in the user's cache folder. It may not exist yet.
    """
    chosen = os.environ.get("ENCLAP_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enclap-hf"


def find_corenlp() -> tuple[Path, Path]:
    """Find CoreNLP's program and models.

    Returns:
        paths of the two files, both in one folder.
    Raises:
        MetricUnavailableError: a file is missing; the message names it and how to get it.
    """
    chosen = os.environ.get("ENCLAP_CORENLP")
    folders = [Path(chosen)] if chosen else [cache_folder() / "corenlp", *_coco_lib_folders()]
    for folder in folders:
        for candidate in (folder, *sorted(folder.glob("stanford-corenlp-*"))):
            if all((candidate / name).is_file() for name in FILE_NAMES):
                return candidate / FILE_NAMES[0], candidate / FILE_NAMES[1]
    if chosen:
        missing = [name for name in FILE_NAMES if not (Path(chosen) / name).is_file()]
        raise MetricUnavailableError(
            f"`ENCLAP_CORENLP` is {chosen!r}, which has no {' and no '.join(missing)}; correct it, "
            f"or run {DOWNLOAD_LINE}"
        )
    raise MetricUnavailableError(
        f"{' and '.join(FILE_NAMES)} are missing; run {DOWNLOAD_LINE}, or set `ENCLAP_CORENLP` to their folder"
    )


def download_corenlp(folder: Path, url: str = URL, ask: bool = True) -> list[Path]:
    """Download CoreNLP and keep the two files that SPICE needs.

    Args:
        folder: where they go.
        url: address of the zip file.
        ask: say the size and ask before anything large is transferred.
    Returns:
        paths of the files; an empty list when the answer was no.
    Raises:
        OSError: the server does not answer, or the disk is full.
        ValueError: the answer is no zip file with the two files in it.
    """
    with urllib.request.urlopen(url, timeout=60) as answer:
        num_bytes = int(answer.headers.get("Content-Length") or 0)
        size = f"{num_bytes / 2**20:.0f} MiB" if num_bytes else "an unknown size"
        print(f"{url}: {size}, of which the two files that SPICE needs are kept in {folder}.")
        if ask and input("Download it? [y/N] ").strip().lower() not in ("y", "yes"):
            return []
        folder.mkdir(parents=True, exist_ok=True)
        # In the target's folder: a file of this size may not fit where temporary files go.
        with tempfile.TemporaryFile(dir=folder) as download:
            shutil.copyfileobj(answer, download, length=1 << 20)
            return [_unpack(download, name, folder) for name in FILE_NAMES]


def _unpack(download, name: str, folder: Path) -> Path:
    """Take one file out of the zip file, under a temporary name until it is whole."""
    try:
        with zipfile.ZipFile(download) as archive:
            member = next((item for item in archive.namelist() if item.endswith("/" + name)), None)
            if member is None:
                raise ValueError(f"The download has no {name}; expected the archive of CoreNLP {VERSION}.")
            partial = folder / (name + ".partial")
            with archive.open(member) as source, open(partial, "wb") as target:
                shutil.copyfileobj(source, target, length=1 << 20)
    except zipfile.BadZipFile:
        raise ValueError(f"The download is no zip file; expected the archive of CoreNLP {VERSION}.") from None
    return partial.replace(folder / name)


def _coco_lib_folders() -> list[Path]:
    """The folder where pycocoevalcap's own SPICE keeps the files."""
    try:
        return [find_coco_file("spice/spice-1.0.jar").parent / "lib"]
    except MetricUnavailableError:
        return []


def main(arguments: list[str] | None = None) -> int:
    """Download CoreNLP from the command line.

    Args:
        arguments: command line; that of the program when left out.
    Returns:
        exit status.
    """
    parser = argparse.ArgumentParser(prog=DOWNLOAD_LINE, description="Download the parser that SPICE needs.")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "corenlp", help="where the files go")
    options = parser.parse_args(arguments)
    try:
        paths = download_corenlp(options.folder, ask=not options.yes)
    except (OSError, ValueError, urllib.error.URLError) as error:
        print(f"{DOWNLOAD_LINE}: {error}", file=sys.stderr)
        return 1
    for path in paths:
        print(path)
    return 0 if paths else 1


if __name__ == "__main__":
    sys.exit(main())
