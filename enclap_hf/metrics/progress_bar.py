"""The bar that long computations show on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

_UNKNOWN_SIZE = {"ncols": 80, "nrows": 24}


def open_bar(show_progress: bool | None = None, **options: Any) -> Any:
    """Open a bar.

    Args:
        show_progress: whether to show it; on a terminal when left out.
        options: of tqdm, such as `total`, `unit` and `desc`.
    Returns:
        a tqdm bar, which is a context manager.
    """
    from tqdm import tqdm

    disable = None if show_progress is None else not show_progress
    return tqdm(disable=disable, **({} if _knows_its_size() else _UNKNOWN_SIZE), **options)


def _knows_its_size() -> bool:
    """Whether the terminal says how large it is: on one that says 0, tqdm would show nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):  # no terminal; tqdm has its own way
        return True
