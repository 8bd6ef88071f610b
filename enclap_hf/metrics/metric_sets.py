"""Names of the metrics, the sets they come in, and what each is made of."""

from __future__ import annotations

from collections.abc import Iterable

FAST = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "vocabulary", "mean_length")
STANDARD = (
    *("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider"),
    *("vocabulary", "mean_length"),
)
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

# `standard` is all that needs no network: without extras it still says something, and it loads no weights.
METRIC_SETS: dict[str, tuple[str, ...]] = {
    "standard": STANDARD,
    "paper": PAPER,
    "dcase2023": DCASE2023,
    "dcase2024": DCASE2024,
    "fast": FAST,
    "all": METRIC_NAMES,
}

DEFAULT_METRICS = "standard"

# Made of other metrics' per-clip scores.
PARTS = {
    "spider": ("cider_d", "spice"),
    "spider_fl": ("spider", "fluency_error_rate"),
    "fense": ("sbert_similarity", "fluency_error_rate"),
}


def resolve_metrics(metrics: str | Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Turn names of sets and of metrics into a list of metrics.

    Args:
        metrics: a set's or a metric's name, several of them in one string with commas, or a list of names.
    Returns:
        the set's name ("custom" for more than a set), and the metrics in the order of a table.
    Raises:
        ValueError: a name that is neither.
    """
    wanted = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    for name in wanted:
        if name not in METRIC_SETS and name not in METRIC_NAMES:
            raise ValueError(
                f"Got the metric {name!r}; expected a set ({', '.join(METRIC_SETS)}) or metrics "
                f"({', '.join(METRIC_NAMES)})."
            )
    if not wanted:
        raise ValueError(f"Got no metrics; expected a set, one of {', '.join(METRIC_SETS)}.")
    if len(wanted) == 1 and wanted[0] in METRIC_SETS:
        return wanted[0], METRIC_SETS[wanted[0]]
    chosen = {part for name in wanted for part in METRIC_SETS.get(name, (name,))}
    return "custom", tuple(name for name in METRIC_NAMES if name in chosen)
