"""Cosine between a clip's and a caption's CLAP embedding: a score without references."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .java_runtime import MetricUnavailableError

MAX_AUDIO_S = 10


def compute_clap_similarity(
    candidates: Sequence[str],
    clap: str | Callable[[Sequence[str]], object],
    audio: Sequence | None = None,
    sampling_rate: int | None = None,
    audio_embeddings: Any = None,
) -> tuple[float, list[float]]:
    """Compute the CLAP similarity of every caption with its clip.

    Args:
        candidates: one caption a clip, as written.
        clap: folder or Hub name of a `ClapModel`, or a function from captions to their embeddings (B, C).
        audio: one array (num_samples,) a clip; needed unless the embeddings are given. Only the first seconds that one
            CLAP window takes are used.
        sampling_rate: of `audio`, in Hz; must be the model's.
        audio_embeddings: (B, C), one row a clip.
    Returns:
        the mean over the clips, and the clips' cosines.
    Raises:
        ValueError: neither audio nor embeddings, another number of them than of captions, or the wrong sampling rate.
        MetricUnavailableError: the model is missing.
    """
    import numpy as np

    if audio_embeddings is None:
        if audio is None or callable(clap):
            raise ValueError(
                "Got no `audio_embeddings`; expected them, or `audio` with the name of a ClapModel as `clap`. "
                "With a function as `clap`, embed the audio yourself."
            )
        audio_embeddings = _embed_audio(clap, audio, sampling_rate)
    audio_embeddings = np.asarray(audio_embeddings, dtype=np.float64)
    if len(audio_embeddings) != len(candidates):
        raise ValueError(f"Got {len(audio_embeddings)} audio clips and {len(candidates)} captions; expected one each.")
    text_embeddings = clap(list(candidates)) if callable(clap) else _embed_text(clap, candidates)
    text_embeddings = np.asarray(text_embeddings, dtype=np.float64)
    if text_embeddings.shape != audio_embeddings.shape:
        raise ValueError(
            f"Got text embeddings {text_embeddings.shape} and audio embeddings {audio_embeddings.shape}; expected the "
            "same shape (B, C). Use the two towers of one CLAP."
        )
    norms = np.linalg.norm(text_embeddings, axis=1) * np.linalg.norm(audio_embeddings, axis=1)
    per_clip = ((text_embeddings * audio_embeddings).sum(1) / np.maximum(norms, 1e-12)).tolist()
    return sum(per_clip) / len(per_clip), per_clip


@functools.lru_cache(maxsize=1)
def _load_clap(name: str) -> Any:
    """Processor and network."""
    try:
        from transformers import AutoProcessor, ClapModel
    except ImportError as error:
        raise MetricUnavailableError(f"{error.name} is not installed; pip install enclap-hf") from error
    try:
        return AutoProcessor.from_pretrained(name), ClapModel.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MetricUnavailableError(f"{name!r} is not a ClapModel that can be loaded: {reason}") from error


def _embed_audio(name: str, audio: Sequence, sampling_rate: int | None) -> Any:
    """Audio embeddings (B, C)."""
    import numpy as np
    import torch

    processor, model = _load_clap(name)
    extractor = processor.feature_extractor
    if sampling_rate != extractor.sampling_rate:
        raise ValueError(
            f"Got audio at {sampling_rate} Hz; expected {extractor.sampling_rate} Hz for {name!r}. Resample it first."
        )
    rows = []
    for clip in audio:
        # The extractor crops longer clips at random and marks a random short one as long: neither happens here.
        inputs = extractor(
            np.asarray(clip)[: MAX_AUDIO_S * extractor.sampling_rate], sampling_rate=sampling_rate, return_tensors="pt"
        )
        if "is_longer" in inputs:
            inputs["is_longer"] = torch.zeros_like(inputs["is_longer"], dtype=torch.bool)
        with torch.no_grad():
            rows.append(_pooled(model.get_audio_features(**inputs))[0].numpy())
    return np.stack(rows)


def _embed_text(name: str, candidates: Sequence[str]) -> Any:
    """Text embeddings (B, C)."""
    import numpy as np
    import torch

    processor, model = _load_clap(name)
    rows = []
    for start in range(0, len(candidates), 32):
        inputs = processor.tokenizer(
            list(candidates[start : start + 32]), padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            rows.append(_pooled(model.get_text_features(**inputs)).numpy())
    return np.concatenate(rows)


def _pooled(features: Any) -> Any:
    """The projected embedding, which transformers returns bare up to version 4 and inside an output from version 5."""
    return getattr(features, "pooler_output", features)
