"""The frames that a training reads are chosen by name, and a captioner that is trained on others starts these anew."""

import csv
import json
import logging
import os

import pytest
import torch

from conftest import (
    build_clap,
    build_codec,
    build_feature_extractor,
    build_model,
    build_tokenizer,
    make_clip,
)
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.model.encodec_frames import EncodecLatents
from enclap_hf.model.repository import save_repository
from enclap_hf.training.run_arguments import EncoderArguments, ModelArguments
from enclap_hf.training.run_encoders import choose_training_processor, fit_processor
from enclap_hf.training.run_setup import build_captioner
from training_runs import TINY, make_recipe, train, write_repository_and_clips

ONE_STEP = {
    "validation_data": None, "eval_strategy": "no", "load_best_model_at_end": None, "metric_for_best_model": None,
    "greater_is_better": None, "save_strategy": "no", "report_to": "none", "max_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A repository of a tiny captioner, another codec, and seven clips in Clotho's layout."""
    folder = tmp_path_factory.mktemp("work")
    write_repository_and_clips(folder)
    build_codec(seed=1).save_pretrained(folder / "codec")
    return folder


def choose(work, **fields) -> EnClapProcessor:
    return choose_training_processor(EncoderArguments(processor_name_or_path=str(work / "enclap"), **fields))


# Choosing


@pytest.mark.parametrize(
    ("fields", "family", "kind", "clap_dim"),
    [
        ({}, "encodec", "codes", 24),
        ({"frames": "codes"}, "encodec", "codes", 24),
        ({"frames": "latents"}, "encodec_latents", "features", 24),
        ({"frames": "log_mel"}, "log_mel", "features", 24),
        ({"frames": "clap_frames"}, "clap_frames", "features", 24),
        ({"use_clap": False}, "encodec", "codes", 0),
        ({"use_clap": False, "frames": "log_mel"}, "log_mel", "features", 0),
        ({"use_clap": False, "frames": "clap_frames"}, "clap_frames", "features", 0),
    ],
)
def test_frames_are_chosen_by_name(work, fields, family, kind, clap_dim):
    processor = choose(work, **fields)
    encoder = processor.frame_encoder
    assert (encoder.frame_encoder_type, encoder.kind) == (family, kind)
    config = build_captioner(None, processor, config_fields=TINY).config
    assert (config.frame_kind, config.frame_encoder_type, config.clap_dim) == (kind, family, clap_dim)
    assert config.frame_dim == encoder.frame_dim and config.frame_rate == encoder.frame_rate
    inputs = fit_processor(processor, config)(audio=make_clip(0.5), sampling_rate=24_000)
    assert ("clap_embedding" in inputs) == (clap_dim > 0)
    assert ("audio_codes" in inputs) == (kind == "codes")


@pytest.mark.parametrize("field", ["frame_encoder_name_or_path", "codec_name_or_path"])
@pytest.mark.parametrize("frames", [None, "codes", "latents"])
def test_a_named_encoder_is_read(work, field, frames):
    processor = choose(work, frames=frames, **{field: str(work / "codec")})
    assert processor.codec_source == {"repo_id": str(work / "codec")}
    found = processor.codec.state_dict()["encoder.layers.0.conv.bias"]
    assert torch.equal(found, build_codec(seed=1).state_dict()["encoder.layers.0.conv.bias"])
    assert processor.frame_encoder.kind == ("features" if frames == "latents" else "codes")


def test_more_codebooks_than_are_kept_by_default_are_kept_on_request(work):
    processor = choose(work, num_codebooks=3)
    assert processor.num_codebooks == 4, "features keep all, so that trainings on fewer share them"
    with pytest.raises(ValueError, match="Asked for 5 codebooks of a codec that has 4"):
        choose(work, num_codebooks=5)
    with pytest.raises(ValueError, match="Got `num_codebooks` 3 with a frame encoder that gives features"):
        choose(work, num_codebooks=3, frames="log_mel")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": "mel"}, "Got `frames`=mel; expected one of codes, latents, log_mel, clap_frames"),
        ({"frame_encoder_name_or_path": "a", "codec_name_or_path": "b"}, "which are two names of one argument"),
        ({"frames": "clap_frames", "codec_name_or_path": "b"}, "these are frames of CLAP"),
        ({"num_codebooks": 0}, "Got `num_codebooks`=0; expected at least 1"),
    ],
)
def test_arguments_that_say_two_things_are_refused(fields, message):
    for kind in (EncoderArguments, ModelArguments):
        with pytest.raises(ValueError, match=message):
            kind(**fields)


