"""The metrics as an `evaluate` module.

import evaluate
from enclap_hf.metrics import METRICS_MODULE

metric = evaluate.load(METRICS_MODULE, "paper")
metric.compute(predictions=["a dog barks"], references=[["a dog is barking", "barking of a dog"]])
"""

from typing import Any

import datasets
import evaluate

from enclap_hf.metrics import METRIC_SETS, AudioCaptioningMetrics
from enclap_hf.metrics.metric_sets import DEFAULT_METRICS

_DESCRIPTION = (
    "Audio captioning metrics that agree with the published ones: BLEU, ROUGE-L, METEOR 1.5, CIDEr-D, SPICE, SPIDEr, "
    "SPIDEr-FL, FENSE, vocabulary, mean length and CLAP similarity. The configuration is the set of metrics: "
    + ", ".join(METRIC_SETS)
    + "."
)
_INPUTS = (
    "predictions: one caption a clip. references: for each clip a list of one or more references. Further arguments of "
    "`compute` go to AudioCaptioningMetrics.compute (audio, sampling_rate, audio_embeddings)."
)


class Metrics(evaluate.Metric):
    """`AudioCaptioningMetrics` with evaluate's interface; the configuration's name is the set of metrics."""

    def __init__(self, config_name: str | None = None, **kwargs: Any):
        # evaluate hands unknown keywords of `load` on; those of the metrics go to them, the rest to evaluate.
        names = (
            "sentence_encoder",
            "error_detector",
            "clap",
            "device",
            "java",
            "java_heap",
            "timeout_s",
            "show_progress",
            "cache_folder",
        )
        self._settings = {name: kwargs.pop(name) for name in names if name in kwargs}
        if "cache_folder" in self._settings:  # evaluate has a `cache_dir` of its own
            self._settings["cache_dir"] = self._settings.pop("cache_folder")
        super().__init__(config_name=config_name or DEFAULT_METRICS, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any, **kwargs: Any) -> Any:
        metrics = AudioCaptioningMetrics(self.config_name, **self._settings)
        return metrics.compute(predictions=predictions, references=references, **kwargs)
