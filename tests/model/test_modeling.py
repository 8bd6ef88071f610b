"""The model computes what its documentation says, in every number type and attention, and loads what others saved."""

import os

import pytest
import torch
from safetensors import safe_open
from transformers import BartConfig, BartForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartEncoder

from conftest import build_config, build_model, make_inputs
from enclap_hf import EnClapForConditionalGeneration, EnClapModel
from enclap_hf.model import encoder_enclap

# float32 sums in another order
ATOL = 2e-5


def without(inputs: dict, *names: str) -> dict:
    return {name: value for name, value in inputs.items() if name not in names}


def clip_alone(inputs: dict, i: int) -> dict:
    """Clip i of a batch with its padding cut away."""
    length = int(inputs["attention_mask"][i].sum())
    return {
        "audio_codes": inputs["audio_codes"][i : i + 1, :length],
        "clap_embedding": inputs["clap_embedding"][i : i + 1],
    }


# The encoder's input


@pytest.mark.parametrize("scale_embedding", [False, True])
def test_stock_bart_reads_the_same_from_slots_laid_out_by_hand(scale_embedding):
    """The layout is written out clip by clip and slot by slot, and run through the encoder of transformers."""
    model = build_model(scale_embedding=scale_embedding)
    inputs = make_inputs(targets=False)
    stock = BartEncoder(model.config).eval()
    stock.load_state_dict(model.model.encoder.state_dict(), strict=False)
    stock.set_attn_implementation("eager")
    encoder, text = model.model.encoder, model.model.shared.weight
    with torch.no_grad():
        ours = encoder(**inputs).last_hidden_state
        for i, clip in enumerate(clip_alone(inputs, i) for i in range(3)):
            slots = [clip["clap_embedding"][0] @ encoder.clap_projection.weight.T + encoder.clap_projection.bias]
            slots.append(text[0] + encoder.embed_positions.weight[2])
            for t, frame in enumerate(clip["audio_codes"][0]):
                codes = sum(encoder.embed_encodec[k].weight[code] for k, code in enumerate(frame.tolist()))
                slots.append(codes + encoder.embed_positions.weight[3 + t])
            slots.append(text[2] + encoder.embed_positions.weight[3 + len(clip["audio_codes"][0])])
            slots = torch.stack(slots)
            # Stock BART adds its own positions, so they are taken off first.
            theirs = stock(inputs_embeds=(slots - stock.embed_positions.weight[2 : 2 + len(slots)])[None])
            torch.testing.assert_close(ours[i, : len(slots)], theirs.last_hidden_state[0], atol=ATOL, rtol=0)


def test_padding_a_batch_does_not_change_a_clip(tiny_model):
    """Whatever codes lie behind a clip's end."""
    inputs = make_inputs()
    padding = inputs["attention_mask"][..., None] == 0
    inputs["audio_codes"] = torch.where(padding, torch.randint(32, inputs["audio_codes"].shape), inputs["audio_codes"])
    with torch.no_grad():
        padded = tiny_model(**without(inputs, "mcm_targets"))
        for i in range(3):
            alone = tiny_model(**clip_alone(inputs, i), labels=inputs["labels"][i : i + 1])
            slots = alone.encoder_last_hidden_state.shape[1]
            torch.testing.assert_close(padded.logits[i], alone.logits[0], atol=ATOL * 10, rtol=0)
            torch.testing.assert_close(
                padded.encoder_last_hidden_state[i, :slots], alone.encoder_last_hidden_state[0], atol=ATOL, rtol=0
            )


def test_a_mask_of_ones_equals_no_mask(tiny_model):
    inputs = make_inputs((30, 30), targets=False)
    decoder_input_ids = torch.tensor([[2, 0, 9]] * 2)
    with torch.no_grad():
        masked = tiny_model(**inputs, decoder_input_ids=decoder_input_ids).logits
        unmasked = tiny_model(**without(inputs, "attention_mask"), decoder_input_ids=decoder_input_ids).logits
    torch.testing.assert_close(masked, unmasked, atol=ATOL, rtol=0)


def test_a_hidden_code_adds_nothing_and_its_row_is_never_trained(tiny_model):
    inputs = make_inputs()
    encoder = tiny_model.model.encoder
    frames = encoder.embed_encodec(torch.full((1, 1, 4), tiny_model.config.codec_mask_token_id))
    assert torch.count_nonzero(frames) == 0
    tiny_model(**inputs).loss.backward()
    for table in encoder.embed_encodec:
        assert torch.count_nonzero(table.weight.grad[tiny_model.config.codec_mask_token_id]) == 0
        assert torch.count_nonzero(table.weight.grad) > 0


