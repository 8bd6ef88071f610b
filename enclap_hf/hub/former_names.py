"""Modules by the names that they had in version 0.1, so that scripts written for it run.

Each former name is an alias: importing it warns and gives the very module that has its content.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from types import ModuleType

PACKAGE = __name__.partition(".")[0]
_MODEL: tuple[str, ...] = (
    "audio_loading",
    "codec_encoder",
    "configuration_enclap",
    "encoder_enclap",
    "feature_extraction_enclap",
)
_MODEL += ("generation_enclap", "handler", "losses_enclap", "modeling_enclap", "onednn_linear", "pipeline")
_MODEL += ("processing_enclap",)
_DATA: tuple[str, ...] = (
    "caption_clips",
    "caption_folders",
    "caption_tables",
    "captioning_data",
    "excluded_clips",
    "feature_shards",
)
_DATA += ("prepared_features", "table_files")
# Former name below the package -> where its content is.
FORMER_NAMES = {
    **{name: f"model.{name}" for name in _MODEL},
    **{f"training.{name}": f"data.{name}" for name in _DATA},
    **{f"metrics.{name}": f"data.{name}" for name in ("caption_files", "caption_matching")},
    "audio_files": "data.audio_files",
    "data_collator": "training.data_collator",
    "hub_export": "hub.export",
    "model_card": "hub.model_card",
    "model_card_makers": "hub.model_card_makers",
    "original": "conversion.original_packages",
}


class FormerNameFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of this package by their former names."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != PACKAGE or name not in FORMER_NAMES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        former = str(module.__name__)
        name = f"{PACKAGE}.{FORMER_NAMES[former.partition('.')[2]]}"
        warnings.warn(f"`{former}` is `{name}`; import it by that name.", DeprecationWarning, stacklevel=2)
        sys.modules[former] = importlib.import_module(name)


def register_former_names() -> None:
    """Let the import system know the former names, after all others."""
    if not any(isinstance(finder, FormerNameFinder) for finder in sys.meta_path):
        sys.meta_path.append(FormerNameFinder())
