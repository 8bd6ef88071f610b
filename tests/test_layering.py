"""Imports go down only, the files that travel with a model are flat, and every public name is there."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import enclap_hf
from enclap_hf.hub_export import CODE_FILES, MODEL_AUTO_MAP, PROCESSOR_AUTO_MAP, REQUIREMENTS

PACKAGE = Path(enclap_hf.__file__).parent
# From the bottom up. A module that is not named stands as low as its own imports let it, below the package's names.
LAYERS = (
    {"version", "configuration_enclap", "audio_loading", "codec_encoder", "audio_encoders", "feature_extraction_enclap"}
    | {"data_collator", "generation_enclap", "hub_export", "metrics", "sound_scenes"},
    {"modeling_enclap", "processing_enclap"},
    {"pipeline"},
    {"auto_registration", "__init__"},
    {"demo", "training"},
    {"commands"},
    {"cli", "__main__"},
)
NAMES_LAYER = 3
MODULES = sorted(
    {path.stem for path in PACKAGE.glob("*.py")}
    | {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"__pycache__"}
)


@cache
def find_imports(module: str) -> frozenset[str]:
    """Modules of the package that a module imports anywhere, also inside its functions."""
    folder = PACKAGE / module
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]
    found = set()
    for file in files:
        depth = len(file.relative_to(PACKAGE).parts)  # dots that lead to the package itself
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name.split(".") for alias in node.names]
                found.update((name[1:] or ["__init__"])[0] for name in names if name[0] == "enclap_hf")
            elif isinstance(node, ast.ImportFrom):
                path = (node.module or "").split(".") if node.module else []
                if node.level == 0 and path[:1] == ["enclap_hf"]:
                    path = path[1:]
                elif node.level != depth:
                    continue
                aliases = [alias.name if alias.name in MODULES else "__init__" for alias in node.names]
                found.update(path[:1] or aliases)
    return frozenset(found - {module})


def rank(module: str, above: tuple[str, ...] = ()) -> int:
    assert module not in above, f"imports run in a circle: {' -> '.join((*above, module))}"
    for number, names in enumerate(LAYERS):
        if module in names:
            return number
    return max((rank(name, (*above, module)) for name in find_imports(module)), default=0)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    own = rank(module)
    named = any(module in names for names in LAYERS)
    assert named or own < NAMES_LAYER, f"{module} imports {sorted(find_imports(module))}; give it a layer"
    for name in find_imports(module):
        assert name in MODULES, f"{module} imports {name}, which the package does not have"
        assert rank(name) <= own, f"{module} (layer {own}) imports {name} (layer {rank(name)})"


def test_imports_run_in_no_circle():
    def walk(module, above):
        assert module not in above, f"imports run in a circle: {' -> '.join((*above, module))}"
        if module not in seen:
            for name in find_imports(module):
                walk(name, (*above, module))
            seen.add(module)

    seen = set()
    for module in MODULES:
        walk(module, ())


def test_the_graph_is_the_packages_own():
    """The tests above would pass on a graph without edges."""
    assert {"configuration_enclap"} <= find_imports("modeling_enclap")
    assert {"audio_encoders", "data_collator", "feature_extraction_enclap"} <= find_imports("processing_enclap")
    assert {"__init__", "audio_loading", "pipeline"} <= find_imports("commands")


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not {"utils", "common", "helpers", "misc"} & set(MODULES)


@pytest.mark.parametrize("file", CODE_FILES)
def test_files_that_travel_with_a_model_import_each_other_flatly(file):
    """transformers copies what `from .x import y` names, one level deep, and wants other packages installed.

    `from . import hub_export` it does not follow: that stays with the package, and is never reached without it.
    """
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    installed = {requirement.split(">")[0] for requirement in REQUIREMENTS} | {"huggingface_hub", "safetensors"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in tree.body and node.module is None:
            assert [alias.name for alias in node.names] == ["hub_export"], f"{file}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, f"{file}:{node.lineno}"
            assert f"{node.module}.py" in CODE_FILES, f"{file}:{node.lineno}"
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            root = name.split(".")[0]
            assert root in sys.stdlib_module_names or root in installed, f"{file}:{node.lineno} imports {name}"


def test_files_that_transformers_starts_from_name_all_that_they_need():
    """transformers 5.0 copies the files that such a file imports itself, but not what those import in turn."""
    entries = {entry.split(".")[0] for entry in (*MODEL_AUTO_MAP.values(), *PROCESSOR_AUTO_MAP.values())} | {"pipeline"}
    for entry in entries:
        for name in find_imports(entry):
            assert find_imports(name) <= find_imports(entry), f"{entry} imports {name}, which imports more"


def test_examples_import_public_names_only():
    for script in sorted((PACKAGE.parent / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "enclap_hf":
                assert not any(alias.name.startswith("_") for alias in node.names), f"{script.name}:{node.lineno}"
