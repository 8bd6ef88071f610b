"""Downloads CoreNLP 3.6.0 from Maven's central repository and keeps what SPICE loads: about 100 of 386 MB."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

from .corenlp_files import FILE_NAMES, MODEL_ENTRIES, VERSION
from .progress_bar import open_bar

URL = f"https://repo1.maven.org/maven2/edu/stanford/nlp/stanford-corenlp/{VERSION}"
# As published beside the files.
SHA1 = dict(
    zip(
        FILE_NAMES,
        ("078d130323856e71e4223ab4962a3f86bc98bd8a", "e23de94a12edac0dd04dc67db94d18d8982b516f"),
        strict=True,
    )
)
_MANIFEST = "META-INF/MANIFEST.MF"
_CHUNK = 1 << 20


def download_corenlp(
    folder: Path,
    url: str = URL,
    ask: bool = True,
    show_progress: bool | None = None,
    sha1: Mapping[str, str] = SHA1,
    entries: Collection[str] = MODEL_ENTRIES,
) -> list[Path]:
    """Download CoreNLP's program and models. What was interrupted goes on, if the server allows it.

    Args:
        folder: where they go.
        url: address of the folder with the two files.
        ask: say the size and ask before anything large is transferred.
        show_progress: whether to show a bar; on a terminal when left out.
        sha1: digest of each file as it is on the server.
        entries: those of the models that are kept.
    Returns:
        paths of the files; an empty list when the answer was no.
    Raises:
        OSError: the server does not answer, the connection broke, or the disk is full. What arrived is kept.
        ValueError: what arrived is not what was published. It is removed.
    """
    size = sum(_ask_size(f"{url}/{name}") for name in FILE_NAMES)
    print(
        f"{url}: {size / 1e6:.0f} MB if all is still to come. The program and what SPICE loads of the models are kept "
        f"in {folder}."
    )
    if ask and input("Download it? [y/N] ").strip().lower() not in ("y", "yes"):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in FILE_NAMES:
        path, partial = folder / name, folder / f"{name}.partial"
        paths.append(path)
        if path.is_file() and _compute_sha1(path) == sha1[name]:
            continue
        _fetch(f"{url}/{name}", partial, show_progress)
        _verify(partial, sha1[name])
        if name == FILE_NAMES[1]:
            keep_entries(partial, path, [*entries, _MANIFEST])
            partial.unlink()
        else:
            partial.replace(path)
    return paths


def keep_entries(source: Path, target: Path, entries: Collection[str]) -> None:
    """Write a jar with some of another's entries, their contents unchanged.

    Args:
        source: the jar.
        target: the new jar; it appears when it is whole.
        entries: names; those that the jar lacks are left out.
    Raises:
        ValueError: `source` is not a zip file, or an entry does not fit its checksum.
        OSError: the disk is full.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(unfinished, "w") as new:
            for item in old.infolist():
                if item.filename not in entries:
                    continue
                copy = zipfile.ZipInfo(item.filename, item.date_time)
                copy.compress_type = zipfile.ZIP_DEFLATED
                with old.open(item) as reader, new.open(copy, "w", force_zip64=item.file_size >= 1 << 31) as writer:
                    shutil.copyfileobj(reader, writer, _CHUNK)
                if copy.CRC != item.CRC:
                    raise ValueError(f"{item.filename} of {source} changed while it was copied.")
        unfinished.replace(target)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source} is not a whole zip file: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _ask_size(url: str) -> int:
    """Size of a file on the server, in bytes; 0 where it does not say."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
        return int(answer.headers.get("Content-Length") or 0)


def _fetch(url: str, partial: Path, show_progress: bool | None) -> None:
    """Bring the rest of a file, or all of it where the server sends it from the start."""
    num_there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={num_there}-"} if num_there else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and num_there:  # nothing is left to send; the digest says whether it is the file
            return
        raise
    with answer:
        goes_on = getattr(answer, "status", None) == 206 and (answer.headers.get("Content-Range") or "").startswith(
            f"bytes {num_there}-"
        )
        if not goes_on:
            num_there = 0
        length = answer.headers.get("Content-Length")
        total = num_there + int(length) if length else None
        options = {"total": total, "initial": num_there, "unit": "B", "unit_scale": True, "desc": partial.stem}
        with open(partial, "ab" if goes_on else "wb") as file, open_bar(show_progress, **options) as bar:
            try:
                while data := answer.read(_CHUNK):
                    file.write(data)
                    bar.update(len(data))
            except http.client.IncompleteRead as error:
                file.write(error.partial)
    if total is not None and os.path.getsize(partial) < total:
        raise OSError(
            f"the connection broke after {os.path.getsize(partial):,} of {total:,} bytes; run it again to go on"
        )


def _compute_sha1(path: Path) -> str:
    """Digest of a file."""
    digest = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _verify(partial: Path, sha1: str) -> None:
    """Compare a file with its published digest; one that differs is removed, so that the next try starts afresh."""
    digest = _compute_sha1(partial)
    if digest != sha1:
        size = partial.stat().st_size
        partial.unlink()
        raise ValueError(
            f"What arrived ({size:,} bytes) has the SHA-1 {digest}, not {sha1} as published, and was removed; run it "
            "again."
        )
