"""Frames and CLAP vectors of a whole data set, computed once and read from disk without a copy.

    <folder>/features.json                    encoders, settings, and, once all shards are there, their rows
    <folder>/shard-00003-of-00040.arrow       rows of 512 clips: name, captions, frames, num_frames, clap_embedding

Distinctive choices:
- Shard i is made of clips i * 512 to i * 512 + 511 of the data set, whoever makes it: processes need not talk to each
  other, their number may change from run to run, and a killed run loses the shards it was at, nothing else.
- A shard appears under its name when it is complete, with its bad clips in its own metadata: there is no second file
  that could disagree with it. A run that is taken up reads these clips again, and redoes the shards of repaired ones.
- Frames are flattened, so that Arrow maps them as one stretch: `audio_codes` uint16 (T * K,) or `audio_features`
  float16 (T * F,). Rows of a processor without CLAP have no vector.
- Encoders are told apart by their weights, not by their address: a copied repository fits, another checkpoint does not.
- Whatever reading or encoding one recording raises makes it a bad clip; the others go on.
"""

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from .caption_clips import BadClip, CaptionDataError, Clip, check_bad_share
from .prepared_features import MANIFEST, check_encoders, describe_encoders, read_manifest
from .recording_features import FeatureSettings, encode_batch, keep_whole_clips, read_recording

FORMAT_VERSION = 2


def prepare_features(
    clips: Sequence[Clip],
    folder: str,
    processor,
    settings: FeatureSettings,
    *,
    source: str = "",
    bad: Sequence[BadClip] = (),
) -> None:
    """Write the features of a data set; a run that was stopped is taken up where it was.

    Every process calls this with the same arguments but for its number; the one that finds all shards written completes
    the manifest. See [`is_prepared`] for how to wait for it.

    Args:
        clips: the data set.
        folder: made when missing.
        processor: [`EnClapProcessor`], with its encoders on the device to use.
        settings: what decides the content, and how the work is done.
        source: the data set's name, for the manifest and messages.
        bad: clips that were left out before, which count for the share that may be.
    Raises:
        CaptionDataError: the folder holds features of something else, or too many clips are bad.
    """
    where, plan = source or folder, _make_plan(clips, processor, settings, source)
    begun = _read_begun(folder, plan)
    if begun is not None and "shards" in begun:
        _check_finished(begun, folder, settings.max_bad_share, where)
        return
    num_clips = len(clips) + len(bad)
    check_bad_share(bad, num_clips, settings.max_bad_share, where)
    if begun is None:
        os.makedirs(folder, exist_ok=True)
        _write_json(os.path.join(folder, MANIFEST), plan)
    run = _Run(clips, folder, keep_whole_clips(processor), settings, plan, list(bad), num_clips)
    process, num_processes = settings.process_index, settings.num_processes
    own = range(process, plan["num_shards"], num_processes)
    missing = run.list_missing(own)
    desc = f"features of {where}" + (f", process {process + 1} of {num_processes}" if num_processes > 1 else "")
    total, left = (sum(len(_clip_range(shard, plan)) for shard in some) for some in (own, missing))
    with tqdm(total=total, initial=total - left, unit="clip", desc=desc, disable=not settings.shows_progress) as bar:
        for shard in missing:
            run.make_shard(shard, bar.update)
    paths = [_shard_path(folder, shard, plan) for shard in range(plan["num_shards"])]
    if all(map(os.path.exists, paths)):
        # Another process may be about to redo a shard whose recordings were repaired. Made here as well, with the same
        # content, it is complete for whoever opens the features first.
        for shard in run.list_missing([shard for shard in range(plan["num_shards"]) if shard not in own]):
            run.make_shard(shard)
        _complete_manifest(folder, plan, paths, bad, settings.max_bad_share)


