"""Names for captions in messages, and how long the parser needs for long ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONG_WORDS = 80
_NUM_NAMED = 20
# Measured on one core of a server: 100 words take a quarter of a minute, 300 five minutes.
_SECONDS_FOR_100_WORDS = 15.0
_GROWTH = 2.7


class CaptionNames:
    """Where each caption comes from, for messages.

    Args:
        candidates: one caption a clip.
        references: for each clip, its references.
        clip_names: one a clip; its number, counted from 1, when left out.
    """

    def __init__(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]], clip_names: Sequence[str] | None = None
    ) -> None:
        self._names: dict[str, str] = {}
        clips = (
            [repr(name) for name in clip_names] if clip_names else [f"number {n + 1}" for n in range(len(candidates))]
        )
        for clip, candidate in zip(clips, candidates, strict=True):
            self._names.setdefault(candidate, f"the caption of clip {clip}")
        for clip, captions in zip(clips, references, strict=True):
            for caption in captions:
                self._names.setdefault(caption, f"a reference of clip {clip}")

    def describe(self, caption: str) -> str:
        """Say where a caption comes from and how long it is.

        Args:
            caption: one of the captions.
        Returns:
            for example "the caption of clip 'rain.wav' (95 words)".
        """
        return f"{self._names[caption]} ({count_words(caption)} words)"

    def name_long(self, captions: Iterable[str]) -> list[str]:
        """Name the captions that the parser needs long for.

        Args:
            captions: those that will be parsed.
        Returns:
            a sentence for each; where there are many, one for the longest and one for all others.
        """
        captions = sorted(filter(is_long, captions), key=count_words, reverse=True)
        sentences = [
            f"SPICE: parsing {self.describe(caption)} takes about {describe_time(estimate_parse_s(caption))}; it is "
            "parsed after the shorter ones"
            for caption in captions[:_NUM_NAMED]
        ]
        if len(captions) > _NUM_NAMED:
            total = describe_time(sum(map(estimate_parse_s, captions[_NUM_NAMED:])))
            sentences.append(
                f"SPICE: {len(captions) - _NUM_NAMED} more captions have over {LONG_WORDS} words; parsing them takes "
                f"about {total} of one core"
            )
        return sentences


def count_words(caption: str) -> int:
    """Count the words of a tokenised caption.

    Args:
        caption: tokens joined by blanks.
    Returns:
        how many there are.
    """
    return len(caption.split())


def is_long(caption: str) -> bool:
    """Say whether a caption alone takes the parser many seconds.

    Args:
        caption: tokens joined by blanks.
    Returns:
        whether it does.
    """
    return count_words(caption) > LONG_WORDS


def estimate_parse_s(caption: str) -> float:
    """Estimate how long the parser needs for a caption.

    Args:
        caption: tokens joined by blanks.
    Returns:
        seconds, roughly.
    """
    return _SECONDS_FOR_100_WORDS * (count_words(caption) / 100) ** _GROWTH


def describe_time(seconds: float) -> str:
    """Write a rough time as people say it.

    Args:
        seconds: the time.
    Returns:
        for example "40 s", "5 min" or "2 h".
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
