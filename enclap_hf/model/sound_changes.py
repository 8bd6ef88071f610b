"""Segments that follow the sound: a recording is cut where it begins to sound different, while it is still being read.

    samples      |....|....|....|....|....|....|....|....|....|....|     frames of a quarter of a second
    each frame     log-mel shape in dB, the peak, and of every other one CLAP's vector of the second around it
    undecided    s=======================================================  longest_s + shortest_s
    cut          s--------------|---------|---------------------|--------  what follows s, cut at least cost
    decided      s--------------|                                          the first segment; the rest is cut anew

The cost of a segment is how far its frames are from their mean, summed over time (squares of vectors: dB of the bands,
and CLAP's vector, weighted); each boundary costs `BOUNDARY_COST` more. Dynamic programming finds the cut of least cost
among those with segments between the shortest and the longest length, so a boundary stands where the sound changes for
good, not at every stroke of a hammer. Nothing in front of a boundary takes part in what follows it: from any boundary
on, the same segments come out.

Silence of at least the shortest length is cut out by itself, as far as the lengths allow; sound between two silences
that is shorter takes what it lacks from them. What stays the same for longer than the longest length is cut all the
same; once captioned, neighbours that say the same are joined again by `caption_joining.py`.

Source: the search is optimal partitioning, Jackson et al. 2005 (IEEE Signal Processing Letters 12), with lengths
bounded on both sides.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .audio_arrays import average_channels
from .audio_resampling import resample_audio
from .log_mel import LogMel
from .windows import LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S, Window

# A vector of CLAP is of two frames, and heard from one before them to one behind them.
FRAMES_PER_SECOND, FRAMES_PER_VECTOR = 4, 2
# Bands of the log-mel shape, their highest edge in Hz, and what counts as nothing in one, dB of full scale.
NUM_BANDS, HIGHEST_HZ, BAND_FLOOR_DB = 32, 8000.0, -100.0
WINDOW_S = 0.032
# Weights: 10 dB in all bands are as far as 1; vectors of CLAP at right angles as far as 3 * sqrt(2).
DB_SCALE, CLAP_SCALE = 10.0, 3.0
# What a boundary costs, in squared distance times seconds: with CLAP's vectors, and without.
BOUNDARY_COST, BOUNDARY_COST_WITHOUT_CLAP = 5.0, 2.0
# What each frame of a long silence costs in a segment with sound.
MIXING_COST = 1e4

Embed = Callable[[list[np.ndarray]], Any]


class ChangeSegments:
    """Segments between changes of the sound; a segmenter as [`~windows.FixedWindows`] is one.

    Args:
        sampling_rate: of the recording, Hz.
        embed: from clips, each float32 (channels, num_samples) at that rate, to their CLAP vectors (n, C), each of
            length 1; None decides by level and spectrum alone, for captioners that read no CLAP vector.
        shortest_s: no segment is shorter, unless the recording is.
        longest_s: none is longer; nothing is decided later than this behind its end.
        silence_dbfs: peak below which a frame is silent, dB of full scale; None knows no silence.
        boundary_cost: higher gives fewer boundaries; None is what fits with or without CLAP.

    Raises:
        ValueError: a length or a rate that cannot be, or a longest length of less than twice the shortest.
    """

    def __init__(
        self,
        sampling_rate: int,
        embed: Embed | None = None,
        *,
        shortest_s: float = SHORTEST_SEGMENT_S,
        longest_s: float = LONGEST_SEGMENT_S,
        silence_dbfs: float | None = -70.0,
        boundary_cost: float | None = None,
    ):
        check_arguments(sampling_rate, shortest_s, longest_s, silence_dbfs, boundary_cost)
        self._rate = int(sampling_rate)
        self._shortest = math.ceil(shortest_s * FRAMES_PER_SECOND - 1e-6)
        self._longest = math.floor(longest_s * FRAMES_PER_SECOND + 1e-6)
        if self._longest < 2 * self._shortest:
            raise ValueError(
                f"Got `longest_s`={longest_s:g} with `shortest_s`={shortest_s:g}; expected at least twice the "
                f"shortest, in steps of {1 / FRAMES_PER_SECOND:g} s."
            )
        default = BOUNDARY_COST_WITHOUT_CLAP if embed is None else BOUNDARY_COST
        self._boundary_cost = (default if boundary_cost is None else boundary_cost) * FRAMES_PER_SECOND
        self._embed, self._describe = embed, BandLevels(sampling_rate)
        self._silent_peak = 0.0 if silence_dbfs is None else 10 ** (silence_dbfs / 20)
        self._begin(0)

    def skip_to(self, sample: int) -> int:
        """Go on with the segment that begins at `sample`, which was a boundary.

        Returns:
            the first sample to feed.
        """
        self._begin(round(sample * FRAMES_PER_SECOND / self._rate))
        return self._find_place(self._first_frame)

    def feed(self, samples: np.ndarray) -> list[Window]:
        """Take the next samples (channels, num_samples); returns the segments that are decided by them."""
        decided, position = [], 0
        while position < samples.shape[1]:
            missing = self._find_place(self._num_frames + 1) - self._received - self._waiting_length
            taken = samples[:, position : position + missing]
            position += taken.shape[1]
            self._waiting.append(taken.copy())  # which keeps no block alive
            self._waiting_length += taken.shape[1]
            if taken.shape[1] == missing:
                self._add_frame()
                if self._num_undecided == self._longest + self._shortest:
                    decided.append(self._take_segment(self._cut()))
        return decided

    def finish(self) -> list[Window]:
        """The segments of what is left."""
        has_part = self._waiting_length > 0
        if has_part:
            self._add_frame()
        self._add_clips(is_end=True)
        decided = []
        while self._num_undecided > 0:
            decided.append(self._take_segment(self._cut(is_end=True, has_part=has_part)))
        return decided

    @property
    def needed_from(self) -> int:
        """First sample that a segment may still hold."""
        return self._find_place(self._start)

    # What is kept: of frames from `_start` on what was measured, and the samples of those that a clip still needs.

    def _begin(self, start: int) -> None:
        """Forget everything; the next segment begins with the frame `start`."""
        self._start = start
        self._next_vector = start // FRAMES_PER_VECTOR
        self._first_frame = self._num_frames = max(0, self._next_vector * FRAMES_PER_VECTOR - 1)
        self._received = self._find_place(self._first_frame)
        self._waiting, self._waiting_length = [], 0  # samples of the next frame
        self._recent: list[np.ndarray] = []  # the frames of the next clip, from the last one before its middle on
        self._levels: list[np.ndarray] = []
        self._silent: list[bool] = []
        self._clips: list[np.ndarray | None] = []
        self._vectors: list[np.ndarray] = []
        self._first_vector = self._next_vector

    def _find_place(self, frame: int) -> int:
        """First sample of a frame: multiplied and rounded half up, so that no error adds up."""
        return (2 * frame * self._rate + FRAMES_PER_SECOND) // (2 * FRAMES_PER_SECOND)

    @property
    def _num_undecided(self) -> int:
        return self._num_frames - self._start

    def _add_frame(self) -> None:
        """Measure the frame that is complete."""
        frame = np.concatenate(self._waiting, axis=1) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting, self._waiting_length = [], 0
        self._received += frame.shape[1]
        if self._num_frames >= self._start:
            self._levels.append(self._describe(frame))
            self._silent.append(max(float(frame.max()), -float(frame.min())) < self._silent_peak)
        self._num_frames += 1
        if self._embed is not None:
            self._recent.append(frame)
            self._add_clips()

    def _add_clips(self, is_end: bool = False) -> None:
        """Put clips aside whose frames are there; at the end, also those that have fewer behind them."""
        if self._embed is None:
            return
        while True:
            middle = self._next_vector * FRAMES_PER_VECTOR
            first, last = max(0, middle - 1), middle + FRAMES_PER_VECTOR + 1  # frames of the clip
            if self._num_frames < last and not (is_end and middle < self._num_frames):
                return
            held_from = self._num_frames - len(self._recent)
            self._clips.append(np.concatenate(self._recent[first - held_from : last - held_from], axis=1))
            self._next_vector += 1
            del self._recent[: last - 2 - held_from]

    def _embed_clips(self) -> None:
        """Embed the clips that were put aside; silence is the zero vector."""
        clips, self._clips = self._clips, []
        peaks = [max(float(clip.max()), -float(clip.min())) for clip in clips]
        heard = [i for i, peak in enumerate(peaks) if peak >= self._silent_peak]
        vectors: list[Any] = [None] * len(clips)
        if heard:
            found = np.asarray(self._embed([clips[i] for i in heard]), dtype=np.float64)
            if found.ndim != 2 or len(found) != len(heard):
                raise ValueError(
                    f"`embed` gave vectors of shape {found.shape} for {len(heard)} clips; expected (n, C)."
                )
            for i, vector in zip(heard, found, strict=True):
                vectors[i] = vector
        self._vectors += vectors

    def _take_segment(self, length: int) -> Window:
        """Decide a segment of `length` frames and forget what was kept for it."""
        start, end = self.needed_from, min(self._find_place(self._start + length), self._received)
        self._start += length
        del self._levels[:length], self._silent[:length]
        first_vector = self._start // FRAMES_PER_VECTOR
        del self._vectors[: first_vector - self._first_vector]
        self._first_vector = first_vector
        return Window(start, end, start, end)

    def _cut(self, is_end: bool = False, has_part: bool = False) -> int:
        """Frames of the first of the segments that the undecided frames are cut into."""
        if self._clips:
            self._embed_clips()
        frames = self._join_features()
        if is_end and len(frames) <= self._shortest:
            return len(frames)
        apart = mark_long_runs(self._silent, self._shortest)
        # Of what may still go on, the last segment has any length; where it is the only one, it is cut at the longest.
        last = (self._shortest + has_part, self._longest) if is_end else (1, len(frames))
        lengths = cut_frames(frames, apart, self._boundary_cost, (self._shortest, self._longest), last)
        return min(lengths[0], self._longest)

    def _join_features(self) -> np.ndarray:
        """What frames are compared by, float64 (frames, features)."""
        levels = np.stack(self._levels).astype(np.float64) / (DB_SCALE * math.sqrt(NUM_BANDS))
        known = [vector for vector in self._vectors if vector is not None]
        if not known:
            return levels
        silence = np.zeros_like(known[0])
        vectors = np.stack([silence if vector is None else vector for vector in self._vectors])
        numbers_of_frames = np.arange(self._start, self._num_frames) // FRAMES_PER_VECTOR - self._first_vector
        return np.concatenate([levels, CLAP_SCALE * vectors[numbers_of_frames.clip(max=len(vectors) - 1)]], axis=1)


class BandLevels:
    """The shape of a frame's spectrum: the level in each mel band, dB of full scale whatever the sampling rate.

    Args:
        sampling_rate: Hz.
    """

    def __init__(self, sampling_rate: int):
        n_fft = max(16, round(WINDOW_S * sampling_rate))
        self._log_mel = LogMel(sampling_rate, n_fft // 2, n_fft, NUM_BANDS, 0.0, min(HIGHEST_HZ, sampling_rate / 2))
        # The power of a full spectrum, over the power of the samples under the window.
        self._offset_db = 10 * math.log10(n_fft * torch.hann_window(n_fft).square().sum().item() / 2)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """float32 (channels, num_samples) -> (bands,)."""
        mono = torch.from_numpy(frame.mean(axis=0, dtype=np.float32))
        levels = self._log_mel(mono).mean(dim=0) - self._offset_db
        return levels.clamp(min=BAND_FLOOR_DB).numpy()


def make_embed(processor: Any, sampling_rate: int) -> Embed | None:
    """What embeds clips of a recording with a processor's CLAP tower; None where it has none."""
    tower, extractor = processor.clap_encoder, processor.feature_extractor
    if tower is None:
        return None

    def embed(clips: list[np.ndarray]) -> torch.Tensor:
        windows = []
        for clip in clips:
            mono = resample_audio(average_channels(clip.T), sampling_rate, extractor.clap_sampling_rate)
            windows.append(extractor.prepare_clap_windows(torch.from_numpy(mono).to(tower.device))[0][:1])
        return tower.embed(torch.stack(windows), torch.zeros(len(windows), 1, dtype=torch.bool))

    return embed


