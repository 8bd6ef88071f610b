"""EnCLAP audio captioning, native to Hugging Face.

Public names are loaded when first used, so that `import enclap_hf` stays light. The Auto classes and
`pipeline("audio-captioning")` know EnCLAP from this import on, see `hub/registration.py`.
"""

import importlib
from typing import Any

from .hub.former_names import register_former_names
from .hub.registration import DEFAULT_MODEL, register_with_transformers
from .version import __version__

_MODULE_OF_NAME = {
    "AudioCaptioningMetrics": "metrics",
    "AudioCaptioningPipeline": "model.pipeline",
    "AudioLoadError": "model.audio_loading",
    "DataCollatorForEnClap": "training.data_collator",
    "EnClapConfig": "model.configuration_enclap",
    "EnClapFeatureExtractor": "model.feature_extraction_enclap",
    "EnClapForConditionalGeneration": "model.modeling_enclap",
    "EnClapModel": "model.modeling_enclap",
    "EnClapProcessor": "model.processing_enclap",
    "EnClapTrainer": "training.trainer",
    "load_audio": "model.audio_loading",
    "make_scene": "sound_scenes",
    "register_frame_encoder": "model.frame_encoder_families",
}

__all__ = ["DEFAULT_MODEL", "__version__", *_MODULE_OF_NAME]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF_NAME])


register_with_transformers()
register_former_names()
