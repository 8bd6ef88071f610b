"""What a caption gets right of a scene: events named, their relation, their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .scene_captions import parse_caption
from .scenes import Scene


class CaptionCounts(NamedTuple):
    """What one caption gets right of its scene.

    `hits` events are named and there, `named` are named, `placed` are there. `relation_right` is None where it is not
    judged: it is in scenes of several events that are all named. `order_right` is None but where that relation is
    "then", and right.
    """

    hits: int
    named: int
    placed: int
    relation_right: bool | None
    order_right: bool | None


def count_named_events(scene: Scene, caption: str) -> CaptionCounts:
    """Compare a caption with its scene; its sound is not needed."""
    parsed = parse_caption(caption)
    truth = [event.kind for event in scene.events]
    relation_right = order_right = None
    if len(truth) > 1 and set(truth) <= set(parsed.kinds):
        relation_right = parsed.relation == scene.relation
        if scene.relation == "then" and relation_right:
            order_right = list(parsed.kinds) == truth
    hits = len(set(truth) & set(parsed.kinds))
    return CaptionCounts(hits, len(parsed.kinds), len(truth), relation_right, order_right)


def compute_precision(counts: Sequence[CaptionCounts]) -> float:
    """Share of the named events that are there."""
    return sum(count.hits for count in counts) / max(sum(count.named for count in counts), 1)


def compute_recall(counts: Sequence[CaptionCounts]) -> float:
    """Share of the events that are named."""
    return sum(count.hits for count in counts) / max(sum(count.placed for count in counts), 1)


def compute_share(values: Sequence[bool | None]) -> float:
    """Share of those that are judged which are right; NaN where none is judged."""
    judged = [value for value in values if value is not None]
    return sum(judged) / len(judged) if judged else float("nan")
