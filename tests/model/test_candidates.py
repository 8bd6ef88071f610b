"""Candidates: nucleus samples as a slow and plain implementation draws them, and the same in any company."""

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from conftest import build_model, make_inputs
from enclap_hf.model.candidates import NucleusSampler, choose_tokens, compute_clip_seed, generate_candidates
from enclap_hf.model.caption_choice import CandidateSearch

LENGTHS = (40, 57, 9)
SEEDS = [11, 22, 33]


@pytest.fixture(scope="module")
def model():
    model = build_model()
    for parameter in model.parameters():  # captions that are likely, and others that are
        parameter.data.mul_(0.9)
    model.generation_config.max_length = 12
    return model


def encode(model, rows: list[int] | None = None):
    """Encoder outputs and mask of some of three clips, each alone or with others."""
    inputs = make_inputs(LENGTHS, targets=False)
    wanted = {name: inputs[name] for name in ("audio_codes", "clap_embedding", "attention_mask")}
    if rows is not None:
        longest = max(LENGTHS[row] for row in rows)
        wanted = {name: value[rows] for name, value in wanted.items()}
        wanted["audio_codes"] = wanted["audio_codes"][:, :longest]
        wanted["attention_mask"] = wanted["attention_mask"][:, :longest]
    with torch.no_grad():
        return model.model.encoder(**wanted)[0], wanted["attention_mask"]


def choose_slowly(logits: list[float], code: float, top_p: float, temperature: float) -> tuple[int, float, float]:
    values = np.array(logits, dtype=np.float64) / temperature
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    kept, total = [], 0.0
    for token in order:
        if total >= top_p:
            break
        kept.append(token)
        total += shares[token]
    low = 0.0
    for token in kept:
        share = shares[token] / total
        if code < low + share or token == kept[-1]:
            return int(token), low, share
        low += share


@pytest.mark.parametrize("size", [5, 50, 700])
@pytest.mark.parametrize(("top_p", "temperature"), [(0.9, 0.7), (0.3, 1.0), (1.0, 1.0), (0.99, 3.0)])
def test_a_token_is_the_one_of_the_nucleus_in_whose_share_the_number_lies(size, top_p, temperature):
    generator = torch.Generator().manual_seed(size)
    logits = 3 * torch.randn(40, size, generator=generator)
    code = torch.rand(40, generator=generator, dtype=torch.float64)
    code[:2] = torch.tensor([0.0, 0.99])
    chosen = choose_tokens(logits, code, top_p, temperature)
    for row in range(40):
        token, low, share = choose_slowly(logits[row].tolist(), float(code[row]), top_p, temperature)
        assert chosen[0][row] == token
        assert float(chosen[1][row]) == pytest.approx(low, abs=1e-5)  # shares of float32 logits
        assert float(chosen[2][row]) == pytest.approx(share, abs=1e-5)


def test_tokens_that_may_not_come_never_do():
    logits = torch.full((4, 300), float("-inf"))
    logits[:, 7] = 0.0
    token, _, share = choose_tokens(logits, torch.tensor([0.0, 0.5, 1.0, 0.999], dtype=torch.float64), 0.9, 0.7)
    assert token.tolist() == [7] * 4 and share.tolist() == [1.0] * 4


def sample_slowly(model, states, mask, search: CandidateSearch, clip_seed: int) -> list[list[int]]:
    """One sample after another, the whole prefix decoded anew for each token, without cache."""
    config, rows = model.generation_config, []
    draws = np.random.default_rng([search.seed, clip_seed]).random((search.num_samples, config.max_length))
    for sample, own in enumerate(draws):
        ids, code, width = [model.config.decoder_start_token_id], (sample + own[0]) / search.num_samples, 1.0
        for step in range(1, config.max_length):
            with torch.no_grad():
                logits = model(
                    encoder_outputs=BaseModelOutput(states),
                    attention_mask=mask,
                    decoder_input_ids=torch.tensor([ids]),
                ).logits[0, -1]
            if step == 1:
                logits = torch.full_like(logits, -np.inf).index_fill(0, torch.tensor(config.forced_bos_token_id), 0.0)
            elif step == config.max_length - 1:
                logits = torch.full_like(logits, -np.inf).index_fill(0, torch.tensor(config.forced_eos_token_id), 0.0)
            else:
                for i in range(len(ids) - 2):  # no three tokens twice
                    if ids[i : i + 2] == ids[-2:]:
                        logits[ids[i + 2]] = -np.inf
            code = own[step] if width * search.num_samples < 1 else code
            token, low, share = choose_slowly(logits.tolist(), code, search.top_p, search.temperature)
            code, width = (code - low) / share, width * share
            ids.append(token)
            if token == config.eos_token_id:
                break
        rows.append(ids + [model.config.pad_token_id] * (config.max_length - len(ids)))
    return rows


