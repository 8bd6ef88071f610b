"""On a CPU a clip has the same bits alone, in any batch, beside any neighbours and at any place in it."""

import pytest
import torch
from torch import nn

from bit_stages import DECODINGS, assert_same_bits, find_differences, make_clips, run_model_stages
from conftest import build_config, build_model, build_processor, make_inputs
from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model import clips_apart, encoder_enclap, generation_enclap
from enclap_hf.model.onednn_linear import HAS_ONEDNN, use_onednn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Widths that no vector of a processor divides, a head of an odd width, one of a single head.
ODD_SIZES = {
    "narrow heads": {"d_model": 48, "decoder_attention_heads": 4, "encoder_attention_heads": 4, "decoder_ffn_dim": 80},
    "odd width": {"d_model": 33, "decoder_attention_heads": 3, "encoder_attention_heads": 3, "decoder_ffn_dim": 55},
    "one head": {"d_model": 64, "decoder_attention_heads": 1, "encoder_attention_heads": 1, "vocab_size": 321},
}
LENGTHS = (40, 57, 57, 1, 200)
SEARCHES = {name: DECODINGS[name] for name in ("greedy", "n-best")}


@pytest.fixture(scope="module")
def processor() -> EnClapProcessor:
    return EnClapProcessor.from_pretrained(DEFAULT_MODEL)


def load_captioner(dtype: str) -> EnClapForConditionalGeneration:
    return EnClapForConditionalGeneration.from_pretrained(DEFAULT_MODEL, dtype=DTYPES[dtype]).eval()


@pytest.mark.parametrize("dtype", DTYPES)
def test_clips_of_unlike_lengths_in_batches_and_alone(processor, dtype):
    assert_same_bits(load_captioner(dtype), processor, make_clips(6, 8.0), (6,))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_forty_clips_in_batches_of_every_size(processor, dtype):
    assert_same_bits(load_captioner(dtype), processor, make_clips(40), (1, 2, 3, 8, 17))


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("dtype", DTYPES)
def test_forty_clips_on_an_accelerator(dtype):
    """Nothing is promised there; this names the stages that differ."""
    processor = EnClapProcessor.from_pretrained(DEFAULT_MODEL).to("cuda")
    assert_same_bits(load_captioner(dtype).to("cuda"), processor, make_clips(40), (1, 2, 3, 8, 17))


def choose_clips(batch: dict, numbers: list[int]) -> dict:
    """Some clips of a batch, as long as the longest of them."""
    chosen = {name: value[numbers] for name, value in batch.items()}
    longest = int(chosen["attention_mask"].sum(1).max())
    return {name: value[:, :longest] if name != "clap_embedding" else value for name, value in chosen.items()}


def compare_with_clips_alone(model, batch: dict, decodings=SEARCHES) -> list[str]:
    """Differences of a batch, reversed and a part of it, from its clips alone."""
    everything = list(range(len(batch["attention_mask"])))
    alone = [run_model_stages(model, choose_clips(batch, [i]), [i], decodings)[0] for i in everything]
    different = []
    for numbers in (everything[::-1], everything[1:3]):
        for number, got in zip(
            numbers, run_model_stages(model, choose_clips(batch, numbers), numbers, decodings), strict=True
        ):
            different += [f"clip {number} of {numbers}: {stage}" for stage in find_differences(got, alone[number])]
    return different


def short(model):
    model.generation_config.max_length = 7
    return model.eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", ODD_SIZES.values(), ids=ODD_SIZES)
def test_captioners_of_odd_sizes(sizes, dtype):
    config = build_config(**sizes)
    model = short(build_model(**sizes).to(DTYPES[dtype]))
    assert compare_with_clips_alone(model, make_inputs(LENGTHS, config=config, targets=False)) == []


def plain(model):
    use_onednn(model, False)


def eager(model):
    model.set_attn_implementation("eager")


def static(model):
    model.generation_config.cache_implementation = "static"
    model.generation_config.disable_compile = True


def hooked(model):
    model.model.decoder.layers[0].fc1.register_forward_hook(lambda module, arguments, output: output)


def half(model):
    model.to(torch.float16)


def on_an_old_processor(model):
    """One without bfloat16, which torch multiplies there by itself."""
    model.to(torch.bfloat16)


