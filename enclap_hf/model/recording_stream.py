"""Recordings, of any number and length, read as pieces that a captioner takes: whole ones, or windows of long ones.

    read header lengths of some recordings   ->  the longest of them first
    open one, read it block by block         ->  pieces: a window each, with what was prepared of it
    collect pieces                           ->  batches

With worker processes each of them does all this for its share of the recordings. An index is given once, where a
recording is taken from its list, and goes with every piece of it: nothing is paired by its place in a sequence.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from .audio_errors import AudioLoadError, audio_error, make_label, no_samples_error
from .audio_reader import AudioReader
from .audio_sources import AudioPart, open_audio
from .recordings import RecordingState, is_list, name_recording, read_duration_s, read_state
from .sound_changes import ChangeSegments, Embed
from .windows import FixedWindows, Window, WindowPlan, as_fraction, cut_windows, round_half_up

logger = logging.getLogger(__name__)

# Read at a time of a long recording.
BLOCK_S = 1.0
# A batch without enough to caption, as of hours of silence, is handed on when it has this many times its size.
FULL_BATCHES = 8


@dataclass(frozen=True)
class Piece:
    """A whole recording, a window of one, or a mark where a long one ends.

    Args:
        index: of the recording.
        name: of its file; None where it is no file.
        state: of that, before it was read.
        stated_s: its length by its header, 0 where that states none.
        window: which part; None for an end, and for a recording that was not read by this module.
        sampling_rate: of the recording, Hz; None likewise.
        is_windowed: whether the recording is longer than what is captioned as one.
        is_end: whether the recording ends here.
        features: what the pipeline prepared; None where there is nothing to caption.
        result: then what came of it, silence or an error; None for an end.
    """

    index: int
    name: str | None
    state: RecordingState
    stated_s: float
    window: Window | None = None
    sampling_rate: int | None = None
    is_windowed: bool = False
    is_end: bool = False
    features: dict | None = None
    result: dict | None = None


@dataclass
class PieceReader:
    """Reads a recording as pieces.

    Args:
        prepare: the first step of the pipeline.
        plan: how long recordings are cut.
        reads_directly: whether recordings go to `prepare` as they are, which reads what it needs of them alone.
        raises: whether a recording that cannot be read ends all, or is a piece with its reason.
        silence_dbfs: peak below which a window is silent; None for none.
        sampling_rate: Hz of arrays, which do not carry it.
        raw: `raw_format`, `raw_sampling_rate` and `raw_channels` of [`open_audio`].
        go_on_at: by the index of a recording, the second at which to go on within it.
        make_embed: from a sampling rate to what embeds clips of it, see [`ChangeSegments`].
    """

    prepare: Callable[..., dict]
    plan: WindowPlan
    reads_directly: bool
    raises: bool
    silence_dbfs: float | None
    sampling_rate: int | None = None
    raw: dict = field(default_factory=dict)
    go_on_at: Mapping[int, float] = field(default_factory=dict)
    make_embed: Callable[[int], Embed | None] | None = None

    def read(self, index: int, recording: Any, stated_s: float | None = None) -> Iterator[Piece]:
        """Pieces of one recording, the last of them its end.

        Raises:
            Exception: whatever a decoder, resampler or the pipeline raised, where `raises`.
        """
        if stated_s is None:
            stated_s = read_duration_s(recording, self.sampling_rate)
        place: dict[str, Any] = {"index": index, "name": name_recording(recording), "stated_s": stated_s}
        place["state"], reached = read_state(recording), None
        try:
            if self.reads_directly:
                yield Piece(**place, is_end=True, **self._prepare_piece(recording, self.sampling_rate))
                return
            with open_audio(recording, self.sampling_rate, **self.raw) as reader:
                place["sampling_rate"] = reader.sampling_rate
                if index in self.go_on_at:
                    reached = round_half_up(as_fraction(self.go_on_at[index]) * reader.sampling_rate)
                for piece in self._read_open(reader, place, reached):
                    reached = reached if piece.window is None else piece.window.last
                    yield piece
        except Exception as error:  # of whichever decoder or resampler: the other recordings go on
            if self.raises:
                raise
            if reached is not None:  # the error stands where the last window ends
                place |= {"is_windowed": True, "window": Window(reached, reached, reached, reached)}
            yield Piece(**place, is_end=True, result=describe_failure(make_label(recording, None), error))

    def _read_open(self, reader: AudioReader, place: dict, first: int | None) -> Iterator[Piece]:
        """Pieces of an open recording, or of a long one those from the sample `first` on."""
        rate, plan = reader.sampling_rate, self.plan
        if first is not None:
            yield from self._read_windows(reader, None, {**place, "is_windowed": True}, first)
            return
        limit = None if plan.limit_s == float("inf") else round_half_up(as_fraction(plan.limit_s) * rate)
        blocks = reader.blocks(BLOCK_S)
        head, length, failure = [], 0, None
        try:
            while limit is None or length <= limit:
                block = next(blocks, None)
                if block is None:
                    break
                head.append(block)
                length += block.shape[1]
        except AudioLoadError as error:
            failure = error
        is_long = limit is not None and (length > limit or (failure is not None and place["stated_s"] > plan.limit_s))
        if is_long and head:
            place = {**place, "is_windowed": True}
            yield from self._read_windows(reader, go_on(head, failure, blocks), place, 0)
            return
        if failure is not None:
            raise failure
        if not length:
            raise no_samples_error(reader.name)
        samples = np.concatenate(head, axis=1)
        del head
        yield Piece(
            **place,
            window=Window(0, length, 0, length),
            is_end=True,
            **self._prepare_samples(samples, rate, reader.name),
        )

    def _read_windows(
        self, reader: AudioReader, blocks: Iterable[np.ndarray] | None, place: dict, first: int
    ) -> Iterator[Piece]:
        """Windows of a long recording, from the one whose caption is for the sample `first`, and its end."""
        segmenter, start = self.make_segmenter(reader.sampling_rate), 0
        if blocks is None:
            start = segmenter.skip_to(first) if hasattr(segmenter, "skip_to") else 0
            blocks = reader.blocks(BLOCK_S, start)
        for window, samples in cut_windows(blocks, segmenter, start, first):
            prepared = self._prepare_samples(samples, reader.sampling_rate, reader.name)
            yield Piece(**place, window=window, **prepared)
        yield Piece(**place, is_end=True)

    def make_segmenter(self, sampling_rate: int) -> Any:
        """What decides where windows begin and end."""
        if self.plan.segmentation == "fixed":
            return FixedWindows(self.plan, sampling_rate)
        embed = None if self.make_embed is None else self.make_embed(sampling_rate)
        longest_s = self.plan.chunk_length_s
        return ChangeSegments(sampling_rate, embed, longest_s=longest_s, silence_dbfs=self.silence_dbfs)

    def _prepare_samples(self, samples: np.ndarray, sampling_rate: int, name: str) -> dict:
        """`features` or `result` of samples (channels, num_samples)."""
        if self.silence_dbfs is not None:
            # No encoder hears more than the loudest channel has; hours of silence are not worth preparing.
            peak = max(float(samples.max()), -float(samples.min()))
            if peak < 10 ** (self.silence_dbfs / 20):
                return {"result": {"text": "", "silent": True}}
        return self._prepare_piece(AudioPart(samples, sampling_rate, name), None)

    def _prepare_piece(self, audio: Any, sampling_rate: int | None) -> dict:
        """`features` or `result` of what the pipeline reads."""
        features = self.prepare(audio, sampling_rate=sampling_rate, silence_dbfs=self.silence_dbfs)
        if features["clip"][0].get("silent"):
            return {"result": {"text": "", "silent": True}}
        return {"features": features}


class RecordingBatches(IterableDataset):
    """Batches of pieces, of recordings in their order or sorted from the longest to the shortest.

    Headers are read when their recordings' turn comes, so that the first captions do not wait for the last header.

    Args:
        recordings: a list or the like, or any iterable of recordings.
        reader: reads one.
        batch_size: pieces to caption in a batch; the last may have fewer.
        group_size: recordings that are sorted together; `batch_size` leaves them in order.
    """

    def __init__(self, recordings: Iterable, reader: PieceReader, batch_size: int, group_size: int):
        self.recordings, self.reader = recordings, reader
        self.batch_size, self.group_size = batch_size, group_size

    def __iter__(self) -> Iterator[list[Piece]]:
        batch, num_waiting = [], 0
        for index, recording, stated_s in self._order():
            with contextlib.closing(self.reader.read(index, recording, stated_s)) as pieces:
                for piece in pieces:
                    batch.append(piece)
                    num_waiting += piece.features is not None
                    if num_waiting == self.batch_size or len(batch) >= FULL_BATCHES * self.batch_size:
                        yield batch
                        batch, num_waiting = [], 0
        if batch:
            yield batch

    def _order(self) -> Iterator[tuple[int, Any, float | None]]:
        """Recordings of this process with their indices and, where they are sorted, their lengths by their headers."""
        share = self._share()
        if self.group_size <= self.batch_size:
            yield from ((index, recording, None) for index, recording in share)
            return
        while group := list(itertools.islice(share, self.group_size)):
            stated = [(*entry, read_duration_s(entry[1], self.reader.sampling_rate)) for entry in group]
            yield from sorted(stated, key=lambda entry: -entry[2])

    def _share(self) -> Iterator[tuple[int, Any]]:
        """Recordings of this process: all, or every so-manieth batch of them."""
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if not is_list(self.recordings):
            for index, recording in enumerate(self.recordings):
                if index // self.batch_size % count == number:
                    yield index, recording
            return
        for index in range(len(self.recordings)):  # a list may hold rows that are read when they are asked for
            if index // self.batch_size % count == number:
                yield index, self.recordings[index]


def go_on(head: list[np.ndarray], failure: Exception | None, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks that were read already, each forgotten when it is given out, and then what follows them."""
    while head:
        yield head.pop(0)
    if failure is not None:
        raise failure
    yield from blocks


def describe_failure(label: str, error: Exception) -> dict:
    """The result of a recording for which something was raised: one line that names both."""
    if isinstance(error, AudioLoadError):
        return {"text": None, "error": str(error)}
    logger.debug("%s failed", label, exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":. ")
    return {"text": None, "error": str(audio_error(label, f"it cannot be captioned ({reason[:300]}).", "")).rstrip()}