def test_the_two_names_of_a_frame_encoder_are_one_argument():
    """A run that was begun with one of them goes on with the other."""
    assert ModelArguments(codec_name_or_path="b") == ModelArguments(frame_encoder_name_or_path="b")


def test_codes_of_a_processor_that_has_none_are_refused(work, tmp_path):
    mel = choose(work, frames="log_mel")
    model = build_captioner(None, mel, config_fields=TINY)
    save_repository(model, fit_processor(mel, model.config), str(tmp_path))
    args = EncoderArguments(model_name_or_path=str(tmp_path), frames="codes")
    with pytest.raises(ValueError, match="Got `frames` codes, and the frame encoder of the model gives features; name"):
        choose_training_processor(args)


def test_the_captioners_processor_keeps_what_the_captioner_holds(work):
    processor = choose(work)
    model = build_captioner(None, processor, num_codebooks=2, config_fields=TINY)
    fitted = fit_processor(processor, model.config)
    assert (fitted.num_codebooks, fitted.feature_extractor.max_codec_frames) == (2, 125)
    assert (processor.num_codebooks, processor.feature_extractor.max_codec_frames) == (4, 253)
    with pytest.raises(ValueError, match="The captioner reads codes .* gives features"):
        fit_processor(choose(work, frames="log_mel"), model.config)


# Training on


def keep_weights(model) -> dict:
    """Weights that neither read frames nor name codes."""
    parts = ("embed_encodec", "embed_features", "mcm_heads")
    return {name: value for name, value in model.state_dict().items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    "fields", [{"frames": "latents"}, {"frames": "log_mel"}, {"frames": "clap_frames"}, {"codec_name_or_path": "codec"}]
)
def test_another_frame_encoder_starts_its_embedding_anew(work, caplog, fields):
    name = str(work / "enclap")
    fields = {key: str(work / value) if key == "codec_name_or_path" else value for key, value in fields.items()}
    args = ModelArguments(model_name_or_path=name, **fields)
    processor = choose_training_processor(args)
    torch.manual_seed(5)
    model = build_captioner(name, processor, may_replace_frames=args.names_frames)
    own = EnClapForConditionalGeneration.from_pretrained(name)
    kept, expected = keep_weights(model), keep_weights(own)
    assert kept.keys() == expected.keys() and all(torch.equal(kept[key], expected[key]) for key in kept)
    assert model.generation_config.max_length == own.generation_config.max_length
    assert "the embedding of its frames starts anew" in caplog.text
    if "codec_name_or_path" in fields:
        for part in ("model.encoder.embed_encodec.0.weight", "mcm_heads.0.weight"):
            assert not torch.equal(model.state_dict()[part], own.state_dict()[part])
        assert len(model.mcm_heads) == 4 and model.config.mcm_loss_weight == own.config.mcm_loss_weight
    else:
        assert model.config.frame_kind == "features" and len(model.mcm_heads) == 0
    fit_processor(processor, model.config)


def test_the_same_frame_encoder_by_another_name_starts_nothing_anew(work, tmp_path, caplog):
    build_codec().save_pretrained(tmp_path)
    name = str(work / "enclap")
    for fields in ({"frames": "codes"}, {"frame_encoder_name_or_path": str(tmp_path)}):
        args = ModelArguments(model_name_or_path=name, **fields)
        model = build_captioner(name, choose_training_processor(args), may_replace_frames=True)
        own = EnClapForConditionalGeneration.from_pretrained(name).state_dict()
        assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    assert "anew" not in caplog.text


