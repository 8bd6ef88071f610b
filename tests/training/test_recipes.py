"""What trainings start from: a recipe's text, the encoders that a model brings, and the features of a data set."""

import json
import os
import sys
from dataclasses import replace

import pytest
import soundfile
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    EncodecConfig,
    EncodecModel,
)

from conftest import build_codec, build_model, build_processor, build_tokenizer, make_clip
from enclap_hf import DEFAULT_MODEL, EnClapProcessor
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.data_source import DataSource
from enclap_hf.data.feature_shards import FeatureSettings
from enclap_hf.data.prepared_features import PreparedClips, describe_encoders
from enclap_hf.model.repository import save_repository
from enclap_hf.training import run_encoders
from enclap_hf.training.recipes import expand_recipe
from enclap_hf.training.run_arguments import EncoderArguments
from enclap_hf.training.run_encoders import choose_training_processor
from training_runs import TINY, load_script, make_recipe, train

SETTINGS = FeatureSettings(4, shard_size=3)
NUM_TOKENS = len(build_tokenizer())


# The text of a recipe


def test_a_recipe_indented_with_tabs_or_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "recipe.json").write_text('\ufeff{\n\t"seed": 3,\n\t"train_data": ["a.csv"]\n}', encoding="utf-8")
    assert expand_recipe([str(tmp_path / "recipe.json")]) == ["--seed", "3", "--train_data", "a.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{\n"seed": 3,\n"a" 4}', r"a\.json, line 3: no valid JSON, Expecting ':' delimiter"),
        ("a.json", b"", r"a\.json, line 1: no valid JSON"),
        ("a.yaml", b"seed: 3\n\tmax_steps: 4\n", r"a\.yaml, line 2: no valid YAML, found character"),
        ("a.yml", b"seed: 3\nlist: [1, 2\n", r"a\.yml, line 3: no valid YAML"),
        ("a.json", b'{"a": "\xe4"}', r"a\.json is not UTF-8 \(byte 7\)"),
        ("a.json", b"[3]", r"a\.json holds no arguments"),
    ],
)
def test_a_malformed_recipe_is_one_line_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CaptionDataError, match=message) as caught:
        expand_recipe([str(tmp_path / name)])
    assert "\n" not in str(caught.value)


def test_a_recipe_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CaptionDataError, match=r"none\.json cannot be read: No such file"):
        expand_recipe([str(tmp_path / "none.json")])


def test_some_names_of_a_recipe_can_be_taken_alone(tmp_path):
    (tmp_path / "recipe.yaml").write_text("seed: 3\noutput_dir: a\nmodel_name_or_path: b\n")
    arguments = expand_recipe([str(tmp_path / "recipe.yaml"), "--output_dir", "c"], {"model_name_or_path"})
    assert arguments == ["--model_name_or_path", "b", "--output_dir", "c"]


# Encoders


