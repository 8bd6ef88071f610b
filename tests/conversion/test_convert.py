"""Published checkpoints become repositories that caption identically, and the way back gives equal tensors."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_published_parity import SETTINGS, assert_same_ids, our_inputs
from transformers import ClapConfig, ClapModel

from conftest import make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.conversion.convert_published import convert_checkpoints, write_published
from enclap_hf.conversion.published_files import ConversionError
from original_formats import (
    PUBLISHED,
    build_tiny_codec,
    build_tiny_tower,
    name_clap_tensors,
    name_encodec_tensors,
    save_original_sources,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    return save_original_sources(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def converted(sources, tmp_path_factory) -> str:
    output = str(tmp_path_factory.mktemp("converted") / "enclap-tiny")
    convert_checkpoints(output=output, **sources)
    return output


def copy_published(folder, **config_changes) -> str:
    """A published folder of one's own, to change."""
    target = folder / "published"
    shutil.copytree(PUBLISHED / "ckpt", target)
    fields = {**json.loads((target / "config.json").read_text()), **config_changes}
    (target / "config.json").write_text(json.dumps(fields))
    return str(target)


def change_tensors(folder: str, change) -> None:
    """Save a published folder's tensors again, changed."""
    path = os.path.join(folder, "pytorch_model.bin")
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_converted_published_checkpoint_captions_as_the_published_code(converted, setting):
    model = EnClapForConditionalGeneration.from_pretrained(converted)
    extra, refs = load_file(PUBLISHED / "extra_gen.safetensors"), load_file(PUBLISHED / "refs.safetensors")
    batch = our_inputs(*(extra[f"extra.batch.{name}"] for name in ("input_ids", "clap_embedding", "attention_mask")))
    assert_same_ids(model.generate(**batch, **SETTINGS[setting]), extra[f"extra.{setting}.batch"])
    for i in range(3) if f"gen.{setting}.clip0" in refs else ():
        clip = our_inputs(refs[f"infer.clip{i}.input_ids"], refs["batch.clap_embedding"][i : i + 1])
        assert_same_ids(model.generate(**clip, **SETTINGS[setting]), refs[f"gen.{setting}.clip{i}"])


def test_the_published_decoding_is_the_default(converted):
    model = EnClapForConditionalGeneration.from_pretrained(converted)
    extra = load_file(PUBLISHED / "extra_gen.safetensors")
    batch = our_inputs(*(extra[f"extra.batch.{name}"] for name in ("input_ids", "clap_embedding", "attention_mask")))
    assert_same_ids(model.generate(**batch), extra["extra.beam50.batch"])


def test_the_text_is_the_published_text(converted):
    processor = EnClapProcessor.from_pretrained(converted)
    meta, refs = json.loads((PUBLISHED / "meta.json").read_text()), load_file(PUBLISHED / "refs.safetensors")
    for setting in ("greedy", "beam", "beam50"):
        for clip in ("clip0", "clip1", "clip2"):
            assert processor.decode(refs[f"gen.{setting}.{clip}"][0]) == meta["text"][f"{setting}.{clip}"]


def test_round_trip_gives_equal_tensors_and_sizes(converted, tmp_path):
    write_published(converted, str(tmp_path / "back"))
    source = torch.load(PUBLISHED / "ckpt/pytorch_model.bin", weights_only=True)
    back = torch.load(tmp_path / "back/pytorch_model.bin", weights_only=True)
    assert back.keys() == source.keys()
    for name, tensor in source.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    fields = json.loads((PUBLISHED / "ckpt/config.json").read_text())
    written = json.loads((tmp_path / "back/config.json").read_text())
    historical = {"add_bias_logits", "add_final_layer_norm", "classif_dropout", "gradient_checkpointing"}
    historical |= {"normalize_before", "normalize_embedding", "num_hidden_layers", "task_specific_params"}
    for name in fields.keys() - historical - {"transformers_version"}:
        assert written[name] == fields[name], name
    assert str(tmp_path) not in (tmp_path / "back/config.json").read_text()


def test_encoders_keep_every_bit(converted):
    processor = EnClapProcessor.from_pretrained(converted)
    for ours, source in ((processor.clap, build_tiny_tower()), (processor.codec, build_tiny_codec())):
        expected = source.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, expected[name]), name


def test_a_recording_is_captioned_from_the_repository_alone(converted, tmp_path):
    moved = shutil.copytree(converted, tmp_path / "moved")
    model, processor = (cls.from_pretrained(moved) for cls in (EnClapForConditionalGeneration, EnClapProcessor))
    captions = [
        processor.batch_decode(model.generate(**processor(audio=make_clip(1, seed=i), sampling_rate=24_000)))[0]
        for i in range(3)
    ]
    assert len(set(captions)) > 1


