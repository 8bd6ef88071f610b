"""Every way of decoding equals a second computation, alone, in a padded batch, and however the audio is passed."""

import itertools

import pytest
import torch
from transformers import EncoderDecoderCache, pipeline
from transformers.modeling_outputs import BaseModelOutput

from conftest import build_model, make_clip, make_inputs
from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration
from enclap_hf.model import generation_enclap

# Plain decoding: no forced tokens and no ban of repeats, so that a short loop can do the same.
PLAIN = {
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "no_repeat_ngram_size": None,
    "early_stopping": None,
    "length_penalty": None,
}
GREEDY = {**PLAIN, "num_beams": 1, "do_sample": False}


@pytest.fixture
def plain_model():
    return make_plain(build_model())


def make_plain(model: EnClapForConditionalGeneration) -> EnClapForConditionalGeneration:
    for name, value in PLAIN.items():
        setattr(model.generation_config, name, value)
    model.generation_config.num_beams = 1
    return model


@pytest.fixture
def audio() -> dict:
    return make_inputs(targets=False)


def clip_alone(inputs: dict, i: int) -> dict:
    length = int(inputs["attention_mask"][i].sum())
    return {
        "audio_codes": inputs["audio_codes"][i : i + 1, :length],
        "clap_embedding": inputs["clap_embedding"][i : i + 1],
    }


def decode_greedily(model, clip: dict, ids: list[int], num_new: int) -> list[int]:
    """The most likely next token, one forward without a cache for each, up to </s>."""
    ids = list(ids)
    for _ in range(num_new):
        with torch.no_grad():
            logits = model(**clip, decoder_input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == model.config.eos_token_id:
            break
    return ids


def token_log_probs(model, inputs: dict, sequences: torch.Tensor) -> torch.Tensor:
    """Log probability of every token of `sequences` (B, S) after its first, in one pass: (B, S - 1)."""
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=sequences[:, :-1], use_cache=False).logits
    return logits.log_softmax(-1).gather(2, sequences[:, 1:, None])[..., 0]


def expand(inputs: dict, copies: int) -> dict:
    return {name: value.repeat_interleave(copies, 0) for name, value in inputs.items()}


def test_greedy_equals_a_loop_without_cache(plain_model, audio):
    ids = plain_model.generate(**audio, max_new_tokens=12)
    for i in range(3):
        expected = decode_greedily(plain_model, clip_alone(audio, i), [2], 12)
        assert ids[i, : len(expected)].tolist() == expected
    assert len({tuple(row.tolist()) for row in ids}) == 3, "clips must differ for this test to tell anything"


@pytest.mark.parametrize("decoding", [{"num_beams": 1}, {"num_beams": 4}])
def test_published_decoding_captions_a_clip_alone_as_in_a_padded_batch(tiny_model, audio, decoding):
    ids = tiny_model.generate(**audio, max_new_tokens=14, **decoding)
    for i in range(3):
        alone = tiny_model.generate(**clip_alone(audio, i), max_new_tokens=14, **decoding)
        assert torch.equal(ids[i : i + 1, : alone.shape[1]], alone)


def test_published_decoding_forces_both_ends_and_repeats_no_three_tokens(tiny_model, audio):
    ids = tiny_model.generate(**audio, max_length=30)
    assert ids.shape[1] <= 30
    for row in ids.tolist():
        row = row[: row.index(1)] if 1 in row else row
        assert row[:2] == [2, 0] and row[-1] == 2
        triples = list(zip(row, row[1:], row[2:], strict=False))
        assert len(triples) == len(set(triples))


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_repositorys_own_length_counts_the_start_token_as_published(tiny_model, audio, num_beams):
    tiny_model.generation_config.max_length = 9
    by_default = tiny_model.generate(**audio, num_beams=num_beams)
    assert by_default.shape[1] == 9
    assert torch.equal(by_default, tiny_model.generate(**audio, num_beams=num_beams, max_length=9))


def test_beam_scores_are_the_mean_log_probabilities_of_the_captions_tokens(plain_model, audio):
    out = plain_model.generate(
        **audio,
        num_beams=4,
        num_return_sequences=4,
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_scores=True,
    )
    log_probs = token_log_probs(plain_model, expand(audio, 4), out.sequences)
    is_token = out.sequences[:, 1:] != plain_model.config.pad_token_id
    means = log_probs.masked_fill(~is_token, 0).sum(1) / is_token.sum(1)
    torch.testing.assert_close(out.sequences_scores, means, atol=1e-4, rtol=0)  # float32, another order of steps
    scores = out.sequences_scores.view(3, 4)
    assert (scores.diff(dim=1) <= 0).all(), "best first"
    for captions in out.sequences.view(3, 4, -1).tolist():
        assert len({tuple(caption) for caption in captions}) == 4