@pytest.mark.parametrize("change", [plain, eager, static, hooked, half, on_an_old_processor])
def test_where_rows_would_not_keep_their_bits_clips_are_captioned_apart(monkeypatch, change):
    if change is on_an_old_processor:
        monkeypatch.setattr(clips_apart, "has_onednn_for", lambda dtype: dtype == torch.float32)
    model = short(build_model())
    change(model)
    apart, calls = clips_apart.generate_apart, []
    monkeypatch.setattr(
        "enclap_hf.model.modeling_enclap.generate_apart", lambda *args: calls.append(args) or apart(*args)
    )
    batch = make_inputs(LENGTHS, config=model.config, targets=False)
    assert compare_with_clips_alone(model, batch, {"n-best": DECODINGS["n-best"]}) == []
    assert calls


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_decoder_of_a_batch_runs_as_one(monkeypatch, dtype):
    if not HAS_ONEDNN or not clips_apart.has_onednn_for(DTYPES[dtype]):
        pytest.skip("torch has no oneDNN for this processor and these numbers")

    def refuse(*args):
        raise AssertionError("clips one after another take several times as long")

    monkeypatch.setattr("enclap_hf.model.modeling_enclap.generate_apart", refuse)
    model, batch = build_model().to(DTYPES[dtype]), make_inputs(LENGTHS, targets=False)
    for decoding in ({}, {"num_beams": 1}, {"do_sample": True, "num_beams": 1}):
        model.generate(**batch, **decoding, max_length=5)


def test_a_mask_without_padding_and_padding_without_neighbours_change_nothing():
    model = short(build_model())
    whole = make_inputs((57,), targets=False)
    padded = {
        **whole,
        "audio_codes": nn.functional.pad(whole["audio_codes"], (0, 0, 0, 30), value=model.config.codec_mask_token_id),
        "attention_mask": nn.functional.pad(whole["attention_mask"], (0, 30)),
    }
    unmasked = {name: value for name, value in whole.items() if name != "attention_mask"}
    expected = model.generate(**whole, return_dict_in_generate=True, output_scores=True)
    for batch in (padded, unmasked):
        out = model.generate(**batch, return_dict_in_generate=True, output_scores=True)
        assert torch.equal(out.sequences, expected.sequences)
        assert torch.equal(out.sequences_scores, expected.sequences_scores)


def test_under_autocast_clips_keep_their_bits():
    model, batch = short(build_model()), make_inputs(LENGTHS, targets=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert compare_with_clips_alone(model, batch, {"n-best": DECODINGS["n-best"]}) == []


def test_samples_of_a_seed_leave_torchs_generator_alone():
    model, batch = short(build_model()), make_inputs(LENGTHS, targets=False)
    before = torch.random.get_rng_state()
    samples = [model.generate(**batch, do_sample=True, num_beams=1, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])


def test_prompts_and_one_pass_over_captions_keep_their_bits():
    model, batch = short(build_model()), make_inputs(LENGTHS, targets=False)
    prompts = torch.randint(4, 300, (len(LENGTHS), 5), generator=torch.Generator().manual_seed(0))
    ids = model.generate(**batch, decoder_input_ids=prompts)
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=prompts).logits
    for i in range(len(LENGTHS)):
        clip, own = choose_clips(batch, [i]), prompts[i : i + 1]
        alone = model.generate(**clip, decoder_input_ids=own)
        assert torch.equal(ids[i : i + 1, : alone.shape[1]], alone)
        with torch.no_grad():
            assert torch.equal(logits[i : i + 1], model(**clip, decoder_input_ids=own).logits)


# Mutations: what the tests above are there to find


def pad_encoder(monkeypatch):
    monkeypatch.setattr(encoder_enclap.EnClapEncoder, "encodes_apart", lambda *args: False)


def pad_attention(monkeypatch):
    monkeypatch.setattr(generation_enclap, "attends_plainly", lambda *args: False)


@pytest.mark.parametrize(
    "pad, stage",
    [(pad_encoder, "encoder states"), (pad_attention, "n-best: first logits")],
    ids=["encoder", "attention"],
)
def test_padding_put_back_is_found_and_named(monkeypatch, pad, stage):
    pad(monkeypatch)
    model = short(build_model(d_model=64, decoder_attention_heads=4, encoder_attention_heads=4))
    batch = make_inputs(LENGTHS, config=model.config, targets=False)
    found = compare_with_clips_alone(model, batch, {"n-best": DECODINGS["n-best"]})
    assert any(stage in difference for difference in found)


def test_the_processors_stages_of_a_tiny_codec_and_clap():
    processor, clips = build_processor("fusion"), make_clips(7, 3.0)
    model = short(build_model())
    assert_same_bits(model, processor, clips, (3, 7), {"n-best": DECODINGS["n-best"]})