def test_samples_are_those_of_a_slow_implementation(model):
    states, mask = encode(model)
    search = CandidateSearch(num_candidates=7, seed=5, top_p=0.95, temperature=0.8)
    candidates = generate_candidates(model, states, mask, search, SEEDS)
    for clip, seed in enumerate(SEEDS):
        expected = torch.tensor(sample_slowly(model, *encode(model, [clip]), search, seed))
        assert candidates[clip].tolist() == expected[:, : candidates.shape[2]].tolist()
        assert (expected[:, candidates.shape[2] :] == model.config.pad_token_id).all()
    assert len({tuple(row) for row in candidates.flatten(0, 1).tolist()}) > 12, "samples must differ to tell anything"


@pytest.mark.parametrize("kind", ["beam", "nucleus", "both"])
def test_a_clip_has_the_same_candidates_alone_and_in_any_batch(model, kind):
    search = CandidateSearch(num_candidates=6, kind=kind)
    together = generate_candidates(model, *encode(model), search, SEEDS)
    for rows in ([0], [1], [2], [2, 0], [1, 2]):
        some = generate_candidates(model, *encode(model, rows), search, [SEEDS[row] for row in rows])
        for place, row in enumerate(rows):
            length = min(some.shape[2], together.shape[2])
            assert some[place, :, :length].tolist() == together[row, :, :length].tolist()


def test_beams_are_those_of_the_search_and_come_first(model):
    states, mask = encode(model)
    search = CandidateSearch(num_candidates=6, kind="both")
    both = generate_candidates(model, states, mask, search, SEEDS)
    samples = generate_candidates(model, states, mask, CandidateSearch(num_candidates=4), SEEDS)
    beams = model.generate(
        encoder_outputs=BaseModelOutput(states), attention_mask=mask, num_beams=2, num_return_sequences=2
    ).unflatten(0, (3, 2))
    assert (search.num_beams, search.num_samples) == (2, 4)
    assert both[:, :2, : beams.shape[2]].tolist() == beams.tolist()
    assert both[:, 2:, : samples.shape[2]].tolist() == samples[:, :, : both.shape[2]].tolist()


def test_another_seed_or_another_clip_gives_other_samples(model):
    states, mask = encode(model, [0])
    first, again, other_seed, other_clip = (
        generate_candidates(model, states, mask, CandidateSearch(num_candidates=8, seed=seed), [clip]).tolist()
        for seed, clip in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    assert first == again and first != other_seed and first != other_clip


def test_first_tokens_are_spread_as_evenly_as_whole_numbers_can_be():
    """Of n samples, a token of probability p begins n * p, up to 1."""
    sampler = NucleusSampler(CandidateSearch(num_candidates=20), [1, 2, 3])
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(60, 4)
    tokens, _, _ = choose_tokens(logits, sampler.spread_evenly(sampler.draw_uniforms(3)[:, 0]), 1.0, 1.0)
    for clip in tokens.unflatten(0, (3, 20)):
        counts = clip.bincount(minlength=4)
        assert (counts - torch.tensor([10, 6, 3, 1])).abs().max() <= 1


def test_the_identity_of_a_clip_is_its_sound():
    samples = torch.linspace(-1, 1, 100)
    assert compute_clip_seed(samples) == compute_clip_seed(samples.clone())
    assert compute_clip_seed(samples) != compute_clip_seed(samples[:-1])
    assert 0 <= compute_clip_seed(samples) < 2**64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_candidates": 1}, "Got `num_candidates`=1; expected a whole number of at least 2."),
        ({"num_candidates": 2.0}, "Got `num_candidates`=2.0; expected a whole number"),
        ({"kind": "beams"}, "Got `candidates`='beams'; expected 'beam', 'nucleus', 'both'."),
        ({"seed": -1}, "Got `seed`=-1; expected a whole number of at least 0."),
        ({"seed": True}, "Got `seed`=True"),
        ({"top_p": 0.0}, "Got `top_p`=0.0"),
        ({"top_p": 1.5}, "Got `top_p`=1.5"),
        ({"temperature": 0.0}, "`temperature`=0.0"),
        ({"temperature": float("nan")}, "`temperature`=nan"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match="Got") as raised:
        CandidateSearch(**options)
    assert message in str(raised.value) and "\n" not in str(raised.value)
