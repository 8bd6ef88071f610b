"""The text tower: vectors are the stock tower's; it is saved, pushed and referred to as the others, and optional."""

import json
import os
import shutil

import pytest
import torch
from transformers import ClapConfig, ClapModel

from clap_text_models import build_clap_text, build_processor_with_text
from conftest import build_clap, build_processor, make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.hub.export import find_missing_parts, plan_upload
from enclap_hf.model.clap_text import ClapTextEncoder, compare_with_captions
from enclap_hf.model.config_checks import load_config
from enclap_hf.model.model_files import ModelFileError
from enclap_hf.model.repository_checks import check_repository

CAPTIONS = ["a dog barks twice", "rain", "people's voices and then a bell rings, and rain falls on a roof", "rain"]
RATE, NUM_TOKENS = 24_000, 315


@pytest.fixture(scope="module")
def processor() -> EnClapProcessor:
    return build_processor_with_text()


@pytest.fixture(scope="module")
def saved(processor, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("processor")
    processor.save_pretrained(folder)
    return str(folder)


def test_vectors_are_those_of_the_stock_tower_one_caption_at_a_time():
    encoder = build_clap_text()
    rows = encoder.embed(CAPTIONS)
    assert rows.shape == (4, 24) and rows.dtype == torch.float32
    for row, caption in zip(rows, CAPTIONS, strict=True):
        words = encoder.tokenizer(caption, return_tensors="pt")
        with torch.no_grad():
            alone = encoder.model(words["input_ids"], words["attention_mask"]).text_embeds[0]
        torch.testing.assert_close(row, alone / alone.norm(), atol=2e-6, rtol=0)  # sums in another order


def test_a_caption_longer_than_the_tower_reads_is_cut():
    encoder = build_clap_text()
    assert encoder.max_tokens == 38
    long = "a dog barks twice " * 30
    torch.testing.assert_close(*encoder.embed([long, long + "and rain falls"]), atol=2e-6, rtol=0)


def test_captions_of_each_recording_are_compared_with_it_alone(processor):
    generator = torch.Generator().manual_seed(0)
    audio = torch.nn.functional.normalize(torch.randn(3, 24, generator=generator), dim=1)
    captions = [CAPTIONS, [], ["a bell"]]
    cosines = compare_with_captions(processor.clap_text_encoder, audio, captions)
    assert [len(row) for row in cosines] == [4, 0, 1] and cosines[0][1] == cosines[0][3]
    for vector, texts, row in zip(audio, captions, cosines, strict=True):
        for text, cosine in zip(texts, row, strict=True):
            row_of_text = processor.clap_text_encoder.embed([text])[0]
            expected = sum(a * b for a, b in zip(row_of_text.tolist(), vector.tolist(), strict=True))
            assert cosine == pytest.approx(expected, abs=2e-6)
    assert compare_with_captions(processor.clap_text_encoder, audio[:1], [[]]) == [[]]


def test_score_captions_takes_and_returns_one_or_several(processor):
    clips = [make_clip(1.0, 1), make_clip(0.5, 2)]
    each = [processor.score_captions(clip, CAPTIONS, sampling_rate=RATE) for clip in clips]
    assert all(-1 <= cosine <= 1 for row in each for cosine in row)
    assert processor.score_captions(clips[0], CAPTIONS[0], sampling_rate=RATE) == pytest.approx(each[0][0], abs=2e-6)
    both = processor.score_captions(clips, [CAPTIONS, CAPTIONS[1]], sampling_rate=RATE)
    assert both[0] == pytest.approx(each[0], abs=2e-6) and both[1] == pytest.approx(each[1][1], abs=2e-6)
    embedding = processor(audio=clips[0], sampling_rate=RATE)["clap_embedding"]
    assert each[0] == pytest.approx(compare_with_captions(processor.clap_text_encoder, embedding, [CAPTIONS])[0])


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("rain", "Got one caption for a list of 2 recordings; pass one entry per recording."),
        (["rain"], "Got 1 entries of captions for a list of 2 recordings"),
        (["rain", []], "Got no caption in `text`"),
        (["rain", 3], "Got a caption of type int"),
    ],
)
def test_captions_that_do_not_belong_to_the_recordings_are_refused(processor, captions, message):
    clips = [make_clip(0.5, 1), make_clip(0.5, 2)]
    with pytest.raises((ValueError, TypeError)) as raised:
        processor.score_captions(clips, captions, sampling_rate=RATE)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_processor_without_a_text_tower_says_so_and_works(tiny_processor):
    with pytest.raises(ValueError, match="has no text tower of its CLAP") as raised:
        tiny_processor.score_captions(make_clip(0.5), "rain", sampling_rate=RATE)
    assert "\n" not in str(raised.value)
    assert tiny_processor.clap_text_encoder is None and "clap_text_source" not in tiny_processor.to_dict()


