"""The captioner on ONNX Runtime writes what that of torch does, and of a clip the same whatever stands beside it."""

import os

import pytest
import torch
from safetensors.torch import load_file
from test_published_parity import DATA, SETTINGS, assert_same_ids, load_published, our_inputs
from transformers import LogitsProcessor, LogitsProcessorList, set_seed
from transformers.modeling_outputs import BaseModelOutput

from enclap_hf import EnClapForConditionalGeneration
from enclap_hf.model.onnx_captioner import OnnxCaptioner
from enclap_hf.model.onnx_files import describe_model
from enclap_hf.onnx.export import write_decoder, write_encoder
from exported_models import (
    assert_same_captions,
    cut_clip,
    export_tiny,
    load_both,
    make_clips,
    make_folder,
    search,
)

WINDOW = 253  # frames of the tiny captioner's window
BEAM_SCORE_ATOL = 2e-6  # of the published scores, see test_published_parity.py


@pytest.fixture(scope="module")
def both():
    return load_both(export_tiny())


@pytest.fixture(scope="module", params=["float32", "qint8_avx512_vnni"])
def captioner(request):
    file_name = None if request.param == "float32" else request.param
    return OnnxCaptioner.from_pretrained(export_tiny(), file_name=file_name)


# What torch writes


@pytest.fixture(scope="module")
def published():
    """The published tiny checkpoint on ONNX Runtime."""
    folder, model = make_folder(), load_published()
    model.save_pretrained(folder)
    os.makedirs(f"{folder}/onnx")
    metadata = describe_model(model.config, folder)
    with torch.no_grad():
        write_encoder(model, f"{folder}/onnx/encoder_model.onnx", 18, metadata)
        write_decoder(model, f"{folder}/onnx/decoder_model_merged.onnx", 18, metadata)
    return EnClapForConditionalGeneration.from_pretrained(folder, backend="onnx")


@pytest.mark.parametrize("setting", SETTINGS)
def test_captions_and_scores_equal_the_published(published, setting):
    extra = load_file(DATA / "extra_gen.safetensors")
    batch = our_inputs(*(extra[f"extra.batch.{name}"] for name in ("input_ids", "clap_embedding", "attention_mask")))
    out = search(published, batch, **SETTINGS[setting])
    assert_same_ids(out.sequences, extra[f"extra.{setting}.batch"])
    if setting != "greedy":
        scores = extra[f"extra.{setting}.batch_scores"]
        torch.testing.assert_close(out.sequences_scores, scores, atol=BEAM_SCORE_ATOL, rtol=0)


@pytest.mark.parametrize("setting", ["greedy", "beam", "beam50"])
def test_captions_of_clips_alone_equal_the_published(published, setting):
    refs = load_file(DATA / "refs.safetensors")
    for i in range(3):
        clip = our_inputs(refs[f"infer.clip{i}.input_ids"], refs["batch.clap_embedding"][i : i + 1])
        assert_same_ids(published.generate(**clip, **SETTINGS[setting]), refs[f"gen.{setting}.clip{i}"])
    if setting == "beam":  # a clip that fills the window, and one of 40 frames
        for name in ("long", "short40"):
            clip = our_inputs(refs[f"infer.{name}.input_ids"], refs["batch.clap_embedding"][:1])
            assert_same_ids(published.generate(**clip, **SETTINGS[setting]), refs[f"gen.{setting}.{name}"])


@pytest.mark.parametrize("num_beams", [1, 2, 4, 8])
@pytest.mark.parametrize("lengths", [(1,), (WINDOW,), (64, 61), (40, 57, 9, 1, 125), tuple(range(3, 35))])
def test_any_batch_of_any_lengths_is_captioned_as_torch_does(both, lengths, num_beams):
    batch = make_clips(*lengths, seed=num_beams)
    model, captioner = both
    decoding = {"num_beams": num_beams, "num_return_sequences": max(1, num_beams - 1), "max_length": 8}
    assert_same_captions(search(captioner, batch, **decoding), search(model, batch, **decoding))


