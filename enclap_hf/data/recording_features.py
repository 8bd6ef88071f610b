"""From a recording to its frames and its CLAP vector; whatever fails in between concerns that recording alone."""

import copy
from dataclasses import dataclass

import numpy as np
import torch

from ..model.audio_loading import AudioLoadError, load_audio
from .caption_clips import BadClip, Clip

# What an error message of a library is cut to.
_MAX_REASON = 200


@dataclass(frozen=True)
class FeatureSettings:
    """What features are made of, and how they are made.

    Args:
        num_codebooks: K, codebooks kept; None for frame encoders that give features.
        max_duration_s: seconds read from the start of a clip; both encoders see these alone.
        shard_size: clips of a shard.
        max_clips: take the first clips of a data set only; None takes all.
        max_bad_share: share of a data set's clips that may be missing or unreadable, 0 to 1.
        batch_size: clips encoded at a time.
        num_workers: processes that read and resample ahead.
        process_index: this process.
        num_processes: processes that share the work.
        show_progress: whether to draw a bar.
    """

    num_codebooks: int | None
    max_duration_s: float = 60.0
    shard_size: int = 512
    max_clips: int | None = None
    max_bad_share: float = 0.0
    batch_size: int = 16
    num_workers: int = 0
    process_index: int = 0
    num_processes: int = 1
    show_progress: bool = True

    @property
    def content(self) -> dict:
        """What decides the features, beside the encoders and the clips."""
        return {name: getattr(self, name) for name in ("num_codebooks", "max_duration_s", "shard_size")}

    @property
    def shows_progress(self) -> bool:
        """Whether this process draws bars."""
        return self.show_progress and self.process_index == 0


def keep_whole_clips(processor):
    """The same processor, which keeps all frames of a clip: training draws its windows from whole clips."""
    processor = copy.copy(processor)
    processor.feature_extractor = copy.deepcopy(processor.feature_extractor)
    processor.feature_extractor.max_codec_frames = None
    return processor


def read_recording(clip: Clip, processor, settings: FeatureSettings) -> tuple[Clip, dict] | BadClip:
    """Read a recording for the encoders, on the CPU.

    Args:
        clip: with its audio.
        processor: of [`keep_whole_clips`].
        settings: for the seconds that are read.
    Returns:
        the clip without its audio and what the encoders read of it, or why it cannot be read.
    """
    encoder = processor.frame_encoder
    try:
        is_mono = getattr(encoder, "num_channels", None) == 1
        loaded = load_audio(clip.audio, name=clip.name, max_duration_s=settings.max_duration_s, mono=is_mono)
        samples = {"array": loaded.samples, "sampling_rate": loaded.sampling_rate}
        with_clap = processor.clap_encoder is not None
        prepared = processor.feature_extractor([samples], frame_encoder=encoder, with_clap=with_clap)
    except AudioLoadError as error:
        reason = " ".join(str(error).split())
        return BadClip(clip.name, reason.removeprefix(f"`{clip.name}`: "))
    except Exception as error:  # of any decoder or resampler, for this one recording
        return BadClip(clip.name, _describe_error(error))
    return Clip(clip.name, "", clip.captions), dict(prepared)


def encode_batch(items: list[tuple[Clip, dict]], processor, settings: FeatureSettings) -> list[dict | BadClip]:
    """Encode clips of [`read_recording`], one by one where they fail together.

    Returns:
        for each clip `name`, `captions`, `num_frames` T, `audio_codes` uint16 (T * K,) or `audio_features` float16
        (T * F,), and `clap_embedding` float32 (C,) or None; or why it cannot be encoded.
    """
    if not items:
        return []
    try:
        return _encode_together(items, processor, settings)
    except Exception as error:  # of any encoder: one recording must not end a run
        if len(items) == 1:
            return [BadClip(items[0][0].name, _describe_error(error))]
    return [row for item in items for row in encode_batch([item], processor, settings)]


def _encode_together(items: list[tuple[Clip, dict]], processor, settings: FeatureSettings) -> list[dict | BadClip]:
    """Encode clips in one batch, see [`encode_batch`]."""
    encoder, inputs = processor.frame_encoder, [item[1] for item in items]
    frames = processor.encode_frames([samples for clip in inputs for samples in clip["input_values"]])
    embeddings = [None] * len(items)
    if processor.clap_encoder is not None:
        joined = (torch.cat([clip[name] for clip in inputs]) for name in ("input_features", "is_longer"))
        embeddings = processor.clap_encoder.embed(*joined).numpy()
    rows = []
    for (clip, _), of_clip, embedding in zip(items, frames, embeddings, strict=True):
        if encoder.kind == "codes":
            stored = {"audio_codes": of_clip[:, : settings.num_codebooks].numpy().astype(np.uint16).ravel()}
        else:
            with np.errstate(over="ignore"):  # looked at below
                stored = {"audio_features": of_clip.numpy().astype(np.float16).ravel()}
        numbers = [*stored.values(), *([] if embedding is None else [embedding])]
        if not all(np.isfinite(array).all() for array in numbers):
            rows.append(BadClip(clip.name, "its encoding has numbers that are infinite, or none"))
            continue
        row = {"name": clip.name, "captions": list(clip.captions), "num_frames": len(of_clip)}
        rows.append({**row, **stored, "clap_embedding": embedding})
    return rows


def _describe_error(error: Exception) -> str:
    """What a library raised, in one line."""
    reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]} ..."
