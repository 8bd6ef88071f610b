"""Reads prepared features, and refuses those of other encoders than the model's; `feature_shards.py` writes them."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from .caption_clips import CaptionDataError

MANIFEST = "features.json"
# Parts of the codec that codes depend on; its decoder may be missing.
_CODEC_PARTS = ("encoder.", "quantizer.")


def describe_encoders(processor) -> dict:
    """Name the encoders and settings that features depend on.

    Args:
        processor: [`EnClapProcessor`]; its encoders are loaded.
    Returns:
        `codec` and `clap` with their address, revision (the commit where they came from the Hub) and the SHA-256 of
        their weights, and the feature extractor's fields, but for the window that a captioner reads.
    """
    fields = processor.feature_extractor.to_dict()
    ignored = ("max_codec_frames", "processor_class", "feature_extractor_type", "auto_map")
    return {
        "codec": _describe_model(processor.codec, processor.codec_source, processor, _CODEC_PARTS),
        "clap": _describe_model(processor.clap, processor.clap_source, processor, ("",)),
        "feature_extractor": {name: value for name, value in sorted(fields.items()) if name not in ignored},
    }


def _describe_model(model: torch.nn.Module, source: dict, processor, prefixes: tuple[str, ...]) -> dict:
    """An encoder's address, revision and fingerprint."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(prefixes):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    location = source if "repo_id" in source else {**processor._location, **source}
    described = {name: location.get(name) for name in ("repo_id", "revision", "subfolder")}
    described["revision"] = _find_commit(described, processor._location.get("cache_dir")) or described["revision"]
    return described | {"sha256": digest.hexdigest()}


def _find_commit(location: dict, cache_dir: str | None) -> str | None:
    """The commit that an encoder was read from, since a branch moves on; None where it did not come from the Hub."""
    repo_id, file = location["repo_id"], "/".join(filter(None, (location["subfolder"], "config.json")))
    if repo_id is None or os.path.isdir(repo_id) or os.path.isabs(repo_id):
        return None
    # snapshots/<commit>/<file>; nothing is asked of the Hub, the file was loaded before.
    path = try_to_load_from_cache(repo_id, file, cache_dir=cache_dir, revision=location["revision"])
    return Path(path).parents[file.count("/")].name if isinstance(path, str) else None


def check_encoders(found: dict, wanted: dict, folder: str) -> None:
    """Raise CaptionDataError where features are of other encoders or of other settings of the feature extractor."""
    for name in ("codec", "clap"):
        if found[name]["sha256"] != wanted[name]["sha256"]:
            raise CaptionDataError(
                f"The features in {folder} are of another {name} ({found[name]['repo_id']}, weights "
                f"{found[name]['sha256'][:12]}) than the processor's ({wanted[name]['repo_id']}, weights "
                f"{wanted[name]['sha256'][:12]}); prepare them again in another folder, or load that processor."
            )
    ours, theirs = wanted["feature_extractor"], found["feature_extractor"]
    unlike = [f"`{name}` {theirs.get(name)} and {ours.get(name)}" for name in ours if ours[name] != theirs.get(name)]
    if unlike:
        raise CaptionDataError(
            f"The features in {folder} and the processor differ in {', '.join(unlike)}; prepare them again in another "
            "folder, or load that processor."
        )


def read_manifest(folder: str) -> dict | None:
    """The manifest of a folder of features; None where there is none."""
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def is_prepared(folder: str) -> bool:
    """Whether all features of a folder are there."""
    manifest = read_manifest(folder)
    return manifest is not None and "shards" in manifest


class PreparedClips(Sequence):
    """The features of a data set, mapped from disk.

    Args:
        folder: written by [`prepare_features`].
        processor: [`EnClapProcessor`] whose encoders the features must be of; None checks nothing.
        max_clips: show the first clips only.

    Raises:
        CaptionDataError: there are no complete features, or they are of other encoders.
    """

    def __init__(self, folder: str, processor=None, max_clips: int | None = None):
        from datasets import Dataset, concatenate_datasets

        manifest = read_manifest(folder)
        if manifest is None or "shards" not in manifest:
            state = "holds no features" if manifest is None else "holds features that are not complete"
            raise CaptionDataError(f"{folder} {state}; run examples/prepare_features.py with this output folder.")
        if processor is not None:
            check_encoders(manifest["encoders"], describe_encoders(processor), folder)
        self.folder, self.manifest = folder, manifest
        self.num_codebooks = manifest["settings"]["num_codebooks"]
        files = [os.path.join(folder, shard["file"]) for shard in manifest["shards"] if shard["rows"]]
        rows = concatenate_datasets([Dataset.from_file(path) for path in files])
        if max_clips is not None:
            rows = rows.select(range(min(max_clips, len(rows))))
        self.names, self.captions, self.lengths = (list(rows[name]) for name in ("name", "captions", "num_frames"))
        self._rows = rows.select_columns(["audio_codes", "clap_embedding"]).with_format("arrow")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict:
        """`name`, `captions`, `audio_codes` uint16 (T, K) and `clap_embedding` float32 (C,) of a clip."""
        row = self._rows[i]  # a table of one row, mapped from the file
        codes, embedding = (row[name].chunk(0).flatten().to_numpy() for name in ("audio_codes", "clap_embedding"))
        return {
            "name": self.names[i],
            "captions": self.captions[i],
            "audio_codes": codes.reshape(-1, self.num_codebooks),
            "clap_embedding": embedding.copy(),  # the file is read-only
        }

    def __iter__(self) -> Iterator[dict]:
        return (self[i] for i in range(len(self)))
