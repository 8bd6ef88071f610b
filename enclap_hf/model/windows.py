"""Cuts recordings of any length into windows, each of which is then captioned like a clip of its own.

    window       0 s        5 s       10 s      15 s     20 s    its caption is for     chunk_length_s=10
       0         |--------------------|                           0   ..  7 s           stride_length_s=(2, 3)
       1                    |-------------------|                 7   .. 12 s           a recording of 21.5 s
       2                              |------------------|       12   .. 17 s
       3                                        |-----------|    17   .. 21.5 s

Windows begin every `chunk_length_s` less both strides, as in transformers' speech recognition: the first has no left
stride, the last no right one, and a time stamp is the part without strides. The last window holds what remains, and is
treated like any short clip; where less than `SHORTEST_S` remains it reaches back to the full length, as if its left
stride were longer, and its time stamp is what remains alone.

Places are counted in samples of the recording's own rate, and multiplied, never added up: the window that begins at 24
hours begins at the exact sample.
"""

from __future__ import annotations

import math
import numbers
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from .audio_errors import AudioLoadError

# Length of a window where nothing else is said, or the model holds less.
CHUNK_LENGTH_S = 10.0
# Segments between two changes of the sound: the longest, likewise, and the shortest.
LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S = 20.0, 1.5
# A last window with less than this of its own reaches back.
SHORTEST_S = 1.0
# Windows follow each other in steps of at least this.
SHORTEST_STEP_S = 0.1
SEGMENTATIONS = ("fixed", "changes")


class Window(NamedTuple):
    """A window, in samples of the recording.

    Args:
        start, end: what is heard.
        first, last: the part of it that the caption is for.
    """

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class WindowPlan:
    """How recordings are cut.

    Args:
        limit_s: recordings longer than this are cut; infinity for none.
        chunk_length_s: of a window.
        left_s, right_s: shared with the window before and behind.
        segmentation: "fixed", or "changes" for segments between changes of the sound, `chunk_length_s` at most.
        heard_s: what the model's frames cover of a recording that is not cut; None for all.
        is_asked: whether windows were asked for, or are what long recordings get unasked.
    """

    limit_s: float
    chunk_length_s: float = CHUNK_LENGTH_S
    left_s: float = 0.0
    right_s: float = 0.0
    segmentation: str = "fixed"
    heard_s: float | None = None
    is_asked: bool = True


def plan_windows(
    heard_s: float | None,
    chunk_length_s: float | None = None,
    stride_length_s: float | tuple[float, float] = 0.0,
    segmentation: str = "fixed",
) -> WindowPlan:
    """Decide how recordings are cut.

    Args:
        heard_s: seconds that the model's frames cover; None for all.
        chunk_length_s: of a window: recordings longer than it are cut. None cuts only those longer than `heard_s`, into
            windows of 10 s, or of `heard_s` where that is less; 0 cuts none. Of "changes" it is the longest segment, 20
            s or `heard_s` unless given, and all recordings are cut.
        stride_length_s: seconds of a window shared with its neighbours: one number for both sides, or [left, right].
        segmentation: "fixed", or "changes" for segments between changes of the sound (`sound_changes.py`).
    Raises:
        ValueError: what cannot be: negative numbers, a window longer than the model holds, strides that leave nothing.
    """
    if segmentation not in SEGMENTATIONS:
        raise ValueError(f"Got `segmentation`={segmentation!r}; expected {' or '.join(map(repr, SEGMENTATIONS))}.")
    left_s, right_s = read_strides(stride_length_s)
    if chunk_length_s is not None and not is_length(chunk_length_s):
        raise ValueError(f"Got `chunk_length_s`={chunk_length_s!r}; expected seconds, or 0 for no windows.")
    if chunk_length_s == 0:
        if left_s or right_s or segmentation != "fixed":
            raise ValueError(
                "Got `chunk_length_s`=0, which cuts no windows, with a stride or a segmentation of them; leave one out."
            )
        return WindowPlan(math.inf, heard_s=heard_s)
    follows_changes = segmentation == "changes"
    if follows_changes and (left_s or right_s):
        raise ValueError(
            "Got `stride_length_s` with `segmentation`='changes', whose segments share nothing; leave one of them out."
        )
    usual_s = LONGEST_SEGMENT_S if follows_changes else CHUNK_LENGTH_S
    length_s = chunk_length_s or min(usual_s, heard_s or math.inf)
    if follows_changes and length_s < 2 * SHORTEST_SEGMENT_S:
        raise ValueError(
            f"Got `chunk_length_s`={length_s:g} with `segmentation`='changes', where it is the longest segment; "
            f"expected at least {2 * SHORTEST_SEGMENT_S:g} s."
        )
    if heard_s is not None and length_s > heard_s + 1e-6:
        raise ValueError(
            f"Got `chunk_length_s`={length_s:g}, and this model hears {heard_s:.4g} s at a time; pass that or less."
        )
    if as_fraction(length_s) - as_fraction(left_s) - as_fraction(right_s) < as_fraction(SHORTEST_STEP_S):
        raise ValueError(
            f"Got `stride_length_s` {left_s:g} and {right_s:g} with windows of {length_s:g} s; they must leave "
            f"{SHORTEST_STEP_S:g} s of a window at least."
        )
    limit_s = chunk_length_s if chunk_length_s is not None else math.inf if heard_s is None else heard_s
    if follows_changes:
        limit_s = 0.0
    is_asked = chunk_length_s is not None or follows_changes
    return WindowPlan(limit_s, length_s, left_s, right_s, segmentation, heard_s, is_asked)


