"""Makes the Auto classes and `pipeline` of transformers know EnCLAP, without importing them before the user does.

Registering needs modules of transformers that import torch and take seconds. So each registration waits until its
module is imported, by the user or by transformers itself, and runs right after; at once where that has happened.
"""

import importlib
import importlib.abc
import importlib.util
import sys


def _register_config() -> None:
    from transformers import AutoConfig

    from .configuration_enclap import EnClapConfig

    AutoConfig.register(EnClapConfig.model_type, EnClapConfig, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

    from .configuration_enclap import EnClapConfig
    from .modeling_enclap import EnClapForConditionalGeneration, EnClapModel

    AutoModel.register(EnClapConfig, EnClapModel, exist_ok=True)
    for auto_class in (AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq):
        auto_class.register(EnClapConfig, EnClapForConditionalGeneration, exist_ok=True)


def _register_feature_extractor() -> None:
    from transformers import AutoFeatureExtractor

    from .configuration_enclap import EnClapConfig
    from .feature_extraction_enclap import EnClapFeatureExtractor

    AutoFeatureExtractor.register(EnClapConfig, EnClapFeatureExtractor, exist_ok=True)


def _register_processor() -> None:
    from transformers import AutoProcessor

    from .configuration_enclap import EnClapConfig
    from .processing_enclap import EnClapProcessor

    AutoProcessor.register(EnClapConfig, EnClapProcessor, exist_ok=True)


def _register_pipeline() -> None:
    from .pipeline import register_audio_captioning

    register_audio_captioning()


REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractor,
    "transformers.models.auto.processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
}


class _RegistrationFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of `REGISTRATIONS` as usual, and has their registration run after them."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in REGISTRATIONS:
            return None
        sys.meta_path.remove(self)  # the other finders know the module
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, REGISTRATIONS[fullname])
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """A module's own loader, followed by a registration."""

    def __init__(self, loader: importlib.abc.Loader, register):
        self._loader, self._register = loader, register

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._register()


def register_with_transformers() -> None:
    """Register EnCLAP with what is imported of transformers already, and with the rest as it comes."""
    for module_name, register in REGISTRATIONS.items():
        if module_name in sys.modules:
            register()
    if not any(isinstance(finder, _RegistrationFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegistrationFinder())
