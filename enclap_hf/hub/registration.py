"""Makes the Auto classes and `pipeline` of transformers know EnCLAP, without importing them before the user does.

Registering needs modules of transformers that import torch and take seconds. So `import enclap_hf` only arranges that
the registries of transformers, once they exist, register EnCLAP the first time that anybody looks something up.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

# The model inside the package: a complete repository that knows synthesised sounds.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFAULT_MODEL = os.path.join(PACKAGE, "default_model")

# Modules of transformers, and the registries in them: objects that look names up in one of their dicts.
REGISTRIES = {
    "transformers.models.auto.configuration_auto": {"CONFIG_MAPPING": "_extra_content"},
    "transformers.models.auto.modeling_auto": {
        "MODEL_MAPPING": "_extra_content",
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING": "_extra_content",
        "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING": "_extra_content",
    },
    "transformers.models.auto.feature_extraction_auto": {"FEATURE_EXTRACTOR_MAPPING": "_extra_content"},
    "transformers.models.auto.processing_auto": {"PROCESSOR_MAPPING": "_extra_content"},
    "transformers.pipelines": {"PIPELINE_REGISTRY": "supported_tasks"},
}


class _AskedDict(dict):
    """A registry's dict that registers EnCLAP before it first answers."""

    def __contains__(self, key: object) -> bool:
        register_once()
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        register_once()
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        register_once()
        return super().__iter__()

    def get(self, key: Any, default: Any = None) -> Any:
        register_once()
        return super().get(key, default)

    def keys(self) -> Any:
        register_once()
        return super().keys()

    def values(self) -> Any:
        register_once()
        return super().values()

    def items(self) -> Any:
        register_once()
        return super().items()


_is_registered = False
# Held by the thread that registers; others that look something up meanwhile wait for it.
_REGISTERING = threading.RLock()
_is_registering = False


def register_once() -> None:
    """Register EnCLAP everywhere, unless that has happened or transformers is in the middle of an import."""
    global _is_registered, _is_registering
    if _is_registered or _transformers_is_importing():
        return
    with _REGISTERING:
        if _is_registered or _is_registering:  # by this very thread: registering asks the registries itself
            return
        _is_registering = True
        try:
            _register_all()
            _is_registered = True
        finally:
            _is_registering = False


def _transformers_is_importing() -> bool:
    """Whether this thread is in the middle of a module of transformers: what that needs cannot be imported then.

    What another thread imports, the import system waits for.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__")).startswith("transformers"):
            return True
        frame = frame.f_back
    return False


def _register_all() -> None:
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForSeq2SeqLM,
        AutoModelForSpeechSeq2Seq,
        AutoProcessor,
    )

    from ..model.configuration_enclap import EnClapConfig
    from ..model.feature_extraction_enclap import EnClapFeatureExtractor
    from ..model.modeling_enclap import EnClapForConditionalGeneration, EnClapModel
    from ..model.pipeline import register_audio_captioning
    from ..model.processing_enclap import EnClapProcessor

    AutoConfig.register(EnClapConfig.model_type, EnClapConfig, exist_ok=True)
    AutoModel.register(EnClapConfig, EnClapModel, exist_ok=True)
    AutoModelForSeq2SeqLM.register(EnClapConfig, EnClapForConditionalGeneration, exist_ok=True)
    AutoModelForSpeechSeq2Seq.register(EnClapConfig, EnClapForConditionalGeneration, exist_ok=True)
    AutoFeatureExtractor.register(EnClapConfig, EnClapFeatureExtractor, exist_ok=True)
    AutoProcessor.register(EnClapConfig, EnClapProcessor, exist_ok=True)
    register_audio_captioning(DEFAULT_MODEL)


def _arrange(module: ModuleType) -> None:
    """Put an `_AskedDict` in the place of each of a module's registry dicts."""
    for registry_name, dict_name in REGISTRIES[module.__name__].items():
        registry = getattr(module, registry_name)
        setattr(registry, dict_name, _AskedDict(getattr(registry, dict_name)))


class _RegistryFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of `REGISTRIES` as usual, and arranges their registries once they are executed."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in REGISTRIES:
            return None
        sys.meta_path.remove(self)  # the other finders know the module
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _ArrangingLoader(spec.loader)
        return spec


class _ArrangingLoader(importlib.abc.Loader):
    """A module's own loader, followed by `_arrange`."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _arrange(module)


def register_with_transformers() -> None:
    """Arrange the registries that are imported already, and the others as they come."""
    if any(isinstance(finder, _RegistryFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _RegistryFinder())
    for module_name in REGISTRIES:
        if module_name in sys.modules:
            _arrange(sys.modules[module_name])
