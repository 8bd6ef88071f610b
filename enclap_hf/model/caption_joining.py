"""Neighbours whose captions say the same, as one: for segments that were cut only because they became too long.

Two captions say the same when they have the same words in the same order, apart from function words, phrases that only
say that something is heard, and the endings of words: "A dog barks.", "The sound of a dog barking" and "You can hear a
dog barking." do, "A dog barks, then a cat meows." and the reverse do not. Of other languages than English, captions
that have the same words do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .caption_results import NUMBERS, CaptionedPiece

# Words that carry no sound.
IDLE_WORDS = {
    "a", "an", "the", "is", "are", "was", "were", "be", "being", "been", "there", "that", "which", "it", "its",
    "this", "some", "someone", "something", "sound", "sounds", "sounding", "noise", "of", "can", "heard", "you", "we",
    "i", "hear", "hears", "in", "on", "at", "to",
}  # fmt: skip
ENDINGS = ("ing", "es", "ed", "s", "e")
SHORTEST_STEM = 2


def join_equal_neighbours(pieces: Iterable[CaptionedPiece]) -> Iterator[CaptionedPiece]:
    """Join neighbouring segments of a recording whose captions say the same, or that are silent.

    A joined segment has no longest length: it ends where another caption, a failure or the end of the recording comes,
    and is given out then. Its score and confidence are the means of theirs, each counted by its seconds; its wording is
    that of whichever scored better when the two were joined. Of n-best, each rank has to say the same.

    Args:
        pieces: of any number of recordings; those of one in order. Recordings that were not cut pass as they are.
    """
    waiting: dict[int, CaptionedPiece] = {}
    for piece in pieces:
        before = waiting.pop(piece.index, None)
        if before is not None and can_join(before, piece):
            piece, before = join_two(before, piece), None
        if before is not None:
            yield before
        if piece.is_windowed and not piece.is_end:
            waiting[piece.index] = piece
        else:
            yield piece
    yield from waiting.values()


def can_join(before: CaptionedPiece, behind: CaptionedPiece) -> bool:
    """Whether two neighbours of one recording have captions that say the same, or are both silent."""
    if len(before.captions) != len(behind.captions) or not before.captions or before.end_s != behind.start_s:
        return False
    for one, other in zip(before.captions, behind.captions, strict=True):
        if "error" in one or "error" in other or one.get("silent") != other.get("silent"):
            return False
        if read_words(one["text"]) != read_words(other["text"]):
            return False
    return True


def join_two(before: CaptionedPiece, behind: CaptionedPiece) -> CaptionedPiece:
    """Both as one piece."""
    lengths = [piece.end_s - piece.start_s for piece in (before, behind)]
    captions = []
    for one, other in zip(before.captions, behind.captions, strict=True):
        if one.get("score") is None or other.get("score") is None:
            captions.append(one)
            continue
        total = sum(lengths) or 1.0
        means = {
            name: (one[name] * lengths[0] + other[name] * lengths[1]) / total
            for name in NUMBERS
            if name in one and name in other
        }
        captions.append({**(one if one["score"] >= other["score"] else other), **means})
    result = captions if isinstance(before.result, list) else captions[0]
    return replace(behind, start_s=before.start_s, result=result)


def read_words(caption: str) -> list[str]:
    """What a caption says: its words without endings, those that carry no sound left out."""
    words = re.findall(r"\w+", caption.casefold())
    return [strip_ending(word) for word in words if word not in IDLE_WORDS]


def strip_ending(word: str) -> str:
    """ "barking", "barks" and "bark" alike; no stem of a dictionary."""
    ending = next((end for end in ENDINGS if word.endswith(end) and len(word) - len(end) >= SHORTEST_STEM), "")
    word = word.removesuffix(ending)
    if len(word) > SHORTEST_STEM and word[-1] == word[-2]:  # strumming, strums
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word  # flying, flies