@dataclass
class _Run:
    """What one process does to the shards of a folder."""

    clips: Sequence[Clip]
    folder: str
    processor: object
    settings: FeatureSettings
    plan: dict
    unusable: list[BadClip]  # so far
    num_clips: int  # of the data set, those without an entry in `clips` included

    def list_missing(self, shards: Iterable[int]) -> list[int]:
        """Shards to make: those that are not there, and those whose bad recordings were repaired since."""
        missing = []
        for shard in shards:
            failed = self._read_bad_clips(shard)
            if failed is None or self._is_one_readable({clip.name for clip in failed}, shard):
                missing.append(shard)
            else:
                self.unusable += failed
        return missing

    def _read_bad_clips(self, shard: int) -> list[BadClip] | None:
        """Bad clips of a shard; None where it is not there."""
        path = _shard_path(self.folder, shard, self.plan)
        return _read_shard(path)[1] if os.path.exists(path) else None

    def _is_one_readable(self, names: set[str], shard: int) -> bool:
        """Whether one of the named clips of a shard can be read."""
        if not names:
            return False
        inputs = _ClipInputs(self.clips, _clip_range(shard, self.plan), self.processor, self.settings)
        named = (i for i, index in enumerate(inputs.indices) if self.clips[index].name in names)
        return any(not isinstance(inputs[i], BadClip) for i in named)

    def make_shard(self, shard: int, count: Callable[[int], object] = lambda num_clips: None) -> None:
        """Encode and write a shard; `count` is told the number of clips done.

        Raises:
            CaptionDataError: too many clips are bad.
        """
        rows, failed = [], []
        inputs = _ClipInputs(self.clips, _clip_range(shard, self.plan), self.processor, self.settings)
        settings = self.settings
        loader = torch.utils.data.DataLoader(
            inputs, settings.batch_size, num_workers=settings.num_workers, collate_fn=list
        )
        for batch in loader:
            failed += [item for item in batch if isinstance(item, BadClip)]
            readable = [item for item in batch if not isinstance(item, BadClip)]
            encoded = encode_batch(readable, self.processor, settings)
            failed += [item for item in encoded if isinstance(item, BadClip)]
            rows += [item for item in encoded if not isinstance(item, BadClip)]
            count(len(batch))
            unusable = [*self.unusable, *failed]
            if len(unusable) > settings.max_bad_share * self.num_clips:
                check_bad_share(unusable, self.num_clips, settings.max_bad_share, self.plan["source"] or self.folder)
        self.unusable += failed
        is_codes = self.processor.frame_encoder.kind == "codes"
        _write_shard(_shard_path(self.folder, shard, self.plan), rows, failed, is_codes)


class _ClipInputs(torch.utils.data.Dataset):
    """What the encoders read of each clip, or why it cannot be read."""

    def __init__(self, clips: Sequence[Clip], indices: range, processor, settings: FeatureSettings):
        self.clips, self.indices, self.processor, self.settings = clips, indices, processor, settings

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Clip, dict] | BadClip:
        return read_recording(self.clips[self.indices[i]], self.processor, self.settings)


