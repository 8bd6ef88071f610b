"""What the metrics warn of while they are computed, said by a command in its own way."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

PACKAGE = __name__.rpartition(".")[0]


class _NoteHandler(logging.Handler):
    """Hands each warning to a function."""

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextlib.contextmanager
def warnings_as_notes(say: Callable[[str], object]) -> Iterator[None]:
    """Hand the metrics' warnings to a function, but for those of metrics that are left out: the result names them.

    Args:
        say: what takes each warning, one line.
    """
    logger = logging.getLogger(PACKAGE)
    left_out = logging.getLogger(f"{PACKAGE}.audio_captioning_metrics")
    handler, propagate, level = _NoteHandler(say), logger.propagate, left_out.level
    logger.addHandler(handler)
    logger.propagate = False
    left_out.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        left_out.setLevel(level)
