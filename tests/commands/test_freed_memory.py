"""Blocks that a process would map and unmap each time come from memory that it keeps."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys
from enclap_hf.commands.freed_memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]

block = libc.malloc(28_000_000)
begin, end = next(line.split()[0].split("-") for line in open("/proc/self/maps") if "[heap]" in line)
in_heap, top = int(begin, 16) <= block < int(end, 16), libc.sbrk(0)
libc.free(block)
print(kept, in_heap, libc.sbrk(0) == top)
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")


def run(word: str, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", PROGRAM, word]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_a_large_block_is_taken_from_memory_that_stays_with_the_process():
    outcome = run("keep")
    if outcome[0] == "False":
        pytest.skip("the allocator is not glibc's")
    assert outcome == ["True", "True", "True"]
    assert run("leave")[1] == "False"


def test_variables_of_the_user_are_left_as_they_are():
    assert run("keep", MALLOC_TOP_PAD_="131072")[0] == "False"
