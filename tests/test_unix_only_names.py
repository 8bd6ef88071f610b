"""The package loads on Windows: what only Unix has is asked for before it is used."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import enclap_hf

PACKAGE = Path(enclap_hf.__file__).parent
MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog")
NAMES = {
    "os": (
        *("fork", "forkpty", "killpg", "getpgid", "setsid", "getuid", "geteuid", "getgid", "sched_getaffinity"),
        *("sysconf", "register_at_fork", "mkfifo", "uname", "nice", "wait", "WIFEXITED", "statvfs", "fchmod", "chown"),
    ),
    "signal": ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGQUIT", "SIGXFSZ", "alarm", "pthread_sigmask"),
}

# Other packages are loaded first: how they manage on Windows is theirs.
LOAD_ALL = """
import contextlib, importlib, os, pkgutil, signal, sys, types
for name in ("av", "datasets", "gradio", "onnxruntime", "evaluate"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
import numpy, scipy, soundfile, soxr, torch, transformers, yaml
import torch.utils.data, transformers.pipelines, transformers.trainer_seq2seq, multiprocessing.pool, uuid, asyncio, pty
MODULES, NAMES = eval(sys.argv[1])
for name in MODULES:
    sys.modules[name] = None
for module, names in NAMES.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
import enclap_hf
loaded = 0
for module in pkgutil.walk_packages(enclap_hf.__path__, "enclap_hf."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        loaded += 1
    except ImportError as error:  # of what is not installed here
        if any(repr(name) in str(error) for name in MODULES) or any(f"{name} " in str(error) for name in MODULES):
            raise
from enclap_hf.training.report import StepTimes, describe_training, measure_peak_memory_gib
print(loaded, measure_peak_memory_gib(), StepTimes().summarize(), describe_training({"train_step_time_s": 1.0}, "loss"))
"""


def test_every_module_loads_without_what_only_unix_has():
    command = [sys.executable, "-c", LOAD_ALL, repr((MODULES, NAMES))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ.copy())
    assert done.returncode == 0, done.stderr[-2000:]
    loaded, *rest = done.stdout.split(maxsplit=1)
    assert int(loaded) > 100 and rest == ["None {} ['Median step 1.000 s.']\n"]


def find_unguarded(source: str) -> list[str]:
    """Uses of what only Unix has that neither ask whether it is there nor catch that it is not."""

    def is_guarded(node) -> bool:
        while node is not None:
            text = ast.unparse(node.test) if isinstance(node, (ast.If, ast.IfExp)) else ""
            if isinstance(node, ast.Try) or "hasattr" in text or "is not None" in text or "sys.platform" in text:
                return True
            if isinstance(node, ast.With) and "suppress" in ast.unparse(node.items[0]):
                return True
            if isinstance(node, ast.BoolOp) and "hasattr" in ast.unparse(node):
                return True
            node = parents.get(node)
        return False

    tree, found = ast.parse(source), []
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        used = [name for name in names if name in MODULES]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used += [f"{node.value.id}.{node.attr}"] if node.attr in NAMES.get(node.value.id, ()) else []
        found += [f"{name} in line {node.lineno}" for name in used if not is_guarded(node)]
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_only_unix_has_is_asked_for_first(file):
    assert find_unguarded(file.read_text(encoding="utf-8")) == []


def test_an_unguarded_use_is_found():
    assert find_unguarded("import resource\nimport os\nos.fork()") == ["resource in line 1", "os.fork in line 3"]
    assert find_unguarded("import os\nif hasattr(os, 'fork'):\n    os.fork()") == []
    assert find_unguarded("try:\n    import fcntl\nexcept ImportError:\n    fcntl = None") == []
