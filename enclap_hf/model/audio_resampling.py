"""Resampling of one clip to another rate."""

from __future__ import annotations

import numpy as np

from .audio_arrays import as_whole_number
from .audio_errors import AudioLoadError


def resample_audio(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample a mono clip with soxr at its HQ setting.

    Args:
        samples: float array (num_samples,).
        from_rate: sampling rate of `samples`, Hz.
        to_rate: wanted sampling rate, Hz.
    Returns:
        float32 array of about num_samples * to_rate / from_rate samples, never fewer than one; `samples` themselves
        where the rates are equal and they are float32 already.
    Raises:
        ValueError: `samples` is not a non-empty one-dimensional float array, or a rate is not a positive whole number.
        AudioLoadError: soxr is needed and not installed.
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
    samples = samples.astype(np.float32, copy=False)
    if from_rate == to_rate:
        return samples
    try:
        import soxr
    except ImportError:
        raise AudioLoadError("Resampling needs soxr, which is not installed. Run: pip install soxr") from None
    resampled = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    # soxr rounds a clip shorter than half an output sample down to nothing; a clip that exists stays one.
    return resampled if resampled.size else samples.mean(keepdims=True)
