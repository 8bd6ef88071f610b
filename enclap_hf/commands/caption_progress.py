"""What `enclap caption` shows while it runs and says at its end."""

import argparse
import math
import sys
from collections.abc import Iterator

from ..model.caption_results import CaptionedPiece
from ..model.recordings import read_duration_s
from .caption_rows import STANDARD_INPUT
from .caption_targets import Target

# Up to so many recordings are looked at before the first is read, to know how much sound there is.
MOST_MEASURED = 64


class Report:
    """Counts what came of the recordings."""

    def __init__(self):
        self.heard_s = math.inf  # of a recording, where it is not cut
        self.num_captioned = self.num_silent = self.num_failed = self.num_long = self.num_unsure = 0
        self._begun: dict[int, set[str]] = {}

    def add(self, piece: CaptionedPiece) -> None:
        """Count a piece, and at its last one a recording."""
        found = self._begun.setdefault(piece.index, set())
        for entry in piece.captions[:1]:
            is_unsure = entry["text"] == "" and not entry.keys() & {"silent", "score"}
            fate = "failed" if "error" in entry else "silent" if entry.get("silent") else "captioned"
            found.add("unsure" if is_unsure else fate)
        if not piece.is_end:
            return
        del self._begun[piece.index]
        if "failed" in found:
            self.num_failed += 1
        elif found == {"silent"}:
            self.num_silent += 1
        else:
            self.num_captioned += 1
            self.num_unsure += "captioned" not in found
            self.num_long += not piece.is_windowed and piece.stated_s > self.heard_s

    def summarise(self, args: argparse.Namespace, target: Target) -> Iterator[str]:
        """Lines that end the run."""
        if self.num_long:
            yield (
                f"{count_recordings(self.num_long)} {'is' if self.num_long == 1 else 'are'} longer than the "
                f"{self.heard_s:.1f} s that the model hears at once: only the beginning is captioned, as "
                "--chunk-length-s 0 asks."
            )
        if self.num_silent:
            silent = f"{count_recordings(self.num_silent)} {'is' if self.num_silent == 1 else 'are'} silent"
            yield f"{silent} (no sample above {args.silence_dbfs:g} dBFS) and got no caption."
        if self.num_unsure:
            yield (
                f"{count_recordings(self.num_unsure)} got no caption, for want of one with a confidence of at least "
                f"{args.min_confidence:g}."
            )
        if target.path:
            failed = f"; {self.num_failed} failed" if self.num_failed else ""
            yield f"Captioned {count_recordings(self.num_captioned)} into {target.path}{failed}."


def count_recordings(number: int) -> str:
    """A number of recordings in words."""
    return "1 recording" if number == 1 else f"{number} recordings"


class Progress:
    """A bar of recordings, or of seconds of sound where some of few are long.

    Args:
        args: of the command.
        target: where captions go; a bar between printed captions would break their lines.
        paths: the recordings.
        limit_s: recordings longer than this are cut.
        go_on_at: by place, the second at which a recording goes on.
    """

    def __init__(
        self, args: argparse.Namespace, target: Target, paths: list[str], limit_s: float, go_on_at: dict[int, float]
    ):
        from tqdm import tqdm

        hides = args.quiet or (target.path is None and sys.stdout.isatty()) or not sys.stderr.isatty()
        self._places: dict[int, float] = dict(go_on_at)
        lengths_s = [] if hides or len(paths) > MOST_MEASURED else [read_duration_s(path) for path in paths]
        self._counts_seconds = max(lengths_s, default=0) > limit_s or paths == [STANDARD_INPUT]
        if self._counts_seconds:
            unit = {"unit": "s of sound", "total": round(sum(lengths_s)) or None}
            self.bar = tqdm(disable=hides, initial=round(sum(go_on_at.values())), **unit)
        else:
            self.bar = tqdm(disable=hides, unit="clip", total=len(paths))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def update(self, piece: CaptionedPiece) -> None:
        """Go on by a piece."""
        if not self._counts_seconds:
            self.bar.update(piece.is_end)
            return
        before = self._places.get(piece.index, 0.0)
        place = max(before, piece.end_s or 0.0, piece.stated_s if piece.is_end else 0.0)
        self._places[piece.index] = place
        self.bar.update(round(place) - round(before))
