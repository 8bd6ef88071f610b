"""Recordings through the captioning pipeline, as they are done: windows of several share batches, each failure its own.

`recording_stream.py`, in worker processes where wanted    ->  batches of pieces
this one                                                   ->  each piece with its captions, batch by batch
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from .caption_results import CaptionedPiece
from .recording_stream import Piece, PieceReader, RecordingBatches, describe_failure
from .recordings import is_list

logger = logging.getLogger(__name__)

# Batches whose recordings are sorted by length together, so that little of a batch is padding.
SORTED_BATCHES = 8


def caption_as_done(
    caption: Any,
    recordings: Iterable,
    reader: PieceReader,
    forward: dict,
    postprocess: dict,
    *,
    batch_size: int,
    num_workers: int,
    group_size: int,
) -> Iterator[CaptionedPiece]:
    """Caption recordings and yield each piece of them as soon as its batch is done; of one recording, in order.

    Args:
        caption: the pipeline.
        recordings: see [`RecordingBatches`].
        reader: reads them.
        forward, postprocess: arguments of the pipeline's second and third step.
        batch_size: pieces captioned together.
        num_workers: processes that read ahead; 0 reads in this one.
        group_size: recordings sorted by length together; `batch_size` keeps their order.
    Raises:
        RuntimeError: a worker process was killed.
        Exception: what one recording raised, where the reader shall raise.
    """
    batches = RecordingBatches(recordings, reader, batch_size, group_size)
    run = functools.partial(run_batch, caption, forward, postprocess)
    with contextlib.ExitStack() as stack:
        if num_workers:
            # Without length an iterable cannot be dealt out: its items are gone once one process has taken them.
            num_workers = num_workers if is_list(recordings) else 1
            source = iter(DataLoader(batches, batch_size=None, num_workers=num_workers))
        else:
            source = stack.enter_context(contextlib.closing(iter(batches)))
        for batch in source:
            results = caption_batch(batch, run, reader.raises)
            for i in sorted(range(len(batch)), key=lambda i: batch[i].index):
                yield finish_piece(batch[i], results[i])


def finish_piece(piece: Piece, result: Any) -> CaptionedPiece:
    """A piece with its result, and its times in seconds."""
    if isinstance(result, Exception):
        result = describe_failure("the recording" if piece.name is None else f"`{piece.name}`", result)
    window, rate = piece.window, piece.sampling_rate
    start_s, end_s = (None, None) if window is None else (window.first / rate, window.last / rate)
    return CaptionedPiece(
        piece.index, piece.name, result, start_s, end_s, piece.is_windowed, piece.is_end, piece.state, piece.stated_s
    )


def caption_batch(batch: list[Piece], run: Callable[[list[dict]], list], raises: bool) -> list:
    """The result of each piece, or the exception that it raised; where a batch fails, its pieces are tried one by one.

    Args:
        batch: pieces.
        run: captions features.
        raises: whether what is raised is passed on.
    """
    results: list = [piece.result for piece in batch]
    ready = [i for i, piece in enumerate(batch) if piece.features is not None]
    if not ready:
        return results
    try:
        found = run([batch[i].features for i in ready])
    except Exception as error:  # such as memory that is too small for one of them
        if raises or is_end_of_worker(error):
            raise
        if len(ready) == 1:
            results[ready[0]] = error
            return results
        logger.debug("A batch of %d failed (%r); its recordings are tried one by one.", len(ready), error)
        for i in ready:
            results[i] = caption_batch([batch[i]], run, raises)[0]
        return results
    for i, result in zip(ready, found, strict=True):
        results[i] = result
    return results


def is_end_of_worker(error: Exception) -> bool:
    """Whether an error tells that a worker process was killed; torch raises it wherever the main process is then."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def run_batch(caption: Any, forward: dict, postprocess: dict, features: list[dict]) -> list[dict | list[dict]]:
    """Encode and caption a batch with the pipeline's second and third step.

    Args:
        caption: the pipeline.
        forward, postprocess: arguments of the two.
        features: what its first step gave for each piece.
    Returns:
        a result for each, in order.
    """
    batch = {name: [clip[name] for clip in features] for name in features[0]}
    outputs = caption.forward(batch, **forward)
    return [
        caption.postprocess({name: take_item(value, i) for name, value in outputs.items()}, **postprocess)
        for i in range(len(features))
    ]


def take_item(values: Any, index: int) -> Any:
    """What belongs to one piece of a batch; tensors keep their batch dimension."""
    if isinstance(values, torch.Tensor):
        return values[index : index + 1]
    return values[index] if isinstance(values, list) else values
