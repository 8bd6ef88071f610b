"""What can be told of a saved captioner without loading it: sizes, encoders, window, licence, scores.

Read are small JSON files, the card, and the headers of the weights; of a repository on the Hub nothing else is fetched.
"""

import json
import math
import os
from typing import Protocol, cast

from ..model.model_files import parse_json_object, read_header
from .hub_addresses import HubAddress, is_hub_address, is_repository_name
from .hub_errors import DownloadError, explain_error, is_unreachable, list_hub_errors

# What each encoder is called in a repository, and for people.
ENCODERS = {"codec": "frame encoder", "clap": "CLAP"}
# Tensors of a captioner that are no parameters.
NOT_TRAINED = ("final_logits_bias",)
CARD_FILES = ("model_card.json", "README.md")


class Files(Protocol):
    """The files of a repository, here or on the Hub."""

    sizes: dict[str, int]

    def read(self, path: str) -> bytes:
        """Content of a small file."""

    def count_parameters(self, path: str) -> int:
        """Numbers in a safetensors file, by its header."""


class LocalFiles:
    """Files of a folder.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: str):
        self.folder = folder
        places = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
        self.sizes = {os.path.relpath(path, folder).replace(os.sep, "/"): os.path.getsize(path) for path in places}

    def read(self, path: str) -> bytes:
        """Content of a file."""
        with open(os.path.join(self.folder, path), "rb") as file:
            return file.read()

    def count_parameters(self, path: str) -> int:
        """Numbers in a safetensors file.

        Raises:
            ModelFileError: its header is damaged.
        """
        header = read_header(os.path.join(self.folder, path))
        return sum(math.prod(entry.shape) for name, entry in header.items() if name not in NOT_TRAINED)


class HubFiles:
    """Files of a repository on the Hub.

    Args:
        address: the repository.
    Raises:
        DownloadError: it is not there, may not be read, or the Hub cannot be reached.
    """

    def __init__(self, address: HubAddress):
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        self.address, self.api = address, HfApi()
        try:
            entries = self.api.list_repo_tree(address.repo_id, recursive=True, revision=address.revision)
            self.sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
        except list_hub_errors() as error:
            raise DownloadError(explain_error(error, address)) from error

    def read(self, path: str) -> bytes:
        """Content of a file, which the Hub's cache then has."""
        from huggingface_hub import hf_hub_download

        with open(hf_hub_download(self.address.repo_id, path, revision=self.address.revision), "rb") as file:
            return file.read()

    def count_parameters(self, path: str) -> int:
        """Numbers in a safetensors file, whose header alone is fetched."""
        metadata = self.api.parse_safetensors_file_metadata(self.address.repo_id, path, revision=self.address.revision)
        return sum(math.prod(entry.shape) for name, entry in metadata.tensors.items() if name not in NOT_TRAINED)


def open_files(name: str, revision: str | None = None) -> Files:
    """The files of a model.

    Args:
        name: folder, or OWNER/NAME on the Hub.
        revision: branch, tag or commit of a Hub repository.
    Raises:
        ValueError: it is neither.
        DownloadError: the Hub does not have it, or cannot be reached and the cache does not have it.
    """
    if os.path.isdir(name):
        return LocalFiles(name)
    if os.path.exists(name):
        raise ValueError(f"{name} is a file; pass the folder that holds it.")
    if not (is_hub_address(name) or is_repository_name(name)):
        raise ValueError(f"There is no folder {name}; pass a folder, or OWNER/NAME of a repository on the Hub.")
    address = HubAddress.parse(name)
    address = HubAddress(address.repo_id, revision=revision or address.revision)
    try:
        return HubFiles(address)
    except DownloadError as error:
        cause = error.__cause__
        folder = find_cached_folder(address) if isinstance(cause, Exception) and is_unreachable(cause) else None
        if folder is None:
            raise
        return LocalFiles(folder)


def find_cached_folder(address: HubAddress) -> str | None:
    """What the cache has of a repository."""
    from huggingface_hub import try_to_load_from_cache

    place = try_to_load_from_cache(address.repo_id, "config.json", revision=address.revision)
    return os.path.dirname(place) if isinstance(place, str) else None


