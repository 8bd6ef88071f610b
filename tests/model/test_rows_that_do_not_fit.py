"""Inputs of other rows, frames or values than the recordings are refused in one line that names both."""

import re

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from conftest import build_model, make_inputs
from enclap_hf import EnClapForConditionalGeneration

B, T, K, MASK_ID = 3, 57, 4, 32  # of `make_inputs`
ROWS = [0, 1, 2, 4, 5, 6]


@pytest.fixture(scope="module")
def model() -> EnClapForConditionalGeneration:
    model = build_model()
    model.generation_config.max_length = 8
    return model


@pytest.fixture(scope="module")
def audio() -> dict:
    return make_inputs(targets=False)


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return make_inputs()["labels"]


def token_ids(num_rows: int, length: int = 4) -> torch.Tensor:
    return torch.arange(num_rows * length).reshape(num_rows, length) % 300 + 5


def assert_refused(call, *said: str) -> None:
    """A ValueError of one line with every phrase."""
    with pytest.raises(ValueError) as error:
        call()
    (line,) = str(error.value).splitlines()
    for phrase in said:
        assert phrase in line


def read_both(model, arguments: dict, *said: str) -> None:
    """Refused by the model and by its part without a head."""
    for part in (model, model.model):
        assert_refused(lambda part=part: part(**arguments), *said)


# Labels and decoder rows


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("training", [True, False])
def test_labels_of_other_rows(model, audio, num_rows, training):
    model.train(training)
    said = (str((num_rows, 4)), "3 recordings")
    assert_refused(lambda: model(**audio, labels=token_ids(num_rows)), *said)
    assert_refused(lambda: model(**audio, labels=token_ids(num_rows), decoder_input_ids=token_ids(B)), *said)
    states = model.model.encode(audio["audio_codes"], None, None, None)
    assert_refused(lambda: model(encoder_outputs=states, labels=token_ids(num_rows)), *said)
    model.eval()


@pytest.mark.parametrize("shape", [(3,), (3, 4, 1), (3, 257), (3, 1000)])
def test_labels_of_another_shape(model, audio, shape):
    assert_refused(lambda: model(**audio, labels=torch.full(shape, 5)), str(shape), "(B, S)", "256")


@pytest.mark.parametrize("token", [-1, -101, 320, 50_264])
def test_labels_of_another_tokenizer(model, audio, labels, token):
    foreign = labels.clone()
    foreign[1, 2] = token
    assert_refused(lambda: model(**audio, labels=foreign), f"{token}", "expected 0 to 319")


@pytest.mark.parametrize("num_rows", [0, 1, 2, 4, 5, 7])
def test_decoder_inputs_of_other_rows(model, audio, num_rows):
    read_both(model, {**audio, "decoder_input_ids": token_ids(num_rows)}, str((num_rows, 4)), "3 rows")
    embedded = torch.zeros(num_rows, 4, 32)
    read_both(model, {**audio, "decoder_inputs_embeds": embedded}, str((num_rows, 4, 32)), "3 rows")


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (6, 4), (3, 3), (3,)])
def test_masks_of_the_decoder_of_another_shape(model, audio, shape):
    arguments = {**audio, "decoder_input_ids": token_ids(B), "decoder_attention_mask": torch.ones(shape)}
    read_both(model, arguments, str(shape), "(3, 4)")


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_prompts_of_other_rows(model, audio, num_rows, num_beams):
    said = (str((num_rows, 2)), "3 recordings")
    prompt = {"decoder_input_ids": token_ids(num_rows, 2), "num_beams": num_beams}
    assert_refused(lambda: model.generate(**audio, **prompt), *said)
    states = model.model.encode(audio["audio_codes"], None, None, None)
    assert_refused(lambda: model.generate(encoder_outputs=states, **prompt), *said)


def test_beams_and_several_captions_of_a_recording_are_read(model, audio):
    """Their rows are those of the recordings several times over."""
    prompt = torch.tensor([[2, 0, 9], [2, 0, 9], [2, 0, 9]])
    for options, num_captions in (
        ({"num_beams": 4}, 1),
        ({"num_beams": 4, "num_return_sequences": 3}, 3),
        ({"num_beams": 1, "do_sample": True, "num_return_sequences": 2}, 2),
    ):
        captions = model.generate(**audio, decoder_input_ids=prompt, **options)
        assert len(captions) == B * num_captions and (captions[:, :3] == prompt[0]).all()
        logits = model(**audio, decoder_input_ids=captions).logits
        for i in range(B):
            alone = {name: value[i : i + 1] for name, value in audio.items()}
            rows = captions[i * num_captions : (i + 1) * num_captions]
            expected = torch.cat([model(**alone, decoder_input_ids=row[None]).logits for row in rows])
            found = logits[i * num_captions : (i + 1) * num_captions]
            torch.testing.assert_close(
                found, expected, rtol=1e-4, atol=1e-3
            )  # sums in another order, of logits near 100


