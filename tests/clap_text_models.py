"""A tiny text tower of a CLAP, for the tests."""

import torch
from transformers import ClapTextConfig, ClapTextModelWithProjection

from conftest import build_clap, build_codec, build_feature_extractor, build_tokenizer
from enclap_hf import EnClapProcessor
from enclap_hf.model.clap_text import ClapTextEncoder


def build_clap_text(seed: int = 0, projection_dim: int = 24) -> ClapTextEncoder:
    torch.manual_seed(seed)
    config = ClapTextConfig(
        vocab_size=315,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        projection_dim=projection_dim,
    )
    model = ClapTextModelWithProjection(config)
    for parameter in model.parameters():  # larger than its start, so that captions differ
        if parameter.dim() > 1:
            parameter.data.mul_(8.0)
    return ClapTextEncoder(model, build_tokenizer())


def build_processor_with_text() -> EnClapProcessor:
    return EnClapProcessor.from_encoders(
        build_feature_extractor(),
        build_tokenizer(),
        build_codec(),
        build_clap(),
        num_codebooks=4,
        clap_text=build_clap_text(),
    )