def test_the_card_names_sources_and_licences(converted, sources):
    card = Path(converted, "README.md").read_text(encoding="utf-8")
    for text in ("MIT", "CC-BY-NC 4.0", "CC0", "license: cc-by-nc-4.0", "clap.pt", "encodec.th", "sha256"):
        assert text in card
    assert os.path.dirname(sources["clap"]) not in card


@pytest.mark.parametrize("fusion", [True, False])
def test_a_tower_without_fusion_gets_its_own_front_end(sources, tmp_path, fusion):
    torch.save(name_clap_tensors(build_tiny_tower(fusion)), tmp_path / "clap.pt")  # without "module." and "state_dict"
    convert_checkpoints(output=str(tmp_path / "out"), **{**sources, "clap": str(tmp_path / "clap.pt")})
    extractor = EnClapProcessor.from_pretrained(tmp_path / "out").feature_extractor
    expected = ("fusion", "htk") if fusion else ("middle", "slaney")
    assert (extractor.long_clips, extractor.mel_scale) == expected
    assert extractor.frequency_min == 50 and extractor.int16_round_trip


def test_transformers_repositories_are_sources_too(sources, tmp_path):
    tower, codec = build_tiny_tower(), build_tiny_codec()
    config = ClapConfig(
        text_config={"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8,
                     "num_attention_heads": 1},
        audio_config=tower.config.to_dict(),
        projection_dim=32,
    )  # fmt: skip
    whole = ClapModel(config)
    whole.load_state_dict(tower.state_dict(), strict=False)
    whole.save_pretrained(tmp_path / "clap")
    codec.save_pretrained(tmp_path / "encodec")
    paths = {name: str(tmp_path / name) for name in ("clap", "encodec")}
    convert_checkpoints(output=str(tmp_path / "out"), **{**sources, **paths})
    processor = EnClapProcessor.from_pretrained(tmp_path / "out")
    for ours, source in ((processor.clap, tower), (processor.codec, codec)):
        for name, tensor in source.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("part", "name"), [("clap", "audio_projection.linear1.bias"), ("encodec", "quantizer.layers.0.codebook.embed")]
)
def test_tensors_of_transformers_repositories_that_are_missing_or_surplus_are_named(sources, tmp_path, part, name):
    (build_tiny_tower() if part == "clap" else build_tiny_codec()).save_pretrained(tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    changed = {**sources, part: str(tmp_path / "model")}
    save_file({**tensors, "audio_surplus": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert_refused(changed, tmp_path / "out", "holds tensor `audio_surplus` that the model has no place for")
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path, metadata={"format": "pt"})
    assert_refused(changed, tmp_path / "out", f"lacks tensor `{name}`")


def test_a_config_written_from_plain_bart_has_the_published_defaults(sources, tmp_path):
    folder = copy_published(tmp_path)
    path = Path(folder, "config.json")
    fields = json.loads(path.read_text())
    for name in ("mcm_loss_scale", "label_smoothing"):
        del fields[name]
    path.write_text(json.dumps(fields))
    convert_checkpoints(output=str(tmp_path / "out"), **{**sources, "enclap": folder})
    config = EnClapForConditionalGeneration.from_pretrained(tmp_path / "out").config
    assert (config.mcm_loss_weight, config.label_smoothing) == (0.7, 0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_rvq": 5}, "`num_codebooks` 4 by its tensors, but config.json says 5"),
        ({"encodec_pad_token_id": 65}, "`encodec_pad_token_id` 65; expected 64"),
        ({"d_model": "64"}, "`d_model` '64'; expected int"),
        ({"encoder_layers": 10**9}, "`encoder_layers` 2 by its tensors, but config.json says 1000000000"),
        ({"encoder_attention_heads": 3}, "must be a multiple"),
        ({"activation_function": "no such"}, "no model that can be built"),
        ({"model_type": "t5"}, "`model_type` 't5'; expected"),
        ({"max_position_embeddings": 64}, "embed_positions.weight` has shape (130, 64); expected (66, 64)"),
        ({"d_clap": 16}, "clap_projection.weight` has shape (64, 32); expected (64, 16)"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(sources, tmp_path, changes, message):
    folder = copy_published(tmp_path, **changes)
    assert_refused({**sources, "enclap": folder}, tmp_path / "out", message)


def assert_refused(sources: dict, output, message: str) -> None:
    """A conversion fails with this message in one line, and leaves nothing."""
    before = sorted(os.listdir(output.parent))
    with pytest.raises(ConversionError) as caught:
        convert_checkpoints(output=str(output), **sources)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(os.listdir(output.parent)) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mcm_heads.1.bias"), "lacks tensor `mcm_heads.1.bias`"),
        (lambda t: t.update(surplus=torch.zeros(1)), "holds tensor `surplus` that the model has no place for"),
        (
            lambda t: t.update({"mcm_heads.0.bias": torch.zeros(65)}),
            "`mcm_heads.0.bias` has shape (65,); expected (64,)",
        ),
        (lambda t: t.update({"mcm_heads.0.bias": torch.zeros(64).int()}), "holds torch.int32 numbers"),
        (lambda t: t["mcm_heads.0.bias"].fill_(float("nan")), "not finite"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}), "`lm_head.weight` and `model.shared"),
        (lambda t: t.update({"mcm_heads.0.bias": "text"}), "is a str"),
    ],
)
def test_captioner_tensors_that_do_not_fit_are_named(sources, tmp_path, change, message):
    folder = copy_published(tmp_path)
    change_tensors(folder, change)
    assert_refused({**sources, "enclap": folder}, tmp_path / "out", message)


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("clap", "audio_branch.norm.bias", "lacks tensor `audio_model.audio_encoder.norm.bias`"),
        ("clap", "audio_branch.layers.1.blocks.0.attn.qkv.weight", "attention.self.query.weight` and 2 more"),
        ("encodec", "encoder.model.15.conv.conv.weight_v", "lacks tensor"),
        ("encodec", "quantizer.vq.layers.3._codebook.embed", "lacks tensor `quantizer.layers.3.codebook.embed`"),
    ],
)
def test_encoder_tensors_that_are_missing_or_surplus_are_named(sources, tmp_path, part, name, message):
    tensors = name_clap_tensors(build_tiny_tower()) if part == "clap" else name_encodec_tensors(build_tiny_codec())
    path = tmp_path / "changed"
    torch.save({**tensors, "audio_branch.surplus": torch.zeros(2)}, path)
    surplus = "audio_branch.surplus` that the model has no place for"
    assert_refused({**sources, part: str(path)}, tmp_path / "out", surplus)
    tensors.pop(name)
    torch.save(tensors, path)
    assert_refused({**sources, part: str(path)}, tmp_path / "out", message)


