"""Names of the metrics, the sets they come in, and what each is made of."""

from __future__ import annotations

from collections.abc import Iterable

FAST = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "vocabulary", "mean_length")
PAPER = ("meteor", "cider_d", "spice", "spider")
DCASE2023 = ("meteor", "cider_d", "spice", "spider", "spider_fl", "fluency_error_rate")
DCASE2024 = (*DCASE2023, "sbert_similarity", "fense", "vocabulary")

METRIC_NAMES = (
    "bleu_1",
    "bleu_2",
    "bleu_3",
    "bleu_4",
    "rouge_l",
    "meteor",
    "cider_d",
    "spice",
    "spider",
    "spider_fl",
    "sbert_similarity",
    "fluency_error_rate",
    "fense",
    "clap_similarity",
    "vocabulary",
    "mean_length",
)

METRIC_SETS: dict[str, tuple[str, ...]] = {
    "paper": PAPER,
    "dcase2023": DCASE2023,
    "dcase2024": DCASE2024,
    "fast": FAST,
    "all": METRIC_NAMES,
}

# Made of other metrics' per-clip scores.
PARTS = {
    "spider": ("cider_d", "spice"),
    "spider_fl": ("spider", "fluency_error_rate"),
    "fense": ("sbert_similarity", "fluency_error_rate"),
}


def resolve_metrics(metrics: str | Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Turn the name of a set, or names of metrics, into a list of metrics.

    Args:
        metrics: a set's name, a metric's name, or several metrics' names.
    Returns:
        the set's name ("custom" for a list), and the metrics in the order of a table.
    Raises:
        ValueError: a name that is neither.
    """
    if isinstance(metrics, str) and metrics in METRIC_SETS:
        return metrics, METRIC_SETS[metrics]
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in wanted:
        if name not in METRIC_NAMES:
            raise ValueError(
                f"Got the metric {name!r}; expected a set ({', '.join(METRIC_SETS)}) or metrics "
                f"({', '.join(METRIC_NAMES)})."
            )
    if not wanted:
        raise ValueError(f"Got no metrics; expected a set, one of {', '.join(METRIC_SETS)}.")
    return "custom", tuple(name for name in METRIC_NAMES if name in wanted)
