"""What a caller gets of a recording's pieces: one result for all of it, or a row for each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .recordings import RecordingState

# What a caption has beside its text.
NUMBERS = ("score", "confidence")


@dataclass(frozen=True)
class CaptionedPiece:
    """A whole recording or a window of one, and what came of it.

    Args:
        index: the recording's place among all.
        name: of its file; None where it is no file.
        result: a dict or, for n-best, a list of them, as the pipeline returns for a recording;
            `{"text": None, "error": reason}` where it failed; None for a mark where a long recording ends.
        start_s, end_s: the part of the recording that the caption is for; None where that is not known.
        is_windowed: whether the recording was cut.
        is_end: whether the recording ends here.
        state: of the file, before it was read.
        stated_s: its length by its header, 0 where that states none.
    """

    index: int
    name: str | None
    result: dict | list[dict] | None
    start_s: float | None
    end_s: float | None
    is_windowed: bool
    is_end: bool
    state: RecordingState
    stated_s: float

    @property
    def captions(self) -> list[dict]:
        """Its captions, best first, or the one dict that says why there are none; empty for a mark."""
        return self.result if isinstance(self.result, list) else [] if self.result is None else [self.result]


def join_pieces(pieces: list[CaptionedPiece], with_chunks: bool) -> dict | list[dict]:
    """The result for a recording.

    Its text is that of its windows in order, each sentence once, joined by a space; score and confidence are the means
    of theirs, each counted by the seconds that it stands for. For n-best without chunks, of the n-th captions of each
    window likewise.

    Args:
        pieces: of one recording, all of them.
        with_chunks: whether `chunks` come with it: `timestamp` (start, end) in seconds of the recording, and what the
            caption of such a window would be, for n-best with all `captions`.
    """
    marked = [piece for piece in pieces if piece.result is not None]
    if not with_chunks and not any(piece.is_windowed for piece in pieces):
        return marked[0].result
    num_captions = 1 if with_chunks else max((len(piece.captions) for piece in marked), default=1)
    joined = [join_rank(marked, rank) for rank in range(num_captions)]
    if with_chunks:
        joined[0]["chunks"] = [make_chunk(piece) for piece in marked]
    return joined[0] if num_captions == 1 else joined


def join_rank(pieces: list[CaptionedPiece], rank: int) -> dict:
    """Text and score of the captions that came at one rank of each piece, or at its last."""
    chosen = [(piece, piece.captions[min(rank, len(piece.captions) - 1)]) for piece in pieces]
    errors = [entry["error"] for _, entry in chosen if "error" in entry]
    scored = [(entry, length_of(piece)) for piece, entry in chosen if entry.get("score") is not None]
    texts = [entry["text"] for _, entry in chosen if entry["text"]]
    unsure = [entry["confidence"] for _, entry in chosen if "confidence" in entry and not entry["text"]]
    if not scored and not errors and unsure:
        result = {"text": "", "confidence": max(unsure)}
    elif not scored:
        result = {"text": None} if errors else {"text": "", "silent": True}
    else:
        total = math.fsum(length for _, length in scored)
        result = {"text": " ".join(dict.fromkeys(texts))}
        for name in NUMBERS:
            if name in scored[0][0]:
                result[name] = math.fsum(entry[name] * length for entry, length in scored) / total
    return {**result, "error": errors[-1]} if errors else result


def length_of(piece: CaptionedPiece) -> float:
    """Seconds that a caption stands for; 1 where its recording's length is not known."""
    return 1.0 if piece.start_s is None else piece.end_s - piece.start_s


def make_chunk(piece: CaptionedPiece) -> dict:
    """One window as transformers' speech recognition gives it."""
    end_s = None if "error" in piece.captions[0] and piece.start_s == piece.end_s else piece.end_s
    chunk = {"timestamp": (piece.start_s, end_s), **piece.captions[0]}
    if len(piece.captions) > 1:
        chunk["captions"] = piece.captions
    return chunk


def make_row(piece: CaptionedPiece) -> dict:
    """A piece as a row of a table: file_name, start_s, end_s, duration_s, caption, score, confidence, silent, error.

    Only what is known is in it; for n-best, `captions` holds all of them as the pipeline gives them.
    """
    best, row = piece.captions[0], {}
    if piece.name is not None:
        row["file_name"] = piece.name
    if piece.start_s is not None:
        row["start_s"] = piece.start_s
        if "error" not in best or piece.start_s != piece.end_s:
            row.update(end_s=piece.end_s, duration_s=piece.end_s - piece.start_s)
    if "error" in best:
        return {**row, "error": best["error"]}
    row.update(caption=best["text"], **{name: best[name] for name in NUMBERS if name in best})
    row["silent"] = bool(best.get("silent", False))
    if len(piece.captions) > 1:
        row["captions"] = piece.captions
    return row


def group_pieces(pieces: Iterator[CaptionedPiece]) -> Iterator[tuple[int, list[CaptionedPiece]]]:
    """Recordings with all their pieces, in the order in which they are done."""
    waiting: dict[int, list[CaptionedPiece]] = {}
    for piece in pieces:
        waiting.setdefault(piece.index, []).append(piece)
        if piece.is_end:
            yield piece.index, waiting.pop(piece.index)


def put_in_order(results: Iterator[tuple[int, object]]) -> Iterator[object]:
    """Results by index as they come, given out in the order of the indices."""
    waiting, next_index = {}, 0
    for index, result in results:
        waiting[index] = result
        while next_index in waiting:
            yield waiting.pop(next_index)
            next_index += 1


class Results:
    """Results that come one by one, and their number where it is known."""

    def __init__(self, results: Iterator, length: int | None):
        self._results, self._length = results, length

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        return next(self._results)

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("The number of recordings in a stream is not known before its end.")
        return self._length

    def close(self) -> None:
        """Stop, and close what is being read."""
        self._results.close()
