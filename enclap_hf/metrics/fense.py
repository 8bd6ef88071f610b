"""FENSE: similarity of sentence embeddings, cut by nine tenths where a caption is not fluent English.

Sentences go to both networks as they were written, not tokenised. Only transformers is needed; the sentence encoder's
pooling is done here. Weights come from a folder, or from the Hub and the authors' release on first use.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import re
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .corenlp import cache_folder
from .java_runtime import MetricUnavailableError

logger = logging.getLogger(__name__)

SENTENCE_ENCODER = "sentence-transformers/paraphrase-TinyBERT-L6-v2"
ERROR_DETECTOR = "echecker_clotho_audiocaps_base"
ERROR_PROBABILITY_THRESHOLD = 0.9
FLUENCY_PENALTY = 0.9
MAX_SENTENCE_TOKENS, MAX_DETECTOR_TOKENS = 128, 64
BATCH_SIZE = 32

_RELEASE = "https://github.com/blmoistawinde/fense/releases/download/V0.1/"
_RELEASED_DETECTORS = {
    "echecker_clotho_audiocaps_base": "1a719f090af70614bbdb9f9437530b7e133c48cfa4a58d964de0d47fc974a2fa",
    "echecker_clotho_audiocaps_tiny": "90ed0ac5033ec497ec66d4f68588053813e085671136dae312097c96c504f673",
}
_PUNCTUATION = re.compile(r"[^\w\s]")


def compute_sbert_similarity(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    sentence_encoder: str = SENTENCE_ENCODER,
    device: str = "cpu",
) -> tuple[float, list[float]]:
    """Compute the mean cosine between a caption's sentence embedding and those of its references.

    Args:
        candidates: one caption a clip, as written.
        references: for each clip, its references, as written.
        sentence_encoder: folder or Hub name of the encoder.
        device: torch device.
    Returns:
        the mean over the clips, and the clips' similarities.
    Raises:
        MetricUnavailableError: torch, transformers or the weights are missing.
    Source: Zhou et al., ICASSP 2022 (arXiv 2110.04684).
    """
    sentences = list(dict.fromkeys([*candidates, *(text for clip in references for text in clip)]))
    embeddings = dict(zip(sentences, _embed_sentences(sentences, sentence_encoder, device), strict=True))
    per_clip = [
        float(sum(float(embeddings[candidate] @ embeddings[reference]) for reference in clip) / len(clip))
        for candidate, clip in zip(candidates, references, strict=True)
    ]
    return sum(per_clip) / len(per_clip), per_clip


def compute_fluency_errors(
    candidates: Sequence[str], error_detector: str = ERROR_DETECTOR, device: str = "cpu"
) -> tuple[float, list[float]]:
    """Find the captions that are not fluent: cut off, repeating, without a verb or a conjunction.

    Args:
        candidates: one caption a clip, as written.
        error_detector: name of a released detector, or path of a checkpoint of that kind.
        device: torch device.
    Returns:
        the share of captions with an error, and for each caption 1 for an error, else 0.
    Raises:
        MetricUnavailableError: torch, transformers or the weights are missing.
    Source: Zhou et al., ICASSP 2022 (arXiv 2110.04684).
    """
    torch, _ = _import_torch()
    tokenizer, encoder, classifier = _load_error_detector(error_detector, device)
    per_clip: list[float] = []
    for start in range(0, len(candidates), BATCH_SIZE):
        texts = [_PUNCTUATION.sub("", text).lower() for text in candidates[start : start + BATCH_SIZE]]
        inputs = tokenizer(texts, truncation=True, max_length=MAX_DETECTOR_TOKENS, padding=True, return_tensors="pt")
        with torch.no_grad():
            first_token = encoder(**inputs.to(device)).last_hidden_state[:, 0]  # (B, S, D) -> (B, D)
            error_probability = classifier(first_token).sigmoid()[:, -1]  # the last class is "any error"
        per_clip += (error_probability > ERROR_PROBABILITY_THRESHOLD).float().tolist()
    return sum(per_clip) / len(per_clip), per_clip


def penalise_errors(scores: Sequence[float], errors: Sequence[float]) -> tuple[float, list[float]]:
    """Cut the scores of captions with a fluency error: FENSE from similarities, SPIDEr-FL from SPIDEr.

    Args:
        scores: the clips' scores.
        errors: for each clip 1 for an error, else 0.
    Returns:
        the mean over the clips, and the clips' scores.
    """
    per_clip = [score * (1 - FLUENCY_PENALTY * error) for score, error in zip(scores, errors, strict=True)]
    return sum(per_clip) / len(per_clip), per_clip


def _import_torch() -> Any:
    """torch and transformers, or the line that installs them."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MetricUnavailableError(f"{error.name} is not installed; pip install enclap-hf") from error
    return torch, transformers


