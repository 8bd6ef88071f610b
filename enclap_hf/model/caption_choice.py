"""The best of several captions of a recording: candidates are written (`candidates.py`) and ranked (`reranking.py`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers.modeling_outputs import BaseModelOutput

from .candidates import CandidateSearch, generate_candidates
from .caption_scores import score_sequences
from .clap_text import compare_with_captions
from .reranking import NO_TEXT_TOWER, ClipCandidates, gather_candidates, rank_candidates, read_mixture

# Arguments of a call that choose among several captions of a recording.
CHOICE_ARGUMENTS = ("num_candidates", "candidates", "rerank", "seed", "is_fluent")
# Arguments of `generate` that a search for candidates sets itself.
SET_BY_SEARCH = ("num_beams", "do_sample", "top_k")


@dataclass(frozen=True)
class CaptionChoice:
    """How a caption is chosen.

    Args:
        search: how candidates are made.
        weights: of the scorers, see [`read_mixture`].
        num_captions: of each recording, best first.
        is_fluent: see [`rank_candidates`].
    """

    search: CandidateSearch
    weights: dict[str, float]
    num_captions: int = 1
    is_fluent: Callable[[list[str]], Sequence[bool]] | None = field(default=None, compare=False)


class ChosenCaptions(NamedTuple):
    """The captions of one recording, best first: ids (n, S), mean log probabilities (n,), cosines by CLAP or None."""

    sequences: torch.LongTensor
    scores: torch.Tensor
    confidences: list[float] | None


def read_choice(arguments: dict) -> tuple[CaptionChoice | None, dict]:
    """What a caller asks for in the way of candidates.

    Args:
        arguments: of a call of the pipeline, those of `generate` among them. `num_candidates`, `candidates` and `seed`
            are those of [`CandidateSearch`], as are `top_p` and `temperature`; `rerank` is that of [`read_mixture`],
            "consensus" where candidates are asked for alone; `is_fluent` that of [`rank_candidates`].
    Returns:
        the choice, None where none is asked for; and the arguments that are left for `generate`.
    Raises:
        ValueError: a value out of its range, or an argument that only a search without candidates has.
    """
    asked = {name: arguments.get(name) for name in CHOICE_ARGUMENTS}
    generate_kwargs = {name: value for name, value in arguments.items() if name not in CHOICE_ARGUMENTS}
    if all(asked[name] is None for name in ("num_candidates", "candidates", "rerank")):
        useless = [name for name, value in asked.items() if value is not None]
        if useless:
            raise ValueError(
                f"Got `{useless[0]}` without candidates to choose from; pass `num_candidates` or `rerank` with it, or "
                "leave it out."
            )
        return None, generate_kwargs
    for name in SET_BY_SEARCH:
        if generate_kwargs.get(name) is not None:
            raise ValueError(
                f"Got `{name}` beside candidates, which are made in a way of their own; leave it out, and set "
                "`num_candidates`, `candidates`, `top_p` and `temperature`."
            )
    wanted = {"num_candidates": asked["num_candidates"], "kind": asked["candidates"], "seed": asked["seed"]}
    wanted |= {name: generate_kwargs.get(name) for name in ("top_p", "temperature")}
    search = CandidateSearch(**{name: value for name, value in wanted.items() if value is not None})
    number = generate_kwargs.get("num_return_sequences") or 1
    if number > search.num_candidates:
        raise ValueError(
            f"Got `num_return_sequences`={number} of `num_candidates`={search.num_candidates}; ask for as many "
            "candidates at least."
        )
    used = ("top_p", "temperature", "num_return_sequences")
    left = {name: value for name, value in generate_kwargs.items() if name not in used}
    weights = read_mixture("consensus" if asked["rerank"] is None else asked["rerank"])
    return CaptionChoice(search, weights, number, asked["is_fluent"]), left


def check_choice(choice: CaptionChoice | None, processor) -> None:
    """Refuse a choice by CLAP where there is no text tower.

    Raises:
        ValueError: it cannot be done.
    """
    if choice is not None and "clap" in choice.weights and processor.clap_text_encoder is None:
        raise ValueError(NO_TEXT_TOWER)


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
    check_choice(choice, processor)
    sequences = generate_candidates(model, states, attention_mask, choice.search, clip_seeds, **generate_kwargs)
    prompt = generate_kwargs.get("decoder_input_ids")
    scores = score_sequences(
        model,
        sequences.flatten(0, 1),
        BaseModelOutput(states),
        attention_mask,
        model.find_decoding(**generate_kwargs),
        1 if prompt is None else prompt.shape[1],
    ).unflatten(0, sequences.shape[:2])
    texts = [processor.batch_decode(clip) for clip in sequences]
    gathered = [gather_candidates(*clip) for clip in zip(texts, scores.tolist(), strict=True)]
    if "clap" in choice.weights:
        similarities = compare(processor, clap_embedding, [candidates.texts for candidates, _ in gathered])
        gathered = [
            (ClipCandidates(found.texts, found.counts, found.likelihoods, cosines), places)
            for (found, places), cosines in zip(gathered, similarities, strict=True)
        ]
    orders = [rank_candidates(found, choice.weights, choice.is_fluent)[: choice.num_captions] for found, _ in gathered]
    best = [[found.texts[i] for i in order] for (found, _), order in zip(gathered, orders, strict=True)]
    confidences = compare(processor, clap_embedding, best)
    chosen = []
    for clip, ((_, places), order) in enumerate(zip(gathered, orders, strict=True)):
        kept = [places[i] for i in order]
        chosen.append(ChosenCaptions(sequences[clip, kept], scores[clip, kept], confidences and confidences[clip]))
    return chosen


def compare(processor, clap_embedding: torch.Tensor | None, captions: list[list[str]]) -> list[list[float]] | None:
    """Cosines of recordings with captions of their own by CLAP; None where there is no text tower."""
    if processor.clap_text_encoder is None or clap_embedding is None:
        return None
    return compare_with_captions(processor.clap_text_encoder, clap_embedding, captions)
