"""Captioning metrics that agree with the published ones: BLEU, ROUGE-L, METEOR 1.5, CIDEr-D, SPICE, SPIDEr, FENSE.

    from enclap_hf.metrics import AudioCaptioningMetrics

    scores = AudioCaptioningMetrics("fast").compute(predictions=["a dog barks"], references=[["a dog is barking"]])

Importing this package loads nothing but the standard library: numpy, torch and Java come in when a metric needs them.
This directory is also an `evaluate` module: `evaluate.load(METRICS_MODULE, "paper")`.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# For `evaluate.load`, from any folder.
METRICS_MODULE = os.path.dirname(os.path.abspath(__file__))

_EXPORTS = {
    "AudioCaptioningMetrics": "audio_captioning_metrics",
    "CaptionScores": "caption_scores",
    "METRIC_SETS": "metric_sets",
    "cider_d": "cider",
    "tokenize_ptb": "ptb_tokenizer",
}

__all__ = sorted([*_EXPORTS, "METRICS_MODULE"])


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
