"""The configuration keeps its fields through saving, derives sizes from them, and refuses what cannot work."""

import pytest

from conftest import build_config
from enclap_hf import EnClapConfig


def test_defaults_are_the_published_large_model():
    config = EnClapConfig()
    assert (config.num_codebooks, config.codec_vocab_size, config.clap_dim) == (16, 1024, 512)
    assert (config.d_model, config.encoder_layers, config.vocab_size) == (1024, 12, 50265)
    assert (config.mcm_loss_weight, config.label_smoothing) == (0.7, 0.2)
    assert config.max_codec_frames == 1021
    assert config.codec_mask_token_id == 1024


@pytest.mark.parametrize(("codes", "rows"), [(1024, 1088), (64, 128), (63, 64), (1, 64)])
def test_code_tables_have_the_published_number_of_rows(codes, rows):
    assert EnClapConfig(codec_vocab_size=codes).code_table_rows == rows


def test_saving_and_loading_keeps_every_field(tmp_path):
    config = build_config(
        num_codebooks=7, codec_vocab_size=99, clap_dim=33, mcm_loss_weight=0.3, label_smoothing=0.05, dropout=0.3
    )
    config.save_pretrained(tmp_path)
    loaded = EnClapConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.model_type == "enclap"


def test_a_bart_configuration_becomes_one_with_the_audio_fields_at_their_defaults(tmp_path):
    from transformers import BartConfig

    BartConfig(d_model=64, encoder_attention_heads=4, decoder_attention_heads=4).save_pretrained(tmp_path)
    config = EnClapConfig.from_pretrained(tmp_path, num_codebooks=3)
    assert (config.d_model, config.num_codebooks, config.clap_dim) == (64, 3, 512)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_codebooks": 0}, "num_codebooks"),
        ({"num_codebooks": 2.5}, "num_codebooks"),
        ({"num_codebooks": True}, "num_codebooks"),
        ({"codec_vocab_size": -1}, "codec_vocab_size"),
        ({"clap_dim": None}, "clap_dim"),
        ({"d_model": 30}, "encoder_attention_heads"),
        ({"decoder_attention_heads": 3}, "decoder_attention_heads"),
        ({"encoder_attention_heads": 0}, "encoder_attention_heads"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"mcm_loss_weight": -1}, "mcm_loss_weight"),
        ({"mcm_loss_weight": float("nan")}, "mcm_loss_weight"),
        ({"max_position_embeddings": 3}, "max_position_embeddings"),
        ({"bos_token_id": 320}, "bos_token_id"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"pad_token_id": -1}, "pad_token_id"),
    ],
)
def test_a_field_out_of_range_is_named(fields, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        build_config(**fields)


def test_the_smallest_window_holds_one_frame():
    assert build_config(max_position_embeddings=4).max_codec_frames == 1
