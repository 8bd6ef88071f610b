"""Where each tensor of the published LAION-CLAP and EnCodec files goes in transformers' models.

Every tensor is either mapped or stands in a table of unneeded ones with the reason; anything else is an error that
names it. Sizes are read from the tensors, as the files carry no configuration.
"""

import re
from typing import Any, cast

import torch
from torch import nn
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, EncodecConfig, EncodecModel

from .published_files import ConversionError

# LAION-CLAP: names left behind, and why.
UNNEEDED_CLAP_TENSORS = {
    r"text_branch\.|text_transform\.|text_projection\.|token_embedding\.|positional_embedding$|ln_final\.": (
        "the text tower, which has a converter of its own"
    ),
    r"audio_transform\.|logit_scale_[at]$": "parts of the contrastive training loss behind the embedding",
    r"audio_branch\.(tscam_conv|head)\.": "a classifier of AudioSet's classes",
    r"audio_branch\.(spectrogram_extractor|logmel_extractor)\.": "the spectrogram: the feature extractor's part",
    r"audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask$": "computed from the sizes",
}
# LAION-CLAP: replaced in this order. `attn.qkv` is split in three before.
CLAP_RENAMES = (
    (r"^audio_projection\.0\.", "audio_projection.linear1."),
    (r"^audio_projection\.2\.", "audio_projection.linear2."),
    (r"^audio_branch\.bn0\.", "audio_model.audio_encoder.batch_norm."),
    (r"^audio_branch\.(layers|norm|patch_embed)\.", r"audio_model.audio_encoder.\1."),
    (r"\.attn\.relative_position_", ".attention.self.relative_position_"),
    (r"\.attn\.(query|key|value)\.", r".attention.self.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"(\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
ENCODEC_RENAMES = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv|convtr)\.\1\.", ".conv."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)
# What building a model from sizes that fit nothing raises.
SIZE_ERRORS = (ValueError, TypeError, KeyError, IndexError, ArithmeticError, RuntimeError, MemoryError)


def rename_tensor(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    """Apply renames in their order."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def load_strictly(model: nn.Module, tensors: dict[str, torch.Tensor], path: str, assign: bool = False) -> None:
    """Load a state dict of which every tensor must fit and none may be left over.

    Args:
        model: may be on the meta device with `assign`.
        tensors: by the model's names.
        path: the file, for messages.
        assign: take the tensors themselves, in their own number type, instead of copying them.
    Raises:
        ConversionError: a missing, unexpected, wrongly shaped, wrongly typed or non-finite tensor; it is named.
    """
    expected = model.state_dict()
    missing, unexpected = [n for n in expected if n not in tensors], [n for n in tensors if n not in expected]
    if missing:
        raise ConversionError(f"{path} lacks {describe_names(missing)}; it is not the checkpoint of such a model.")
    if unexpected:
        raise ConversionError(
            f"{path} holds {describe_names(unexpected)} that the model has no place for; it is a checkpoint of "
            "something else."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ConversionError(
                f"{path}: tensor `{name}` has shape {tuple(tensor.shape)}; expected {tuple(expected[name].shape)}."
            )
        if tensor.is_floating_point() != expected[name].is_floating_point() or tensor.is_complex():
            raise ConversionError(
                f"{path}: tensor `{name}` holds {tensor.dtype} numbers; expected {expected[name].dtype}."
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConversionError(f"{path}: tensor `{name}` holds numbers that are not finite; its training failed.")
    model.load_state_dict(tensors, strict=True, assign=assign)


def describe_names(names: list[str]) -> str:
    """The first of some tensors, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor `{names[0]}`{more}"


def shape_of(tensors: dict[str, torch.Tensor], name: str, dimensions: int, path: str) -> torch.Size:
    """Shape of a tensor that sizes are read from.

    Raises:
        ConversionError: it is missing, or has another number of dimensions.
    """
    if name not in tensors:
        raise ConversionError(f"{path} lacks tensor `{name}`; it is not the checkpoint of such a model.")
    if tensors[name].dim() != dimensions or 0 in tensors[name].shape:
        raise ConversionError(
            f"{path}: tensor `{name}` has shape {tuple(tensors[name].shape)}; expected {dimensions} dimensions."
        )
    return tensors[name].shape


def refuse_other_checkpoints(tensors: dict[str, torch.Tensor], prefix: str, expected: str, path: str) -> None:
    """Refuse a file of which no tensor's name has the prefix that all files of its kind have.

    Raises:
        ConversionError: it is another kind of checkpoint.
    """
    if not any(name.startswith(prefix) for name in tensors):
        raise ConversionError(
            f"{path} is not {expected}: none of its tensors is in `{prefix}`, its first is `{next(iter(tensors))}`."
        )


def count_modules(tensors: dict[str, torch.Tensor], pattern: str) -> int:
    """How many numbers a pattern's group has among the names. Never more than tensors: a gap is found on loading."""
    return len({match.group(1) for name in tensors if (match := re.match(pattern, name))})


def convert_clap_tensors(tensors: dict[str, torch.Tensor], path: str) -> ClapAudioModelWithProjection:
    """Build the audio tower from the tensors of a LAION-CLAP file.

    Args:
        tensors: by their published names, with or without "module." in front.
        path: the file, for messages.
    Returns:
        the tower with its projection, with fusion if the file has it.
    Raises:
        ConversionError: a tensor is missing, unexpected or wrongly shaped; or the audio encoder is not HTSAT.
    """
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    refuse_other_checkpoints(tensors, "audio_branch.", "a LAION-CLAP checkpoint", path)
    if any(name.startswith("audio_branch.conv_block") for name in tensors):
        raise ConversionError(f"{path} has a PANN audio encoder; EnCLAP reads HTSAT (tiny, base or large).")
    mapped = {}
    for name, tensor in tensors.items():
        if any(re.match(pattern, name) for pattern in UNNEEDED_CLAP_TENSORS):
            continue
        if ".attn.qkv." in name and tensor.dim() and tensor.shape[0] % 3 == 0:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                mapped[rename_tensor(name.replace(".qkv.", f".{part}."), CLAP_RENAMES)] = rows
        else:
            mapped[rename_tensor(name, CLAP_RENAMES)] = tensor
    config = read_clap_sizes(tensors, path)
    try:
        model = ClapAudioModelWithProjection(config)
    except SIZE_ERRORS as error:
        raise ConversionError(f"{path}: the sizes of its tensors fit no HTSAT audio encoder ({error}).") from error
    load_strictly(model, mapped, path)
    return model.eval()


def read_clap_sizes(tensors: dict[str, torch.Tensor], path: str) -> ClapAudioConfig:
    """Sizes of an HTSAT audio encoder, from the shapes of its tensors.

    Raises:
        ConversionError: a tensor is missing, or the sizes are those of no CLAP tower.
    """
    branch = "audio_branch."
    num_stages = count_modules(tensors, r"audio_branch\.layers\.(\d+)\.")
    width, _, patch_size, _ = shape_of(tensors, f"{branch}patch_embed.proj.weight", 4, path)
    depths = [count_modules(tensors, rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(num_stages)]
    tables = [
        shape_of(tensors, f"{branch}layers.{stage}.blocks.0.attn.relative_position_bias_table", 2, path)
        for stage in range(max(num_stages, 1))
    ]
    window_size = (round(tables[0][0] ** 0.5) + 1) // 2
    hidden_width = shape_of(tensors, f"{branch}layers.0.blocks.0.mlp.fc1.weight", 2, path)[0]
    sizes = {
        "window_size": window_size,
        "num_mel_bins": shape_of(tensors, f"{branch}bn0.weight", 1, path)[0],
        "patch_size": patch_size,
        "patch_stride": [patch_size, patch_size],
        "patch_embeds_hidden_size": width,
        "depths": depths,
        "num_hidden_layers": num_stages,
        "num_attention_heads": [heads for _, heads in tables],
        "mlp_ratio": hidden_width / width,
        "hidden_size": width * 2 ** (num_stages - 1),
        "projection_dim": shape_of(tensors, "audio_projection.0.weight", 2, path)[0],
        "enable_fusion": f"{branch}patch_embed.mel_conv2d.weight" in tensors,
    }
    mask = tensors.get(f"{branch}layers.0.blocks.1.attn_mask")  # one row per window of the spectrogram's square
    if mask is not None and mask.dim() == 3:
        sizes["spec_size"] = round(mask.shape[0] ** 0.5) * window_size * patch_size
    if sizes["enable_fusion"]:
        narrow = shape_of(tensors, f"{branch}patch_embed.fusion_model.local_att.0.weight", 4, path)[0]
        sizes |= {"fusion_type": "aff_2d", "aff_block_r": width // narrow}
    try:
        return ClapAudioConfig(**sizes)
    except SIZE_ERRORS as error:
        raise ConversionError(f"{path}: the sizes of its tensors fit no HTSAT audio encoder ({error}).") from error


def convert_encodec_tensors(tensors: dict[str, torch.Tensor], path: str) -> EncodecModel:
    """Build EnCodec from the tensors of a published file.

    Args:
        tensors: by their published names.
        path: the file, for messages.
    Returns:
        the whole model: encoder, quantizer and decoder.
    Raises:
        ConversionError: a tensor is missing, unexpected or wrongly shaped; or it is not the causal mono model.
    """
    refuse_other_checkpoints(tensors, "quantizer.vq.", "an EnCodec checkpoint", path)
    if any(re.match(r"encoder\.model\.0\.conv\.norm\.", name) for name in tensors):
        raise ConversionError(
            f"{path} is EnCodec's 48 kHz model; EnCLAP reads the 24 kHz one, such as encodec_24khz-d7cc33bc.th."
        )
    config = read_encodec_sizes(tensors, path)
    try:
        model = EncodecModel(config)
    except SIZE_ERRORS as error:
        raise ConversionError(f"{path}: the sizes of its tensors fit no EnCodec model ({error}).") from error
    load_strictly(model, {rename_tensor(name, ENCODEC_RENAMES): tensor for name, tensor in tensors.items()}, path)
    return model.eval()


def read_encodec_sizes(tensors: dict[str, torch.Tensor], path: str) -> EncodecConfig:
    """Sizes of a causal EnCodec model of 24 kHz, from the shapes of its tensors.

    The encoder's modules are one convolution; per ratio a residual block, an activation and a strided convolution of
    twice the ratio's width; the LSTM, an activation, and the last convolution.

    Raises:
        ConversionError: a tensor is missing, or the sizes are those of no EnCodec.
    """

    def encoder_shape(module: int) -> torch.Size:
        return shape_of(tensors, f"encoder.model.{module}.conv.conv.weight_v", 3, path)

    num_filters, channels, kernel_size = encoder_shape(0)
    numbers = [int(match.group(1)) for name in tensors if (match := re.match(r"encoder\.model\.(\d+)\.", name))]
    last = max(numbers, default=0)
    num_ratios = (last - 3) // 3
    hidden_size, _, last_kernel_size = encoder_shape(last)
    ratios = [encoder_shape(3 * (i + 1))[2] // 2 for i in range(num_ratios)]
    codebook_size, codebook_dim = shape_of(tensors, "quantizer.vq.layers.0._codebook.embed", 2, path)
    num_codebooks = count_modules(tensors, r"quantizer\.vq\.layers\.(\d+)\.")
    block_width, _, residual_kernel_size = shape_of(tensors, "encoder.model.1.block.1.conv.conv.weight_v", 3, path)
    sizes = {
        "audio_channels": channels,
        "num_filters": num_filters,
        "kernel_size": kernel_size,
        "last_kernel_size": last_kernel_size,
        "residual_kernel_size": residual_kernel_size,
        "compress": num_filters // block_width,
        "hidden_size": hidden_size,
        "upsampling_ratios": ratios[::-1],
        "num_lstm_layers": count_modules(tensors, rf"encoder\.model\.{last - 2}\.lstm\.weight_ih_l(\d+)"),
        "codebook_size": codebook_size,
        "codebook_dim": codebook_dim,
    }
    try:
        config = EncodecConfig(**cast(dict[str, Any], sizes))
        bits_per_s = num_codebooks * config.codebook_nbits * config.frame_rate
        published = [bandwidth for bandwidth in EncodecConfig().target_bandwidths if bandwidth * 1000 < bits_per_s]
        config.target_bandwidths = [*published, bits_per_s / 1000]
        return config
    except SIZE_ERRORS as error:
        raise ConversionError(f"{path}: the sizes of its tensors fit no EnCodec model ({error}).") from error
