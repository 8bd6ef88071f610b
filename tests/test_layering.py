"""Imports go down only and run in no circle, what travels with a model is flat, and folders keep their own names."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import enclap_hf
from enclap_hf.model.repository import REQUIREMENTS, add_remote_code, list_code_files, list_entry_files

PACKAGE = Path(enclap_hf.__file__).parent
# Folders of the package from the bottom up; a folder imports those below it, never one beside it.
LAYERS = (
    {"version", "model", "metrics", "sound_scenes"},
    {"data", "hub", "onnx"},
    {"training", "conversion", "bulk"},
    {"demo"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
TOP_LEVEL = {"__init__", "__main__", "cli", "version", "py.typed", "default_model"} | set().union(*LAYERS)
# What a clone shows first; nothing else without a reason.
REPOSITORY = {
    *(".ci", ".github", ".gitignore", ".pre-commit-config.yaml", "pyproject.toml", "setup.py"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"),
    *("constraints.txt", "constraints-oldest.txt", "enclap_hf", "examples", "tests", "model_cards", "docs"),
}
# The package's own names: light, and imported by whoever needs the bundled model or the version.
ROOT = "__init__"


def name_module(file: Path) -> tuple[str, ...]:
    """("model", "pipeline") of enclap_hf/model/pipeline.py; a folder's __init__ is the folder."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


FILES = {name_module(file): file for file in sorted(PACKAGE.rglob("*.py"))}
FOLDERS = sorted({name[0] for name in FILES})


@cache
def find_imports(module: tuple[str, ...]) -> tuple[tuple[tuple[str, ...], tuple[str, ...], int], ...]:
    """Modules of the package that a file imports anywhere, also inside functions, with the names and the line."""
    file, found = FILES[module], []
    package = file.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [
                tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.split(".")[0] == "enclap_hf"
            ]
            found += [(target or (ROOT,), (), node.lineno) for target in targets]
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "enclap_hf"):
            base = package[: len(package) - node.level + 1] if node.level else ()
            path = tuple((node.module or "").split(".")) if node.module else ()
            target = (*base, *(path if node.level else path[1:]))
            for alias in node.names:
                inside = (*target, alias.name)
                found.append((inside if inside in FILES else target or (ROOT,), (alias.name,), node.lineno))
    return tuple(found)


def rank(folder: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if folder in names)


def test_the_top_level_of_the_package_is_the_known_one():
    present = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert present <= TOP_LEVEL, f"{sorted(present - TOP_LEVEL)} has no place in the tree"


@pytest.mark.skipif(not (PACKAGE.parent / ".git").exists(), reason="not a clone")
def test_the_top_level_of_the_repository_is_the_known_one():
    listed = subprocess.run(["git", "ls-files"], cwd=PACKAGE.parent, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in listed.splitlines()} == REPOSITORY


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != ROOT])
def test_imports_go_down_only(folder):
    for module in FILES:
        if module[0] != folder:
            continue
        for target, _, line in find_imports(module):
            other = target[0]
            if other not in (folder, ROOT, "version"):
                assert rank(other) < rank(folder), f"{FILES[module]}:{line}: {folder} imports {other}"


def test_imports_run_in_no_circle():
    def walk(module, above):
        assert module not in above, f"imports run in a circle: {' -> '.join(map('.'.join, (*above, module)))}"
        if module not in seen:
            for target, _, _ in find_imports(module):
                if target != (ROOT,):
                    walk(target, (*above, module))
            seen.add(module)

    seen = set()
    for module in FILES:
        walk(module, ())


def test_no_folder_uses_anothers_underscore_names():
    for module, file in FILES.items():
        for target, names, line in find_imports(module):
            private = [name for name in (*target, *names) if name.startswith("_") and not name.startswith("__")]
            assert target[0] == module[0] or not private, f"{file}:{line} imports {private} of {target[0]}"


def test_the_graph_is_the_packages_own():
    """The tests above would pass on a graph without edges."""

    def imported(*module):
        return {target for target, _, _ in find_imports(module)}

    assert ("model", "configuration_enclap") in imported("model", "modeling_enclap")
    assert ("model", "losses_enclap") in imported("training", "trainer")
    assert ("data", "audio_files") in imported("commands", "caption")


def test_captioning_needs_no_code_of_training():
    for folder in ("model", "demo", "hub"):
        for module in FILES:
            if module[0] == folder:
                assert "training" not in {target[0] for target, _, _ in find_imports(module)}, module
    for module in (("commands", "caption"), ("commands", "captioner_loading"), ("commands", "demo")):
        assert "training" not in {target[0] for target, _, _ in find_imports(module)}, module


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not {"utils", "common", "helpers", "misc"} & {part for module in FILES for part in module}


def test_every_file_of_the_model_folder_travels():
    assert set(list_code_files()) == {path.name for path in (PACKAGE / "model").glob("*.py")} - {"__init__.py"}
    assert {"handler.py", "pipeline.py", "modeling_enclap.py", "repository.py"} <= set(list_code_files())


@pytest.mark.parametrize("file", list_code_files())
def test_files_that_travel_with_a_model_import_each_other_flatly(file):
    """transformers copies what `from .x import y` names, one level deep, and wants other packages installed."""
    tree = ast.parse((PACKAGE / "model" / file).read_text(encoding="utf-8"))
    installed = {requirement.split(">")[0] for requirement in REQUIREMENTS} | {"huggingface_hub", "safetensors"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, f"{file}:{node.lineno}"
            assert f"{node.module}.py" in list_code_files(), f"{file}:{node.lineno}"
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            root = name.split(".")[0]
            assert root in sys.stdlib_module_names or root in installed, f"{file}:{node.lineno} imports {name}"


@pytest.mark.parametrize("entry", list_entry_files())
def test_files_that_transformers_starts_from_name_all_that_travels(entry, tmp_path):
    """transformers 5.0 copies the files that such a file imports itself, but not what those import in turn."""
    from transformers.dynamic_module_utils import get_relative_imports

    add_remote_code(str(tmp_path))
    named = {f"{name}.py" for name in get_relative_imports(tmp_path / entry)}
    assert named | {entry, "handler.py"} == set(list_code_files())
    compile((tmp_path / entry).read_text(), entry, "exec")


def test_examples_import_public_names_only():
    for script in sorted((PACKAGE.parent / "examples").rglob("*.py")):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "enclap_hf":
                assert not any(alias.name.startswith("_") for alias in node.names), f"{script.name}:{node.lineno}"
