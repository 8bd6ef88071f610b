"""What the readers of caption data hand on: clips, clips that cannot be used, and the error of a whole data set."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# Bad clips that a message names; all of them are in the log.
_NUM_NAMED = 3


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


def check_bad_share(bad: Sequence[BadClip], num_clips: int, max_share: float, where: str) -> None:
    """List clips that cannot be used, and refuse a data set that has too many of them.

    Args:
        bad: clips left out.
        num_clips: clips of the data set, these included.
        max_share: share that may be left out, 0 to 1.
        where: the data set's name.
    Raises:
        CaptionDataError: more than `max_share` of the clips are bad.
    """
    if not bad:
        return
    for clip in bad:
        logger.warning("%s: %s left out: %s", where, clip.name, clip.reason)
    named = "; ".join(f"{clip.name}: {clip.reason}" for clip in bad[:_NUM_NAMED])
    more = f"; and {len(bad) - _NUM_NAMED} more in the log" if len(bad) > _NUM_NAMED else ""
    summary = f"{where}: {len(bad)} of {num_clips} clips cannot be used ({named}{more})"
    if len(bad) > max_share * num_clips:
        raise CaptionDataError(
            f"{summary}; allowed are {max_share:.1%}. Repair them, or allow more with `max_bad_share`."
        )
    logger.warning("%s; they are skipped.", summary)


def check_not_empty(clips: Sequence[Clip], bad: Sequence[BadClip], where: str) -> None:
    """Raise CaptionDataError where a data set has no clip that can be used.

    Raises:
        CaptionDataError: there is none.
    """
    if not len(clips):
        reason = f" The first of {len(bad)} bad ones: {bad[0].name}: {bad[0].reason}." if bad else ""
        raise CaptionDataError(f"{where} has no usable clip.{reason}")
