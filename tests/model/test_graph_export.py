"""Encoder, decoder and captioner export with free batch and free lengths, as BART's do, and agree with eager mode."""

import inspect

import pytest
import torch
from torch import nn
from torch.export import Dim, export
from transformers import DynamicCache, EncoderDecoderCache
from transformers.models.bart.modeling_bart import BartAttention

from conftest import build_model, make_inputs
from enclap_hf.model.encoder_enclap import MIN_JOINED_FRAMES, build_slot_mask

B, T, S = Dim("B"), Dim("T", max=253), Dim("S", max=256)
SLOTS = Dim("slots", max=256)
FREE = Dim.DYNAMIC
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # float32 products of other kernels
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(BartAttention.forward).parameters else "past_key_values"
# Batches of other sizes, longer and shorter than what is exported, one of a single clip, one of many frames.
OTHER_LENGTHS = [(40, 57, 9, 80, 3), (31,), (2, 1), (253,) * (MIN_JOINED_FRAMES // 253 + 1)]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return build_model(attn_implementation=request.param, encoder_layers=1, decoder_layers=1)


def make_audio(lengths, seed: int = 1) -> dict:
    return make_inputs(lengths, seed, targets=False)


def make_ids(num_rows: int, length: int) -> torch.Tensor:
    return torch.randint(4, 300, (num_rows, length), generator=torch.Generator().manual_seed(num_rows))


def test_the_encoder_takes_any_batch_and_any_number_of_frames(model):
    shapes = {"audio_codes": {0: B, 1: T}, "clap_embedding": {0: B}, "attention_mask": {0: B, 1: T}}
    encoder = model.model.encoder
    exported = export(encoder, (), make_audio((20, 12, 7)), dynamic_shapes=shapes).module()
    for lengths in OTHER_LENGTHS:
        audio = make_audio(lengths)
        with torch.no_grad():
            ours, expected = exported(**audio).last_hidden_state, encoder(**audio).last_hidden_state
        assert ours.shape == (len(lengths), max(lengths) + 3, 32)
        for row, expected_row, length in zip(ours, expected, lengths, strict=True):  # behind a clip's end is nothing
            torch.testing.assert_close(row[: length + 3], expected_row[: length + 3], **CLOSE)


def test_the_encoder_takes_codes_alone_or_frames_that_are_embedded(model):
    encoder = model.model.encoder
    codes = make_audio((20, 20, 20))["audio_codes"]
    alone = export(encoder, (codes,), dynamic_shapes={"audio_codes": {0: B, 1: T}}).module()
    embedded = export(
        encoder,
        (),
        {"inputs_embeds": torch.randn(3, 20, 32)},
        dynamic_shapes={"inputs_embeds": {0: B, 1: T}},
    ).module()
    others = make_audio((33, 33))["audio_codes"]
    with torch.no_grad():
        expected = encoder(others).last_hidden_state
        torch.testing.assert_close(alone(others).last_hidden_state, expected, **CLOSE)
        frames = encoder.embed_encodec(others)
        torch.testing.assert_close(embedded(inputs_embeds=frames).last_hidden_state, expected, **CLOSE)


def make_states(lengths) -> tuple[torch.Tensor, torch.Tensor]:
    """Random encoder states (B, T + 3, D) and the mask of their frames (B, T)."""
    mask = make_audio(lengths)["attention_mask"]
    generator = torch.Generator().manual_seed(len(lengths))
    return torch.randn(len(lengths), mask.shape[1] + 3, 32, generator=generator), mask


def test_the_decoder_takes_any_batch_and_any_lengths(model):
    def arguments(lengths, num_tokens):
        states, mask = make_states(lengths)
        return {
            "input_ids": make_ids(len(lengths), num_tokens),
            "encoder_hidden_states": states,
            "encoder_attention_mask": build_slot_mask(mask, *mask.shape),
            "use_cache": False,
        }

    shapes = {
        "input_ids": {0: B, 1: S},
        "encoder_hidden_states": {0: B, 1: SLOTS},
        "encoder_attention_mask": {0: B, 1: SLOTS},
        "use_cache": None,
    }
    decoder = model.model.decoder
    exported = export(decoder, (), arguments((20, 12, 7), 6), dynamic_shapes=shapes).module()
    for lengths, num_tokens in zip(OTHER_LENGTHS, (11, 3, 1, 2), strict=True):
        given = arguments(lengths, num_tokens)
        with torch.no_grad():
            ours, expected = exported(**given).last_hidden_state, decoder(**given).last_hidden_state
        torch.testing.assert_close(ours, expected, **CLOSE)


class Captioner(nn.Module):
    """From recordings and the tokens so far to the logits of the next ones."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, audio_codes, clap_embedding, attention_mask, decoder_input_ids):
        return self.model(
            audio_codes, clap_embedding, attention_mask, decoder_input_ids=decoder_input_ids, use_cache=False
        ).logits


def test_the_captioner_takes_any_batch_and_any_lengths(model):
    captioner = Captioner(model)
    shapes = ({0: B, 1: T}, {0: B}, {0: B, 1: T}, {0: B, 1: S})
    example = (*make_audio((20, 12, 7)).values(), make_ids(3, 6))
    exported = export(captioner, example, dynamic_shapes=shapes).module()
    for lengths in OTHER_LENGTHS:
        given = (*make_audio(lengths).values(), make_ids(len(lengths), 4))
        with torch.no_grad():
            torch.testing.assert_close(exported(*given), captioner(*given), **CLOSE)


class Step(nn.Module):
    """One step of a search over encoder states, with the cache as plain tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, states, attention_mask, decoder_input_ids, past):
        own, cross = DynamicCache(), DynamicCache()
        for index, (keys, values, cross_keys, cross_values) in enumerate(past):
            own.update(keys, values, index)
            cross.update(cross_keys, cross_values, index)
        cache = EncoderDecoderCache(own, cross)
        cache.is_updated = dict.fromkeys(range(len(past)), True)
        logits = self.model(
            encoder_outputs=(states,),
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=True,
            **{CACHE_ARGUMENT: cache},
        ).logits
        return logits, [(layer.keys, layer.values) for layer in cache.self_attention_cache.layers]


def make_step(lengths, num_beams: int, num_past: int) -> tuple:
    states, mask = make_states(lengths)
    num_clips, num_slots = states.shape[:2]
    num_rows = num_clips * num_beams
    generator = torch.Generator().manual_seed(num_past)

    def draw(num_rows, length):
        return torch.randn(num_rows, 4, length, 8, generator=generator)

    past = [
        [draw(num_rows, num_past), draw(num_rows, num_past), draw(num_clips, num_slots), draw(num_clips, num_slots)]
    ]
    return states, mask, make_ids(num_rows, 1), past


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_step_of_a_search_takes_any_number_of_clips_frames_and_tokens(model, num_beams):
    step = Step(model)
    shapes = ({0: FREE, 1: FREE}, {0: FREE, 1: FREE}, {0: FREE}, [4 * [{0: FREE, 2: FREE}]])
    exported = export(step, make_step((20, 12, 7), num_beams, 5), dynamic_shapes=shapes).module()
    for lengths, num_past in zip(OTHER_LENGTHS, (2, 9, 30, 3), strict=True):
        given = make_step(lengths, num_beams, num_past)
        with torch.no_grad():
            (logits, past), (expected, expected_past) = exported(*given), step(*given)
        torch.testing.assert_close(logits, expected, **CLOSE)
        torch.testing.assert_close(past, expected_past, **CLOSE)
