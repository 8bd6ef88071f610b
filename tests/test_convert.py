"""Published checkpoints become repositories that caption identically, and the way back gives equal tensors."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BartConfig, BartForConditionalGeneration, ClapConfig, ClapModel, pipeline
from transformers.modeling_outputs import BaseModelOutput

from conftest import make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.cli import main
from enclap_hf.conversion.convert_original_checkpoints import convert_checkpoints, write_original
from enclap_hf.conversion.original_checkpoints import ConversionError
from original_formats import (
    PUBLISHED,
    build_tiny_codec,
    build_tiny_tower,
    make_clap_checkpoint,
    name_clap_tensors,
    name_encodec_tensors,
)
from test_published_parity import SETTINGS, assert_same_ids, our_inputs


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """Everything that `convert_checkpoints` reads, in the original formats."""
    folder = tmp_path_factory.mktemp("original")
    torch.save(make_clap_checkpoint(name_clap_tensors(build_tiny_tower())), folder / "clap.pt")
    torch.save(name_encodec_tensors(build_tiny_codec()), folder / "encodec.th")
    return {
        "enclap": str(PUBLISHED / "ckpt"),
        "clap": str(folder / "clap.pt"),
        "encodec": str(folder / "encodec.th"),
        "tokenizer": str(PUBLISHED / "tokenizer"),
    }


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
    write_original(converted, str(tmp_path / "back"))
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
        ({"tokenizer": "nowhere"}, "nowhere cannot be loaded"),
        ({"clap": "nowhere.pt"}, "nowhere.pt is neither a file nor a folder"),
        ({"enclap": "nowhere"}, "nowhere is no folder"),
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

    monkeypatch.setattr("enclap_hf.conversion.convert_original_checkpoints.write_card", fail)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoints(output=str(output), **sources, overwrite=True)
    assert os.listdir(tmp_path) == ["out"] and os.listdir(output) == ["old.txt"]


def test_the_command_converts_there_and_back(sources, tmp_path, capsys):
    arguments = [text for name, value in sources.items() for text in (f"--{name}", value)]
    output = str(tmp_path / "out")
    assert main(["convert", *arguments, "--output", output]) == 0
    said = capsys.readouterr()
    assert said.out == "" and f"Wrote {output}." in said.err and "Reading CLAP" in said.err
    assert main(["convert", *arguments, "--output", output]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(["convert", "--to-original", output, "--output", str(tmp_path / "back")]) == 0
    assert sorted(os.listdir(tmp_path / "back")) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enclap", "x"], "--enclap needs --clap"),
        ([], "nothing to do"),
        (["--verify", "a.wav"], "is no folder"),
        (["--to-original", "x", "--verify", "a.wav"], "--to-original takes"),
        (["--to-original", "nowhere"], "nowhere cannot be loaded"),
    ],
)
def test_wrong_usage_is_said_in_one_line(tmp_path, capsys, arguments, message):
    assert main(["convert", *arguments, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and said[-1].startswith("enclap convert: ")
    assert os.listdir(tmp_path) == []


def test_a_converted_folder_is_pushed_and_loads_from_the_hub(converted, hub, capsys):
    arguments = ["convert", "--output", converted, "--push-to-hub"]
    assert main([*arguments, "lab/tiny", "--private"]) == 0
    commit = hub.repositories["lab/tiny"].branches["main"]
    assert capsys.readouterr().err.endswith(f"Uploaded: {hub.endpoint}/lab/tiny/commit/{commit}\n")
    assert hub.repositories["lab/tiny"].private
    folder = Path(converted)
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files = hub.files("lab/tiny")
    assert kept.items() <= files.items() and set(files) - set(kept) <= {"README.md", ".gitattributes"}
    captions = [
        pipeline("audio-captioning", model=place, device="cpu")(make_clip(0.7), sampling_rate=24_000)
        for place in (converted, "lab/tiny")
    ]
    assert captions[0] == captions[1]
    assert main([*arguments, "other/tiny"]) == 2
    assert "enclap convert: The Hub does not let this token write to other/tiny" in capsys.readouterr().err


PUBLISHED_DECODING_OF_BART = {
    "num_beams": 4, "max_length": 50, "no_repeat_ngram_size": 3, "early_stopping": True, "length_penalty": 1.0,
    "forced_bos_token_id": 0, "forced_eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


def make_published_size(folder) -> str:
    """A random checkpoint of the published base sizes, and a tokenizer of 50,265 entries."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50_265, d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, max_position_embeddings=1024,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    for parameter in model.parameters():  # larger than BART's start, so that captions differ from clip to clip
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    tensors = dict(model.state_dict())
    for k in range(16):
        table = torch.randn(1088, 768) * 0.2
        table[1024] = 0
        tensors[f"model.encoder.embed_encodec.{k}.weight"] = table
        tensors[f"mcm_heads.{k}.weight"] = torch.randn(1024, 768) * 0.02
        tensors[f"mcm_heads.{k}.bias"] = torch.zeros(1024)
    tensors["model.encoder.clap_projection.weight"] = torch.randn(768, 512) * 4
    tensors["model.encoder.clap_projection.bias"] = torch.randn(768) * 0.1
    published = folder / "published"
    published.mkdir()
    torch.save(tensors, published / "pytorch_model.bin")
    fields = {**config.to_dict(), "model_type": "bart", "d_clap": 512, "num_rvq": 16, "encodec_vocab_size": 1024}
    fields |= {"encodec_pad_token_id": 1024, "mcm_loss_scale": 0.7, "label_smoothing": 0.2}
    (published / "config.json").write_text(json.dumps(fields))
    small = json.loads((PUBLISHED / "tokenizer/vocab.json").read_text())
    fillers = {f"Ġword{number}": number for number in range(len(small), 50_265)}
    (published / "vocab.json").write_text(json.dumps({**small, **fillers}))
    shutil.copy(PUBLISHED / "tokenizer/merges.txt", published)
    return str(published)


