"""Which parts of a log-mel CLAP sees: a short clip repeated, or of a longer one the whole shrunk and three windows.

A long recording is never held: its samples pass by in blocks, and of its spectrogram the rows stay that are shown.

    mel  |..:..:..:.[:..:..:].:..:..:..[.:..:..].:..:..:..[:..:..:]..:..:.|      : rows of the shrunk picture
                     window 1           window 2           window 3
"""

import mmap
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from .audio_errors import AudioLoadError, audio_error
from .log_mel import LogMel

# Rows kept around each place that the shrunk picture reads, which torch finds in float32.
_MARGIN_ROWS = 3
# A recording whose length differs each time it is read is given up.
MAX_LOOKS = 3


def fill_window(samples: torch.Tensor, length: int) -> torch.Tensor:
    """Repeat a short clip as many whole times as fit, then pad with zeros: (num_samples,) -> (length,)."""
    repeated = samples.repeat(length // len(samples))
    return nn.functional.pad(repeated, (0, length - len(repeated)))


def choose_window_starts(num_frames: int, window_frames: int, rng: np.random.Generator | None = None) -> list[int]:
    """First frames of three windows, one in each third of the possible ones.

    Args:
        num_frames: mel frames of the clip, more than a window has.
        window_frames: mel frames of a window.
        rng: draws each start from its third; without it, the middle one is taken.
    Source: LAION-CLAP draws them with numpy's global generator, also in evaluation.
    """
    thirds = np.array_split(np.arange(num_frames - window_frames + 1), 3)
    thirds = [third if len(third) else np.zeros(1, dtype=int) for third in thirds]
    return [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]


def stack_windows(mel: torch.Tensor, window_frames: int, starts: list[int]) -> torch.Tensor:
    """The whole clip shrunk, and the windows that begin at `starts`: (frames, mel bins) -> (4, window, mel bins)."""
    # Bilinear without antialiasing: the pixels that the published captioners were trained on.
    shrunk = nn.functional.interpolate(
        mel[None, None], size=(window_frames, mel.shape[1]), mode="bilinear", align_corners=False
    )[0, 0]
    return torch.stack([shrunk, *(mel[start : start + window_frames] for start in starts)])


def read_fused_windows(
    look: Callable[[], Iterator[torch.Tensor]],
    log_mel: LogMel,
    window_frames: int,
    expected_samples: int,
    label: str,
    rng: np.random.Generator | None = None,
) -> torch.Tensor:
    """The four windows of a recording that passes by in parts, as [`stack_windows`] makes them of the whole.

    Args:
        look: gives the recording's samples from its start, (num_samples,) each; it may be called again.
        log_mel: of the windows.
        window_frames: mel frames of a window, fewer than the recording has.
        expected_samples: of all parts together; where it is wrong, the recording is read again.
        label: what messages call the recording.
        rng: draws the starts.
    Raises:
        AudioLoadError: it cannot be read, or its length changes while it is read.
    """
    expected = expected_samples // log_mel.hop_length + 1
    for _ in range(MAX_LOOKS):
        before = None if rng is None else rng.bit_generator.state
        starts = choose_window_starts(expected, window_frames, rng)
        mel, found = keep_rows(log_mel.in_blocks(look()), find_shown_rows(expected, window_frames, starts))
        if found == expected:
            return stack_windows(mel, window_frames, starts)
        expected = max(found, window_frames + 1)
        if rng is not None:
            rng.bit_generator.state = before
    raise changing_length_error(label)


def find_shown_rows(num_frames: int, window_frames: int, starts: list[int]) -> np.ndarray:
    """Which rows of a clip's log-mel its windows are made of, and a few around them: bool (num_frames,)."""
    is_shown = np.zeros(num_frames, bool)
    for start in starts:
        is_shown[start : start + window_frames] = True
    places = ((np.arange(window_frames) + 0.5) * (num_frames / window_frames) - 0.5).astype(int)
    for offset in range(-_MARGIN_ROWS, _MARGIN_ROWS + 2):
        is_shown[np.clip(places + offset, 0, num_frames - 1)] = True
    return is_shown


def keep_rows(blocks: Iterator[torch.Tensor], is_kept: np.ndarray) -> tuple[torch.Tensor, int]:
    """A table (len(is_kept), mel bins) with the rows kept of blocks (frames, mel bins), and the number of all rows."""
    table, first = None, 0
    for block in blocks:
        if table is None:
            table = make_sparse_table(len(is_kept), block.shape[1], block.device)
        kept = np.flatnonzero(is_kept[first : first + len(block)])
        chosen = torch.from_numpy(kept).to(block.device)
        table[first + chosen] = block[chosen]
        first += len(block)
    return table, first


def make_sparse_table(num_rows: int, num_columns: int, device: torch.device) -> torch.Tensor:
    """A float32 table which, on the CPU, takes memory where rows are written alone."""
    if device.type != "cpu":
        return torch.empty(num_rows, num_columns, device=device)
    memory = mmap.mmap(-1, 4 * num_rows * num_columns)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # else a row would take 2 MB
    return torch.frombuffer(memory, dtype=torch.float32).view(num_rows, num_columns)


def changing_length_error(label: str) -> AudioLoadError:
    """A file that is written to while it is read, or a decoder that gives other samples each time."""
    return audio_error(label, "its length changes while it is read.", "Wait until it is complete.")
