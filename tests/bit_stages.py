"""What a batch gives at each stage between recordings and captions, clip by clip, to compare bit for bit."""

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from conftest import make_clip
from enclap_hf.model.caption_scores import score_sequences

RATE = 24_000
# A beam search is the first of its n best.
DECODINGS = {
    "greedy": {"num_beams": 1},
    "n-best": {"num_beams": 4, "num_return_sequences": 4},
    "samples": {"num_beams": 1, "do_sample": True, "num_return_sequences": 2},
}


def make_clips(num_clips: int, longest_s: float = 14.0) -> list[dict]:
    """Clips of unlike lengths from 0.3 s on, some of equal length, every seventh silent."""
    rng = np.random.default_rng(0)
    durations = [0.3, longest_s, 2.0, 2.0, *rng.uniform(0.3, longest_s / 2, num_clips)][:num_clips]
    arrays = [make_clip(duration_s, seed) * (seed % 7 != 5) for seed, duration_s in enumerate(durations)]
    return [{"array": array.astype(np.float32), "sampling_rate": RATE} for array in arrays]


def shuffle_batches(num_clips: int, batch_size: int, seed: int) -> list[list[int]]:
    """All clips in batches, in an order of the seed."""
    order = np.random.default_rng(seed).permutation(num_clips).tolist()
    return [order[start : start + batch_size] for start in range(0, num_clips, batch_size)]


def run_stages(model, processor, clips: list[dict], numbers: list[int], decodings=DECODINGS) -> list[dict]:
    """Each stage of each clip, as one batch gives it: tensors, and token ids as lists.

    Args:
        numbers: of the clips, which seed their samples.
    """
    batch = processor(audio=[clips[number] for number in numbers]).to(model.device)
    return run_model_stages(model, batch, numbers, decodings)


def run_model_stages(model, batch: dict, numbers: list[int], decodings=DECODINGS) -> list[dict]:
    """[`run_stages`] from the model's inputs on."""
    mask = batch["attention_mask"]
    with torch.no_grad():
        states = model.model.encoder(**batch).last_hidden_state
    lengths = mask.sum(1).tolist()
    stages = [
        {
            "codes": batch["audio_codes"][i, :length],
            "CLAP embedding": batch["clap_embedding"][i],
            "encoder states": states[i, : length + 3],
        }
        for i, length in enumerate(lengths)
    ]
    for name, decoding in decodings.items():
        seed = {"seed": [100 + number for number in numbers]} if decoding.get("do_sample") else {}
        out = model.generate(
            **batch, **decoding, **seed, return_dict_in_generate=True, output_scores=True, output_logits=True
        )
        scores = score_sequences(
            model, out.sequences, BaseModelOutput(states), mask, model.find_decoding(**decoding), num_prompt_tokens=1
        )
        add_captions(stages, name, out, scores)
    return stages


def add_captions(stages: list[dict], name: str, out, scores: torch.Tensor) -> None:
    """Sort what `generate` returned by clips."""
    num_captions, num_rows = len(out.sequences) // len(stages), len(out.logits[0]) // len(stages)
    for i, clip in enumerate(stages):
        own = slice(i * num_captions, (i + 1) * num_captions)
        clip[f"{name}: first logits"] = out.logits[0][i * num_rows : (i + 1) * num_rows]
        clip[f"{name}: ids"] = [[token for token in row if token != 1] for row in out.sequences[own].tolist()]
        if out.get("sequences_scores") is not None:
            clip[f"{name}: scores of the search"] = out.sequences_scores[own]
        clip[f"{name}: scores"] = scores[own]


def find_differences(got: dict, alone: dict) -> list[str]:
    """Stages of a clip in which a bit differs, in their order."""
    assert got.keys() == alone.keys()
    return [
        stage
        for stage, value in got.items()
        if not (torch.equal(value, alone[stage]) if torch.is_tensor(value) else value == alone[stage])
    ]


def assert_same_bits(model, processor, clips: list[dict], batch_sizes, decodings=DECODINGS) -> None:
    """Compare batches of several sizes, in several orders, with each clip alone."""
    everything = range(len(clips))
    alone = [run_stages(model, processor, clips, [number], decodings)[0] for number in everything]
    different = {}
    for batch_size in batch_sizes:
        for numbers in shuffle_batches(len(clips), batch_size, seed=batch_size):
            for number, got in zip(numbers, run_stages(model, processor, clips, numbers, decodings), strict=True):
                stages = find_differences(got, alone[number])
                if stages:
                    different[f"clip {number} of {numbers}"] = stages
    assert not different, different
