"""How much memory is left, so that a recording too long for it is refused instead of ending the process."""

from __future__ import annotations

import os

from .audio_errors import audio_error

# Needs below this are not worth looking up what is free.
_SMALL_BYTES = 256 << 20
# Where a container's limit on memory stands: (limit, used, statistics).
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def check_memory(num_bytes: float, label: str, purpose: str) -> None:
    """Refuse what would not fit.

    Args:
        num_bytes: about to be taken.
        label: what messages call the recording.
        purpose: what they are for, as in "its samples".
    Raises:
        AudioLoadError: less is free. Where the system does not say what is free (other than Linux), nothing is refused.
    """
    if num_bytes < _SMALL_BYTES:
        return
    available = find_available_bytes()
    if available is not None and num_bytes > available:
        raise audio_error(
            label,
            f"{purpose} would take {num_bytes / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free.",
            "Split it, or set `max_duration_s`.",
        )


def find_available_bytes() -> int | None:
    """Memory that this process may still take, by the machine and by its container; None where Linux is not asked."""
    available = []
    machine = _read_table("/proc/meminfo").get("MemAvailable")
    if machine is not None:
        available.append(1024 * machine)
    for limit_file, used_file, statistics_file in _CONTROL_GROUPS:
        limit, used = _read_number(limit_file), _read_number(used_file)
        if limit is not None and used is not None:
            # Pages of files that were read count as used, and are given up first.
            available.append(max(0, limit - used + _read_table(statistics_file).get("inactive_file", 0)))
    return min(available, default=None)


def _read_number(path: str) -> int | None:
    """The number in a file; None where there is none ("max")."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _read_table(path: str) -> dict[str, int]:
    """Lines of a name and a number; empty where the file is missing."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="ascii") as file:
            rows = [line.replace(":", " ").split() for line in file]
        return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
    except OSError:
        return {}