def mark_long_runs(flags: list[bool], shortest: int) -> np.ndarray:
    """Where flags are True at least `shortest` times in a row: bool (frames,)."""
    marked, run = np.zeros(len(flags), dtype=bool), 0
    for i, flag in enumerate([*flags, False]):
        if not flag:
            if run >= shortest:
                marked[i - run : i] = True
            run = 0
        else:
            run += 1
    return marked


def cut_frames(
    frames: np.ndarray, apart: np.ndarray, boundary_cost: float, bounds: tuple[int, int], last_bounds: tuple[int, int]
) -> list[int]:
    """Cut a sequence at least cost.

    Args:
        frames: float64 (frames, features).
        apart: bool (frames,); those that are True belong in segments of their own.
        boundary_cost: of each boundary, in squared distance.
        bounds: the fewest and most frames of a segment.
        last_bounds: of the last one.
    Returns:
        the lengths of the segments.
    """
    num_frames = len(frames)
    sums = np.concatenate([np.zeros((1, frames.shape[1])), frames.cumsum(axis=0)])
    squares = np.concatenate([[0.0], (frames**2).sum(axis=1).cumsum()])
    counts = np.concatenate([[0], apart.cumsum()])
    best, previous = np.full(num_frames + 1, np.inf), np.zeros(num_frames + 1, dtype=int)
    best[0] = -boundary_cost
    for end in range(1, num_frames + 1):
        shortest, longest = last_bounds if end == num_frames else bounds
        starts = np.arange(max(0, end - longest), end - shortest + 1)
        if not len(starts):
            continue
        lengths, marked = end - starts, counts[end] - counts[starts]
        spread = squares[end] - squares[starts] - ((sums[end] - sums[starts]) ** 2).sum(axis=1) / lengths
        costs = best[starts] + spread + boundary_cost + MIXING_COST * np.where(marked < lengths, marked, 0)
        least_cost = int(costs.argmin())
        best[end], previous[end] = costs[least_cost], starts[least_cost]
    lengths, end = [], num_frames
    while end:
        lengths.append(end - int(previous[end]))
        end = int(previous[end])
    return lengths[::-1]


def check_arguments(sampling_rate, shortest_s, longest_s, silence_dbfs, boundary_cost) -> None:
    """Refuse what cannot be."""
    if not is_number(sampling_rate) or sampling_rate != int(sampling_rate) or sampling_rate < FRAMES_PER_SECOND:
        raise ValueError(
            f"Got `sampling_rate`={sampling_rate!r}; expected a whole number of Hz, {FRAMES_PER_SECOND} or more."
        )
    for name, value in (("shortest_s", shortest_s), ("longest_s", longest_s)):
        if not is_number(value) or value <= 0:
            raise ValueError(f"Got `{name}`={value!r}; expected a positive number of seconds.")
    if silence_dbfs is not None and not (is_number(silence_dbfs) and silence_dbfs <= 0):
        raise ValueError(f"Got `silence_dbfs`={silence_dbfs!r}; expected dB of full scale, 0 or below, or None.")
    if boundary_cost is not None and not (is_number(boundary_cost) and boundary_cost > 0):
        raise ValueError(f"Got `boundary_cost`={boundary_cost!r}; expected a positive number, or None.")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