def test_it_is_saved_and_read_with_the_first_caption(processor, saved):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(os.path.join(saved, "clap_text")))
    loaded = EnClapProcessor.from_pretrained(saved)
    assert loaded.clap_text_source == {"subfolder": "clap_text"} and not loaded.clap_text_encoder.is_loaded
    torch.testing.assert_close(
        loaded.clap_text_encoder.embed(CAPTIONS), processor.clap_text_encoder.embed(CAPTIONS), rtol=0, atol=1e-6
    )
    assert loaded.clap_text_encoder.is_loaded
    assert loaded.encoders.fingerprint("clap_text") == processor.encoders.fingerprint("clap_text")


def test_a_repository_with_it_is_complete_checked_and_uploaded(saved, repository, tmp_path):
    folder = tmp_path / "whole"
    shutil.copytree(repository, folder)
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    check_repository(str(folder))
    assert find_missing_parts(str(folder)) == []
    files = set(plan_upload(str(folder)).files)
    assert {f"clap_text/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")} <= files
    shutil.rmtree(folder / "clap_text")
    assert any("clap_text" in part for part in find_missing_parts(str(folder)))


def test_a_checkpoint_refers_to_it_by_fingerprint(saved, tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    EnClapProcessor.from_pretrained(saved).save_pretrained(checkpoint)
    assert not (checkpoint / "clap_text").exists()
    fields = json.loads((checkpoint / "processor_config.json").read_text())
    assert fields["clap_text_source"].keys() == {"fingerprint"}
    loaded = EnClapProcessor.from_pretrained(checkpoint)
    assert loaded.clap_text_encoder.embed(CAPTIONS).shape == (4, 24)


def test_a_whole_clap_elsewhere_serves_as_the_tower(processor, tmp_path):
    encoder, clap = build_clap_text(), build_clap()
    config = ClapConfig(text_config=encoder.config.to_dict(), audio_config=clap.config.to_dict(), projection_dim=24)
    whole = ClapModel(config).eval()
    whole.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    other = ClapTextEncoder(str(tmp_path))
    with torch.no_grad():
        words = encoder.tokenizer(["rain"], return_tensors="pt")
        expected = whole.get_text_features(**words)
        expected = torch.nn.functional.normalize(getattr(expected, "pooler_output", expected), dim=-1)
    torch.testing.assert_close(other.embed(["rain"]), expected, atol=2e-6, rtol=0)


def test_another_clap_leaves_the_text_tower_behind(saved):
    loaded = EnClapProcessor.from_pretrained(saved)
    loaded.use_encoder("codec", loaded.encoders.resolve_source("codec"))
    assert loaded.clap_text_encoder.embed(["rain"]).shape == (1, 24)
    loaded.use_encoder("clap", loaded.encoders.resolve_source("clap"))
    assert loaded.clap_text_encoder is None


def test_a_tower_of_another_width_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    build_clap_text(projection_dim=16).save(str(tmp_path / "clap_text"))
    with pytest.raises(ValueError, match="vectors of 24 numbers and its text tower of 16") as raised:
        EnClapProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_missing_tokenizer_or_one_of_more_tokens_is_refused(saved, tmp_path):
    folder = tmp_path / "clap_text"
    shutil.copytree(os.path.join(saved, "clap_text"), folder)
    config = load_config(type(build_clap_text().config), str(folder))
    config.vocab_size = 300
    tower = ClapTextEncoder(type(build_clap_text().model)(config), build_clap_text().tokenizer)
    tower.save(str(folder))
    with pytest.raises(ModelFileError, match=f"of {NUM_TOKENS} tokens, and the text tower knows 300"):
        ClapTextEncoder(str(folder)).embed(["rain"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelFileError, match="has no tokenizer.json"):
        ClapTextEncoder(str(folder)).embed(["rain"])


def test_a_processor_of_a_captioner_without_clap_ignores_it():
    processor = build_processor()
    processor.sequence_vector, processor.clap_text_source = "none", {"subfolder": "clap_text"}
    processor._encoders = None
    assert processor.clap_text_encoder is None
