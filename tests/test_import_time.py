"""What is imported, and so how long a command waits before it does anything."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import enclap_hf
from enclap_hf import DEFAULT_MODEL

KNOCKING = os.path.join(DEFAULT_MODEL, "sounds", "knocking.mp3")
# Libraries of training, scoring, the demo and other ways to run a captioner.
NOT_FOR_CAPTIONING = ("datasets", "evaluate", "sklearn", "pandas", "pyarrow", "gradio", "librosa", "onnxruntime")
BASE = "import torch; from transformers import BartForConditionalGeneration"


def run_and_list(code: str) -> list[str]:
    """Run code in a process of its own; returns what its last line prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def list_roots(statement: str) -> str:
    return f"{statement}\nimport json, sys; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_help_imports_no_library(arguments):
    code = f"from enclap_hf.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    others = {"torch", "transformers", "numpy", "scipy", "soundfile", "huggingface_hub", "tqdm"}
    assert not others & set(run_and_list(list_roots(code)))


def test_importing_the_package_imports_neither_torch_nor_transformers():
    assert not {"torch", "transformers", "numpy"} & set(run_and_list(list_roots("import enclap_hf")))


def test_captioning_imports_what_it_uses():
    """transformers itself imports scipy and scikit-learn where it finds them; nothing of that is ours."""
    code = (
        f"{BASE}\nimport sys; before = {{name.split('.')[0] for name in sys.modules}}\n"
        f"from enclap_hf.cli import main; assert main(['caption', {KNOCKING!r}, '--device', 'cpu']) == 0\n"
        "import json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules} - before)))"
    )
    added = set(run_and_list(code))
    assert "enclap_hf" in added
    assert not (set(NOT_FOR_CAPTIONING) | {"scipy", "matplotlib", "tensorboard"}) & added
    assert (
        not added
        - sys.stdlib_module_names
        - {"enclap_hf"}
        - {"soundfile", "_soundfile", "soxr", "tqdm", "_cffi_backend"}
    )


def test_type_checkers_see_every_public_name():
    """What `__getattr__` loads they cannot see, so the names stand there twice."""
    source = Path(enclap_hf.__file__).read_text(encoding="utf-8")
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    named = {alias.name: f"enclap_hf.{line.module}" for line in block.body for alias in line.names}
    assert set(named) == set(enclap_hf.__all__) - {"DEFAULT_MODEL", "__version__"}
    for name, module in named.items():
        assert getattr(importlib.import_module(module), name) is getattr(enclap_hf, name)
