"""All captioning metrics behind one call."""

from __future__ import annotations

import functools
import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..version import __version__
from .caption_checks import check_captions
from .caption_scores import CaptionScores
from .java_memory import check_heap
from .java_runtime import MetricUnavailableError, find_java, java_version
from .metric_sets import DEFAULT_METRICS, PARTS, resolve_metrics
from .ptb_tokenizer import tokenize_ptb

logger = logging.getLogger(__name__)

TOKENIZER = "Penn Treebank (as Stanford PTBTokenizer 3.4.1), lower case, COCO punctuation removed"


class AudioCaptioningMetrics:
    """Score captions against references as the captioning papers do.

    A metric whose tools are missing is left out and named in the result with what it lacks; no other metric ever takes
    its place.

    Args:
        metrics: sets (the keys of `METRIC_SETS`) and names of metrics, one or several.
        sentence_encoder: folder or Hub name of FENSE's sentence encoder.
        error_detector: name or checkpoint of FENSE's fluency error detector.
        clap: folder or Hub name of a `ClapModel`, or a function from captions to embeddings, for `clap_similarity`.
        device: torch device of FENSE's networks.
        java: path of the Java program; found when left out.
        java_heap: memory limit of each Java process, as its option -Xmx takes it. When left out: 2g for METEOR; for
            SPICE half of the memory that this process may use, but 8 GiB at most.
        timeout_s: limit for each Java process.
        cache_dir: where SPICE keeps parses and scores.
        show_progress: whether METEOR and SPICE show bars; on a terminal when left out.
        strict: raise for a metric that cannot be computed.
    Raises:
        ValueError: an unknown metric or set, or a limit that is none.
    """

    def __init__(
        self,
        metrics: str | Iterable[str] = DEFAULT_METRICS,
        *,
        sentence_encoder: str | None = None,
        error_detector: str | None = None,
        clap: str | Callable | None = None,
        device: str = "cpu",
        java: str | None = None,
        java_heap: str | None = None,
        timeout_s: float = 3600.0,
        cache_dir: Path | str | None = None,
        show_progress: bool | None = None,
        strict: bool = False,
    ) -> None:
        self.metric_set, self.metrics = resolve_metrics(metrics)
        if java_heap is not None:
            check_heap(java_heap)
        if not timeout_s > 0:
            raise ValueError(f"Got a time limit of {timeout_s} s; expected more than 0.")
        self.sentence_encoder = sentence_encoder
        self.error_detector = error_detector
        self.clap = clap
        self.device = device
        self.java = java
        self.java_heap = java_heap
        self.timeout_s = timeout_s
        self.cache_dir = cache_dir
        self.show_progress = show_progress
        self.strict = strict

    def compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        audio: Sequence | None = None,
        sampling_rate: int | None = None,
        audio_embeddings: Any = None,
        clip_names: Sequence[str] | None = None,
    ) -> CaptionScores:
        """Score one caption a clip.

        Args:
            predictions: one caption a clip.
            references: for each clip, a list of one or more references.
            audio: one array (num_samples,) a clip, for `clap_similarity`.
            sampling_rate: of `audio`, in Hz.
            audio_embeddings: (B, C) CLAP embeddings in the place of `audio`.
            clip_names: one a clip, for messages; numbers from 1 when left out.
        Returns:
            corpus scores by name, with `per_clip`, `num_clips`, `num_references`, `tokenizer`, `versions`,
            `metric_set` and `missing`.
        Raises:
            TypeError: something that is not a string where a caption should be.
            ValueError: lists of unequal length, none at all, or a clip without references.
            MetricUnavailableError: with `strict`, a metric whose tools are missing.
        """
        check_captions(predictions, references)
        if clip_names is not None and len(clip_names) != len(predictions):
            raise ValueError(
                f"Got {len(clip_names)} `clip_names` for {len(predictions)} predictions; expected one each."
            )
        run = _Run(self, list(predictions), [list(clip) for clip in references], audio, sampling_rate, audio_embeddings)
        run.clip_names = clip_names
        scores, per_clip, missing = {}, {}, {}
        for name in self.metrics:
            try:
                scores[name], clip_scores = run.score(name)
            except MetricUnavailableError as error:
                if self.strict:
                    raise
                missing[name] = str(error)
                logger.warning("%s left out: %s", name, error)
                continue
            if clip_scores is not None:
                per_clip[name] = list(clip_scores)
        return CaptionScores(
            scores,
            per_clip=per_clip,
            num_clips=len(predictions),
            num_references=sum(len(clip) for clip in references),
            tokenizer=TOKENIZER,
            versions=self._versions(scores),
            metric_set=self.metric_set,
            missing=missing,
        )

    def _versions(self, scores: dict[str, float]) -> dict[str, str]:
        """Versions of what took part in the scores."""
        versions = {"python": platform.python_version(), "enclap-hf": __version__}
        packages = []
        if {"meteor", "spice"} & scores.keys():
            versions["java"] = java_version(self.java or find_java())
            packages.append("pycocoevalcap")
        if "spice" in scores:
            from .corenlp import find_corenlp
            from .corenlp_files import describe_version

            versions |= {"spice": "1.0", "corenlp": describe_version(find_corenlp())}
        if "meteor" in scores:
            versions["meteor"] = "1.5"
        if {"sbert_similarity", "fluency_error_rate", "fense", "spider_fl", "clap_similarity"} & scores.keys():
            packages += ["torch", "transformers"]
        for package in packages:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:  # run from a checkout
                continue
        return versions


