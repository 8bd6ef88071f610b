"""Reads prepared features, and refuses those of other encoders than the model's; `feature_shards.py` writes them."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import try_to_load_from_cache

from .caption_clips import CaptionDataError

MANIFEST = "features.json"
# Of features of the first format, which were EnCodec's codes.
_FIRST_FORMAT = 1
# Fields of the feature extractor that features do not depend on, or that their frame encoder tells.
_UNREAD_FIELDS = (
    *("max_codec_frames", "codec_sampling_rate", "codec_hop_length", "processor_class", "feature_extractor_type"),
    "auto_map",
)
# What a frame encoder is told apart by, beside its weights.
_FRAME_FIELDS = ("frame_encoder_type", "kind", "sampling_rate", "frame_rate")


def describe_encoders(processor) -> dict:
    """Name the encoders and settings that features depend on.

    Args:
        processor: [`EnClapProcessor`]; its encoders are loaded.
    Returns:
        `frames`: of the frame encoder its type, kind, sampling and frame rate and sizes, address, revision (the commit
        where it came from the Hub) and SHA-256; `clap`: the last three of the CLAP tower, None where there is none; and
        `feature_extractor`: its fields as far as CLAP depends on them.
    """
    encoder, encoders = processor.frame_encoder, processor.encoders
    described = {name: getattr(encoder, name, None) for name in _FRAME_FIELDS}
    sizes = ("codebook_size",) if encoder.kind == "codes" else ("frame_dim",)
    described.update({name: getattr(encoder, name) for name in sizes})
    clap = None if processor.clap_encoder is None else _describe_part(encoders, "clap")
    fields = processor.feature_extractor.to_dict() if clap is not None or encoders.part_of_frames == "clap" else {}
    return {
        "frames": {**described, **_describe_part(encoders, encoders.part_of_frames)},
        "clap": clap,
        "feature_extractor": {name: value for name, value in sorted(fields.items()) if name not in _UNREAD_FIELDS},
    }


def _describe_part(encoders, part: str) -> dict:
    """An encoder's address, revision and fingerprint."""
    location = encoders.resolve_source(part) if encoders.has_folder(part) else {}
    described = {name: location.get(name) for name in ("repo_id", "revision", "subfolder")}
    described["revision"] = _find_commit(described, encoders.location.get("cache_dir")) or described["revision"]
    return described | {"sha256": encoders.fingerprint(part)}


def _find_commit(location: dict, cache_dir: str | None) -> str | None:
    """The commit that an encoder was read from, since a branch moves on; None where it did not come from the Hub."""
    repo_id, file = location["repo_id"], "/".join(filter(None, (location["subfolder"], "config.json")))
    if repo_id is None or os.path.isdir(repo_id) or os.path.isabs(repo_id):
        return None
    # snapshots/<commit>/<file>; nothing is asked of the Hub, the file was loaded before.
    path = try_to_load_from_cache(repo_id, file, cache_dir=cache_dir, revision=location["revision"])
    return Path(path).parents[file.count("/")].name if isinstance(path, str) else None


def check_encoders(found: dict, wanted: dict, folder: str) -> None:
    """Raise CaptionDataError where features are of other encoders or of other settings of the feature extractor.

    Features may hold CLAP vectors that the processor does not read.

    Raises:
        CaptionDataError: they are not those that the features were made with.
    """
    remedy = "prepare them again in another folder, or load that processor"
    for name, title in (("frames", "frame encoder"), ("clap", "CLAP")):
        ours, theirs = wanted[name], found[name]
        if ours is not None and theirs is None:
            raise CaptionDataError(f"The features in {folder} have no CLAP vectors; {remedy}.")
        unlike = [field for field in ours or {} if field in _FRAME_FIELDS and not _is_same(ours[field], theirs[field])]
        if unlike:
            differing = ", ".join(f"`{field}` {theirs[field]} and {ours[field]}" for field in unlike)
            raise CaptionDataError(
                f"The features in {folder} and the processor's {title} differ in {differing}; {remedy}."
            )
        if ours is not None and theirs["sha256"] != ours["sha256"]:
            raise CaptionDataError(
                f"The features in {folder} are of another {title} ({theirs['repo_id']}, weights "
                f"{theirs['sha256'][:12]}) than the processor's ({ours['repo_id']}, weights {ours['sha256'][:12]}); "
                f"{remedy}."
            )
    ours, theirs = wanted["feature_extractor"], found["feature_extractor"]
    unlike = [f"`{name}` {theirs.get(name)} and {ours.get(name)}" for name in ours if ours[name] != theirs.get(name)]
    if unlike:
        raise CaptionDataError(f"The features in {folder} and the processor differ in {', '.join(unlike)}; {remedy}.")


def _is_same(ours, theirs) -> bool:
    """Whether two fields agree; rates up to the rounding of what was written down."""
    is_number = isinstance(ours, (int, float)) and isinstance(theirs, (int, float))
    return abs(ours - theirs) <= 1e-6 * abs(theirs) if is_number else ours == theirs


def read_manifest(folder: str) -> dict | None:
    """The manifest of a folder of features, in the newest format; None where there is none."""
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    if manifest.get("format") != _FIRST_FORMAT:
        return manifest
    encoders, fields = dict(manifest["encoders"]), manifest["encoders"]["feature_extractor"]
    rate = fields["codec_sampling_rate"]
    kind = {"frame_encoder_type": "encodec", "kind": "codes", "sampling_rate": rate}
    kind["frame_rate"] = rate / fields["codec_hop_length"]
    return {**manifest, "encoders": {**encoders, "frames": {**kind, **encoders.pop("codec")}}}


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

    Attributes:
        frames_name: "audio_codes" or "audio_features", which the clips hold.
        num_codebooks: K of codes; None for features.
        has_clap: whether the clips hold CLAP vectors.
        names, captions, lengths: of every clip; lengths are its frames T.

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
        frames = manifest["encoders"]["frames"]
        self.frames_name = "audio_codes" if frames["kind"] == "codes" else "audio_features"
        self.num_codebooks = manifest["settings"]["num_codebooks"]
        self._width = self.num_codebooks if frames["kind"] == "codes" else frames["frame_dim"]
        self.has_clap = manifest["encoders"]["clap"] is not None
        files = [os.path.join(folder, shard["file"]) for shard in manifest["shards"] if shard["rows"]]
        rows = concatenate_datasets([Dataset.from_file(path) for path in files])
        if max_clips is not None:
            rows = rows.select(range(min(max_clips, len(rows))))
        self.names, self.captions, self.lengths = (list(rows[name]) for name in ("name", "captions", "num_frames"))
        columns = [self.frames_name, *(["clap_embedding"] if self.has_clap else [])]
        self._rows = rows.select_columns(columns).with_format("arrow")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict:
        """A clip: `name`, `captions`, frames and CLAP vector.

        The frames are `audio_codes` uint16 (T, K) or `audio_features` float16 (T, F); `clap_embedding` is float32 (C,),
        and missing where the features have none.
        """
        row = self._rows[i]  # a table of one row, mapped from the file
        clip = {"name": self.names[i], "captions": self.captions[i]}
        clip[self.frames_name] = _read_cell(row, self.frames_name).reshape(-1, self._width)
        if self.has_clap:
            clip["clap_embedding"] = _read_cell(row, "clap_embedding").copy()  # the file is read-only
        return clip

    def __iter__(self) -> Iterator[dict]:
        return (self[i] for i in range(len(self)))


def _read_cell(row, name: str) -> np.ndarray:
    """The numbers of a list in a table of one row, without a copy."""
    return row[name].chunk(0).flatten().to_numpy()
