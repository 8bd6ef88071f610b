"""Which clips make a training batch, and the key of each clip's own randomness.

Distinctive choices:
- An epoch is one order of clips, drawn from seed and epoch alone. Processes and gradient accumulation cut that order
  into pieces, so the clips of a step are the same however a batch is split.
- A clip's crop, hidden codes and caption are drawn from (seed, epoch, index): not from the batch it is in, the worker
  that reads it or the steps before it. A run that is taken up again therefore goes on with the same numbers.

        order of an epoch    | process 0 | process 1 | process 0 | process 1 | ...
                             |   round 0: one batch  |   round 1             |
                             |   each                |                       |
                             |<-------- one step of 2 processes x 2 accumulated batches -------->|
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

# Keeps the draws for the order of clips apart from those of the clips themselves.
_ORDER_STREAM, _MIXTURE_STREAM = 1_000_001, 1_000_002
# In a clip's key, evaluation stands where training has its epoch, counted from 1.
_EVALUATION = 0
# Clips of this many steps are sorted by length together: enough for little padding, few enough to stay random.
_STEPS_SORTED_TOGETHER = 50
_CLIPS_SORTED_TOGETHER = 4096

STRATEGIES = ("random", "group_by_length", "sequential")


class KeyedClips(torch.utils.data.Dataset):
    """A data set whose clips carry `rng_key`, the key of their own randomness.

    Args:
        clips: a data set of dicts. If it has a method `draw(index, rng)`, that is asked, else `clips[index]`.
        seed: the run's seed.
    """

    def __init__(self, clips: Sequence, seed: int):
        self.clips, self.seed = clips, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: int | tuple[int, int]) -> dict:
        """The clip of (index, epoch), or of an index alone in evaluation."""
        index, epoch = draw if isinstance(draw, tuple) else (draw, None)
        key = (self.seed, _EVALUATION if epoch is None else epoch + 1, index)
        if epoch is not None and hasattr(self.clips, "draw"):
            clip = self.clips.draw(index, np.random.default_rng((*key, 1)))
        else:
            clip = self.clips[index]
        return {**clip, "rng_key": key}


def draw_epoch(sizes: Sequence[int], weights: Sequence[float] | None, seed: int, epoch: int) -> np.ndarray:
    """Choose the clips of one epoch out of several data sets that lie one behind the other.

    An epoch has as many clips as all data sets together; each gives its share, going through its own clips in a random
    order, again and again, and in the next epoch from where it stopped.

    Args:
        sizes: clips in each data set.
        weights: share of each data set in an epoch, in any scale; None takes every clip once.
        seed: the run's seed.
        epoch: from 0.
    Returns:
        int64 indices (sum(sizes),) into the concatenation, in no particular order.
    Raises:
        ValueError: not one positive weight for each data set.
    """
    if weights is None:
        return np.arange(sum(sizes))
    if len(weights) != len(sizes) or not all(weight > 0 for weight in weights):
        raise ValueError(
            f"Got the weights {list(weights)} for {len(sizes)} data sets; expected a positive one for each."
        )
    # Rounding the running sums, not the shares, so that the counts add up.
    ends = np.round(np.cumsum([0.0, *weights]) / sum(weights) * sum(sizes)).astype(int)
    parts, offset = [], 0
    for part, (size, count) in enumerate(zip(sizes, np.diff(ends), strict=True)):
        rounds, places = np.divmod(np.arange(epoch * count, (epoch + 1) * count), size)
        chosen = np.empty(count, dtype=np.int64)
        for turn in np.unique(rounds):
            order = np.random.default_rng((seed, _MIXTURE_STREAM, part, int(turn))).permutation(size)
            chosen[rounds == turn] = order[places[rounds == turn]]
        parts.append(offset + chosen)
        offset += size
    return np.concatenate(parts)


class ClipBatchSampler(torch.utils.data.Sampler):
    """Yields this process's batches of an epoch, as lists of (index, epoch).

    Set `epoch` before each pass. Every process gets the same number of batches. At the end of an epoch, fewer clips
    than processes are left out of it; with `max_frames`, also the batches beyond the number that the first epoch had,
    about one clip in a hundred, others in each epoch.

    Args:
        sizes: clips in each data set of the concatenation.
        batch_size: clips in one process's batch.
        seed: the run's seed.
        lengths: codec frames T of every clip; needed to group by length and for `max_frames`.
        strategy: "random", "group_by_length" (clips of similar length in a step) or "sequential".
        max_frames: token budget: a batch has as many clips as fit when each is padded to the longest, whatever
            `batch_size` says; a longer clip is a batch of its own.
        weights: see [`draw_epoch`].
        accumulation_steps: batches of one process in an optimiser step.
        num_processes: processes that train.
        process_index: this process.
        drop_last: leave out the clips at the end that do not fill a step.

    Raises:
        ValueError: an unknown strategy, lengths that are missing, or fewer clips than processes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        lengths: Sequence[int] | None = None,
        strategy: str = "random",
        max_frames: int | None = None,
        weights: Sequence[float] | None = None,
        accumulation_steps: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
        drop_last: bool = False,
    ):
        if strategy not in STRATEGIES:
            raise ValueError(f"Got the sampling strategy {strategy!r}; expected one of {', '.join(STRATEGIES)}.")
        if lengths is None and (strategy == "group_by_length" or max_frames is not None):
            raise ValueError(
                "Grouping by length and a budget of frames need `lengths`, the codec frames of every clip."
            )
        if sum(sizes) < num_processes:
            raise ValueError(
                f"Got {sum(sizes)} training clips for {num_processes} processes; expected one each at least."
            )
        self.sizes, self.batch_size, self.seed, self.weights = list(sizes), batch_size, seed, weights
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.strategy, self.max_frames, self.drop_last = strategy, max_frames, drop_last
        self.accumulation_steps, self.num_processes, self.process_index = (
            accumulation_steps,
            num_processes,
            process_index,
        )
        self.epoch = 0
        self._num_batches = None  # of all processes; an epoch of other clips is fitted to the first one's number
        self._num_batches = len(self._split_epoch(0))

    def __len__(self) -> int:
        return self._num_batches // self.num_processes

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        for batch in self._split_epoch(epoch)[self.process_index :: self.num_processes]:
            yield [(int(index), epoch) for index in batch]

    def _split_epoch(self, epoch: int) -> list[np.ndarray]:
        """Batches of all processes, round by round."""
        rng = np.random.default_rng((self.seed, _ORDER_STREAM, epoch))
        order = draw_epoch(self.sizes, self.weights, self.seed, epoch)
        if self.strategy != "sequential":
            order = rng.permutation(order)
        if self.max_frames is not None:
            return self._fit_number(self._cut_by_frames(order, rng), rng)
        if self.strategy == "group_by_length":
            order = self._group_by_length(order, rng)
        return self._cut_by_number(order)

    def _group_by_length(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sort stretches of the order by length and shuffle their steps, the one of the longest clip first."""
        step = self.batch_size * self.num_processes * self.accumulation_steps
        stretch = step * _STEPS_SORTED_TOGETHER
        order = np.concatenate([self._sort(order[i : i + stretch]) for i in range(0, len(order), stretch)])
        num_steps = len(order) // step
        steps, rest = order[: num_steps * step].reshape(num_steps, step), order[num_steps * step :]
        if num_steps:
            steps = rng.permutation(steps)
            longest = int(self.lengths[steps].max(axis=1).argmax())
            steps[[0, longest]] = steps[[longest, 0]]  # memory runs out at once or never
        return np.concatenate([steps.ravel(), rest])

    def _sort(self, indices: np.ndarray) -> np.ndarray:
        """Longest first; clips of one length stay in their random order."""
        return indices[np.argsort(-self.lengths[indices], kind="stable")]

    def _cut_by_number(self, order: np.ndarray) -> list[np.ndarray]:
        """Batches of `batch_size`; what is left at the end is shared out evenly among the processes."""
        round_size = self.batch_size * self.num_processes
        step = round_size * self.accumulation_steps
        if self.drop_last:
            order = order[: len(order) // step * step]
        full = len(order) // round_size * round_size
        batches = [order[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
        rest = order[full:]
        return batches + (np.array_split(rest, self.num_processes) if len(rest) >= self.num_processes else [])

    def _cut_by_frames(self, order: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Batches of similar lengths within the budget of frames, in random order."""
        batches = []
        for start in range(0, len(order), _CLIPS_SORTED_TOGETHER):
            clips = order[start : start + _CLIPS_SORTED_TOGETHER]
            clips = clips if self.strategy == "sequential" else self._sort(clips)
            first, longest = 0, 0
            for i, index in enumerate(clips):
                longest = max(longest, int(self.lengths[index]))
                if i > first and longest * (i - first + 1) > self.max_frames:
                    batches.append(clips[first:i])
                    first, longest = i, int(self.lengths[index])
            batches.append(clips[first:])
        return batches if self.strategy == "sequential" else [batches[i] for i in rng.permutation(len(batches))]

    def _fit_number(self, batches: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """As many batches as the first epoch had, a multiple of the processes: Trainer counts an epoch's steps once."""
        wanted = self._num_batches or -(-len(batches) // self.num_processes) * self.num_processes
        while len(batches) < wanted:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            if len(batches[largest]) < 2:
                batches.append(batches[int(rng.integers(len(batches)))])  # nothing left to split
                continue
            halves = np.array_split(batches[largest], 2)
            batches[largest] = halves[0]
            batches.append(halves[1])
        return batches[:wanted]