def test_encoders_and_tokenizer_of_another_model_are_refused(sources, tmp_path):
    torch.save(name_clap_tensors(build_tiny_tower(projection_dim=16)), tmp_path / "clap.pt")
    torch.save(name_encodec_tensors(build_tiny_codec(num_codebooks=3)), tmp_path / "few.th")
    torch.save(name_encodec_tensors(build_tiny_codec(codebook_size=32)), tmp_path / "small.th")
    vocabulary = json.loads((PUBLISHED / "tokenizer/vocab.json").read_text())
    del vocabulary[sorted(vocabulary, key=vocabulary.get)[-2]]  # the last but one; <mask>, the last, is always added
    shutil.copytree(PUBLISHED / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer/vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    for changed, message in (
        ({"clap": "clap.pt"}, "CLAP's embedding width: 16, but the captioner reads 32"),
        ({"encodec": "few.th"}, "EnCodec has 3 codebooks, but the captioner reads 4"),
        ({"encodec": "small.th"}, "codes in a codebook: 32, but the captioner reads 64"),
        ({"tokenizer": "tokenizer"}, "has `vocab_size` 199, the captioner 200"),
        ({"tokenizer": "nowhere"}, "--tokenizer: there is no file or folder"),
        ({"clap": "nowhere.pt"}, "--clap: there is no file or folder"),
        ({"enclap": "nowhere"}, "nowhere is not a folder"),
    ):
        paths = {name: str(tmp_path / value) for name, value in changed.items()}
        assert_refused({**sources, **paths}, tmp_path / "out", message)


def test_an_existing_output_is_kept_unless_it_may_be_replaced(sources, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious.txt").write_text("kept")
    assert_refused(sources, output, "pass --overwrite")
    broken = {**sources, "clap": str(tmp_path / "nowhere.pt")}
    with pytest.raises(ConversionError):
        convert_checkpoints(output=str(output), **broken, overwrite=True)
    assert (output / "precious.txt").exists()
    convert_checkpoints(output=str(output), **sources, overwrite=True)
    assert not (output / "precious.txt").exists() and (output / "model.safetensors").exists()
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_an_output_that_holds_a_source_is_refused(sources, tmp_path):
    folder = copy_published(tmp_path)
    for output in (folder, tmp_path):
        with pytest.raises(ConversionError, match="holds the source"):
            convert_checkpoints(output=str(output), **{**sources, "enclap": folder}, overwrite=True)
    assert os.path.isfile(os.path.join(folder, "pytorch_model.bin"))


def test_a_failure_while_writing_leaves_the_old_output(sources, tmp_path, monkeypatch):
    output = tmp_path / "out"
    output.mkdir()
    (output / "old.txt").write_text("old")

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("enclap_hf.conversion.convert_published.write_card", fail)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoints(output=str(output), **sources, overwrite=True)
    assert os.listdir(tmp_path) == ["out"] and os.listdir(output) == ["old.txt"]