def _make_plan(clips: Sequence[Clip], processor, settings: FeatureSettings, source: str) -> dict:
    """The manifest before any shard is written."""
    encoder, num_codebooks = processor.frame_encoder, settings.num_codebooks
    if encoder.kind == "codes" and encoder.codebook_size > 2**16:
        raise CaptionDataError(f"Got a codec of {encoder.codebook_size} codes; features hold codes up to {2**16 - 1}.")
    most = processor.num_codebooks if encoder.kind == "codes" else None
    if (most is None) != (num_codebooks is None) or (most is not None and not 1 <= num_codebooks <= most):
        wanted = "None for features" if most is None else f"1 to {most}, the processor's"
        raise CaptionDataError(f"Got `num_codebooks` {num_codebooks} for prepared features; expected {wanted}.")
    digest = hashlib.sha256()
    for captions in getattr(clips, "captions", None) or ((clip.name, *clip.captions) for clip in clips):
        digest.update(json.dumps(captions).encode())
    return {
        "format": FORMAT_VERSION,
        "source": source,
        "encoders": describe_encoders(processor),
        "settings": settings.content,
        "num_clips": len(clips),
        "clips_sha256": digest.hexdigest(),
        "num_shards": -(-len(clips) // settings.shard_size),
    }


def _read_begun(folder: str, plan: dict) -> dict | None:
    """The manifest of a folder that was begun before, compared with this run's; None where there is none."""
    found = read_manifest(folder)
    if found is None:
        return None
    check_encoders(found["encoders"], plan["encoders"], folder)
    for name in ("settings", "num_clips", "clips_sha256"):
        if found.get(name) != plan[name]:
            raise CaptionDataError(
                f"{folder} was begun with `{name}` {found.get(name)}, and this run has {plan[name]}; use another "
                "folder, or delete that one."
            )
    return found


def _check_finished(manifest: dict, folder: str, max_bad_share: float, where: str) -> None:
    """Raise CaptionDataError where complete features lack more clips than may be missing."""
    bad = [BadClip(**clip) for clip in manifest["bad_clips"]]
    try:
        check_bad_share(bad, manifest["num_rows"] + len(bad), max_bad_share, where)
    except CaptionDataError as error:
        raise CaptionDataError(f"{error} Once they are repaired, delete {folder}, which is without them.") from None


def _clip_range(shard: int, plan: dict) -> range:
    """Indices of the clips that a shard is made from."""
    size = plan["settings"]["shard_size"]
    return range(shard * size, min((shard + 1) * size, plan["num_clips"]))


def _shard_path(folder: str, shard: int, plan: dict) -> str:
    return os.path.join(folder, f"shard-{shard:05d}-of-{plan['num_shards']:05d}.arrow")


def _write_shard(path: str, rows: list[dict], failed: list[BadClip], is_codes: bool) -> None:
    """Write a shard under its name at once; its bad clips are in the metadata."""
    import pyarrow as pa

    frames = {"audio_codes": pa.list_(pa.uint16())} if is_codes else {"audio_features": pa.list_(pa.float16())}
    schema = pa.schema(
        {
            "name": pa.string(),
            "captions": pa.list_(pa.string()),
            **frames,
            "num_frames": pa.int32(),
            "clap_embedding": pa.list_(pa.float32()),
        },
        metadata={"bad_clips": json.dumps([asdict(clip) for clip in failed])},
    )
    unfinished = f"{path}.part-{os.getpid()}"
    with open(unfinished, "wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), max_chunksize=64)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _read_shard(path: str) -> tuple[int, list[BadClip]]:
    """Number of rows and bad clips of a shard."""
    import pyarrow as pa

    with pa.memory_map(path) as file, pa.ipc.open_stream(file) as reader:
        bad = [BadClip(**clip) for clip in json.loads(reader.schema.metadata[b"bad_clips"])]
        return sum(batch.num_rows for batch in reader), bad


def _complete_manifest(
    folder: str, plan: dict, paths: Sequence[str], bad: Sequence[BadClip], max_bad_share: float
) -> None:
    """Add the shards' rows and bad clips to the manifest; every shard is there."""
    shards, bad_clips = [], list(bad)
    for path in paths:
        rows, failed = _read_shard(path)
        shards.append({"file": os.path.basename(path), "rows": rows})
        bad_clips += failed
    num_rows = sum(shard["rows"] for shard in shards)
    where = plan["source"] or folder
    if not num_rows:
        raise CaptionDataError(f"None of the {plan['num_clips']} clips of {where} could be read.")
    check_bad_share(bad_clips, plan["num_clips"] + len(bad), max_bad_share, where)
    listed = [asdict(clip) for clip in bad_clips]
    _write_json(os.path.join(folder, MANIFEST), {**plan, "shards": shards, "num_rows": num_rows, "bad_clips": listed})
    for leftover in glob.glob(os.path.join(glob.escape(folder), "shard-*.part-*")):
        os.remove(leftover)  # of killed runs: every shard is there


def _write_json(path: str, content: dict) -> None:
    """Replace a file at once."""
    unfinished = f"{path}.part-{os.getpid()}"
    with open(unfinished, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    os.replace(unfinished, path)
