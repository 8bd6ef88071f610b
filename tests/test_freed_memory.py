"""A process that keeps its freed memory gets no new pages for tensors of the sizes that it had before."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from enclap_hf.freed_memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None

def write_tensors():
    tensors = [torch.empty(7_000_000).fill_(1.0) for _ in range(3)]  # 28 MB each

for _ in range(8):  # until each has found its place
    write_tensors()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    write_tensors()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 5 * 3 * 28_000_000 // 4096


def run(word: str, **variables: str) -> tuple[str, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"THP_MEM_ALLOC_ENABLE": "0", **variables}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM, word], env=environment, capture_output=True, text=True, check=True
    ).stdout
    kept, faults = output.split()
    return kept, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_written_again_without_asking_the_system_for_pages():
    kept, faults = run("keep")
    if kept == "False":
        pytest.skip("the allocator is not glibc's")
    assert faults < PAGES / 20
    assert run("leave")[1] > PAGES / 2


def test_variables_of_the_user_are_left_as_they_are():
    assert run("keep", MALLOC_TOP_PAD_="131072")[0] == "False"
