"""Recordings through the captioning pipeline, as they are done: batches of like length, and each failure its own.

    main process   plans batches from the headers' lengths   ->  indices
    workers        read and prepare the recordings           ->  index, state of the file, features or the failure
    main process   encodes and captions                      ->  index and result, batch by batch

An index is given once, where a batch is planned, and goes with the recording all the way: nothing is paired by its
place in a sequence.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from ..data.audio_files import read_duration_s
from .caption_manifest import RecordingState, read_state
from .terminal_text import escape_controls

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedClip:
    """One recording and what came of it.

    Args:
        index: its place in the list of recordings.
        result: what the pipeline returns for it; `{"text": None, "error": reason}` where it failed.
        duration_s: length in seconds that its header states, 0 where it states none.
        state: of its file, before it was read.
    """

    index: int
    result: dict | list[dict]
    duration_s: float
    state: RecordingState


@dataclass(frozen=True)
class PreparedClip:
    """One recording as a worker sends it: its features, or what its result is without any."""

    index: int
    state: RecordingState
    features: dict | None
    failure: dict | None = None


class ClipReader(Dataset):
    """Reads and prepares recordings; whatever is raised for one becomes that one's failure."""

    def __init__(self, paths: list[str], prepare: Callable[[str], dict]):
        self.paths, self.prepare = paths, prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PreparedClip:
        path = self.paths[index]
        state = read_state(path)
        try:
            return PreparedClip(index, state, self.prepare(path))
        except Exception as error:  # of whichever decoder or resampler: the other recordings go on
            return PreparedClip(index, state, None, describe_failure(path, error))


class BatchesByLength:
    """Batches of indices: `window_size` recordings at a time are sorted from the longest to the shortest.

    Headers are read when a window is reached, so that the first captions do not wait for the last header.

    Args:
        paths: the recordings.
        batch_size: of a batch; the last one of a window may be smaller.
        window_size: how many are sorted together.
    """

    def __init__(self, paths: list[str], batch_size: int, window_size: int):
        self.paths, self.batch_size, self.window_size = paths, batch_size, window_size
        self.durations_s: dict[int, float] = {}

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self.paths), self.window_size):
            window = range(first, min(first + self.window_size, len(self.paths)))
            self.durations_s |= {index: self.read_duration_s(index) for index in window}
            order = sorted(window, key=lambda index: -self.durations_s[index])
            for start in range(0, len(order), self.batch_size):
                yield order[start : start + self.batch_size]

    def read_duration_s(self, index: int) -> float:
        """Seconds of a recording; 0 where its header cannot be read, of which its reader will say more."""
        try:
            return read_duration_s(self.paths[index])
        except Exception as error:
            logger.debug("%s: no length (%r)", self.paths[index], error)
            return 0.0


def caption_as_done(
    caption, paths: list[str], *, batch_size: int, num_workers: int, window_size: int, **options
) -> Iterator[CaptionedClip]:
    """Caption recordings and yield each as soon as its batch is done.

    Args:
        caption: the pipeline.
        paths: the recordings.
        batch_size: recordings captioned together.
        num_workers: processes that read ahead; 0 reads in this one.
        window_size: recordings sorted by length together; `batch_size` keeps batches in the order of `paths`.
        options: of a call of the pipeline.
    Raises:
        RuntimeError: a worker process was killed.
    """
    # What a call of the pipeline would hand to its three steps.
    prepare, forward, postprocess = caption._sanitize_parameters(errors="return", **options)
    batches = BatchesByLength(paths, batch_size, window_size)
    loader = DataLoader(
        ClipReader(paths, functools.partial(caption.preprocess, **prepare)),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=list,
    )
    for batch in loader:
        results = caption_batch(batch, paths, functools.partial(run_batch, caption, forward, postprocess))
        for clip in sorted(batch, key=lambda clip: clip.index):
            yield CaptionedClip(clip.index, results[clip.index], batches.durations_s.pop(clip.index), clip.state)


def caption_batch(batch: list[PreparedClip], paths: list[str], run: Callable[[list[dict]], list]) -> dict[int, object]:
    """Results by index; where a batch fails, its recordings are tried one by one.

    Args:
        batch: prepared recordings.
        paths: of all recordings, by index.
        run: captions features.
    """
    results = {clip.index: clip.failure for clip in batch if clip.features is None}
    ready = [clip for clip in batch if clip.features is not None]
    if not ready:
        return results
    try:
        found = run([clip.features for clip in ready])
    except Exception as error:  # such as memory that is too small for one of them
        if is_end_of_worker(error):
            raise
        if len(ready) == 1:
            return {**results, ready[0].index: describe_failure(paths[ready[0].index], error)}
        logger.debug("A batch of %d failed (%r); its recordings are tried one by one.", len(ready), error)
        for clip in ready:
            results |= caption_batch([clip], paths, run)
        return results
    return {**results, **{clip.index: result for clip, result in zip(ready, found, strict=True)}}


def is_end_of_worker(error: Exception) -> bool:
    """Whether an error tells that a worker process was killed; torch raises it wherever the main process is then."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def run_batch(caption, forward: dict, postprocess: dict, features: list[dict]) -> list[dict | list[dict]]:
    """Encode and caption a batch as the pipeline does.

    Args:
        caption: the pipeline.
        forward: arguments of its second step.
        postprocess: arguments of its third step.
        features: what its first step gave for each recording.
    Returns:
        a result for each recording, in order.
    """
    batch = {name: [clip[name] for clip in features] for name in features[0]}
    outputs = caption.forward(batch, **forward)
    return [
        caption.postprocess({name: take_item(value, i) for name, value in outputs.items()}, **postprocess)
        for i in range(len(features))
    ]


def take_item(values, index: int):
    """What belongs to one recording of a batch; tensors keep their batch dimension."""
    if isinstance(values, torch.Tensor):
        return values[index : index + 1]
    return values[index] if isinstance(values, list) else values


def describe_failure(path: str, error: Exception) -> dict:
    """The result of a recording for which something unforeseen was raised: one line that names both."""
    logger.debug("%s failed", path, exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":. ")
    return {"text": None, "error": escape_controls(f"`{path}`: it cannot be captioned ({reason[:300]}).")}
