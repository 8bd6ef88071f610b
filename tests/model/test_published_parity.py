"""The model equals the published system on reference tensors that the published code computed.

`published_tiny/` holds a checkpoint in the published format (random weights; d_model 64, 2 + 2 layers, 4 codebooks of
64 codes) and what the published code (EnCLAP, commit e4976a4, transformers 4.29, torch 1.13, CPU, fp32) returned on it.
Its inputs carry the three extra slots: two rows of <s>, the codes, one row of </s>.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from enclap_hf import EnClapConfig, EnClapForConditionalGeneration

DATA = Path(__file__).parents[1] / "published_tiny"
# Two correct fp32 implementations sum in another order; the bounds were measured between versions of torch.
HIDDEN_ATOL, LOGITS_ATOL, LOSS_ATOL, GRADIENT_RTOL, SCORE_ATOL = 3e-6, 1e-5, 1e-6, 1e-4, 2e-6
# Slack on zero gradients: a key bias shifts all attention scores alike, so its true gradient is 0 and noise remains.
GRADIENT_NOISE = 1e-6


@pytest.fixture(scope="module")
def refs():
    return load_file(DATA / "refs.safetensors")


@pytest.fixture(scope="module")
def extra():
    return load_file(DATA / "extra_gen.safetensors")


def load_published(**overrides) -> EnClapForConditionalGeneration:
    fields = json.loads((DATA / "ckpt/config.json").read_text())
    ours = {
        "num_codebooks": fields.pop("num_rvq"),
        "codec_vocab_size": fields.pop("encodec_vocab_size"),
        "clap_dim": fields.pop("d_clap"),
        "mcm_loss_weight": fields.pop("mcm_loss_scale"),
        "label_smoothing": fields["label_smoothing"],
    }
    bart = {
        name: fields[name]
        for name in EnClapConfig().to_dict()
        if name in fields and name not in ("model_type", "transformers_version", "architectures", *ours)
    }
    model = EnClapForConditionalGeneration(EnClapConfig(**{**bart, **ours, **overrides}))
    state = torch.load(DATA / "ckpt/pytorch_model.bin", weights_only=True)
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return load_published()


def our_inputs(input_ids, clap_embedding, attention_mask=None, mcm_labels=None) -> dict:
    """Take the published three extra slots away: (B, T + 3, K) -> (B, T, K)."""
    lengths = (
        torch.full((len(input_ids),), input_ids.shape[1] - 3) if attention_mask is None else attention_mask.sum(1) - 3
    )
    mask = (torch.arange(input_ids.shape[1] - 3) < lengths[:, None]).long()
    codes = torch.where(mask[..., None] == 1, input_ids[:, 2:-1], 64)
    inputs = {"audio_codes": codes, "clap_embedding": clap_embedding, "attention_mask": mask}
    if mcm_labels is not None:
        inputs["mcm_targets"] = torch.where(mask[..., None] == 1, mcm_labels[:, 2:-1], -100)
    return inputs


@pytest.fixture(scope="module")
def batch(refs):
    inputs = our_inputs(
        *(refs[f"batch.{name}"] for name in ("input_ids", "clap_embedding", "attention_mask", "mcm_labels"))
    )
    return {**inputs, "labels": refs["batch.labels"]}


def test_hidden_states_logits_and_losses_equal_the_published(model, refs, batch):
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True)
    slots = refs["batch.attention_mask"] == 1
    for layer, states in enumerate(out.encoder_hidden_states):
        torch.testing.assert_close(
            states[slots], refs[f"out.encoder_hidden_states.{layer}"][slots], atol=HIDDEN_ATOL, rtol=0
        )
    for layer, states in enumerate(out.decoder_hidden_states):
        torch.testing.assert_close(states, refs[f"out.decoder_hidden_states.{layer}"], atol=HIDDEN_ATOL, rtol=0)
    torch.testing.assert_close(out.logits, refs["out.logits"], atol=LOGITS_ATOL, rtol=0)
    mcm_logits = torch.stack([head(out.encoder_last_hidden_state) for head in model.mcm_heads], dim=2)
    torch.testing.assert_close(mcm_logits[slots], refs["out.mcm_logits"][slots], atol=LOGITS_ATOL, rtol=0)
    torch.testing.assert_close(out.caption_loss, refs["out.lm_loss"], atol=LOSS_ATOL, rtol=0)
    # The published part is returned already weighted.
    torch.testing.assert_close(0.7 * out.mcm_loss, refs["out.mcm_loss"], atol=LOSS_ATOL, rtol=0)
    torch.testing.assert_close(out.loss, refs["out.loss"], atol=LOSS_ATOL, rtol=0)


def test_each_codebook_has_its_published_loss(model, refs, batch):
    """Codebooks other than k hide nothing, so what is left of the sum is codebook k's term."""
    for k in range(4):
        targets = torch.full_like(batch["mcm_targets"], -100)
        targets[..., k] = batch["mcm_targets"][..., k]
        with torch.no_grad():
            loss = model(**{**batch, "mcm_targets": targets}).mcm_loss
        expected = 0.5 ** (k + 1) * refs["out.mcm_loss_per_codebook_unscaled"][k]
        torch.testing.assert_close(loss, expected, atol=LOSS_ATOL, rtol=0)


def test_embedding_layout_equals_the_published_before_the_first_layer(model, refs, batch):
    encoder = model.model.encoder
    slots = encoder.build_slots(
        encoder.embed_encodec(batch["audio_codes"]), batch["clap_embedding"], batch["attention_mask"]
    )
    with_positions = slots + encoder.embed_positions(slots[..., 0])
    valid = refs["batch.attention_mask"] == 1
    torch.testing.assert_close(with_positions[valid], refs["out.enc_embed_plus_pos"][valid], atol=HIDDEN_ATOL, rtol=0)