def test_without_a_clap_embedding_the_slot_holds_the_learned_bias(tiny_model):
    inputs = make_inputs()
    zeros = {**inputs, "clap_embedding": torch.zeros_like(inputs["clap_embedding"])}
    with torch.no_grad():
        tiny_model.model.encoder.clap_projection.bias.normal_()
        none, zero, some = (
            tiny_model(**variant).loss for variant in (without(inputs, "clap_embedding"), zeros, inputs)
        )
    torch.testing.assert_close(none, zero)
    assert abs(none - some) > 1e-4


def test_embedded_frames_equal_their_codes(tiny_model):
    inputs = make_inputs()
    frames = tiny_model.model.encoder.embed_encodec(inputs["audio_codes"])
    with torch.no_grad():
        embedded = tiny_model(**without(inputs, "audio_codes"), inputs_embeds=frames)
        torch.testing.assert_close(embedded.loss, tiny_model(**inputs).loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_lookup_in_joined_tables_equals_one_for_each_codebook(monkeypatch, tiny_model, dtype):
    encoder = tiny_model.to(dtype).model.encoder
    codes = make_inputs()["audio_codes"]
    assert (codes == 32).any(), "hidden and padded codes are among them"
    weights = torch.randn(*codes.shape[:2], 32, dtype=dtype)
    found = []
    for smallest in (10**9, 1):
        monkeypatch.setattr(encoder_enclap, "MIN_JOINED_FRAMES", smallest)
        encoder.zero_grad()
        frames = encoder.embed_encodec(codes)
        (frames * weights).sum().backward()
        found.append([frames.detach(), *(table.weight.grad.clone() for table in encoder.embed_encodec)])
    rounding = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]  # sums in another order
    torch.testing.assert_close(found[1], found[0], atol=rounding, rtol=rounding)
    assert all(torch.count_nonzero(gradient[32]) == 0 for gradient in found[1][1:]), "the zero row is never trained"


@pytest.mark.parametrize("code", [-1, 33])
def test_one_lookup_refuses_codes_that_lie_in_another_table(monkeypatch, tiny_model, code):
    monkeypatch.setattr(encoder_enclap, "MIN_JOINED_FRAMES", 1)
    inputs = make_inputs()
    inputs["audio_codes"][0, 0, 1] = code
    with pytest.raises(ValueError, match="expected 0 to 32"):
        tiny_model(**inputs)


def test_a_clip_that_fills_the_window_is_read_and_one_frame_more_is_refused():
    model = build_model(max_position_embeddings=20)
    inputs = make_inputs((17, 5))
    with torch.no_grad():
        assert model(**inputs).encoder_last_hidden_state.shape == (2, 20, 32)
    with pytest.raises(ValueError, match="Got 18 codec frames; one window holds 17"):
        model(**make_inputs((18, 5)))


