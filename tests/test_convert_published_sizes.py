"""Checkpoints of the published sizes: captions, time and memory."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from conftest import make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.conversion.convert_original_checkpoints import convert_checkpoints, write_original
from original_formats import PUBLISHED, build_tiny_codec, build_tiny_tower, name_clap_tensors, name_encodec_tensors
from test_published_parity import SETTINGS, assert_same_ids

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