def test_clips_alone_equal_the_published(model, refs):
    for i in range(3):
        clip = {name: refs[f"clip{i}.train.{name}"][None] for name in ("input_ids", "clap_embedding", "mcm_labels")}
        inputs = our_inputs(clip["input_ids"], clip["clap_embedding"], mcm_labels=clip["mcm_labels"])
        length = refs[f"clip{i}.train.decoder_attention_mask"].shape[0]
        with torch.no_grad():
            out = model(**inputs, labels=refs["batch.labels"][i : i + 1, :length])
        for ours, name, atol in (
            (out.encoder_last_hidden_state, "encoder_last_hidden_state", HIDDEN_ATOL),
            (out.logits, "logits", LOGITS_ATOL),
            (out.caption_loss, "lm_loss", 2 * LOSS_ATOL),
            (0.7 * out.mcm_loss, "mcm_loss", LOSS_ATOL),
            (out.loss, "loss", 2 * LOSS_ATOL),  # float32 has steps of 5e-7 at its size
        ):
            torch.testing.assert_close(ours, refs[f"single{i}.{name}"], atol=atol, rtol=0)


def test_either_target_alone_gives_the_published_loss(model, refs, batch):
    without_mcm = {name: value for name, value in batch.items() if name != "mcm_targets"}
    without_labels = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        caption_only, mcm_only = model(**without_mcm), model(**without_labels)
    torch.testing.assert_close(caption_only.loss, refs["variant.no_mcm_labels.loss"], atol=LOSS_ATOL, rtol=0)
    # The published weight is left out when labels are; here it always counts.
    torch.testing.assert_close(mcm_only.mcm_loss, refs["variant.no_labels.loss"], atol=LOSS_ATOL, rtol=0)
    torch.testing.assert_close(mcm_only.loss, 0.7 * mcm_only.mcm_loss)
    assert mcm_only.logits is None and caption_only.mcm_loss is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_gradient_norm_equals_the_published(refs, batch, attention):
    model = load_published(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    model.set_attn_implementation(attention)
    model.train()
    model(**batch).loss.backward()
    expected = {name[len("grad_norm.") :]: value for name, value in refs.items() if name.startswith("grad_norm.")}
    ours = {name: parameter.grad.norm() for name, parameter in model.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, norm in ours.items():
        torch.testing.assert_close(norm, expected[name], rtol=GRADIENT_RTOL, atol=GRADIENT_NOISE, msg=name)
    total = torch.stack(list(ours.values())).norm()
    torch.testing.assert_close(total, refs["grad_norm_total"], rtol=GRADIENT_RTOL, atol=0)


SETTINGS = {
    "greedy": {"num_beams": 1, "early_stopping": False, "max_length": 20},
    "beam": {"max_length": 20},
    "beam50": {"max_length": 50},
    "beam50_es_false": {"max_length": 50, "early_stopping": False},
    "beam50_lp2": {"max_length": 50, "length_penalty": 2.0},
}


def assert_same_ids(ours, expected):
    width = max(ours.shape[1], expected.shape[1])
    ours, expected = (torch.nn.functional.pad(ids, (0, width - ids.shape[1]), value=1) for ids in (ours, expected))
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("setting", ["greedy", "beam", "beam50"])
def test_generated_ids_equal_the_published_alone_and_in_a_batch(model, refs, setting):
    decoding = SETTINGS[setting]
    batch = our_inputs(refs["eval.input_ids"], refs["batch.clap_embedding"], refs["eval.attention_mask"])
    assert_same_ids(model.generate(**batch, **decoding), refs[f"gen.{setting}.batch"])
    for i in range(3):
        clip = our_inputs(refs[f"infer.clip{i}.input_ids"], refs["batch.clap_embedding"][i : i + 1])
        assert_same_ids(model.generate(**clip, **decoding), refs[f"gen.{setting}.clip{i}"])
    if setting == "beam":  # a clip that fills the window, and one of 40 frames
        for name in ("long", "short40"):
            clip = our_inputs(refs[f"infer.{name}.input_ids"], refs["batch.clap_embedding"][:1])
            assert_same_ids(model.generate(**clip, **decoding), refs[f"gen.{setting}.{name}"])


def test_n_best_ids_and_scores_equal_the_published(model, refs):
    batch = our_inputs(refs["eval.input_ids"], refs["batch.clap_embedding"], refs["eval.attention_mask"])
    out = model.generate(
        **batch, **SETTINGS["beam"], num_return_sequences=4, output_scores=True, return_dict_in_generate=True
    )
    assert_same_ids(out.sequences, refs["gen.beam.batch.nbest"])
    torch.testing.assert_close(out.sequences_scores, refs["gen.beam.batch.nbest_scores"], atol=SCORE_ATOL, rtol=0)


@pytest.mark.parametrize("setting", SETTINGS)
def test_sixteen_more_clips_caption_as_published(model, extra, setting):
    batch = our_inputs(*(extra[f"extra.batch.{name}"] for name in ("input_ids", "clap_embedding", "attention_mask")))
    out = model.generate(**batch, **SETTINGS[setting], output_scores=True, return_dict_in_generate=True)
    assert_same_ids(out.sequences, extra[f"extra.{setting}.batch"])
    if setting != "greedy":
        torch.testing.assert_close(
            out.sequences_scores, extra[f"extra.{setting}.batch_scores"], atol=SCORE_ATOL, rtol=0
        )
