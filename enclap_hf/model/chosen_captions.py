"""The best of several captions of a recording: candidates are written (`candidates.py`) and ranked (`reranking.py`)."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from transformers.modeling_outputs import BaseModelOutput

from .candidates import generate_candidates
from .caption_choice import CaptionChoice
from .caption_scores import score_sequences
from .clap_text import compare_with_captions
from .reranking import NO_TEXT_TOWER, gather_candidates, rank_candidates


class ChosenCaptions(NamedTuple):
    """The captions of one recording, best first: ids (n, S), mean log probabilities (n,), cosines by CLAP or None."""

    sequences: torch.LongTensor
    scores: torch.Tensor
    confidences: list[float] | None


def check_choice(choice: CaptionChoice | None, min_confidence: float | None, processor) -> None:
    """Refuse to choose by CLAP where there is no text tower.

    Raises:
        ValueError: it cannot be done, or `min_confidence` is no cosine.
    """
    is_number = isinstance(min_confidence, (int, float)) and not isinstance(min_confidence, bool)
    if min_confidence is not None and not (is_number and -1 <= min_confidence <= 1):
        raise ValueError(f"Got `min_confidence`={min_confidence!r}; expected a number from -1 to 1.")
    if processor.clap_text_encoder is not None:
        return
    if choice is not None and "clap" in choice.weights:
        raise ValueError(NO_TEXT_TOWER)
    if min_confidence is not None:
        raise ValueError(
            "Got `min_confidence`, and this repository has no CLAP text tower (`clap_text`) to tell it by; leave it "
            "out, or use a repository with one."
        )


def choose_captions(
    model,
    processor,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    clap_embedding: torch.Tensor | None,
    clip_seeds: list[int],
    choice: CaptionChoice,
    **generate_kwargs,
) -> list[ChosenCaptions]:
    """Write, rank and score the captions of a batch of encoded recordings.

    Args:
        model: [`EnClapForConditionalGeneration`].
        processor: [`EnClapProcessor`].
        states: the encoder's output, (B, T + 3, D).
        attention_mask: (B, T) of the frames.
        clap_embedding: (B, C), where the processor has it.
        clip_seeds: what tells the clips apart, see `compute_clip_seed`.
        choice: what is wanted.
        generate_kwargs: arguments of `generate`.
    Returns:
        of each recording, as many captions as are wanted, or all where fewer differ.
    Raises:
        ValueError: CLAP is to rank, and there is no text tower.
    """
    check_choice(choice, None, processor)
    sequences = generate_candidates(model, states, attention_mask, choice.search, clip_seeds, **generate_kwargs)
    score = partial(score_captions, model, states, attention_mask, generate_kwargs)
    # Of hundreds of candidates the scores take as long as a search; where they decide nothing, the best alone get one.
    scores = score(sequences) if "likelihood" in choice.weights else torch.zeros(sequences.shape[:2])
    texts = [processor.batch_decode(clip) for clip in sequences]
    gathered = [gather_candidates(*clip) for clip in zip(texts, scores.tolist(), strict=True)]
    if "clap" in choice.weights:
        similarities = compare(processor, clap_embedding, [found.texts for found, _ in gathered])
        gathered = [
            (replace(found, similarities=cosines), places)
            for (found, places), cosines in zip(gathered, similarities, strict=True)
        ]
    orders = [rank_candidates(found, choice.weights, choice.is_fluent)[: choice.num_captions] for found, _ in gathered]
    best = [[found.texts[i] for i in order] for (found, _), order in zip(gathered, orders, strict=True)]
    confidences = compare(processor, clap_embedding, best) or [None] * len(best)
    kept = [[places[i] for i in order] for (_, places), order in zip(gathered, orders, strict=True)]
    # Each clip has as many rows, so that all share its cross-attention: the last ones stand again for what is missing.
    rows = [places + places[-1:] * (choice.num_captions - len(places)) for places in kept]
    chosen = sequences.take_along_dim(torch.tensor(rows, device=sequences.device)[:, :, None], dim=1)
    scores = score(chosen)
    return [
        ChosenCaptions(ids[: len(places)], of_clip[: len(places)], cosines)
        for ids, of_clip, places, cosines in zip(chosen, scores, kept, confidences, strict=True)
    ]


def score_captions(model, states, attention_mask, generate_kwargs: dict, sequences: torch.LongTensor) -> torch.Tensor:
    """Mean log probabilities (B, n) of captions (B, n, S)."""
    prompt = generate_kwargs.get("decoder_input_ids")
    scores = score_sequences(
        model,
        sequences.flatten(0, 1),
        BaseModelOutput(states),
        attention_mask,
        model.find_decoding(**generate_kwargs),
        1 if prompt is None else prompt.shape[1],
    )
    return scores.unflatten(0, sequences.shape[:2])


def compare(processor, clap_embedding: torch.Tensor | None, captions: list[list[str]]) -> list[list[float]] | None:
    """Cosines of recordings with captions of their own by CLAP; None where there is no text tower."""
    if processor.clap_text_encoder is None or clap_embedding is None:
        return None
    return compare_with_captions(processor.clap_text_encoder, clap_embedding, captions)