def choose(model_name: str | None = None, processor_name: str | None = None, **fields) -> EnClapProcessor:
    """The processor of a training from a model."""
    return choose_training_processor(
        EncoderArguments(model_name_or_path=model_name, processor_name_or_path=processor_name, **fields)
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A BART with its tokenizer, and encoders of the published ones' kinds, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name != "max_position_embeddings"}
    BartForConditionalGeneration(BartConfig(vocab_size=320, max_position_embeddings=128, **sizes)).save_pretrained(
        folder / "bart"
    )
    build_tokenizer().save_pretrained(folder / "bart")
    fields = {**build_codec().config.to_dict(), "target_bandwidths": [6.0]}  # 16 codebooks
    codec = EncodecModel(EncodecConfig(**fields))
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_()
    codec.save_pretrained(folder / "codec")
    config = ClapAudioConfig(
        patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[2, 2], num_hidden_layers=2, hidden_size=16,
        projection_dim=24, enable_fusion=True, aff_block_r=2,
    )  # fmt: skip
    ClapAudioModelWithProjection(config).save_pretrained(folder / "clap")
    (folder / "audio").mkdir()
    for i in range(3):
        soundfile.write(folder / "audio" / f"{i}.wav", make_clip(0.3 + 0.1 * i, i), 24_000)
    (folder / "data.csv").write_text("file_name,caption\n" + "".join(f"{i}.wav,rain {i}\n" for i in range(3)))
    return folder


def test_beside_a_bart_the_published_encoders_and_its_tokenizer_are_read(parts, monkeypatch):
    monkeypatch.setattr(run_encoders, "PUBLISHED_CODEC", str(parts / "codec"))
    monkeypatch.setattr(run_encoders, "PUBLISHED_CLAP", str(parts / "clap"))
    processor = choose(str(parts / "bart"))
    sources = [processor.codec_source["repo_id"], processor.clap_source["repo_id"]]
    assert sources == [str(parts / "codec"), str(parts / "clap")] and len(processor.tokenizer) == NUM_TOKENS
    assert processor.feature_extractor.long_clips == "fusion" and processor.num_codebooks == 16


def test_the_published_encoders_are_those_of_the_hub():
    assert run_encoders.PUBLISHED_CODEC == "facebook/encodec_24khz"
    assert run_encoders.PUBLISHED_CLAP == "laion/clap-htsat-fused"


def test_an_enclap_brings_its_own_encoders_and_random_weights_take_the_packages(parts, tmp_path):
    save_repository(build_model(), build_processor(), str(tmp_path / "enclap"))
    own = choose(str(tmp_path / "enclap"))
    assert own._location["repo_id"] == str(tmp_path / "enclap")
    assert choose()._location["repo_id"] == DEFAULT_MODEL
    named = choose(str(parts / "bart"), str(tmp_path / "enclap"))
    assert named._location["repo_id"] == str(tmp_path / "enclap") and "repo_id" not in named.codec_source
    other = choose(str(tmp_path / "enclap"), codec_name_or_path=str(parts / "codec"))
    assert other.codec_source == {"repo_id": str(parts / "codec")}
    assert other.clap_source["repo_id"] == str(tmp_path / "enclap")


def test_features_prepared_with_a_trainings_recipe_are_those_that_it_reads(parts, tmp_path, monkeypatch, capsys):
    """The paper's recipes name a BART and none of its encoders' repositories; here their fields name stand-ins."""
    recipe = make_recipe(
        parts, tmp_path / "run", processor_name_or_path=None, model_name_or_path=str(parts / "bart"),
        codec_name_or_path=str(parts / "codec"), clap_name_or_path=str(parts / "clap"), config_overrides=None,
        train_data=[str(tmp_path / "features")], validation_data=None, test_data=None, max_steps=1,
        eval_strategy="no", save_strategy="no", load_best_model_at_end=None, metric_for_best_model=None,
        greater_is_better=None, report_to="none",
    )  # fmt: skip
    script = load_script("prepare_features")
    data = ["--data", str(parts / "data.csv"), "--audio_dir", str(parts / "audio")]
    monkeypatch.setattr(
        sys,
        "argv",
        ["prepare_features.py", recipe, *data, "--output_dir", str(tmp_path / "features"), "--device", "cpu"],
    )
    script.main()
    assert f"Wrote {tmp_path / 'features'}: features of 3 clips" in capsys.readouterr().out
    assert os.listdir(tmp_path / "run") == ["recipe.json"]
    assert train(monkeypatch, recipe)["train_loss"] > 0


# Revisions


def test_the_models_revision_is_that_of_its_processor_and_encoders(hub, tmp_path):
    """Training from a tagged model would otherwise read the encoders and captions of the newest commit."""
    save_repository(build_model(), build_processor(), str(tmp_path / "first"))
    EnClapProcessor.from_pretrained(str(tmp_path / "first")).push_to_hub("me/captioner")
    first = build_model().push_to_hub("me/captioner")
    other = build_processor()
    for parameter in [*other.clap.parameters(), *other.codec.parameters()]:
        parameter.data.mul_(0.5)
    other.tokenizer.add_tokens(["meow"])
    second = other.push_to_hub("me/captioner")
    found = {name: choose("me/captioner", model_revision=name) for name in (first.oid, None)}
    assert [len(processor.tokenizer) for processor in found.values()] == [NUM_TOKENS, NUM_TOKENS + 1]
    described = [describe_encoders(processor) for processor in found.values()]
    for name, expected in (("frames", build_processor()), ("clap", build_processor())):
        assert described[0][name]["sha256"] == describe_encoders(expected)[name]["sha256"]
        assert described[0][name]["sha256"] != described[1][name]["sha256"]
        assert [encoders[name]["revision"] for encoders in described] == [first.oid, second.oid]
        assert described[0][name]["repo_id"] == "me/captioner"


def test_the_revision_of_a_bart_is_that_of_its_tokenizer_and_of_nothing_else(hub, parts, tmp_path):
    bart = BartForConditionalGeneration.from_pretrained(str(parts / "bart"))
    bart.push_to_hub("lab/bart")
    first = build_tokenizer().push_to_hub("lab/bart")
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["meow"])
    tokenizer.push_to_hub("lab/bart")
    codec = EncodecModel.from_pretrained(str(parts / "codec")).push_to_hub("lab/codec")
    encoders = {"codec_name_or_path": "lab/codec", "clap_name_or_path": str(parts / "clap")}
    processor = choose("lab/bart", model_revision=first.oid, **encoders)
    assert len(processor.tokenizer) == NUM_TOKENS
    assert len(choose("lab/bart", **encoders).tokenizer) == NUM_TOKENS + 1
    assert describe_encoders(processor)["frames"]["revision"] == codec.oid
    assert describe_encoders(processor)["clap"]["revision"] is None