def describe_plan(plan: WindowPlan) -> str:
    """What becomes of recordings that are longer than what the model hears."""
    heard = f"the {plan.heard_s:.4g} s that the model hears at once"
    if plan.limit_s == math.inf:
        return f"Of recordings longer than {heard}, the beginning alone is captioned, as `chunk_length_s`=0 asks."
    return (
        f"Recordings longer than {heard} are captioned in windows of {plan.chunk_length_s:.4g} s; pass "
        "`chunk_length_s` for another length, or 0 to caption their beginning alone."
    )


def read_strides(stride_length_s: Any) -> tuple[float, float]:
    """Left and right stride in seconds."""
    is_pair = isinstance(stride_length_s, (list, tuple))
    strides = tuple(stride_length_s) if is_pair else (stride_length_s, stride_length_s)
    if len(strides) != 2 or not all(map(is_length, strides)):
        raise ValueError(
            f"Got `stride_length_s`={stride_length_s!r}; expected seconds, 0 or more, or a pair of them: [left, right]."
        )
    return float(strides[0]), float(strides[1])


def is_length(value: Any) -> bool:
    """Whether a value is a number of seconds."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= value < math.inf


def as_fraction(seconds: float) -> Fraction:
    """A number as it was written: 0.1 is a tenth."""
    return Fraction(repr(float(seconds)))


def round_half_up(value: Fraction) -> int:
    """The nearest whole number."""
    return math.floor(value + Fraction(1, 2))


class FixedWindows:
    """Windows of one length, as the module's drawing shows them.

    Segmenters share this interface: `feed` and `finish` return windows in order, `needed_from` says what may still
    become part of one.

    Args:
        plan: lengths and strides.
        sampling_rate: of the recording, Hz.
    """

    def __init__(self, plan: WindowPlan, sampling_rate: int):
        chunk, left, right = (
            as_fraction(seconds) * sampling_rate for seconds in (plan.chunk_length_s, plan.left_s, plan.right_s)
        )
        self._step, self._left, self._chunk = chunk - left - right, left, max(1, round_half_up(chunk))
        self._has_right_stride = right > 0
        self._shortest = round_half_up(as_fraction(SHORTEST_S) * sampling_rate)
        self._number = 0  # of the next window
        self._received = 0

    def skip_to(self, sample: int) -> int:
        """Begin with the window whose caption is for `sample` and what follows.

        Returns:
            the first sample to feed.
        """
        self._number = max(0, int((sample - self._left) / self._step))
        while self._find_first(self._number) < sample:
            self._number += 1
        self._received = self.needed_from
        return self._received

    def feed(self, samples: np.ndarray) -> list[Window]:
        """Take the next samples (channels, num_samples); returns windows that are complete."""
        self._received += samples.shape[1]
        ready = []
        while self._find_start(self._number) + self._chunk + self._has_right_stride <= self._received:
            start, first = self._find_start(self._number), self._find_first(self._number)
            self._number += 1
            ready.append(Window(start, start + self._chunk, first, self._find_first(self._number)))
        return ready

    def finish(self) -> list[Window]:
        """The last window, where something remains."""
        start, first, end = self._find_start(self._number), self._find_first(self._number), self._received
        if first >= end:
            return []
        if end - first < self._shortest:
            start = max(0, min(start, end - self._chunk))
        return [Window(start, end, first, end)]

    @property
    def needed_from(self) -> int:
        """First sample that a window may still hold."""
        start = self._find_start(self._number)
        return max(0, min(start, max(start, self._received) - self._chunk))

    def _find_start(self, number: int) -> int:
        return round_half_up(number * self._step)

    def _find_first(self, number: int) -> int:
        return round_half_up(number * self._step + self._left) if number else 0


class HeldSamples:
    """The samples of a recording that a window may still hold; `start` is the first of them."""

    def __init__(self, start: int = 0):
        self._blocks: deque[np.ndarray] = deque()
        self._start = start

    def append(self, block: np.ndarray) -> None:
        """Add the next samples, (channels, num_samples)."""
        self._blocks.append(block)

    def take(self, start: int, end: int) -> np.ndarray:
        """A copy of some of them, (channels, end - start)."""
        parts, position = [], self._start
        for block in self._blocks:
            if position < end and position + block.shape[1] > start:
                parts.append(block[:, max(0, start - position) : end - position])
            position += block.shape[1]
        return np.concatenate(parts, axis=1)

    def drop_before(self, sample: int) -> None:
        """Forget blocks that end before a sample."""
        while self._blocks and self._start + self._blocks[0].shape[1] <= sample:
            self._start += self._blocks.popleft().shape[1]


def cut_windows(
    blocks: Iterable[np.ndarray], segmenter: Any, start: int = 0, first: int = 0
) -> Iterator[tuple[Window, np.ndarray]]:
    """Windows with their samples, float32 (channels, num_samples), as the recording is read.

    Args:
        blocks: of the recording, in order.
        segmenter: such as [`FixedWindows`].
        start: place of the first block's first sample.
        first: windows whose caption is for samples before this one are passed over.
    Raises:
        AudioLoadError: what the blocks raised, behind the windows of everything before it.
    """
    held, failure = HeldSamples(start), None
    blocks = iter(blocks)
    while failure is None:
        try:
            block = next(blocks, None)
        except AudioLoadError as error:
            block, failure = None, error
        if block is None:
            break
        held.append(block)
        for window in segmenter.feed(block):
            if window.first >= first:
                yield window, held.take(window.start, window.end)
        held.drop_before(segmenter.needed_from)
    for window in segmenter.finish():
        if window.first >= first:
            yield window, held.take(window.start, window.end)
    if failure is not None:
        raise failure
