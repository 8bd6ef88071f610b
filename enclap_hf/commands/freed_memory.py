"""Freed memory that a process keeps for its next tensors, instead of handing it back to the system after each.

Memory that comes anew from the system is cleared page by page when first written, which takes longer than most
operations that write it: a beam search, whose scores of all words are some megabytes at each step, gains a tenth.
For programs (the command line, the scripts in `examples/`): how a process treats its memory is not a library's choice.
"""

import ctypes
import os
import sys

# glibc's `mallopt`: its parameters' numbers, the largest block it will keep, and a bound that is never reached.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_KEPT_BYTES, NEVER_BYTES = 32 * 1024**2, 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks of up to 32 MB; call it once, before the first tensor.

    Returns:
        whether it does; it does not where the allocator is not glibc's, or is set by `MALLOC_...` variables.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # as with musl
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(TRIM_THRESHOLD, NEVER_BYTES))