# Features


@pytest.fixture
def table(tmp_path) -> DataSource:
    """Twenty rows; the recordings of two are missing."""
    for i in range(20):
        if i not in (12, 17):
            soundfile.write(tmp_path / f"{i:02d}.wav", make_clip(0.2, i), 24_000)
    (tmp_path / "t.csv").write_text("file_name,caption\n" + "".join(f"{i:02d}.wav,rain {i}\n" for i in range(20)))
    return DataSource(str(tmp_path / "t.csv"))


def open_table(source, folder, processor, **kwargs) -> PreparedClips:
    return open_source(source).open_features(str(folder), processor, replace(SETTINGS, batch_size=3, **kwargs))


def test_a_trial_on_the_first_clips_is_judged_by_the_whole_data_set(table, tmp_path, tiny_processor):
    """Two missing of 20 would be half of a trial on four clips, which has none of them."""
    trial = open_table(table, tmp_path / "f", tiny_processor, max_clips=4, max_bad_share=0.1)
    assert len(trial) == 4 and trial.folder == str(tmp_path / "f-first4")
    assert trial.manifest["num_clips"] == 4 and trial.manifest["bad_clips"] == []
    with pytest.raises(CaptionDataError, match=r"2 of 20 clips cannot be used .*allowed are 5.0%"):
        open_table(table, tmp_path / "g", tiny_processor, max_clips=4, max_bad_share=0.05)
    assert not (tmp_path / "g-first4").exists()


def test_trials_and_the_full_run_keep_apart(table, tmp_path, tiny_processor):
    for max_clips, number in ((2, 2), (5, 5), (None, 18), (18, 18), (100, 18), (2, 2)):
        opened = open_table(table, tmp_path / "f", tiny_processor, max_clips=max_clips, max_bad_share=0.1)
        assert len(opened) == number
    assert sorted(path.name for path in tmp_path.glob("f*")) == ["f", "f-first2", "f-first5"]


def test_a_run_refused_for_missing_recordings_goes_on_once_they_are_there(table, tmp_path, tiny_processor):
    with pytest.raises(CaptionDataError, match="2 of 20 clips cannot be used"):
        open_table(table, tmp_path / "f", tiny_processor)
    for i in (12, 17):
        soundfile.write(tmp_path / f"{i:02d}.wav", make_clip(0.2, i), 24_000)
    assert len(open_table(table, tmp_path / "f", tiny_processor)) == 20


def test_a_tilde_is_the_home_folder(table, tmp_path, tiny_processor, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = open_table(table, os.path.join("~", "f"), tiny_processor, max_bad_share=0.1)
    assert (
        made.folder == str(tmp_path / "f") and json.loads((tmp_path / "f/features.json").read_text())["num_rows"] == 18
    )
    assert open_table(DataSource("~/f"), "unused", tiny_processor).names == made.names
    assert not (tmp_path / "~").exists()