def test_states_and_logits_are_those_of_torch(both):
    model, captioner = both
    batch = make_clips(40, 57, 9)
    ids = torch.randint(4, 300, (9, 5), generator=torch.Generator().manual_seed(0))  # three beams of each clip
    with torch.no_grad():
        states, expected = captioner.get_encoder()(**batch)[0], model.get_encoder()(**batch)[0]
        shown = (torch.arange(60) < batch["attention_mask"].sum(1, keepdim=True) + 3)[..., None]
        torch.testing.assert_close(states, expected * shown, atol=2e-5, rtol=1e-4)  # float32 products of other kernels
        out = captioner(encoder_outputs=(states,), attention_mask=batch["attention_mask"], decoder_input_ids=ids)
        mask = batch["attention_mask"]
        expected = model(encoder_outputs=(expected,), attention_mask=mask, decoder_input_ids=ids, use_cache=False)
    torch.testing.assert_close(out.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(out.logits.argmax(-1), expected.logits.argmax(-1))


class Ban(LogitsProcessor):
    """Bans a token."""

    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.tensor([7, 11]), -torch.inf)


@pytest.mark.parametrize(
    "decoding",
    [
        {"num_beams": 4, "logits_processor": LogitsProcessorList([Ban()])},
        {"num_beams": 3, "prefix_allowed_tokens_fn": lambda batch, ids: [2, 5, 6, 9, 40 + batch]},
        {"num_beams": 4, "no_repeat_ngram_size": 1, "length_penalty": -1.0, "min_length": 6},
        {"num_beams": 4, "decoder_input_ids": torch.tensor([[2, 0, 9, 12]] * 3)},
        {"num_beams": 4, "use_cache": False},
        {"num_beams": 1, "repetition_penalty": 1.5, "max_new_tokens": 4},
    ],
)
def test_processors_prompts_and_limits_work_as_in_torch(both, decoding):
    model, captioner = both
    batch = make_clips(40, 57, 9, seed=3)
    assert_same_captions(search(captioner, batch, **decoding), search(model, batch, **decoding))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_samples_of_one_seed_are_those_of_torch(both, num_beams):
    sampled = []
    for model in both:
        set_seed(5)
        decoding = {"do_sample": True, "num_beams": num_beams, "num_return_sequences": 3, "top_k": 20}
        sampled.append(search(model, make_clips(40, 57, 9), **decoding))
    assert_same_captions(*sampled)


# The same bits in any batch


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_caption_and_its_score_have_the_same_bits_in_any_batch(captioner, num_beams):
    lengths = (40, 57, 9, 1, WINDOW, 125, 61, 62, 128, 200, 33, 5, 90)
    batch = make_clips(*lengths)
    decoding = {"num_beams": num_beams, "num_return_sequences": num_beams, "output_logits": True}
    together = search(captioner, batch, **decoding)
    for row in range(len(lengths)):
        alone = search(captioner, cut_clip(batch, row), **decoding)
        rows, width = slice(row * num_beams, (row + 1) * num_beams), alone.sequences.shape[1]
        assert torch.equal(together.sequences[rows, :width], alone.sequences)
        assert (together.sequences[rows, width:] == captioner.config.pad_token_id).all()
        if num_beams > 1:
            assert torch.equal(together.sequences_scores[rows], alone.sequences_scores)
        assert torch.equal(together.logits[0][rows], alone.logits[0])


