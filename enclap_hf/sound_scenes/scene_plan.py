"""Planning of synthetic scenes: which relation, which kinds and how long, before anything is synthesised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .scene_captions import RELATIONS
from .sound_kinds import SOUND_KINDS, SoundKind

MIN_SCENE_S, MAX_SCENE_S = 3.5, 7.0
GAP_S = 0.35  # room that a sequence keeps for each gap between two events
EVENT_SHARES = {1: 0.35, 2: 0.40, 3: 0.25}
RELATION_SHARES = {"then": 0.4, "while": 0.25, "background": 0.35}


@dataclass(frozen=True)
class ScenePlan:
    """What a scene will hold: its relation, kinds in order of time (a background last) and length in s."""

    relation: str
    kinds: tuple[SoundKind, ...]
    duration_s: float


def check_request(num_events: int, relation: str | None, kinds: Sequence[str] | None, duration_s: float | None) -> None:
    """Refuse requests that no scene can meet.

    Raises:
        ValueError: an unknown name, a number out of range, or a contradiction.
    """
    if kinds is not None:
        unknown = sorted(set(kinds) - set(SOUND_KINDS))
        if unknown:
            raise ValueError(f"Got unknown kinds {unknown}; expected names from SOUND_KINDS: {', '.join(SOUND_KINDS)}.")
        if len(set(kinds)) < max(len(kinds), num_events):
            raise ValueError(
                f"Got `kinds` {tuple(kinds)} for {num_events} events; name at least as many different kinds."
            )
    if num_events not in EVENT_SHARES:
        raise ValueError(f"Got {num_events} events; a scene holds 1, 2 or 3. Choose another `num_events`.")
    if relation is not None and relation not in RELATIONS:
        raise ValueError(f"Got `relation` {relation!r}; expected one of {', '.join(RELATIONS)}.")
    if relation is not None and (relation == "single") != (num_events == 1):
        raise ValueError(f"Got `relation` {relation!r} with {num_events} events; `single` goes with one event only.")
    if duration_s is not None and not 1.0 <= duration_s <= 60.0:
        raise ValueError(f"Got `duration_s` {duration_s}; expected 1 to 60 s.")


def _draw_relation(rng: np.random.Generator, num_events: int, can_be_background: bool) -> str:
    """Draw how several events relate."""
    if num_events == 1:
        return "single"
    names = [name for name in RELATION_SHARES if can_be_background or name != "background"]
    shares = np.array([RELATION_SHARES[name] for name in names])
    return str(rng.choice(names, p=shares / shares.sum()))


def _draw_num_events(rng: np.random.Generator, relation: str | None) -> int:
    """Draw how many events a scene gets."""
    numbers = [number for number in EVENT_SHARES if relation is None or (relation == "single") == (number == 1)]
    shares = np.array([EVENT_SHARES[number] for number in numbers])
    return int(rng.choice(numbers, p=shares / shares.sum()))


def shortest_s(kind: SoundKind) -> float:
    """Return the shortest time in s that an event of `kind` is given."""
    return max(0.9, kind.longest_s(kind.counts[0]))


def needed_s(relation: str, kinds: Sequence[SoundKind]) -> float:
    """Return the shortest scene in s in which the events can be recognised."""
    shortest = [shortest_s(kind) for kind in kinds]
    if relation == "then":
        return sum(shortest) + GAP_S * len(kinds)
    if relation == "background":
        return max(sum(shortest[:-1]) + GAP_S * len(kinds), shortest[-1] + GAP_S)
    return max(shortest) + 0.5


def _audible_together(relation: str, kinds: Sequence[SoundKind]) -> bool:
    """Tell whether no event would hide another one."""
    if relation == "background":
        return kinds[-1].continuous and all(kind.mask_group != kinds[-1].mask_group for kind in kinds[:-1])
    if relation == "while":
        groups = {kind.mask_group for kind in kinds}
        # A sound that ends by itself cannot last through the others.
        return len(groups) == len(kinds) and all(kind.max_s == float("inf") for kind in kinds)
    return True


def _draw_kinds(rng: np.random.Generator, pool: Sequence[str], relation: str, num_events: int) -> tuple[SoundKind, ...]:
    """Draw different kinds; for a background, the last one is continuous."""
    last = []
    if relation == "background":
        last = [rng.choice([name for name in pool if SOUND_KINDS[name].continuous])]
    others = [name for name in pool if name not in last]
    first = rng.choice(others, num_events - len(last), replace=False)
    return tuple(SOUND_KINDS[str(name)] for name in (*first, *last))


def plan_scene(
    rng: np.random.Generator,
    num_events: int | None,
    relation: str | None,
    kinds: Sequence[str] | None,
    duration_s: float | None,
) -> ScenePlan:
    """Draw what is not given of a scene: relation, kinds and duration.

    Args:
        rng: the only randomness used here.
        num_events: 1 to 3, or None.
        relation: how the events relate, or None.
        kinds: the kinds in order, or a longer list to draw from, or None for all.
        duration_s: length in s, or None.
    Returns:
        `ScenePlan`.
    Raises:
        ValueError: what is given does not go together.
    """
    if num_events is None:
        num_events = len(kinds) if kinds is not None and len(kinds) <= 3 else _draw_num_events(rng, relation)
    check_request(num_events, relation, kinds, duration_s)
    pool = tuple(SOUND_KINDS) if kinds is None else tuple(kinds)
    exact = len(pool) == num_events
    can_be_background = any(SOUND_KINDS[name].continuous for name in (pool[-1:] if exact else pool))
    if relation == "background" and not can_be_background:
        raise ValueError(f"Got kinds {pool} for `background`; the last must be continuous, such as rain or wind.")
    relation = relation or _draw_relation(rng, num_events, can_be_background)
    for _ in range(1 if exact else 200):
        chosen = tuple(SOUND_KINDS[name] for name in pool) if exact else _draw_kinds(rng, pool, relation, num_events)
        shortest = needed_s(relation, chosen)
        if (duration_s is None or shortest <= duration_s) and (exact or _audible_together(relation, chosen)):
            return ScenePlan(relation, chosen, duration_s or max(rng.uniform(MIN_SCENE_S, MAX_SCENE_S), shortest))
    raise ValueError(
        f"Found no scene of {duration_s} s with relation `{relation}` from {len(pool)} kinds; the last try needed "
        f"{shortest:.1f} s. Ask for a longer `duration_s`, or name other kinds."
    )
