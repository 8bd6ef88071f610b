"""The default heap: half of what the process may use, control groups included."""

import subprocess
import sys

import pytest

from enclap_hf.metrics import java_memory
from enclap_hf.metrics.java_memory import GIB, check_heap, choose_heap, usable_memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 GiB, with control groups as files under `root`."""
    monkeypatch.setattr(java_memory, "_machine_memory", lambda: [64 * GIB])
    monkeypatch.setattr(java_memory, "_address_limit", lambda: [])

    def describe(group: str, **limits: str):
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(group)
        for name, limit in limits.items():
            path = tmp_path / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("_max", ".max")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(limit + "\n")
        return usable_memory(tmp_path)

    return describe


def test_a_machine_without_control_groups(machine, tmp_path):
    assert usable_memory(tmp_path) == 64 * GIB


def test_no_limit_is_the_machines_memory(machine):
    assert machine("0::/user\n", user__memory_max="max", memory_max="max") == 64 * GIB


def test_the_limit_of_the_own_group(machine):
    assert machine("0::/user/job\n", user__job__memory_max=str(4 * GIB)) == 4 * GIB


def test_the_limit_of_a_group_above(machine):
    limits = {"user__job__memory_max": str(6 * GIB), "user__memory_max": str(3 * GIB)}
    assert machine("1:cpu:/\n0::/user/job\n", **limits) == 3 * GIB


def test_a_container_that_sees_only_its_own_group(machine):
    """The path is the host's, and its own group is mounted at the top."""
    assert machine("0::/docker/0123456789\n", memory_max=str(2 * GIB)) == 2 * GIB


def test_the_first_version_of_the_interface(machine):
    limits = {"memory__docker__memory.limit_in_bytes": str(5 * GIB), "memory__memory.limit_in_bytes": str(2**63 - 4096)}
    assert machine("5:cpu,cpuacct:/docker\n4:memory:/docker\n", **limits) == 5 * GIB


@pytest.mark.parametrize(
    ("num_bytes", "heap"),
    [(64 * GIB, "8192m"), (16 * GIB, "8192m"), (4 * GIB, "2048m"), (GIB, "512m"), (None, "2g")],
)
def test_half_of_it_and_eight_at_most(monkeypatch, num_bytes, heap):
    monkeypatch.setattr(java_memory, "usable_memory", lambda: num_bytes)
    assert choose_heap() == heap == check_heap(heap)


def test_a_limit_of_addresses_counts():
    pytest.importorskip("resource")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from enclap_hf.metrics.java_memory import usable_memory; print(usable_memory())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert int(run.stdout) <= 3 << 30, run.stderr