def test_logits_have_the_same_bits_alone_and_with_any_number_of_neighbours(captioner):
    batch = make_clips(*range(2, 66))
    ids = torch.randint(4, 300, (64, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = captioner(**batch, decoder_input_ids=ids).logits
        for size in (1, 2, 3, 5, 8, 16, 31):
            part = {name: tensor[:size] for name, tensor in batch.items()}
            assert torch.equal(captioner(**part, decoder_input_ids=ids[:size]).logits, together[:size]), size


def test_a_step_with_a_cache_has_the_bits_of_its_row_in_any_batch(captioner):
    """Steps of one token, as a search takes them, after others."""
    batch = make_clips(*range(2, 66))
    ids = torch.randint(4, 300, (64, 5), generator=torch.Generator().manual_seed(0))

    def step(size):
        part, cache = {name: tensor[:size] for name, tensor in batch.items()}, None
        states = captioner.get_encoder()(**part)
        for position in range(ids.shape[1]):
            out = captioner(
                encoder_outputs=states,
                attention_mask=part["attention_mask"],
                decoder_input_ids=ids[:size, position : position + 1],
                past_key_values=cache,
            )
            cache = out.past_key_values
        return out.logits

    together = step(64)
    for size in (1, 2, 7, 17):
        assert torch.equal(step(size), together[:size]), size


# Memory and inputs


def test_keys_and_values_of_clips_are_made_once_and_follow_the_states(both, monkeypatch):
    _, captioner = both
    batch, ids = make_clips(40, 57, 9), torch.full((3, 2), 9)
    mask = batch["attention_mask"]
    states = captioner.get_encoder()(**batch)[0]

    def read():
        return captioner(encoder_outputs=BaseModelOutput(states), attention_mask=mask, decoder_input_ids=ids).logits

    first = read()
    made = states.clip_cache
    assert torch.equal(read(), first) and states.clip_cache is made
    states.mul_(0.5)
    assert not torch.equal(read(), first) and states.clip_cache is not made
    mask = torch.ones_like(mask)
    assert not torch.equal(read()[2], first[2])


def test_a_captioner_reads_no_weights_of_torch(both, monkeypatch):
    assert not list(both[1].parameters())
    monkeypatch.setattr(
        EnClapForConditionalGeneration, "__init__", lambda *args: pytest.fail("the captioner of torch was built")
    )
    EnClapForConditionalGeneration.from_pretrained(export_tiny(), backend="onnx")


def test_closed_graphs_open_again(both):
    _, captioner = both
    batch = make_clips(20, 30)
    before = captioner.generate(**batch)
    captioner.close()
    assert all(graph._session is None for graph in captioner.graphs.values())
    assert torch.equal(captioner.generate(**batch), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio_codes": torch.full((2, 30, 4), 33)}, "codes.*from 33 to 33; expected 0 to 32"),
        ({"audio_codes": torch.zeros(2, 30, 3, dtype=torch.long)}, r"shape \(2, 30, 3\)"),
        ({"audio_codes": torch.zeros(2, 254, 4, dtype=torch.long), "attention_mask": None}, "T from 1 to 253"),
        ({"attention_mask": torch.ones(2, 29, dtype=torch.long)}, r"shape \(2, 29\)"),
        ({"attention_mask": torch.tensor([[0] * 10 + [1] * 20] * 2)}, "not 1 on a clip's own frames"),
        ({"clap_embedding": torch.zeros(2, 5)}, r"shape \(2, 5\)"),
        ({"inputs_embeds": torch.zeros(2, 30, 32), "audio_codes": None}, "ONNX graph of this captioner reads these"),
        ({"decoder_input_ids": torch.ones(3, 2, dtype=torch.long)}, "expected one row for each"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(both, change, message):
    batch = {**make_clips(30, 30), **change}
    with pytest.raises(ValueError, match=message):
        both[1].generate(**batch)


def test_what_a_graph_does_not_compute_is_refused(both):
    batch, ids = make_clips(30, 30), torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="labels"):
        both[1](**batch, labels=ids)
    with pytest.raises(ValueError, match="output_attentions"):
        both[1](**batch, decoder_input_ids=ids, output_attentions=True)
    with pytest.raises(ValueError, match="padding"):
        both[1](**batch, decoder_input_ids=ids, decoder_attention_mask=torch.tensor([[1, 1, 1], [0, 1, 1]]))