# Targets of masked codec modelling


SHAPES = [(2, T, K), (1, T, K), (6, T, K), (B, T - 1, K), (B, T + 3, K), (B, 1, K), (B, T, K + 1), (B, T, 1), (B, T)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arguments", [{}, {"use_mcm": True}, {"training": True}])
def test_targets_of_hidden_codes_of_another_shape(model, audio, labels, shape, arguments):
    arguments = dict(arguments)
    model.train(arguments.pop("training", False))
    for extra in ({}, {"labels": labels}):
        batch = {**audio, **extra, **arguments, "mcm_targets": torch.full(shape, 3)}
        assert_refused(lambda batch=batch: model(**batch), str(shape), str((B, T, K)))
    model.eval()


@pytest.mark.parametrize("code", [-1, MASK_ID, MASK_ID + 1, 1024])
def test_targets_of_hidden_codes_that_are_no_codes(model, audio, code):
    targets = make_inputs()["mcm_targets"]
    targets[2, 3, 1] = code
    assert_refused(lambda: model(**audio, mcm_targets=targets), str(code), "expected 0 to 31")


# Codes


@pytest.mark.parametrize("code", [-100, -1, MASK_ID + 1, 39, 40, 1024])
@pytest.mark.parametrize("num_clips", [1, 16])
def test_codes_that_no_codec_of_this_size_gives(model, code, num_clips):
    """Tables have more rows than codes, and large batches look all codebooks up in one table, where any row exists."""
    codes = torch.randint(32, (num_clips, 253, K), generator=torch.Generator().manual_seed(0))
    codes[-1, 100, 2] = code
    said = (str(code), f"expected 0 to {MASK_ID}")
    read_both(model, {"audio_codes": codes, "decoder_input_ids": token_ids(num_clips)}, *said)
    for options in ({}, {"num_beams": 2, "num_return_sequences": 2}):
        assert_refused(lambda options=options: model.generate(audio_codes=codes, **options), *said)
    assert_refused(lambda: model(audio_codes=codes, labels=token_ids(num_clips)), *said)


def test_hidden_codes_are_read(model, audio):
    codes = audio["audio_codes"].masked_fill(torch.rand(B, T, K) < 0.5, MASK_ID)
    assert len(model.generate(**{**audio, "audio_codes": codes})) == B


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool])
def test_codes_that_are_no_whole_numbers(model, audio, dtype):
    arguments = {**audio, "audio_codes": audio["audio_codes"].to(dtype)}
    assert_refused(lambda: model.generate(**arguments), str(dtype), "integers")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
@pytest.mark.parametrize("training", [True, False])
def test_codes_of_every_type_of_integers_are_read(model, audio, labels, dtype, training):
    model.train(training)
    targets = make_inputs()["mcm_targets"]
    codes = {"audio_codes": audio["audio_codes"].to(dtype)}
    with torch.no_grad():
        expected = model(**audio, labels=labels, mcm_targets=targets).loss
        assert torch.equal(model(**{**audio, **codes}, labels=labels, mcm_targets=targets).loss, expected)
    model.eval()


@pytest.mark.parametrize("shape", [(B, T), (T, K), (B, T, K + 1), (B, T, 1), (1, B, T, K)])
def test_codes_of_another_shape(model, shape):
    codes = torch.zeros(shape, dtype=torch.long)
    read_both(model, {"audio_codes": codes, "decoder_input_ids": token_ids(B)}, str(shape), "K = 4")


# Masks, CLAP vectors, features, states


