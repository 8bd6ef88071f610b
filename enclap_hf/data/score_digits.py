"""How many decimals of scores have to be shown so that scores that differ look different."""

from collections.abc import Iterable

# Single precision scores have no more than these behind the point that mean anything.
MOST_DIGITS = 9


def count_digits(scores: Iterable[float], fewest: int) -> int:
    """Decimals that keep different scores apart, `fewest` where those do.

    Args:
        scores: of the captions of one recording.
        fewest: decimals that are shown in any case.
    Returns:
        at least `fewest`; more only as far as single precision reaches.
    """
    different = set(scores)
    for digits in range(fewest, MOST_DIGITS):
        if len({round(score, digits) for score in different}) == len(different):
            return digits
    return max(fewest, MOST_DIGITS)