def _embed_sentences(sentences: Sequence[str], sentence_encoder: str, device: str) -> list:
    """Unit vectors, one a sentence: the mean of the encoder's last hidden states over the sentence's tokens."""
    torch, _ = _import_torch()
    tokenizer, encoder = _load_sentence_encoder(sentence_encoder, device)
    # Sentences of like length go together, so that little is padding.
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    embeddings: list = [None] * len(sentences)
    for start in range(0, len(order), BATCH_SIZE):
        indices = order[start : start + BATCH_SIZE]
        inputs = tokenizer(
            [sentences[index] for index in indices],
            truncation=True,
            max_length=MAX_SENTENCE_TOKENS,
            padding=True,
            return_tensors="pt",
        ).to(device)
        with torch.no_grad():
            hidden = encoder(**inputs).last_hidden_state  # (B, S, D)
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        means = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)  # (B, S, D) -> (B, D)
        for index, vector in zip(indices, torch.nn.functional.normalize(means, dim=1).cpu(), strict=True):
            embeddings[index] = vector
    return embeddings


@functools.lru_cache(maxsize=2)
def _load_sentence_encoder(name: str, device: str) -> Any:
    """Tokenizer and network of a sentence encoder."""
    _, transformers = _import_torch()
    tokenizer = _from_pretrained(transformers.AutoTokenizer, name)
    return tokenizer, _from_pretrained(transformers.AutoModel, name).eval().to(device)


@functools.lru_cache(maxsize=2)
def _load_error_detector(name: str, device: str) -> Any:
    """Tokenizer, encoder and classifier of a fluency error detector."""
    torch, transformers = _import_torch()
    try:
        checkpoint = torch.load(_find_checkpoint(name), map_location="cpu", weights_only=True)
        state = checkpoint["state_dict"]
        base, num_classes = checkpoint["model_type"], checkpoint["num_classes"]
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise MetricUnavailableError(f"the fluency error detector {name!r} cannot be read: {reason[0]}") from error
    encoder = transformers.AutoModel.from_config(_from_pretrained(transformers.AutoConfig, base))
    classifier = torch.nn.Linear(encoder.config.hidden_size, num_classes)
    encoder_state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    encoder_state.pop("embeddings.position_ids", None)  # a buffer that transformers does not have
    try:
        encoder.load_state_dict(encoder_state)
        classifier.load_state_dict({"weight": state["clf.weight"], "bias": state["clf.bias"]})
    except (RuntimeError, KeyError) as error:
        raise MetricUnavailableError(f"the fluency error detector {name!r} does not fit {base!r}: {error}") from error
    return _from_pretrained(transformers.AutoTokenizer, base), encoder.eval().to(device), classifier.eval().to(device)


def _from_pretrained(auto_class: Any, name: str) -> Any:
    """Load from a folder or the Hub, or say what could not be had."""
    try:
        return auto_class.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MetricUnavailableError(
            f"{name!r} is neither a folder with weights nor reachable on the Hub: {reason}"
        ) from error


def _find_checkpoint(name: str) -> Path:
    """Path of a detector's checkpoint, downloaded once where it is one of the released ones."""
    if os.path.isfile(name):
        return Path(name)
    if name not in _RELEASED_DETECTORS:
        raise MetricUnavailableError(
            f"{name!r} is not a fluency error detector; expected a file, or one of {', '.join(_RELEASED_DETECTORS)}"
        )
    path = cache_folder() / "fense" / f"{name}.ckpt"
    if not path.is_file():
        logger.info("Downloading %s%s.ckpt to %s", _RELEASE, name, path)
        try:
            _download(f"{_RELEASE}{name}.ckpt", path, _RELEASED_DETECTORS[name])
        except OSError as error:
            raise MetricUnavailableError(
                f"{_RELEASE}{name}.ckpt cannot be downloaded ({error}); put the file at {path}"
            ) from error
    return path


def _download(url: str, path: Path, sha256: str) -> None:
    """Download a file; it appears under its name only when its checksum is right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as target:
        try:
            digest = hashlib.sha256()
            with urllib.request.urlopen(url, timeout=60) as answer:
                while block := answer.read(1 << 20):
                    digest.update(block)
                    target.write(block)
            target.close()
            if digest.hexdigest() != sha256:
                raise OSError(f"checksum {digest.hexdigest()[:12]}..., expected {sha256[:12]}...")
            os.replace(target.name, path)
        except BaseException:
            os.unlink(target.name)
            raise