MASKS = [(0, T), (1, T), (2, T), (4, T), (6, T), (B, T - 1), (B, T + 3), (B, 1), (T,), (B, 1, T)]


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("with_states", [True, False])
def test_masks_of_another_shape(model, audio, shape, with_states):
    """One row would be that of every clip, and the others ended within torch, or far behind."""
    arguments = {**audio, "attention_mask": torch.ones(shape, dtype=torch.long)}
    if with_states:
        arguments["encoder_outputs"] = model.model.encode(audio["audio_codes"], None, None, None)
    said = (re.sub(r",\)$", ",)", str(shape)), str((B, T)))
    read_both(model, {**arguments, "decoder_input_ids": token_ids(B)}, *said)
    read_both(model, {**arguments, "decoder_input_ids": token_ids(2 * B)}, *said)
    for options in ({"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 2}):
        assert_refused(lambda options=options: model.generate(**arguments, **options), *said)


@pytest.mark.parametrize("own", [[0, 1, 1], [1, 0, 1], [0, 0, 1], [0.5, 0.5, 0], [2, 1, 0], [1, -1, 0]])
def test_masks_that_are_no_run_of_ones(model, audio, own):
    """</s> follows a clip's last frame by the number of ones: with clips padded at their start, it stood among them."""
    mask = torch.ones(B, T)
    mask[1] = torch.tensor(own).repeat_interleave(T // 3)
    arguments = {**audio, "attention_mask": mask if mask.frac().any() else mask.long()}
    read_both(
        model, {**arguments, "decoder_input_ids": token_ids(B)}, "1 on a clip's own frames", "pad clips at their end"
    )
    assert_refused(lambda: model.generate(**arguments), "pad clips at their end")


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int32, torch.uint8])
def test_masks_of_every_type_are_read(model, audio, dtype):
    expected = model.generate(**audio)
    assert torch.equal(model.generate(**{**audio, "attention_mask": audio["attention_mask"].to(dtype)}), expected)


@pytest.mark.parametrize("shape", [(0, 24), (1, 24), (2, 24), (6, 24), (B, 23), (B, 25), (24,), (B, 1, 24)])
def test_clap_vectors_of_another_shape(model, audio, shape):
    arguments = {**audio, "clap_embedding": torch.zeros(shape)}
    read_both(model, {**arguments, "decoder_input_ids": token_ids(B)}, str(shape), "(3, 24)")
    assert_refused(lambda: model.generate(**arguments), str(shape), "(3, 24)")


@pytest.mark.parametrize("shape", [(B, 10, 5), (B, 10, 7), (B, 10), (10, 6), (B, 1, 10, 6)])
def test_features_of_another_shape(shape):
    model = build_model(frame_kind="features", num_codebooks=0, frame_dim=6)
    features = torch.zeros(shape)
    read_both(model, {"audio_features": features, "decoder_input_ids": token_ids(B)}, str(shape), "F = 6")
    assert_refused(lambda: model.generate(audio_features=features), str(shape), "F = 6")


def test_features_and_masks_or_vectors_of_other_rows():
    model = build_model(frame_kind="features", num_codebooks=0, frame_dim=6)
    features = torch.randn(B, 10, 6)
    for misfit, said in (
        ({"attention_mask": torch.ones(2, 10)}, ("(2, 10)", "(3, 10)")),
        ({"attention_mask": torch.ones(B, 9)}, ("(3, 9)", "(3, 10)")),
        ({"clap_embedding": torch.zeros(1, 24)}, ("(1, 24)", "(3, 24)")),
    ):
        assert_refused(lambda misfit=misfit: model.generate(audio_features=features, **misfit), *said)
        read_both(model, {"audio_features": features, "decoder_input_ids": token_ids(B), **misfit}, *said)


@pytest.mark.parametrize("shape", [(B, T, 31), (B, T, 64), (B, 32), (T, 32)])
def test_embedded_frames_of_another_shape(model, shape):
    arguments = {"inputs_embeds": torch.zeros(shape)}
    read_both(model, {**arguments, "decoder_input_ids": token_ids(B)}, str(shape), "D = 32")
    assert_refused(lambda: model.generate(**arguments), str(shape), "D = 32")


@pytest.mark.parametrize("shape", [(B, T + 3, 31), (B, 32), (B, T + 3, 64)])
def test_encoder_states_of_another_model(model, shape):
    states = BaseModelOutput(torch.zeros(shape))
    read_both(model, {"encoder_outputs": states, "decoder_input_ids": token_ids(B)}, str(shape), "D = 32")
    assert_refused(lambda: model.generate(encoder_outputs=states), str(shape), "D = 32")
    targets = torch.full((B, T, K), 3)
    assert_refused(lambda: model(encoder_outputs=states, mcm_targets=targets), str(shape), "D = 32")
