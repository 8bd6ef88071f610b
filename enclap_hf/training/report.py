"""What a training run says about itself: scores of its captions, step time and memory, predictions."""

import csv
import json
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import TrainerCallback

from ..metrics import AudioCaptioningMetrics

# Steps at the start whose time is not typical: kernels are chosen, caches are filled.
_NUM_WARM_UP_STEPS = 3


class CaptionScorer:
    """`compute_metrics` of a trainer: corpus scores of the captions against all references of each clip.

    The main process scores and tells the others, so the tools run once and all processes agree on the best checkpoint.

    Args:
        processor: decodes the captions.
        metrics: a set or name of metrics, see [`AudioCaptioningMetrics`].

    Attributes:
        references: of the set that is evaluated, clip by clip; set it before.
        candidates, corpus: captions and corpus scores of the last evaluation.
        per_clip: its scores of each clip, on the main process.
        versions: of what scored it, on the main process.
    """

    def __init__(self, processor, metrics: str):
        self.processor, self.metrics = processor, AudioCaptioningMetrics(metrics)
        self.references: list[list[str]] = []
        self.candidates: list[str] = []
        self.corpus: dict[str, float] = {}
        self.per_clip: dict[str, list[float]] = {}
        self.versions: dict[str, str] = {}

    def __call__(self, prediction) -> dict[str, float]:
        """Score `prediction.predictions`, token ids (clips, S), padded with negative ids or the pad token."""
        tokens = np.where(prediction.predictions < 0, self.processor.tokenizer.pad_token_id, prediction.predictions)
        self.candidates = self.processor.batch_decode(tokens)
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        corpus = [None]
        if not is_distributed or torch.distributed.get_rank() == 0:
            scores = self.metrics.compute(predictions=self.candidates, references=self.references)
            corpus, self.per_clip, self.versions = [dict(scores.corpus)], scores.per_clip, scores["versions"]
        if is_distributed:
            torch.distributed.broadcast_object_list(corpus)
        self.corpus = corpus[0]
        return dict(self.corpus)

    def check(self, metric: str | None) -> None:
        """Raise ValueError where the metric that chooses the best checkpoint cannot be computed on this machine."""
        name = (metric or "loss").removeprefix("eval_")
        if name in ("loss", "caption_loss", "mcm_loss"):
            return
        scores = self.metrics.compute(predictions=["a dog barks", "rain"], references=[["a dog barks"], ["rain falls"]])
        if name not in scores.corpus:
            reason = scores.missing.get(name, f"the metrics are {', '.join(scores.corpus)}")
            raise ValueError(f"Got `metric_for_best_model`={metric}, which cannot be computed: {reason}.")


class StepTimes(TrainerCallback):
    """Measures optimiser steps, from their first forward to the update; reading the batch is not in it."""

    def __init__(self):
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.perf_counter()

    def on_optimizer_step(self, args, state, control, **kwargs):
        if args.device.type == "cuda":
            torch.cuda.synchronize(args.device)
        self.seconds.append(time.perf_counter() - self._began)

    def summarize(self) -> dict[str, float]:
        """`step_time_s`, the median after the first steps, and `peak_memory_gib`; without what is not known."""
        seconds = self.seconds[_NUM_WARM_UP_STEPS:] or self.seconds
        summary = {"step_time_s": round(statistics.median(seconds), 4)} if seconds else {}
        peak = measure_peak_memory_gib()
        return summary if peak is None else {**summary, "peak_memory_gib": round(peak, 3)}


def compare_evaluations(log_history: Sequence[dict], metric: str) -> dict[str, float]:
    """What a training reached, beside where it stood when it was first evaluated.

    Args:
        log_history: of the trainer's state.
        metric: name in the logs, with or without `eval_`.
    Returns:
        `first_eval_step` and `last_eval_step`, and the metric of both as `first_eval_<metric>` and
        `last_eval_<metric>`: of the model as it was at these steps, not of the one that did best. Empty where no two
        steps were evaluated.
    """
    name = metric.removeprefix("eval_")
    found = {entry["step"]: entry[f"eval_{name}"] for entry in log_history if f"eval_{name}" in entry}
    if len(found) < 2:
        return {}
    first, last = min(found), max(found)
    return {
        "first_eval_step": first,
        f"first_eval_{name}": found[first],
        "last_eval_step": last,
        f"last_eval_{name}": found[last],
    }


def describe_training(results: dict[str, float], metric: str) -> list[str]:
    """Sentences on what a training reached, how fast it was and what it took, as far as `results` tell."""
    name, lines = metric.removeprefix("eval_"), []
    if f"first_eval_{name}" in results:
        first, last = results[f"first_eval_{name}"], results[f"last_eval_{name}"]
        lines.append(
            f"{name} of the validation clips: {first:.4f} after step {results['first_eval_step']}, {last:.4f} after "
            f"step {results['last_eval_step']}" + (f", {last / first:.1f} x." if first else ".")
        )
    if "train_step_time_s" in results:
        memory = results.get("train_peak_memory_gib")
        peak = "" if memory is None else f", peak memory {memory:.2f} GiB"
        lines.append(f"Median step {results['train_step_time_s']:.3f} s{peak}.")
    return lines


def measure_peak_memory_gib() -> float | None:
    """Most memory that this process has had: of its GPU where it uses one, else of the machine; None on Windows."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource  # of Unix alone
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def write_predictions(
    path: str,
    names: Sequence[str],
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    per_clip: dict[str, Sequence[float]],
) -> None:
    """Write one line a clip, as `enclap score` reads it: file_name, candidate, references (a JSON list), scores."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "candidate", "references", *per_clip])
        for name, candidate, texts, *scores in zip(names, candidates, references, *per_clip.values(), strict=True):
            writer.writerow([name, candidate, json.dumps(list(texts), ensure_ascii=False), *scores])
