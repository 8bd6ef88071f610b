"""What the readers of caption data hand on: clips, clips that cannot be used, and the error of a whole data set."""

from dataclasses import dataclass


class CaptionDataError(ValueError):
    """A data set cannot be used. The message is one line: what came, what is expected, what to do."""


@dataclass(frozen=True)
class Clip:
    """A recording with its captions.

    Args:
        name: what tables and messages call it; unique in its data set.
        audio: a path, or {"bytes", "path"} as `datasets` holds undecoded audio.
        captions: at least one.
    """

    name: str
    audio: str | dict
    captions: tuple[str, ...]


@dataclass(frozen=True)
class BadClip:
    """A recording that cannot be used, and why."""

    name: str
    reason: str