def test_a_beam_as_wide_as_the_search_finds_the_best_of_all_captions():
    model = make_plain(build_model(vocab_size=8))
    audio = make_inputs((12,), config=model.config, targets=False)
    model.generation_config.suppress_tokens = [1, 2]  # every caption has full length, so scores compare as sums
    out = model.generate(**audio, num_beams=216, max_new_tokens=3, return_dict_in_generate=True, output_scores=True)
    allowed = [token for token in range(8) if token not in (1, 2)]
    every = torch.tensor([[2, *tokens] for tokens in itertools.product(allowed, repeat=3)])
    with torch.no_grad():
        logits = model(**expand(audio, len(every)), decoder_input_ids=every[:, :-1], use_cache=False).logits
    totals = logits.log_softmax(-1).gather(2, every[:, 1:, None])[..., 0].sum(1)
    assert out.sequences[0].tolist() == every[totals.argmax()].tolist()
    torch.testing.assert_close(out.sequences_scores[0] * 3, totals.max(), atol=1e-4, rtol=0)


def test_sampling_follows_its_seed_and_the_model(plain_model, audio):
    def sample(seed):
        torch.manual_seed(seed)
        return plain_model.generate(**audio, do_sample=True, max_new_tokens=10)

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    narrow = plain_model.generate(**audio, do_sample=True, top_k=1, max_new_tokens=10)
    assert torch.equal(narrow, plain_model.generate(**audio, max_new_tokens=10))


def test_sampling_draws_tokens_as_often_as_they_are_likely(plain_model):
    audio = make_inputs((12,), targets=False)
    torch.manual_seed(0)
    plain_model.final_logits_bias[:, 6:] = -1e9  # leaves six tokens
    drawn = plain_model.generate(
        **audio, do_sample=True, top_k=0, temperature=8.0, max_new_tokens=1, num_return_sequences=2000
    )[:, 1]
    with torch.no_grad():
        logits = plain_model(**audio, decoder_input_ids=torch.tensor([[2]])).logits[0, 0]
    shares = drawn.bincount(minlength=6) / 2000
    torch.testing.assert_close(shares, (logits / 8.0).softmax(-1)[:6], atol=0.05, rtol=0)  # over 4 standard errors


@pytest.mark.parametrize("decoding", [{"num_beams": 1}, {"num_beams": 3}])
def test_a_static_cache_gives_the_same_ids(tiny_model, audio, decoding):
    expected = tiny_model.generate(**audio, max_new_tokens=12, **decoding)
    static = tiny_model.generate(
        **audio, max_new_tokens=12, **decoding, cache_implementation="static", disable_compile=True
    )
    assert torch.equal(static, expected)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_clips_attend_by_themselves_as_by_the_attention_of_transformers(tiny_model, audio, monkeypatch, num_beams):
    def search():
        decoding = {"num_beams": num_beams, "max_new_tokens": 8, "return_dict_in_generate": True}
        return tiny_model.generate(**audio, **decoding, output_scores=True, output_logits=True)

    used, attends = [], generation_enclap.attends_plainly
    monkeypatch.setattr(generation_enclap, "attends_plainly", lambda *args: used.append(attends(*args)) or used[-1])
    ours = search()
    assert used == [True] * 2 * 8 * tiny_model.config.decoder_layers, "both attentions of each layer at each step"
    monkeypatch.setattr(generation_enclap, "attends_plainly", lambda *args: False)
    expected = search()
    assert torch.equal(ours.sequences, expected.sequences)
    torch.testing.assert_close(ours.logits, expected.logits, atol=2e-5, rtol=1e-5)  # float32 sums in another order
    if num_beams > 1:
        torch.testing.assert_close(ours.sequences_scores, expected.sequences_scores, atol=1e-6, rtol=0)


def test_eager_attention_returns_the_weights_of_every_beam(tiny_model, audio):
    tiny_model.set_attn_implementation("eager")
    out = tiny_model.generate(**audio, max_new_tokens=8, return_dict_in_generate=True, output_attentions=True)
    assert out.cross_attentions[3][0].shape == (12, 4, 1, 60)
    torch.testing.assert_close(out.cross_attentions[3][0].sum(-1), torch.ones(12, 4, 1))
    tiny_model.set_attn_implementation("sdpa")
    assert torch.equal(out.sequences, tiny_model.generate(**audio, max_new_tokens=8))


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, "static"])
def test_compiled_decoding_gives_the_same_ids(tiny_model, audio, cache):
    """One graph for the forward of a step; the backend leaves out the C++ compiler."""
    expected = tiny_model.generate(**audio, max_new_tokens=4)
    torch.compiler.reset()
    tiny_model.forward = torch.compile(tiny_model.forward, backend="eager", fullgraph=True, dynamic=True)
    assert torch.equal(tiny_model.generate(**audio, max_new_tokens=4, cache_implementation=cache), expected)


def test_one_argument_captions_in_bfloat16_and_leaves_the_front_end_in_float32():
    clip = {"array": make_clip(2.0), "sampling_rate": 24_000}
    caption = pipeline("audio-captioning", model=DEFAULT_MODEL, dtype=torch.bfloat16)
    codes, embedding = (caption.processor(audio=[clip])[name] for name in ("audio_codes", "clap_embedding"))
    assert caption(clip)["text"]
    assert caption.model.dtype == torch.bfloat16
    assert caption.processor.codec.dtype == caption.processor.clap.dtype == torch.float32
    expected = pipeline("audio-captioning", model=DEFAULT_MODEL).processor(audio=[clip])
    assert torch.equal(codes, expected["audio_codes"]) and torch.equal(embedding, expected["clap_embedding"])


