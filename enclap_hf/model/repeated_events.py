"""Finds captions that name one event twice as if it were two: "A large dog barking and a dog barking at the same time."

A caption is cut into its clauses, and of each the words that tell what sounds are kept, without their endings. Two
clauses with the same words, or where one has all but an adjective of the other's, name the same event. "A dog barks,
then a bell rings, then a dog barks" does not: an event may come back after another one.
"""

import re

from .caption_joining import IDLE_WORDS, strip_ending
from .consensus import split_words

# Where one event's clause ends and the next begins.
_CONNECTORS = re.compile(
    r"[,;.]|\b(?:and|then|while|as|with|followed by|before|after|afterwards|finally|first|together|in addition to|"
    r"along with|accompanied by|over|at the same time)\b"
)
_IN_TURN = re.compile(r"\b(?:then|followed|before|after|afterwards|again|finally)\b")
# Words that say nothing of what sounds, beside those that carry no sound.
_EMPTY_WORDS = IDLE_WORDS | set(
    split_words(
        "somebody from by for their his her they he she who could noises audible listen same time background distance "
        "foreground behind nearby away once twice again times two three four several many multiple few other another "
        "one more softly loudly quietly loud quiet faint faintly soft repeatedly continuously intermittently slowly "
        "quickly high low pitched starts begins ends stops continues"
    )
)


def names_event_twice(caption: str) -> bool:
    """Whether two clauses of a caption name the same event.

    Args:
        caption: one sentence.
    """
    text = caption.lower()
    events = [find_event_words(clause) for clause in _CONNECTORS.split(text)]
    events = [event for event in events if event]
    furthest = 1 if _IN_TURN.search(text) else len(events)
    return any(
        is_same_event(first, second)
        for place, first in enumerate(events)
        for second in events[place + 1 : place + 1 + furthest]
    )


def find_event_words(clause: str) -> frozenset[str]:
    """Stems of the words of a clause that tell what sounds."""
    return frozenset(strip_ending(word) for word in split_words(clause) if word not in _EMPTY_WORDS)


def is_same_event(first: frozenset[str], second: frozenset[str]) -> bool:
    """Whether the words of two clauses are the same, or one has one more, as "large dog bark" has than "dog bark"."""
    smaller, larger = sorted((first, second), key=len)
    return smaller <= larger and len(larger) - len(smaller) <= (len(smaller) > 1)
