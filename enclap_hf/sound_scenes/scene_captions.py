"""The caption grammar of synthetic scenes, and the parser that reads kinds, relation, order and counts back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .sound_kinds import SOUND_KINDS

RELATIONS = ("single", "then", "while", "background")
COUNT_WORDS = {2: "twice", 3: "three times", 4: "four times"}

# F is a clause ("a dog barks"), G a phrase ("a dog barking"); the number is the event's place in the scene. In
# "background" the last event is the background.
TEMPLATES: dict[tuple[str, int], tuple[str, ...]] = {
    ("single", 1): (
        "{F1}",
        "{G1}",
        "The sound of {G1}",
        "{G1} can be heard",
        "You can hear {G1}",
        "There is the sound of {G1}",
    ),
    ("then", 2): (
        "{F1}, then {F2}",
        "{F1} and then {F2}",
        "{F1}, followed by {G2}",
        "{F1} before {F2}",
        "After {F1}, {F2}",
        "{F2} after {F1}",
        "{F1}, and afterwards {F2}",
        "First {F1}, then {F2}",
    ),
    ("then", 3): (
        "{F1}, then {F2}, then {F3}",
        "{F1}, followed by {G2} and then {G3}",
        "First {F1}, then {F2}, and finally {F3}",
        "{F1}, then {F2} before {F3}",
        "After {F1}, {F2}, and then {F3}",
        "{F1} and then {F2}, followed by {G3}",
        "{F1}, {F2}, and afterwards {F3}",
    ),
    ("while", 2): (
        "{F1} while {F2}",
        "{F1} as {F2}",
        "While {F1}, {F2}",
        "{F1} at the same time as {G2}",
        "{G1} together with {G2}",
        "{G1} and {G2} at the same time",
    ),
    ("while", 3): (
        "{F1} while {F2} and {F3}",
        "{F1} as {F2} and {F3}",
        "While {F1}, {F2} and {F3}",
        "{G1} together with {G2} and {G3}",
        "{G1}, {G2} and {G3} at the same time",
        "{F1} at the same time as {G2} and {G3}",
    ),
    ("background", 2): (
        "{F1} with {G2} in the background",
        "{F1} while {F2} in the background",
        "{F1} as {F2} in the distance",
        "In the background {F2} while {F1}",
        "{G1} with {G2} behind it",
        "{G2} in the background as {F1}",
    ),
    ("background", 3): (
        "{F1}, then {F2}, with {G3} in the background",
        "{F1} and then {F2} while {F3} in the background",
        "{F1}, followed by {G2}, with {G3} in the distance",
        "In the background {F3} while {F1} and then {F2}",
        "{F1} before {F2}, with {G3} behind it",
        "With {G3} in the background, {F1}, then {F2}",
    ),
}

_KEYWORDS = {name: re.compile(kind.keyword) for name, kind in SOUND_KINDS.items()}
_COUNTS = {
    2: re.compile(r"\btwice\b|\btwo times\b"),
    3: re.compile(r"\bthree times\b"),
    4: re.compile(r"\bfour times\b"),
}
# Asked in this order: "A, then B, while C in the background" is a background.
_RELATION_PATTERNS = (
    ("background", re.compile(r"\bbackground\b|\bdistance\b|\bbehind\b")),
    ("then", re.compile(r"\bthen\b|\bfollowed by\b|\bbefore\b|\bafter\b|\bafterwards?\b|\bfinally\b")),
    ("while", re.compile(r"\bwhile\b|\bas\b|\bat the same time\b|\btogether\b|\bat once\b")),
)


@dataclass(frozen=True)
class ParsedCaption:
    """What a caption says: `kinds` (in order of time for "then", else as named), `relation` and `counts` by kind."""

    kinds: tuple[str, ...]
    relation: str | None
    counts: dict[str, int] = field(default_factory=dict)


def write_captions(
    rng: np.random.Generator, relation: str, kinds: Sequence[str], counts: Sequence[int | None], num_captions: int = 5
) -> tuple[str, ...]:
    """Write differently worded captions of one scene.

    Args:
        rng: draws templates, wordings and whether a count is told.
        relation: one of `RELATIONS`.
        kinds: the placed kinds in order of time; the background, if any, last.
        counts: strokes of each event, None where they are not counted. 2 to 4 can be told.
        num_captions: how many captions, at most as many as the relation has templates.
    Returns:
        `num_captions` different sentences.
    Raises:
        ValueError: no template fits `relation` and the number of kinds, or too many captions are asked for.
    """
    templates = TEMPLATES.get((relation, len(kinds)), ())
    if num_captions > len(templates):
        raise ValueError(
            f"Got relation `{relation}` with {len(kinds)} kinds and {num_captions} captions; there are "
            f"{len(templates)} templates for it. Choose another relation, or fewer captions."
        )
    captions = []
    for index in rng.permutation(len(templates))[:num_captions]:
        slots: dict[str, str] = {}
        for place, (name, count) in enumerate(zip(kinds, counts, strict=True), start=1):
            kind = SOUND_KINDS[name]
            choice = rng.integers(len(kind.clauses))
            told = f" {COUNT_WORDS[count]}" if count in COUNT_WORDS and rng.random() < 0.5 else ""
            slots |= {f"F{place}": kind.clauses[choice] + told, f"G{place}": kind.phrases[choice] + told}
        sentence = templates[index].format(**slots)
        captions.append(sentence[0].upper() + sentence[1:] + ".")
    return tuple(captions)


def _positions(text: str) -> list[tuple[int, str]]:
    """Return (position, kind) of every mention, in text order."""
    return sorted((match.start(), name) for name, pattern in _KEYWORDS.items() for match in pattern.finditer(text))


def _find_counts(text: str, mentions: list[tuple[int, str]]) -> dict[str, int]:
    """Give each count word to the kind mentioned last before it."""
    counts: dict[str, int] = {}
    for count, pattern in _COUNTS.items():
        for match in pattern.finditer(text):
            before = [name for position, name in mentions if position < match.start()]
            if before:
                counts.setdefault(before[-1], count)
    return counts


def parse_caption(caption: str) -> ParsedCaption:
    """Read which kinds a caption names, how they relate, and how often they sound.

    Any text will do; unknown words are ignored. "B after A" counts as A, then B.

    Args:
        caption: a sentence.
    Returns:
        `ParsedCaption`. Its relation is "single" for one kind, and None where no kind is named or where no word
        relates several kinds.
    """
    text = caption.lower()
    mentions = _positions(text)
    relation = next((name for name, pattern in _RELATION_PATTERNS if pattern.search(text)), None)
    counts = _find_counts(text, mentions)
    kinds = [name for _, name in mentions]
    if relation == "then":
        # "After A, B" is in order of time already; only "B after A" is turned round.
        inner = re.search(r"(?<=\S )after\b(?! that\b| which\b)", text)
        if inner:
            kinds = [n for p, n in mentions if p > inner.start()] + [n for p, n in mentions if p < inner.start()]
    unique = tuple(dict.fromkeys(kinds))
    if len(unique) < 2:
        relation = "single" if unique else None
    return ParsedCaption(unique, relation, counts)
