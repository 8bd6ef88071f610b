"""Finds the ONNX graphs of a repository that a caller means, and tells whether they are this model's.

Every graph says in its metadata which sizes it has and which weights it was exported from, so that neither another
model's graphs nor those of earlier weights are ever run in the place of this one's.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil

import torch
from safetensors import safe_open

from .model_checks import find_file
from .model_files import WEIGHTS, WEIGHTS_INDEX, file_error, read_header, read_index
from .onnx_names import FILES, FOLDER, SUFFIXES

FORMAT_VERSION = "1"
# Sizes that a graph is made for.
SIZES = (
    *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "decoder_attention_heads"),
    *("max_position_embeddings", "frame_kind", "frame_dim", "num_codebooks", "codec_vocab_size", "clap_dim"),
)
EXPORT_AGAIN = "Export the model again with `enclap export`."


def choose_kind() -> str:
    """The kind of quantised graphs that this machine multiplies fastest."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return "avx512_vnni" if has_vnni() else "avx2"


def has_vnni() -> bool:
    """Whether this processor adds products of 8 bits without saturating."""
    is_supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(is_supported()) if is_supported is not None else False


def find_suffix(file_name: str | None, place: str, access: dict) -> str:
    """End of the file names that a caller means, see `file_name` of [`~onnx_captioner.OnnxCaptioner.from_pretrained`].

    Raises:
        ModelFileError: no such kind of graphs, or "int8" where the repository has none that is quantised.
    """
    if file_name is None:
        return ""
    if file_name == "int8":
        best = choose_kind()
        for kind in (best, *(kind for kind in SUFFIXES if kind != best)):
            if find_graph(place, "decoder", f"_{SUFFIXES[kind]}", access) is not None:
                return f"_{SUFFIXES[kind]}"
        raise file_error(
            os.path.join(place, FOLDER),
            "it has no quantised graphs.",
            f"Run: enclap export {place} --quantize int8 ...",
        )
    name = os.path.basename(file_name).removesuffix(".onnx")
    for base in FILES.values():
        name = name.removeprefix(base).removeprefix("_")
    name = SUFFIXES.get(name, name)
    if name and name not in SUFFIXES.values():
        raise file_error(
            os.path.join(place, FOLDER),
            f"got `file_name` {file_name!r}, which names no kind of graphs.",
            f'Pass "int8", one of {", ".join(SUFFIXES.values())}, or nothing for float32.',
        )
    return f"_{name}" if name else ""


def find_graph(place: str, part: str, suffix: str, access: dict) -> str | None:
    """A graph's file on this machine, downloaded where it is on the Hub; None where the repository has none."""
    return find_file(place, f"{FOLDER}/{FILES[part]}{suffix}.onnx", access)


def describe_model(config, folder: str) -> dict[str, str]:
    """What a graph's metadata says of the model whose weights are in a folder."""
    return {
        "enclap_format": FORMAT_VERSION,
        "enclap_sizes": json.dumps({name: getattr(config, name) for name in SIZES}, sort_keys=True),
        "enclap_weights": digest_weights(folder),
    }


def check_metadata(found: dict[str, str], config, folder: str, path: str) -> None:
    """Refuse a graph that is no graph of this model.

    Args:
        found: the graph's metadata.
        config: the model's.
        folder: of the weights; those that are not on this machine are not compared.
        path: of the graph.
    Raises:
        ModelFileError: what it is instead.
    """
    if "enclap_format" not in found:
        raise file_error(path, "it is no graph of an EnCLAP captioner.", EXPORT_AGAIN)
    if found["enclap_format"] != FORMAT_VERSION:
        version = found["enclap_format"]
        raise file_error(path, f"it has format {version!r}; this code reads {FORMAT_VERSION!r}.", EXPORT_AGAIN)
    sizes = json.loads(found["enclap_sizes"])
    for name in SIZES:
        if sizes.get(name) != getattr(config, name):
            raise file_error(
                path,
                f"it was exported with `{name}` {sizes.get(name)}, and config.json says {getattr(config, name)}.",
                EXPORT_AGAIN,
            )
    if has_weights(folder) and found["enclap_weights"] != digest_weights(folder):
        raise file_error(path, "it was exported from other weights than those of the repository.", EXPORT_AGAIN)


def copy_weights(place: str, access: dict, target: str) -> None:
    """Copy a repository's weights and graphs of every kind into another folder; of the Hub they are downloaded."""
    index = find_file(place, WEIGHTS_INDEX, access)
    names = [WEIGHTS] if index is None else [WEIGHTS_INDEX, *sorted(set(read_index(index).values()))]
    for suffix in ("", *(f"_{suffix}" for suffix in SUFFIXES.values())):
        names += [f"{FOLDER}/{base}{suffix}.onnx" for base in FILES.values()]
    for name in names:
        source = find_file(place, name, access)
        if source is not None:
            os.makedirs(os.path.join(target, os.path.dirname(name)), exist_ok=True)
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(source, os.path.join(target, name))


def has_weights(folder: str) -> bool:
    """Whether a folder holds a model's weights, all of them."""
    index = os.path.join(folder, WEIGHTS_INDEX)
    names = set(read_index(index).values()) if os.path.exists(index) else {WEIGHTS}
    return all(os.path.exists(os.path.join(folder, name)) for name in names)


def digest_weights(folder: str) -> str:
    """SHA-256 of a model's biases and norms: a thousandth of its weights, and no training leaves them as they were."""
    index, digest = os.path.join(folder, WEIGHTS_INDEX), hashlib.sha256()
    shards = sorted(set(read_index(index).values())) if os.path.exists(index) else [WEIGHTS]
    for shard in shards:
        path = os.path.join(folder, shard)
        names = sorted(name for name, entry in read_header(path).items() if len(entry.shape) == 1)
        with safe_open(path, "pt") as file:
            for name in names:
                digest.update(name.encode())
                digest.update(file.get_tensor(name).view(torch.uint8).numpy())
    return digest.hexdigest()
