"""What the metrics accept, checked once before any of them starts."""

from __future__ import annotations

from collections.abc import Sequence


def check_captions(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Check that every clip has one caption and at least one reference that says something.

    Args:
        predictions: one caption a clip; an empty one is allowed and scores 0.
        references: for each clip, a list of references.
    Raises:
        TypeError: `predictions` or `references` is a string, or holds something that is not a string.
        ValueError: lists of unequal length, no clip at all, or a clip without references.
    """
    for name, value in (("predictions", predictions), ("references", references)):
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise TypeError(f"Got {_shorten(value)} as `{name}`; expected a list with one entry a clip.")
    if len(predictions) != len(references):
        raise ValueError(
            f"Got {len(predictions)} predictions and {len(references)} lists of references; expected one each a "
            "clip. Give them in the same order and without gaps."
        )
    if len(predictions) == 0:
        raise ValueError("Got no clips; expected at least one prediction with its references.")
    for clip, (prediction, clip_references) in enumerate(zip(predictions, references, strict=True)):
        _check_caption(prediction, f"the prediction of clip {clip}")
        _check_references(clip_references, clip)


def _check_references(references: Sequence[str], clip: int) -> None:
    """Check the references of one clip."""
    if isinstance(references, str) or not hasattr(references, "__len__"):
        raise TypeError(
            f"Got {_shorten(references)} as references of clip {clip}; expected a list of strings, also of one."
        )
    if len(references) == 0:
        raise ValueError(f"Got no references for clip {clip}; expected at least one. Leave the clip out of both lists.")
    for index, reference in enumerate(references):
        _check_caption(reference, f"reference {index} of clip {clip}")
        if not reference.strip():
            raise ValueError(
                f"Got an empty string as reference {index} of clip {clip}; expected a sentence. Leave empty ones out."
            )


def _check_caption(caption: str, name: str) -> None:
    if not isinstance(caption, str):
        raise TypeError(f"Got {_shorten(caption)} as {name}; expected a string.")


def _shorten(value: object) -> str:
    """A value for a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