def test_a_clip_of_one_frame_is_read(tiny_model):
    with torch.no_grad():
        assert torch.isfinite(tiny_model(**make_inputs((1,))).loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_codes": torch.zeros(3, 57, 5, dtype=torch.long)}, r"\(3, 57, 5\); expected \(B, T, K\) with K = 4"),
        ({"audio_codes": torch.zeros(57, 4, dtype=torch.long)}, r"\(57, 4\); expected \(B, T, K\)"),
        ({"clap_embedding": torch.zeros(3, 25)}, r"\(3, 25\); expected \(B, C\) = \(3, 24\)"),
        ({"clap_embedding": torch.zeros(2, 24)}, r"\(2, 24\); expected \(B, C\) = \(3, 24\)"),
        ({"clap_embedding": torch.zeros(24)}, r"\(24,\); expected"),
        ({"attention_mask": torch.ones(3, 60, dtype=torch.long)}, r"\(3, 60\); expected \(B, T\) = \(3, 57\)"),
        ({"inputs_embeds": torch.zeros(3, 57, 32)}, "either `audio_codes`"),
        ({"audio_codes": None}, "either `audio_codes`"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_their_shape(tiny_model, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**{**make_inputs(), **changes})


def test_a_forward_with_nothing_to_decode_is_refused(tiny_model):
    inputs = make_inputs(targets=False)
    for model in (tiny_model, tiny_model.model):
        with pytest.raises(ValueError, match="decoder_input_ids"):
            model(**inputs)


# Forms of the call


def test_a_tuple_holds_what_the_output_holds(tiny_model):
    inputs = make_inputs()
    with torch.no_grad():
        for variant in (inputs, without(inputs, "mcm_targets"), without(inputs, "labels")):
            as_dict = tiny_model(**variant)
            as_tuple = tiny_model(**variant, return_dict=False)
            assert isinstance(as_tuple, tuple)
            torch.testing.assert_close(as_tuple[0], as_dict.loss)
            flat = [value for value in as_dict.to_tuple() if isinstance(value, torch.Tensor)]
            torch.testing.assert_close([value for value in as_tuple if isinstance(value, torch.Tensor)], flat)


def test_the_headless_model_equals_the_captioner_before_its_head(tiny_model):
    tiny_model.set_attn_implementation("eager")  # which returns its weights
    inputs = make_inputs(targets=False)
    ids = torch.tensor([[2, 0, 9]] * 3)
    with torch.no_grad():
        captioner = tiny_model(**inputs, decoder_input_ids=ids, output_hidden_states=True, output_attentions=True)
        bare = tiny_model.model(**inputs, decoder_input_ids=ids, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(tiny_model.lm_head(bare.last_hidden_state), captioner.logits)
    assert len(bare.encoder_hidden_states) == len(captioner.encoder_hidden_states) == 3
    assert captioner.encoder_attentions[0].shape == (3, 4, 60, 60)
    assert captioner.cross_attentions[0].shape == (3, 4, 3, 60)


@pytest.mark.parametrize("wrap", [lambda states: BaseModelOutput(states), lambda states: (states,)])
def test_encoder_outputs_stand_for_the_audio(tiny_model, wrap):
    inputs = make_inputs()
    with torch.no_grad():
        states = tiny_model.model.encoder(
            **{name: inputs[name] for name in ("audio_codes", "clap_embedding", "attention_mask")}
        ).last_hidden_state
        reused = tiny_model(**without(inputs, "audio_codes", "clap_embedding"), encoder_outputs=wrap(states))
        torch.testing.assert_close(reused.loss, tiny_model(**inputs, use_mcm=True).loss)
        mcm = tiny_model(mcm_targets=inputs["mcm_targets"], encoder_outputs=wrap(states))
    torch.testing.assert_close(mcm.mcm_loss, reused.mcm_loss)


def test_embedded_captions_equal_their_ids(tiny_model):
    inputs = make_inputs(targets=False)
    ids = torch.tensor([[2, 0, 9]] * 3)
    with torch.no_grad():
        embedded = tiny_model(**inputs, decoder_inputs_embeds=tiny_model.get_input_embeddings()(ids)).logits
        torch.testing.assert_close(embedded, tiny_model(**inputs, decoder_input_ids=ids).logits)


def test_cached_steps_equal_one_pass(tiny_model):
    inputs = make_inputs(targets=False)
    ids = torch.tensor([[2, 0, 9, 30]] * 3)
    with torch.no_grad():
        whole = tiny_model(**inputs, decoder_input_ids=ids).logits
        states = tiny_model.model.encoder(**inputs)
        cache, steps = {}, []
        for s in range(4):
            out = tiny_model(
                attention_mask=inputs["attention_mask"],
                encoder_outputs=states,
                decoder_input_ids=ids[:, s : s + 1],
                **cache,
                use_cache=True,
                cache_position=torch.tensor([s]),
            )
            cache = {name: out[name] for name in out.keys() & {"cache", "past_key_values"}}
            assert cache
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=ATOL * 10, rtol=0)


# Number types and attention


def test_sdpa_equals_eager_on_a_padded_batch(tiny_model):
    inputs = make_inputs()
    outs = []
    for attention in ("sdpa", "eager"):
        tiny_model.set_attn_implementation(attention)
        tiny_model.zero_grad()
        out = tiny_model(**inputs)
        out.loss.backward()
        gradient = tiny_model.model.encoder.layers[0].self_attn.q_proj.weight.grad.clone()
        outs.append((out.logits.detach(), gradient, out.loss.detach()))
    torch.testing.assert_close(outs[0], outs[1], atol=1e-4, rtol=1e-4)  # float32 softmax in another order


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_weights_train_and_caption(tiny_model, dtype, tolerance):
    """Each tolerance is a few times the number type's own step."""
    inputs = make_inputs()
    with torch.no_grad():
        expected = tiny_model(**inputs, use_mcm=True).loss
    model = tiny_model.to(dtype)
    out = model(**inputs, use_mcm=True)
    torch.testing.assert_close(out.loss.float(), expected, rtol=tolerance, atol=0)
    assert out.logits.dtype == dtype and out.encoder_last_hidden_state.dtype == dtype
    out.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    ids = model.generate(**without(inputs, "labels", "mcm_targets"), max_new_tokens=6)
    assert ids.shape == (3, 7)


def test_autocast_trains_and_captions(tiny_model):
    inputs = make_inputs()
    with torch.no_grad():
        expected = tiny_model(**inputs, use_mcm=True).loss
    with torch.autocast("cpu", torch.bfloat16):
        out = tiny_model(**inputs, use_mcm=True)
        ids = tiny_model.generate(**without(inputs, "labels", "mcm_targets"), max_new_tokens=6)
    torch.testing.assert_close(out.loss, expected, rtol=0.05, atol=0)  # a few steps of bfloat16
    assert out.loss.dtype == torch.float32
    out.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in tiny_model.parameters())
    assert ids.shape == (3, 7)


# Vocabulary and files


@pytest.mark.parametrize("size", [333, 300])
def test_resizing_the_vocabulary_resizes_every_part_of_it(tiny_model, size):
    inputs = make_inputs(targets=False)
    ids = torch.tensor([[2, 0, 9]] * 3)
    with torch.no_grad():
        tiny_model.final_logits_bias.normal_()
        before = tiny_model(**inputs, decoder_input_ids=ids).logits
        tiny_model.resize_token_embeddings(size, mean_resizing=False)
        after = tiny_model(**inputs, decoder_input_ids=ids).logits
    kept = min(size, 320)
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    assert after.shape[2] == tiny_model.config.vocab_size == tiny_model.final_logits_bias.shape[1] == size
    assert tiny_model.lm_head.weight is tiny_model.model.shared.weight
    assert tiny_model.model.encoder.embed_tokens.weight is tiny_model.model.shared.weight
    assert tiny_model.generate(**inputs, max_new_tokens=5).shape == (3, 6)


def test_saved_weights_hold_each_tensor_once_and_load_tied(tmp_path, tiny_model):
    inputs = make_inputs()
    tiny_model.final_logits_bias.normal_()
    tiny_model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "model.shared.weight" in names
    assert not names & {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    loaded, info = EnClapForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tied = [loaded.lm_head, loaded.model.encoder.embed_tokens, loaded.model.decoder.embed_tokens]
    assert all(part.weight is loaded.model.shared.weight for part in tied)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, tiny_model(**inputs).logits)
    assert loaded.generation_config.to_dict() == tiny_model.generation_config.to_dict()


def test_the_headless_model_loads_from_a_captioner(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path)
    bare, info = EnClapModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    inputs = make_inputs(targets=False)
    ids = torch.tensor([[2, 0, 9]] * 3)
    with torch.no_grad():
        states = bare(**inputs, decoder_input_ids=ids).last_hidden_state
        torch.testing.assert_close(states, tiny_model.model(**inputs, decoder_input_ids=ids).last_hidden_state)


def test_half_precision_files_load_as_the_wanted_type(tmp_path, tiny_model):
    tiny_model.half().save_pretrained(tmp_path)
    assert EnClapForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32
    assert os.path.getsize(tmp_path / "model.safetensors") < 2.2 * sum(p.numel() for p in tiny_model.parameters())


def test_a_bart_starts_an_enclap_warm_with_only_the_new_modules_missing(tmp_path):
    config = build_config()
    bart_fields = {name: value for name, value in config.to_dict().items() if name in BartConfig().to_dict()}
    bart = BartForConditionalGeneration(BartConfig(**{**bart_fields, "model_type": "bart"}))
    bart.final_logits_bias.normal_()
    bart.save_pretrained(tmp_path)
    model, info = EnClapForConditionalGeneration.from_pretrained(tmp_path, config=config, output_loading_info=True)
    new = ("model.encoder.embed_encodec.", "model.encoder.clap_projection.", "mcm_heads.")
    assert info["missing_keys"] == {name for name in model.state_dict() if name.startswith(new)}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    state = model.state_dict()
    for name, value in bart.state_dict().items():
        assert torch.equal(state[name], value), name
    for name in info["missing_keys"]:
        assert torch.isfinite(state[name]).all() and state[name].abs().max() < 1, name
        if name.endswith("weight"):
            assert state[name].std() > 0.01, name
    for table in model.model.encoder.embed_encodec:
        assert torch.count_nonzero(table.weight[config.codec_mask_token_id]) == 0
    inputs = make_inputs()
    model.eval()
    assert torch.isfinite(model(**inputs).loss)
