"""The text tower of a LAION-CLAP file, or of a whole CLAP, and its tokenizer: what a confidence is computed by."""

import os
import re

import torch
from transformers import AutoTokenizer, ClapTextConfig, ClapTextModelWithProjection

from ..model.clap_text import ClapTextEncoder
from .published_files import ConversionError, read_state_dict, shorten_error
from .published_tensor_maps import SIZE_ERRORS, count_modules, load_strictly, rename_tensor, shape_of

TEXT_RENAMES = (
    (r"^text_branch\.", "text_model."),
    (r"^text_projection\.0\.", "text_projection.linear1."),
    (r"^text_projection\.2\.", "text_projection.linear2."),
)
# RoBERTa's, which the checkpoint's weights were trained with; transformers' CLAP has another default.
LAYER_NORM_EPS = 1e-5
HEAD_WIDTH = 64
# Numbers from 0 upwards and zeros, which the model makes itself and some files hold.
BUFFERS = r"text_branch\.embeddings\.(position_ids|token_type_ids)$"


def read_clap_text(source: str, captioner_tokenizer) -> ClapTextEncoder:
    """Read the text tower of a LAION-CLAP file, or of a repository of a transformers `ClapModel`.

    Args:
        source: the file, directory or Hub repository.
        captioner_tokenizer: serves where none lies beside the weights: BART's cuts text up as RoBERTa's does.
    Raises:
        ConversionError: the tower is not there or not whole, or there is no tokenizer for it.
    """
    if os.path.isfile(source):
        model, tokenizer = convert_clap_text_tensors(read_state_dict(source), source), captioner_tokenizer
    else:
        try:
            model, info = ClapTextModelWithProjection.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConversionError(f"The text tower of {source} cannot be read: {shorten_error(error)}") from error
        if info["missing_keys"]:
            raise ConversionError(f"{source} lacks tensor `{sorted(info['missing_keys'])[0]}` of the text tower.")
    missing = model.config.vocab_size - len(tokenizer)
    if missing < 0 or (missing and tokenizer is captioner_tokenizer):
        raise ConversionError(
            f"{source} has a text tower of {model.config.vocab_size} tokens, and the tokenizer has {len(tokenizer)}; "
            "leave the text tower out, or pass a transformers ClapModel repository, which has its tokenizer."
        )
    return ClapTextEncoder(model.eval(), tokenizer)


def convert_clap_text_tensors(tensors: dict[str, torch.Tensor], path: str) -> ClapTextModelWithProjection:
    """Build the text tower from the tensors of a LAION-CLAP file.

    Args:
        tensors: by their published names, with or without "module." in front.
        path: the file, for messages.
    Raises:
        ConversionError: a tensor is missing, unexpected or wrongly shaped; or the tower is no RoBERTa.
    """
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if re.match(r"text_(branch|projection)\.", name)}
    if not any(name.startswith("text_branch.embeddings.") for name in tensors):
        raise ConversionError(f"{path} has no RoBERTa text tower (`text_branch`); convert it without a text tower.")
    vocab_size, width = shape_of(tensors, "text_branch.embeddings.word_embeddings.weight", 2, path)
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": count_modules(tensors, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
        "intermediate_size": shape_of(tensors, "text_branch.encoder.layer.0.intermediate.dense.weight", 2, path)[0],
        "max_position_embeddings": shape_of(tensors, "text_branch.embeddings.position_embeddings.weight", 2, path)[0],
        "type_vocab_size": shape_of(tensors, "text_branch.embeddings.token_type_embeddings.weight", 2, path)[0],
        "projection_dim": shape_of(tensors, "text_projection.0.weight", 2, path)[0],
        "layer_norm_eps": LAYER_NORM_EPS,
    }
    try:
        model = ClapTextModelWithProjection(ClapTextConfig(**sizes))
    except SIZE_ERRORS as error:
        raise ConversionError(f"{path}: the sizes of its tensors fit no RoBERTa ({error}).") from error
    mapped = {rename_tensor(n, TEXT_RENAMES): tensor for n, tensor in tensors.items() if not re.match(BUFFERS, n)}
    own = {name: value for name, value in model.state_dict().items() if name.endswith(("position_ids", "type_ids"))}
    load_strictly(model, {**own, **mapped}, path)
    return model.eval()