def read_model_info(name: str, revision: str | None = None) -> dict:
    """All that is told of a model.

    Args:
        name: folder, or OWNER/NAME on the Hub.
        revision: branch, tag or commit of a Hub repository.
    Returns:
        JSON values: `name`, `captioner`, `encoders`, `window_s`, `num_bytes`, `num_files`, `licence`, `parts` and
        `scores`.
    Raises:
        ValueError: it is not a captioner of this package.
        ModelFileError: a file of it is damaged.
        DownloadError: the Hub does not have it, or cannot be reached.
    """
    files = open_files(name, revision)
    config, processor = read_json_file(files, "config.json"), read_json_file(files, "processor_config.json")
    if config.get("model_type") != "enclap":
        found = f"a model of type {config.get('model_type')!r}" if config else "no config.json"
        raise ValueError(f"{name} holds {found}; pass a folder or repository of an EnCLAP captioner.")
    front_end = processor.get("feature_extractor") or read_json_file(files, "preprocessor_config.json")
    return {
        "name": name,
        "captioner": describe_captioner(files, config),
        "encoders": {part: describe_encoder(files, part, config, processor, front_end) for part in ENCODERS},
        "window_s": find_window_s(front_end),
        "num_bytes": sum(files.sizes.values()),
        "num_files": len(files.sizes),
        **describe_card(files),
    }


def read_json_file(files: Files, path: str) -> dict:
    """A JSON object of a repository; empty where the file is not there."""
    return parse_json_object(files.read(path), path) if path in files.sizes else {}


def count_weights(files: Files, folder: str = "") -> int | None:
    """Numbers in all weights of a folder; None where there are none in safetensors."""
    prefix = f"{folder}/" if folder else ""
    paths = [
        path
        for path in files.sizes
        if path.startswith(prefix) and "/" not in path.removeprefix(prefix) and path.endswith(".safetensors")
    ]
    return sum(files.count_parameters(path) for path in paths) if paths else None


def describe_captioner(files: Files, config: dict) -> dict:
    """Sizes of the captioner."""
    names = ("d_model", "encoder_layers", "decoder_layers", "vocab_size", "dtype")
    return {"num_parameters": count_weights(files), **{name: config.get(name) for name in names}}


def describe_encoder(files: Files, part: str, config: dict, processor: dict, front_end: dict) -> dict | None:
    """One of the two frozen encoders; None where the captioner has none."""
    own = read_json_file(files, f"{part}/config.json")
    source = processor.get(f"{part}_source") or {}
    if not own and not source and f"{part}/config.json" not in files.sizes:
        return None
    place = {"source": source["repo_id"], "revision": source.get("revision")} if source.get("repo_id") else {}
    entry = {"num_parameters": count_weights(files, part), **place}
    if part == "clap":
        return {
            **entry,
            "sampling_rate": front_end.get("clap_sampling_rate"),
            "width": config.get("clap_dim"),
            "window_s": front_end.get("clap_window_s"),
        }
    rate, hop = front_end.get("codec_sampling_rate"), front_end.get("codec_hop_length")
    return {
        "family": processor.get("frame_encoder_type") or own.get("model_type"),
        **entry,
        "sampling_rate": rate,
        "frames_per_s": rate / hop if rate and hop else None,
        "num_codebooks": config.get("num_codebooks"),
        "codebook_size": config.get("codec_vocab_size"),
    }


def find_window_s(front_end: dict) -> float | None:
    """Seconds of a recording that the frames of one caption cover; None where there is no limit."""
    frames, hop, rate = (
        front_end.get(name) for name in ("max_codec_frames", "codec_hop_length", "codec_sampling_rate")
    )
    if not frames or not hop or not rate:
        return None
    return round(frames * hop / rate, 3)


def describe_card(files: Files) -> dict:
    """Licences and scores, from model_card.json where it is there, else from the metadata of README.md."""
    json_name, markdown_name = CARD_FILES
    if json_name in files.sizes:
        card = json.loads(files.read(json_name))
        parts = [{"name": part["name"].strip("`"), "licence": part["licence"]} for part in card.get("parts", ())]
        keys = ("dataset", "split", "num_clips", "condition", "metrics", "origin", "source")
        scores = [{key: row.get(key) for key in keys} for row in card.get("scores", ())]
        return {"licence": card.get("license"), "parts": parts, "scores": scores}
    if markdown_name not in files.sizes:
        return {"licence": None, "parts": [], "scores": []}
    from huggingface_hub import ModelCard, ModelCardData

    data = cast(ModelCardData, ModelCard(files.read(markdown_name).decode("utf-8")).data)
    rows: dict[tuple, dict] = {}
    for result in data.eval_results or ():
        key = (result.dataset_name, result.dataset_config)
        row = rows.setdefault(key, {"dataset": key[0].strip(), "condition": key[1], "metrics": {}})
        row["metrics"][result.metric_name or result.metric_type] = result.metric_value
    return {"licence": data.license, "parts": [], "scores": list(rows.values())}
