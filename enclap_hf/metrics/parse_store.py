"""What SPICE keeps between calls: lines in two files, each with a checksum, appended as they come.

A line is `checksum <tab> JSON`. The checksum also covers the fingerprint of the parser, and the files lie in a folder
of that name, so what another parser made is never met. A line that does not fit its checksum counts as not there.

Each line is written by one call, in append mode, and begins with a line end of its own: lines of two processes do not
mix, and a line that was cut short, by a full disk or a killed process, spoils none that comes after it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

_PARSES_FILE = "parses.txt"
_SCORES_FILE = "scores.txt"
_CHECKSUM_DIGITS = 16
Tuples = list[list[str]]


class ParseStore:
    """Parses of captions, and scores of clips, of one version of the parser.

    A store that cannot be read or written costs time, never a score: it warns once and goes on without.

    Args:
        folder: where stores of all parsers lie.
        fingerprint: names the parser.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint
        self._fingerprint = fingerprint
        self._has_warned = False
        self._handles: dict[str, int] = {}

    def __enter__(self) -> ParseStore:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    @property
    def works(self) -> bool:
        """Whether all could be read and written so far."""
        return not self._has_warned

    def read_parses(self) -> dict[str, Tuples]:
        """Read what was parsed before.

        Returns:
            tuples by caption.
        """
        return dict(self._read(_PARSES_FILE))

    def read_scores(self) -> dict[str, float]:
        """Read what was scored before.

        Returns:
            F scores by `clip_key`.
        """
        return {key: float(score) for key, score in self._read(_SCORES_FILE)}

    def add_parse(self, caption: str, tuples: Tuples) -> None:
        """Keep a parse.

        Args:
            caption: as it was parsed.
            tuples: of one to three words each.
        """
        self._append(_PARSES_FILE, [[caption, tuples]])

    def add_scores(self, scores: dict[str, float]) -> None:
        """Keep scores.

        Args:
            scores: F scores by `clip_key`.
        """
        self._append(_SCORES_FILE, list(scores.items()))

    def _read(self, name: str) -> Iterator[list]:
        """The entries of a file that fit their checksums."""
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self._warn("read", error)
            return
        num_spoiled = 0
        for line in content.split(b"\n"):
            checksum, _, text = line.partition(b"\t")
            if checksum == self._checksum(text) and text:
                yield json.loads(text)
            elif line:
                num_spoiled += 1
        if num_spoiled:
            logger.info("%d lines of %s are damaged; what they held is computed again", num_spoiled, self.folder / name)

    def _append(self, name: str, entries: Sequence) -> None:
        """Add entries to a file, all in one call of the system."""
        lines = []
        for entry in entries:
            text = json.dumps(entry).encode("ascii")
            lines.append(b"\n" + self._checksum(text) + b"\t" + text + b"\n")
        data = b"".join(lines)
        if self._has_warned or not data:
            return
        try:
            if name not in self._handles:
                self.folder.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
                self._handles[name] = os.open(self.folder / name, flags, 0o644)
            num_written = os.write(self._handles[name], data)
            if num_written < len(data):
                # Only a full disk or a quota cuts a write to a file short; writing the rest says which.
                os.write(self._handles[name], data[num_written:])
        except OSError as error:
            self._warn("written", error)

    def _checksum(self, text: bytes) -> bytes:
        """The first digits of a line."""
        digest = hashlib.sha256(self._fingerprint.encode("ascii") + b"\n" + text).hexdigest()
        return digest[:_CHECKSUM_DIGITS].encode("ascii")

    def _warn(self, what: str, error: OSError) -> None:
        """Say once that the store does not work."""
        if not self._has_warned:
            logger.warning(
                "SPICE's cache cannot be %s: %s; scores are computed all the same, parses are not kept. "
                "`ENCLAP_CACHE` names another folder",
                what,
                error,
            )
        self._has_warned = True


def clip_key(candidate: str, references: Sequence[str]) -> str:
    """Name a candidate together with its references.

    Args:
        candidate: tokenised caption.
        references: its tokenised references. Their order is part of the name: SPICE merges words that share a synonym
            into the first one, so that another order can give another score.
    Returns:
        a digest.
    """
    return hashlib.sha256(json.dumps([candidate, *references]).encode("ascii")).hexdigest()[:32]