# Of the whole corpus, and of each clip where a metric has that.
Scores = tuple[float, list[float] | None]


class _Run:
    """One call's inputs, and the scores that several metrics share."""

    def __init__(
        self,
        settings: AudioCaptioningMetrics,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        audio: Sequence | None,
        sampling_rate: int | None,
        audio_embeddings: Any,
    ) -> None:
        self.settings = settings
        self.predictions, self.references = predictions, references
        self.audio, self.sampling_rate, self.audio_embeddings = audio, sampling_rate, audio_embeddings
        self.clip_names: Sequence[str] | None = None
        self._done: dict[str, tuple[float, list[float] | None] | MetricUnavailableError] = {}

    @functools.cached_property
    def tokens(self) -> tuple[list[str], list[list[str]]]:
        """Tokenised predictions and references."""
        return tokenize_ptb(self.predictions), [tokenize_ptb(clip) for clip in self.references]

    def score(self, name: str) -> tuple[float, list[float] | None]:
        """Corpus and per-clip scores of one metric, computed once."""
        if name not in self._done:
            try:
                self._done[name] = self._combine(name) if name in PARTS else self._compute(name)
            except MetricUnavailableError as error:
                self._done[name] = error
        result = self._done[name]
        if isinstance(result, MetricUnavailableError):
            raise result
        return result

    def _combine(self, name: str) -> tuple[float, list[float]]:
        """A metric made of two others."""
        parts = []
        for part in PARTS[name]:
            try:
                parts.append(self.score(part)[1] or [])
            except MetricUnavailableError as error:
                raise MetricUnavailableError(f"needs {part}: {error}") from error
        if name == "spider":
            per_clip = [(cider + spice) / 2 for cider, spice in zip(*parts, strict=True)]
            return sum(per_clip) / len(per_clip), per_clip
        from .fense import penalise_errors

        return penalise_errors(*parts)

    def _compute(self, name: str) -> tuple[float, list[float] | None]:
        """A metric of its own."""
        if name.startswith("bleu_"):
            corpus, per_clip = self._bleu
            order = int(name[-1]) - 1
            return corpus[order], per_clip[order]
        return getattr(self, f"_compute_{name}")()

    @functools.cached_property
    def _bleu(self) -> tuple[list[float], list[list[float]]]:
        from .bleu import compute_bleu

        return compute_bleu(*self.tokens)

    @property
    def _java_options(self) -> dict:
        """What METEOR and SPICE are run with."""
        options = {"timeout_s": self.settings.timeout_s, "java": self.settings.java}
        options["show_progress"] = self.settings.show_progress
        return options | ({"java_heap": self.settings.java_heap} if self.settings.java_heap else {})

    def _compute_rouge_l(self) -> Scores:
        from .rouge import compute_rouge_l

        return compute_rouge_l(*self.tokens)

    def _compute_cider_d(self) -> Scores:
        from .cider import compute_cider_d

        return compute_cider_d(*self.tokens)

    def _compute_meteor(self) -> Scores:
        from .meteor import compute_meteor

        return compute_meteor(*self.tokens, **self._java_options)

    def _compute_spice(self) -> Scores:
        from .spice import compute_spice

        options = self._java_options | {"cache_dir": self.settings.cache_dir, "clip_names": self.clip_names}
        return compute_spice(*self.tokens, **options)

    def _compute_sbert_similarity(self) -> Scores:
        from .fense import SENTENCE_ENCODER, compute_sbert_similarity

        encoder = self.settings.sentence_encoder or SENTENCE_ENCODER
        return compute_sbert_similarity(self.predictions, self.references, encoder, self.settings.device)

    def _compute_fluency_error_rate(self) -> Scores:
        from .fense import ERROR_DETECTOR, compute_fluency_errors

        detector = self.settings.error_detector or ERROR_DETECTOR
        return compute_fluency_errors(self.predictions, detector, self.settings.device)

    def _compute_clap_similarity(self) -> Scores:
        from .clap_similarity import compute_clap_similarity

        if self.settings.clap is None or (self.audio is None and self.audio_embeddings is None):
            raise MetricUnavailableError("needs `clap` (a ClapModel or a function) and `audio` or `audio_embeddings`")
        return compute_clap_similarity(
            self.predictions, self.settings.clap, self.audio, self.sampling_rate, self.audio_embeddings
        )

    def _compute_vocabulary(self) -> Scores:
        return len({token for caption in self.tokens[0] for token in caption.split()}), None

    def _compute_mean_length(self) -> Scores:
        lengths = [float(len(caption.split())) for caption in self.tokens[0]]
        return sum(lengths) / len(lengths), lengths