def encode_by_hand(tensors: dict, bart: BartForConditionalGeneration, codes, clap) -> torch.Tensor:
    """The encoder's output for one clip, written out with stock BART layers: (T, K), (C,) -> (1, T + 3, D)."""
    frames = sum(
        tensors[f"model.encoder.embed_encodec.{k}.weight"][codes[:, k]] for k in range(codes.shape[1])
    )  # (T, D)
    words = tensors["model.shared.weight"]
    weight, bias = (tensors[f"model.encoder.clap_projection.{name}"] for name in ("weight", "bias"))
    slots = torch.cat([(weight @ clap + bias)[None], words[0][None], frames, words[2][None]])
    positions = tensors["model.encoder.embed_positions.weight"][2 : 2 + len(slots) - 1]
    slots[1:] += positions
    encoder = bart.model.encoder
    states = encoder.layernorm_embedding(slots[None])
    for layer in encoder.layers:
        states = layer(states, None)
        states = states[0] if isinstance(states, tuple) else states
    return states


@pytest.mark.slow
def test_a_checkpoint_of_the_published_sizes_captions_as_stock_bart_on_its_tensors(tmp_path):
    """1,024 codes, 16 codebooks, CLAP vectors of 512, 50,265 tokens; the tokenizer lies in the published folder."""
    folder = make_published_size(tmp_path)
    torch.save(name_clap_tensors(build_tiny_tower(projection_dim=512)), tmp_path / "clap.pt")
    torch.save(name_encodec_tensors(build_tiny_codec(1024, 16)), tmp_path / "encodec.th")
    output = str(tmp_path / "out")
    convert_checkpoints(folder, str(tmp_path / "clap.pt"), output, str(tmp_path / "encodec.th"))
    model = EnClapForConditionalGeneration.from_pretrained(output)
    processor = EnClapProcessor.from_pretrained(output)
    tensors = torch.load(os.path.join(folder, "pytorch_model.bin"), weights_only=True)
    fields = json.loads(Path(folder, "config.json").read_text())
    bart = BartForConditionalGeneration(BartConfig(**fields)).eval()
    bart.load_state_dict({name: tensors[name] for name in bart.state_dict()})
    captions = set()
    for seed, duration_s in enumerate((0.5, 1.0, 1.5)):
        inputs = processor(audio=make_clip(duration_s, seed), sampling_rate=24_000)
        codes, clap = inputs["audio_codes"][0], inputs["clap_embedding"][0]
        assert codes.shape[1] == 16 and codes.max() > 255
        for setting in SETTINGS.values():
            decoding = {**PUBLISHED_DECODING_OF_BART, **setting}
            with torch.no_grad():
                encoded = BaseModelOutput(encode_by_hand(tensors, bart, codes, clap))
            expected = bart.generate(encoder_outputs=encoded, **decoding)
            ours = model.generate(**inputs, **setting)
            assert_same_ids(ours, expected)
            captions.add(tuple(ours[0].tolist()))
    assert len(captions) > 3
    write_original(output, str(tmp_path / "back"))
    back = torch.load(tmp_path / "back/pytorch_model.bin", weights_only=True)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
