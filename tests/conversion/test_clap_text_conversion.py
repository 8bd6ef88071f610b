"""LAION-CLAP's text tower, converted, gives what the original's layers give: a RoBERTa and two linear layers."""

import pytest
import torch
from torch import nn
from transformers import RobertaConfig, RobertaModel

from conftest import build_tokenizer
from enclap_hf import EnClapProcessor
from enclap_hf.conversion.convert_published import convert_checkpoints
from enclap_hf.conversion.published_clap_text import convert_clap_text_tensors, read_clap_text
from enclap_hf.conversion.published_files import ConversionError
from original_formats import save_original_sources


def build_original(vocab_size: int = 315, width: int = 24) -> nn.ModuleDict:
    """The layers as LAION's package names them."""
    torch.manual_seed(3)
    config = RobertaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=40,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    layers = {
        "text_branch": RobertaModel(config),
        "text_projection": nn.Sequential(nn.Linear(128, width), nn.ReLU(), nn.Linear(width, width)),
    }
    for parameter in layers["text_branch"].parameters():  # small numbers, which another epsilon would move
        parameter.data.mul_(0.2)
    return nn.ModuleDict(layers).eval()


@pytest.fixture(scope="module")
def original() -> nn.ModuleDict:
    return build_original()


def name_tensors(original: nn.ModuleDict, prefix: str = "") -> dict[str, torch.Tensor]:
    tensors = {f"{prefix}{name}": tensor.clone() for name, tensor in original.state_dict().items()}
    others = {"text_branch.embeddings.position_ids": torch.arange(40)[None], "logit_scale_t": torch.tensor(1.0)}
    others |= {"text_transform.sequential.0.weight": torch.ones(2, 2), "audio_branch.bn0.weight": torch.ones(4)}
    return {**tensors, **{f"{prefix}{name}": tensor for name, tensor in others.items()}}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_tower_gives_what_the_original_layers_give(original, prefix):
    model = convert_clap_text_tensors(name_tensors(original, prefix), "clap.pt")
    words = build_tokenizer()(["a dog barks twice", "rain falls on a roof"], padding=True, return_tensors="pt")
    ids, mask = words["input_ids"], words["attention_mask"]
    with torch.no_grad():
        expected = original["text_projection"](original["text_branch"](ids, attention_mask=mask).pooler_output)
        given = model(ids, attention_mask=mask).text_embeds
    torch.testing.assert_close(given, expected, atol=2e-6, rtol=2e-5)  # sums in another order


def test_a_file_is_read_with_the_tokenizer_of_the_captioner(original, tmp_path):
    torch.save({"state_dict": name_tensors(original, "module.")}, tmp_path / "clap.pt")
    encoder = read_clap_text(str(tmp_path / "clap.pt"), build_tokenizer())
    assert encoder.embed(["a dog barks"]).shape == (1, 24)
    encoder.save(str(tmp_path / "tower"))
    again = read_clap_text(str(tmp_path / "tower"), None)
    torch.testing.assert_close(again.embed(["a dog barks"]), encoder.embed(["a dog barks"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("text_branch")], "has no RoBERTa text tower"),
        (lambda t: t.pop("text_branch.pooler.dense.bias"), "lacks tensor `text_model.pooler.dense.bias`"),
        (lambda t: t.update({"text_branch.other.weight": torch.ones(2)}), "that the model has no place for"),
        (lambda t: t.update({"text_projection.2.weight": torch.ones(5, 24)}), "has shape (5, 24); expected (24, 24)"),
    ],
)
def test_a_tower_that_is_not_whole_is_refused_in_one_line(original, change, message):
    tensors = name_tensors(original)
    change(tensors)
    with pytest.raises(ConversionError) as raised:
        convert_clap_text_tensors(tensors, "clap.pt")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_tokenizer_of_other_tokens_is_refused(original, tmp_path):
    tensors = name_tensors(original)
    tensors["text_branch.embeddings.word_embeddings.weight"] = torch.ones(400, 128)
    torch.save(tensors, tmp_path / "clap.pt")
    with pytest.raises(ConversionError, match="a text tower of 400 tokens, and the tokenizer has 315"):
        read_clap_text(str(tmp_path / "clap.pt"), build_tokenizer())


def test_a_conversion_keeps_the_text_tower_where_it_is_asked_to(tmp_path):
    sources = save_original_sources(tmp_path)
    convert_checkpoints(output=str(tmp_path / "without"), **sources)
    processor = EnClapProcessor.from_pretrained(str(tmp_path / "without"))
    assert processor.clap_text_encoder is None
    layers = build_original(len(processor.tokenizer), processor.clap_encoder.embedding_dim)
    checkpoint = torch.load(sources["clap"], weights_only=False)
    checkpoint["state_dict"].update({f"module.{name}": tensor for name, tensor in layers.state_dict().items()})
    torch.save(checkpoint, sources["clap"])
    convert_checkpoints(output=str(tmp_path / "with"), clap_text=True, **sources)
    given = EnClapProcessor.from_pretrained(str(tmp_path / "with")).clap_text_encoder.embed(["a dog barks"])
    with torch.no_grad():
        words = processor.tokenizer("a dog barks", return_tensors="pt")
        words = {name: words[name] for name in ("input_ids", "attention_mask")}
        expected = layers["text_projection"](layers["text_branch"](**words).pooler_output)
    torch.testing.assert_close(given, nn.functional.normalize(expected), atol=2e-6, rtol=0)
