"""The result of scoring: a dict that says what it holds and what it lacks."""

from __future__ import annotations

from .metric_sets import METRIC_NAMES


class CaptionScores(dict):
    """Corpus scores by metric name, and beside them how they came about.

    Keys beside the metrics: `per_clip` (metric -> one score a clip), `num_clips`, `num_references`, `tokenizer`,
    `versions`, `metric_set`, and `missing` (metric -> what it lacks, with the install line).
    """

    @property
    def corpus(self) -> dict[str, float]:
        """The corpus scores alone, in the order of a table: what a trainer logs."""
        return {name: self[name] for name in METRIC_NAMES if name in self}

    @property
    def per_clip(self) -> dict[str, list[float]]:
        """For each metric that has them, one score a clip."""
        return self["per_clip"]

    @property
    def missing(self) -> dict[str, str]:
        """Metrics that were asked for and could not be computed, with the reason."""
        return self["missing"]