def test_another_frame_encoder_that_is_not_asked_for_is_refused(work, tmp_path):
    processor = EnClapProcessor.from_encoders(
        build_feature_extractor(), build_tokenizer(), EncodecLatents(build_codec().requires_grad_(False)), build_clap()
    )
    model = build_captioner(str(work / "enclap"), processor)
    with pytest.raises(ValueError, match="The captioner reads codes .* gives features"):
        fit_processor(processor, model.config)


def test_features_are_left_for_codes_with_masked_codec_modelling(work, tmp_path):
    """A captioner of features has no heads, and its configuration says a weight of 0."""
    mel = choose(work, frames="log_mel")
    model = build_captioner(None, mel, config_fields=TINY)
    save_repository(model, fit_processor(mel, model.config), str(tmp_path))
    args = ModelArguments(model_name_or_path=str(tmp_path), codec_name_or_path=str(work / "codec"))
    model = build_captioner(str(tmp_path), choose_training_processor(args), may_replace_frames=True)
    assert model.config.frame_kind == "codes" and len(model.mcm_heads) == 4 and model.config.mcm_loss_weight == 0.7


def test_a_captioner_goes_on_without_its_clap_vector(work, caplog):
    name = str(work / "enclap")
    processor = choose_training_processor(ModelArguments(model_name_or_path=name, use_clap=False))
    with caplog.at_level(logging.WARNING):
        model = build_captioner(name, processor)
    own = EnClapForConditionalGeneration.from_pretrained(name).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    assert model.config.clap_dim == 0 and "goes on without a CLAP vector" in caplog.text
    fit_processor(processor, model.config)


# Whole runs


@pytest.mark.parametrize(
    "arguments",
    [
        {"frames": "latents"},
        {"frames": "log_mel", "use_clap": False},
        {"frames": "clap_frames", "use_clap": False},
        {"use_clap": False, "num_codebooks": 2},
    ],
    ids=lambda arguments: ",".join(map(str, arguments.values())),
)
def test_from_arguments_to_a_repository_that_captions(work, tmp_path, monkeypatch, arguments):
    results = train(monkeypatch, make_recipe(work, tmp_path, **ONE_STEP, **arguments))
    assert results["train_loss"] > 0 and ("test_mcm_loss" in results) == ("frames" not in arguments)
    model, processor = (cls.from_pretrained(str(tmp_path)) for cls in (EnClapForConditionalGeneration, EnClapProcessor))
    inputs = processor(audio=str(work / "audio" / "clip [5].wav"))
    caption = processor.batch_decode(model.eval().generate(**inputs, num_beams=1, max_length=12))[0]
    with open(tmp_path / "predictions_test.csv", newline="") as file:
        assert {row["file_name"]: row["candidate"] for row in csv.DictReader(file)}["clip [5].wav"] == caption
    assert ("clap_embedding" in inputs) == arguments.get("use_clap", True)
    manifest = json.loads((tmp_path / "_features" / "train-0" / "features.json").read_text())
    assert (manifest["encoders"]["clap"] is not None) == arguments.get("use_clap", True)


def test_a_captioner_is_not_trained_on_other_features_unasked(work, tmp_path, monkeypatch):
    build_model().save_pretrained(tmp_path / "model")
    mel = choose(work, frames="log_mel")
    mel.save_pretrained(tmp_path / "mel")
    recipe = make_recipe(
        work, tmp_path / "run", model_name_or_path=str(tmp_path / "model"), config_overrides=None, **ONE_STEP
    )
    with pytest.raises(CaptionDataError, match="The captioner reads codes .* gives features"):
        train(monkeypatch, recipe, "--processor_name_or_path", str(tmp_path / "mel"))
    assert not os.path.exists(tmp_path / "run" / "_features"), "said before hours of encoding"
