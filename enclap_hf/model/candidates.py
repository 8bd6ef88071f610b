"""Several captions of each recording to choose from: the beams of a search, nucleus samples, or both.

All samples of a batch are drawn in one go, and those of a clip share its cross-attention (`generation_enclap.py`). Two
things differ from sampling as transformers does it:

* A clip has random numbers of its own, from the seed and from what the clip is. So it gets the same samples alone, in
  any batch and in any process.
* The samples of a clip are spread evenly over what the model finds likely: their first tokens split one stratified
  draw, sample i the i-th of n equal parts of all captions. Few samples then show as much as many independent ones, and
  each is still distributed as an independent one.

Source: nucleus sampling, Holtzman et al., ICLR 2020; the even spread, Vilnis et al., ICML 2023 (arithmetic sampling).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from .caption_choice import CandidateSearch

# Arguments of `generate` under which it leaves logits and search to the sampler.
OF_SAMPLER = {
    **{"num_beams": 1, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
    **{"early_stopping": False, "length_penalty": 1.0},
}
# Tokens among which the nucleus is looked for before all of the vocabulary is sorted.
NUCLEUS_CANDIDATES = 128


def generate_candidates(
    model,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    search: CandidateSearch,
    clip_seeds: list[int],
    **generate_kwargs,
) -> torch.LongTensor:
    """Write the candidates of a batch of encoded recordings.

    Args:
        model: [`EnClapForConditionalGeneration`].
        states: the encoder's output, (B, T + 3, D).
        attention_mask: (B, T) of the frames.
        search: what is wanted.
        clip_seeds: what tells the clips apart, one number each, see [`compute_clip_seed`].
        generate_kwargs: arguments of `generate`; those about the number of captions and about sampling are `search`'s.
    Returns:
        (B, num_candidates, S) token ids, beams first, padded with the pad token.
    """
    parts, shared = [], {"attention_mask": attention_mask, **generate_kwargs}
    if search.num_beams:
        ids = model.generate(
            encoder_outputs=BaseModelOutput(states),
            **{**shared, "num_beams": search.num_beams, "num_return_sequences": search.num_beams, "do_sample": False},
        )
        parts.append(ids.unflatten(0, (len(states), -1)))
    if search.num_samples:
        sampler = NucleusSampler(search, clip_seeds)
        ids = model.generate(
            encoder_outputs=BaseModelOutput(states),
            custom_generate=sampler,
            **{**shared, **OF_SAMPLER, "num_return_sequences": search.num_samples},
        )
        parts.append(ids.unflatten(0, (len(states), -1)))
    longest = max(part.shape[2] for part in parts)
    pad = model.config.pad_token_id
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[2]), value=pad) for part in parts], dim=1)


def compute_clip_seed(samples: torch.Tensor) -> int:
    """A number that a clip's samples have wherever and among whichever others they are read."""
    content = samples.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@dataclass
class NucleusSampler:
    """Draws nucleus samples; `generate` runs it as its `custom_generate`.

    Args:
        search: number of samples of a clip, nucleus, temperature and seed.
        clip_seeds: one number a clip.
    """

    search: CandidateSearch
    clip_seeds: list[int]

    def __call__(self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        """Continue the prompts (B * n, S) until all have ended, and return all tokens."""
        pad = generation_config.pad_token_id
        draws = self.draw_uniforms(generation_config.max_length - input_ids.shape[1])
        draws = draws.to(input_ids.device, torch.float32 if input_ids.device.type == "mps" else torch.float64)
        code, width = self.spread_evenly(draws[:, 0]), torch.ones_like(draws[:, 0])
        is_done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        cache, given = None, input_ids
        for step in range(draws.shape[1] - 1):
            outputs = model(
                decoder_input_ids=given,
                encoder_outputs=model_kwargs["encoder_outputs"],
                attention_mask=model_kwargs.get("attention_mask"),
                past_key_values=cache,
                use_cache=True,
            )
            cache = outputs.past_key_values
            logits = logits_processor(input_ids, outputs.logits[:, -1].float())
            # Where a clip's samples have parted, what is left of the shared draw is as good as a new one.
            code = torch.where(width * self.search.num_samples < 1, draws[:, step + 1], code)
            given, low, share = choose_tokens(logits, code, self.search.top_p, self.search.temperature)
            code, width = ((code - low) / share).clamp(0, 1), width * share
            given = given.masked_fill(is_done, pad)[:, None]
            input_ids = torch.cat([input_ids, given], dim=1)
            is_done |= stopping_criteria(input_ids, None)
            if is_done.all():
                break
        return input_ids

    def take_clip(self, i: int) -> "NucleusSampler":
        """The sampler of one of the clips, which draws what it draws for it among the others."""
        return NucleusSampler(self.search, [self.clip_seeds[i]])

    def draw_uniforms(self, num_steps: int) -> torch.Tensor:
        """Numbers from 0 to 1 for every sample and step, (B * n, 1 + num_steps) float64, clip by clip."""
        shape = (self.search.num_samples, 1 + num_steps)
        rows = [np.random.default_rng([self.search.seed, clip]).random(shape) for clip in self.clip_seeds]
        return torch.from_numpy(np.concatenate(rows))

    def spread_evenly(self, draws: torch.Tensor) -> torch.Tensor:
        """One number (B * n,) in each of the n equal parts of 0 to 1, for each clip."""
        parts = torch.arange(self.search.num_samples, dtype=draws.dtype, device=draws.device)
        return (parts.repeat(len(self.clip_seeds)) + draws) / self.search.num_samples


def choose_tokens(
    logits: torch.Tensor, code: torch.Tensor, top_p: float, temperature: float
) -> tuple[torch.LongTensor, torch.Tensor, torch.Tensor]:
    """The token of each row's nucleus in whose share of 0 to 1 a number lies, likely tokens first.

    Args:
        logits: (N, V) float32.
        code: (N,) float64 from 0 to 1.
        top_p, temperature: as in [`CandidateSearch`].
    Returns:
        (N,) token ids; (N,) where their shares begin, and (N,) how wide these are.
    """
    logits = logits / temperature
    total = logits.logsumexp(dim=1, keepdim=True)
    num_kept = min(NUCLEUS_CANDIDATES, logits.shape[1])
    while True:
        values, tokens = logits.topk(num_kept, dim=1)
        shares = (values - total).exp().to(code.dtype)
        before = shares.cumsum(1) - shares
        if num_kept == logits.shape[1] or bool((before[:, -1] >= top_p).all()):
            break
        num_kept = logits.shape[1]
    shares = shares.masked_fill((before >= top_p), 0.0)
    shares = shares / shares.sum(1, keepdim=True)
    ends = shares.cumsum(1)
    place = (ends <= code[:, None]).sum(1, keepdim=True)
    place = torch.minimum(place, (shares > 0).sum(1, keepdim=True) - 1)
    share = shares.gather(1, place)
    return tokens.gather(1, place)[:, 0], (ends.gather(1, place) - share)[:, 0], share[:, 0]