def test_evaluation_leaves_the_cache_out(tiny_model, audio):
    """A trainer gathers every output that the configuration does not name."""
    out = tiny_model(**audio, decoder_input_ids=torch.tensor([[2, 0]] * 3), use_cache=True)
    left_out = [value for name, value in out.items() if name in tiny_model.config.keys_to_ignore_at_inference]
    assert [type(value) for value in left_out] == [EncoderDecoderCache]


def test_no_cache_gives_the_same_ids(tiny_model, audio):
    expected = tiny_model.generate(**audio, max_new_tokens=12)
    assert torch.equal(tiny_model.generate(**audio, max_new_tokens=12, use_cache=False), expected)


@pytest.mark.parametrize("wrap", [lambda states: BaseModelOutput(states), lambda states: (states,)])
def test_encoder_outputs_serve_twice_and_stay_as_they_were(tiny_model, audio, wrap):
    """Beam search repeats the encoder outputs that it is given in place, once for each beam."""
    with torch.no_grad():
        states = tiny_model.model.encoder(**audio).last_hidden_state
    outputs, before = wrap(states), states.clone()
    expected = tiny_model.generate(**audio, max_new_tokens=12)
    for _ in range(2):
        ids = tiny_model.generate(encoder_outputs=outputs, attention_mask=audio["attention_mask"], max_new_tokens=12)
        assert torch.equal(ids, expected)
        assert outputs[0].shape == before.shape and torch.equal(outputs[0], before)


def test_embedded_frames_caption_as_their_codes(tiny_model, audio):
    expected = tiny_model.generate(**audio, max_new_tokens=12)
    frames = tiny_model.model.encoder.embed_encodec(audio["audio_codes"])
    others = {name: value for name, value in audio.items() if name != "audio_codes"}
    for _ in range(2):
        assert torch.equal(tiny_model.generate(inputs_embeds=frames, **others, max_new_tokens=12), expected)


def test_codes_may_be_the_first_argument(tiny_model, audio):
    expected = tiny_model.generate(**audio, max_new_tokens=6)
    codes = audio.pop("audio_codes")
    assert torch.equal(tiny_model.generate(codes, **audio, max_new_tokens=6), expected)


def test_a_caption_goes_on_from_its_prompt(plain_model, audio):
    for prompt in ([2, 0, 44], [2, 0, 7, 91, 12]):
        ids = plain_model.generate(**audio, decoder_input_ids=torch.tensor([prompt] * 3), max_new_tokens=8)
        for i in range(3):
            expected = decode_greedily(plain_model, clip_alone(audio, i), prompt, 8)
            assert ids[i, : len(expected)].tolist() == expected


@pytest.mark.parametrize("num_beams", [1, 4])
def test_its_own_beginning_as_a_prompt_gives_the_same_greedy_caption(tiny_model, audio, num_beams):
    clip = clip_alone(audio, 0)
    whole = tiny_model.generate(**clip, max_length=14, num_beams=1)
    prompted = tiny_model.generate(**clip, decoder_input_ids=whole[:, :5], max_length=14, num_beams=num_beams)
    assert torch.equal(prompted[:, :5], whole[:, :5])
    if num_beams == 1:
        assert torch.equal(prompted, whole)


def test_a_caption_needs_no_clap_embedding(tiny_model, audio):
    zeros = {**audio, "clap_embedding": torch.zeros_like(audio["clap_embedding"])}
    expected = tiny_model.generate(**zeros, max_new_tokens=8)
    del audio["clap_embedding"]
    assert torch.equal(tiny_model.generate(**audio, max_new_tokens=8), expected)


def test_without_audio_generate_says_what_to_pass(tiny_model):
    with pytest.raises(ValueError, match="audio_codes"):
        tiny_model.generate(max_new_tokens=3)


def test_an_unknown_argument_is_refused(tiny_model, audio):
    with pytest.raises(ValueError, match="audio_kodes"):
        tiny_model.generate(**audio, audio_kodes=1)


def test_a_repository_keeps_its_own_decoding(tmp_path, tiny_model):
    assert tiny_model.generation_config.num_beams == 4 and tiny_model.generation_config.max_length == 50
    tiny_model.generation_config.update(num_beams=2, max_length=33)
    tiny_model.save_pretrained(tmp_path)
    loaded = EnClapForConditionalGeneration.from_pretrained(tmp_path)
    assert (loaded.generation_config.num_beams, loaded.generation_config.max_length) == (2, 33)
    assert (loaded.generation_config.forced_bos_token_id, loaded.generation_config.forced_eos_token_id) == (0, 2)


def test_generating_leaves_gradients_and_training_mode_alone(tiny_model, audio):
    tiny_model.train()
    ids = tiny_model.generate(**audio, max_new_tokens=4)
    assert tiny_model.training and not ids.requires_grad
    assert all(parameter.requires_grad and parameter.grad is None for parameter in tiny_model.parameters())
