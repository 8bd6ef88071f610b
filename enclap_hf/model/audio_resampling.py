"""Resampling of one clip to another rate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .audio_arrays import as_whole_number
from .audio_errors import AudioLoadError, audio_error, shorten_reason
from .audio_memory import check_memory


def resample_audio(samples: np.ndarray, from_rate: int, to_rate: int, *, name: str | None = None) -> np.ndarray:
    """Resample a mono clip with soxr at its HQ setting.

    Args:
        samples: float array (num_samples,).
        from_rate: sampling rate of `samples`, Hz.
        to_rate: wanted sampling rate, Hz.
        name: what error messages call the clip.
    Returns:
        float32 array of about num_samples * to_rate / from_rate samples, never fewer than one; `samples` themselves
        where the rates are equal and they are float32 already.
    Raises:
        ValueError: `samples` is not a non-empty one-dimensional float array, or a rate is not a positive whole number.
        AudioLoadError: soxr is needed and not installed, or fails on these samples, or memory does not suffice.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind != "f":
        raise ValueError(
            f"Got samples of shape {samples.shape} and dtype {samples.dtype}; expected floats of shape "
            "(num_samples,), at least one. `load_audio` makes them from any clip."
        )
    for argument, rate in (("from_rate", from_rate), ("to_rate", to_rate)):
        if as_whole_number(rate) is None or rate <= 0:
            raise ValueError(f"Got `{argument}` {rate!r}; expected a positive whole number of Hz.")
    label = f"`{name}`" if name else f"clip of {len(samples) / from_rate:.0f} s"
    samples = samples.astype(np.float32, copy=False)
    if from_rate == to_rate:
        return samples
    soxr = import_soxr()
    check_memory(4 * len(samples) * to_rate / from_rate, label, f"resampling it to {to_rate} Hz")
    with _resampling(label, to_rate):
        resampled = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    # soxr rounds a clip shorter than half an output sample down to nothing; a clip that exists stays one.
    return resampled if resampled.size else samples.mean(keepdims=True)


def resample_blocks(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int, label: str) -> Iterator[np.ndarray]:
    """Resample a mono clip that comes in blocks, to the very samples that [`resample_audio`] makes of the whole.

    Args:
        blocks: float32 (num_samples,) each, in order.
        from_rate: their sampling rate, Hz.
        to_rate: wanted sampling rate, Hz.
        label: what error messages call the clip.
    Raises:
        AudioLoadError: soxr is needed and not installed, or fails on these samples.
    """
    if from_rate == to_rate:
        yield from blocks
        return
    resampler = import_soxr().ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        with _resampling(label, to_rate):
            resampled = resampler.resample_chunk(block)
        if resampled.size:
            yield resampled
    with _resampling(label, to_rate):
        resampled = resampler.resample_chunk(np.empty(0, np.float32), last=True)
    if resampled.size:
        yield resampled


def import_soxr() -> Any:
    """The module, when it is first needed.

    Raises:
        AudioLoadError: it is not installed.
    """
    try:
        import soxr
    except ImportError:
        raise AudioLoadError("Resampling needs soxr, which is not installed. Run: pip install soxr") from None
    return soxr


@contextlib.contextmanager
def _resampling(label: str, to_rate: int) -> Iterator[None]:
    """Turn what soxr raises for one clip into an error that names it."""
    try:
        yield
    except MemoryError:
        problem = f"memory does not suffice to resample it to {to_rate} Hz."
        raise audio_error(label, problem, "Split it, or set `max_duration_s`.") from None
    except (RuntimeError, ValueError, OverflowError) as error:
        problem = f"it cannot be resampled to {to_rate} Hz ({shorten_reason(str(error))})."
        raise audio_error(label, problem, "Resample it with another program first.") from None
