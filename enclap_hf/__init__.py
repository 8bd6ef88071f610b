"""EnCLAP audio captioning, native to Hugging Face.

Public names are loaded when first used, so that `import enclap_hf` stays light. The Auto classes and
`pipeline("audio-captioning")` know EnCLAP from this import on, see `hub/registration.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .hub.former_names import register_former_names
from .hub.registration import DEFAULT_MODEL, register_with_transformers
from .version import __version__

if TYPE_CHECKING:  # for editors and type checkers, which do not see what is loaded when first used
    from .metrics.audio_captioning_metrics import AudioCaptioningMetrics as AudioCaptioningMetrics
    from .model.audio_loading import AudioLoadError as AudioLoadError
    from .model.audio_loading import load_audio as load_audio
    from .model.configuration_enclap import EnClapConfig as EnClapConfig
    from .model.feature_extraction_enclap import EnClapFeatureExtractor as EnClapFeatureExtractor
    from .model.frame_encoder_families import register_frame_encoder as register_frame_encoder
    from .model.modeling_enclap import EnClapForConditionalGeneration as EnClapForConditionalGeneration
    from .model.modeling_enclap import EnClapModel as EnClapModel
    from .model.pipeline import AudioCaptioningPipeline as AudioCaptioningPipeline
    from .model.processing_enclap import EnClapProcessor as EnClapProcessor
    from .sound_scenes import make_scene as make_scene
    from .training.data_collator import DataCollatorForEnClap as DataCollatorForEnClap
    from .training.trainer import EnClapTrainer as EnClapTrainer

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
