"""The parser that SPICE needs: Stanford CoreNLP 3.6.0, which comes with no Python package.

    python -m enclap_hf.metrics.corenlp            # says the size, asks, downloads, keeps what SPICE loads
    python -m enclap_hf.metrics.corenlp --yes

    mvn dependency:get -Dartifact=edu.stanford.nlp:stanford-corenlp:3.6.0
    mvn dependency:get -Dartifact=edu.stanford.nlp:stanford-corenlp:3.6.0:jar:models

Either way the files are found afterwards. Whoever has them already sets `ENCLAP_CORENLP` to their folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .corenlp_files import DOWNLOAD_LINE, FILE_NAMES, VERSION
from .java_runtime import MetricUnavailableError, find_coco_file


def cache_folder() -> Path:
    """Folder for what the metrics keep between calls.

    Returns:
        `ENCLAP_CACHE` where it is set, else `enclap-hf` in the user's cache folder, or in the temporary one for a user
        without a home. It may not exist yet.
    """
    chosen = os.environ.get("ENCLAP_CACHE")
    if chosen:
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME")
    if caches:
        return Path(caches) / "enclap-hf"
    home = _home()
    return (home / ".cache" if home else Path(tempfile.gettempdir())) / "enclap-hf"


def find_corenlp() -> tuple[Path, Path]:
    """Find CoreNLP's program and models.

    Returns:
        paths of the two files, both in one folder: that of `ENCLAP_CORENLP`, else where the download command puts them,
        pycocoevalcap's own, or the local Maven repository.
    Raises:
        MetricUnavailableError: a file is missing; the message names it and how to get it.
    """
    chosen = os.environ.get("ENCLAP_CORENLP")
    folders = [Path(chosen)] if chosen else [cache_folder() / "corenlp", *_coco_lib_folders(), *_maven_folders()]
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


def _coco_lib_folders() -> list[Path]:
    """The folder where pycocoevalcap's own SPICE keeps the files."""
    try:
        return [find_coco_file("spice/spice-1.0.jar").parent / "lib"]
    except MetricUnavailableError:
        return []


def _maven_folders() -> list[Path]:
    """Where `mvn dependency:get` puts the files."""
    home = _home()
    return [home / ".m2" / "repository" / "edu" / "stanford" / "nlp" / "stanford-corenlp" / VERSION] if home else []


def _home() -> Path | None:
    """The user's home; a container's users need not have one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Download CoreNLP from the command line.

    Args:
        arguments: command line; that of the program when left out.
    Returns:
        exit status: 0, or 1 when nothing was downloaded, or 130 when interrupted.
    """
    from .corenlp_download import URL, download_corenlp

    parser = argparse.ArgumentParser(prog=DOWNLOAD_LINE, description="Download the parser that SPICE needs.")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.add_argument("--url", default=URL, help="folder with the two files on a mirror (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "corenlp", help="where the files go")
    options = parser.parse_args(arguments)
    try:
        paths = download_corenlp(
            options.folder,
            url=options.url.rstrip("/"),
            ask=not options.yes,
            show_progress=False if options.quiet else None,
        )
    except (OSError, ValueError, EOFError) as error:
        print(f"{DOWNLOAD_LINE}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{DOWNLOAD_LINE}: interrupted; run it again to go on from here.", file=sys.stderr)
        return 130
    for path in paths:
        print(path)
    return 0 if paths else 1


if __name__ == "__main__":
    sys.exit(main())
