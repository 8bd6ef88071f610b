"""How much memory a Java process may take: half of what this process may use."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

GIB = 1 << 30
# Where the machine does not say what it has. SPICE is content with half of it.
UNKNOWN_HEAP = "2g"
_HEAP_PATTERN = re.compile(r"[1-9][0-9]*[kKmMgGtT]?")


def choose_heap(at_most: int = 8 * GIB) -> str:
    """Choose the limit of a Java heap for this process.

    Args:
        at_most: upper bound, in bytes.
    Returns:
        half of the memory that the process may use, as Java's option -Xmx takes it.
    """
    num_bytes = usable_memory()
    return UNKNOWN_HEAP if num_bytes is None else f"{max(1, min(num_bytes // 2, at_most) >> 20)}m"


def check_heap(java_heap: str) -> str:
    """Refuse what Java would not take as a limit.

    Args:
        java_heap: limit as Java's option -Xmx takes it.
    Returns:
        `java_heap`.
    Raises:
        ValueError: it is something else.
    """
    if _HEAP_PATTERN.fullmatch(java_heap) is None:
        raise ValueError(
            f"Got {java_heap!r} as the memory limit of Java; expected a whole number with k, m or g behind it, such as "
            "4g."
        )
    return java_heap


def usable_memory(root: Path = Path("/")) -> int | None:
    """Find out how much memory this process may use.

    Args:
        root: folder with `proc` and `sys`.
    Returns:
        bytes: the least of the machine's memory, the limits of the control groups that the process is in, and its own
        limit of addresses. None where nothing is known.
    """
    return min([*_machine_memory(), *_control_group_limits(root), *_address_limit()], default=None)


def _machine_memory() -> Iterator[int]:
    """The machine's memory; Windows does not say it this way."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        num_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if num_bytes > 0:
            yield num_bytes


def _address_limit() -> Iterator[int]:
    """The limit that `ulimit -v` sets."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft not in (resource.RLIM_INFINITY, -1):
            yield soft


def _control_group_limits(root: Path) -> Iterator[int]:
    """The limits of the process's control group and of all groups above it, in either version of the interface."""
    mounts = root / "sys" / "fs" / "cgroup"
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            mount, name = mounts, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = mounts / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the group's path may be that of the host, of which only the top is mounted here.
        inner = mount / group.strip("/")
        for folder in (inner, *inner.parents):
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text(encoding="ascii"))
            if folder == mount:
                break
