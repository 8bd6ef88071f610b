"""Building blocks for synthetic sounds: tones, shaped noise, decaying partials, grains and repeats.

All functions work on one channel at `SAMPLING_RATE` Hz and draw only from the generator that they are given, so a seed
fixes the sound. Work that grows with the clip is done by numpy and scipy; python loops run over notes and strokes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy  # its parts load when they are first used, so that `enclap --help` stays quick

SAMPLING_RATE = 24000


@dataclass(frozen=True)
class Sound:
    """One synthesised event: `audio` (n,) at `SAMPLING_RATE`, and the times in s of its counted strokes, if any."""

    audio: np.ndarray
    onsets_s: tuple[float, ...] = ()


def samples(duration_s: float) -> int:
    """Return how many samples `duration_s` seconds are, at least one."""
    return max(1, int(round(duration_s * SAMPLING_RATE)))


def times(duration_s: float) -> np.ndarray:
    """Return the time of each sample in s, shape (n,)."""
    return np.arange(samples(duration_s)) / SAMPLING_RATE


def control_curve(rng: np.random.Generator, num_samples: int, rate_hz: float, low: float, high: float) -> np.ndarray:
    """Return a slow random curve between `low` and `high` with `rate_hz` new values a second, shape (n,)."""
    knots = max(2, int(np.ceil(num_samples / SAMPLING_RATE * rate_hz)) + 2)
    values = rng.uniform(low, high, knots)
    positions = np.arange(num_samples) * (rate_hz / SAMPLING_RATE) + rng.uniform(0, 1)
    return np.interp(positions, np.arange(knots), values)


def glide(points: Sequence[tuple[float, float]], num_samples: int) -> np.ndarray:
    """Return the line through (position 0 to 1, value) points, shape (n,)."""
    positions, values = zip(*points, strict=True)
    return np.interp(np.linspace(0, 1, num_samples), positions, values)


def fade(audio: np.ndarray, attack_s: float = 0.01, release_s: float = 0.02) -> np.ndarray:
    """Return `audio` (n,) with raised-cosine edges, so that it neither starts nor ends with a click."""
    audio = np.array(audio, dtype=np.float64)
    for length, edge in ((attack_s, slice(None)), (release_s, slice(None, None, -1))):
        span = min(samples(length), len(audio))
        audio[edge][:span] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(span) / span)
    return audio


def harmonic_tone(
    f0_hz: np.ndarray | float, amplitudes: Sequence[float] | np.ndarray, num_samples: int | None = None
) -> np.ndarray:
    """Return a tone with harmonics 1, 2, ... of the given amplitudes, read from a wave table.

    Args:
        f0_hz: pitch, a curve (n,) or one value with `num_samples`.
        amplitudes: one a harmonic. Those that would pass 11 kHz are left out, or they would alias.
        num_samples: length n where `f0_hz` is one value.
    Returns:
        float64 array (n,), peak 1.
    """
    f0 = np.full(cast(int, num_samples), float(f0_hz)) if np.ndim(f0_hz) == 0 else np.asarray(f0_hz)
    keep = max(1, int(11000 / f0.max()))
    gains = np.asarray(amplitudes, dtype=np.float64)[:keep]
    table_size = 4096
    spectrum = np.zeros(table_size // 2 + 1, dtype=complex)
    # Alternating phases keep the crest low, so that many harmonics sound steady and not like clicks.
    ranks = np.arange(1, len(gains) + 1)
    spectrum[1 : len(gains) + 1] = gains * np.exp(1j * np.pi * ranks * (ranks - 1) / max(1, len(ranks)))
    table = np.fft.irfft(spectrum, table_size)
    table /= np.abs(table).max() + 1e-12
    phase = np.cumsum(f0) * (table_size / SAMPLING_RATE)
    return table[phase.astype(np.int64) & (table_size - 1)]


def falling_harmonics(count: int, slope: float, odd_only: bool = False) -> np.ndarray:
    """Return `count` amplitudes k ** -slope, without the even ones if asked."""
    ranks = np.arange(1, count + 1)
    return ranks**-slope * ((ranks % 2 == 1) if odd_only else 1.0)


def vowel_harmonics(f0_hz: float, formants: Sequence[tuple[float, float, float]], slope: float = 0.7) -> np.ndarray:
    """Return the harmonic amplitudes of a voice at `f0_hz` with (centre Hz, width Hz, gain) formants."""
    ranks = np.arange(1, int(8000 / f0_hz) + 1)
    gains = np.full(len(ranks), 0.01)
    for centre, width, gain in formants:
        gains += gain / (1 + ((ranks * f0_hz - centre) / width) ** 2)
    return gains * ranks**-slope


def voiced(f0_hz: np.ndarray, vowels: Sequence[Sequence[tuple[float, float, float]]], slope: float = 0.7) -> np.ndarray:
    """Return a voice on the pitch curve `f0_hz` (n,) that glides through `vowels` from first to last."""
    tones = [harmonic_tone(f0_hz, vowel_harmonics(float(np.mean(f0_hz)), vowel, slope)) for vowel in vowels]
    if len(tones) == 1:
        return tones[0]
    position = np.linspace(0, len(tones) - 1, len(f0_hz))
    return sum(tone * np.clip(1 - np.abs(position - index), 0, 1) for index, tone in enumerate(tones))


def shaped_noise(rng: np.random.Generator, num_samples: int, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return Gaussian noise of RMS 1 whose level follows (Hz, dB) points on a log frequency axis, shape (n,)."""
    size = scipy.fft.next_fast_len(num_samples, real=True)
    hz, db = zip(*points, strict=True)
    coarse_hz = np.geomspace(10, SAMPLING_RATE / 2, 128)
    coarse_gain = 10 ** (np.interp(np.log(coarse_hz), np.log(hz), db) / 20)
    gain = np.interp(scipy.fft.rfftfreq(size, 1 / SAMPLING_RATE), coarse_hz, coarse_gain).astype(np.float32)
    spectrum = rng.standard_normal(2 * len(gain), dtype=np.float32).view(np.complex64) * gain
    noise = scipy.fft.irfft(spectrum, size)[:num_samples]
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-12)


def band_noise(rng: np.random.Generator, num_samples: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return noise of RMS 1 between two frequencies, with skirts of about 24 dB an octave, shape (n,)."""
    points = ((low_hz / 4, -48), (low_hz, 0), (high_hz, 0), (min(high_hz * 4, 46000), -48))
    return shaped_noise(rng, num_samples, points)


def partials(rng: np.random.Generator, duration_s: float, modes: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """Return a struck body: decaying sines given as (Hz, amplitude, decay time constant in s), shape (n,)."""
    t = times(duration_s)
    out = np.zeros(len(t))
    for hz, amplitude, decay_s in modes:
        # Past seven time constants a mode is inaudible.
        stop = min(len(t), samples(7 * decay_s))
        out[:stop] += amplitude * np.exp(-t[:stop] / decay_s) * np.sin(2 * np.pi * hz * t[:stop] + rng.uniform(0, 0.5))
    return out


def noise_burst(rng: np.random.Generator, low_hz: float, high_hz: float, decay_s: float) -> np.ndarray:
    """Return a band of noise that starts at once and dies away with time constant `decay_s`, peak 1."""
    t = times(6 * decay_s)
    burst = band_noise(rng, len(t), low_hz, high_hz) * np.exp(-t / decay_s) * np.minimum(1, t / 0.001)
    return burst / (np.abs(burst).max() + 1e-12)


def add_at(out: np.ndarray, start_s: float, piece: np.ndarray, gain: float = 1.0) -> None:
    """Add `piece` into `out` at `start_s`, cut off at the end of `out`."""
    start = int(round(start_s * SAMPLING_RATE))
    stop = min(len(out), start + len(piece))
    if 0 <= start < stop:
        out[start:stop] += gain * piece[: stop - start]


def mix(*pieces: np.ndarray) -> np.ndarray:
    """Return the sum of pieces of different lengths, all starting together."""
    out = np.zeros(max(len(piece) for piece in pieces))
    for piece in pieces:
        out[: len(piece)] += piece
    return out


def scatter(
    rng: np.random.Generator, out: np.ndarray, bank: Sequence[np.ndarray], rate_hz: float, spread_db: float
) -> np.ndarray:
    """Add grains of `bank` into `out` (n,) at random times, `rate_hz` a second, levels spread by `spread_db`."""
    count = rng.poisson(rate_hz * len(out) / SAMPLING_RATE)
    starts = rng.integers(0, len(out), count)
    choices = rng.integers(0, len(bank), count)
    gains = 10 ** (rng.uniform(-spread_db, 0, count) / 20)
    for start, choice, gain in zip(starts.tolist(), choices.tolist(), gains.tolist(), strict=True):
        grain = bank[choice][: len(out) - start]
        out[start : start + len(grain)] += gain * grain
    return out


def beat_times(rng: np.random.Generator, duration_s: float, period_s: float, jitter: float = 0.0) -> np.ndarray:
    """Return times in s that are `period_s` apart, each moved by up to `jitter` periods."""
    beats = np.arange(0.0, max(duration_s - 0.05, 0.01), period_s)
    return np.maximum(0, beats + rng.uniform(-jitter, jitter, len(beats)) * period_s)


def lowpass(audio: np.ndarray, cutoff_hz: float, order: int = 2) -> np.ndarray:
    """Return `audio` (n,) through a Butterworth low-pass."""
    return scipy.signal.sosfilt(scipy.signal.butter(order, cutoff_hz, fs=SAMPLING_RATE, output="sos"), audio)


def add_room(rng: np.random.Generator, audio: np.ndarray, decay_s: float, wet_db: float) -> np.ndarray:
    """Return `audio` (n,) in a small room: an exponential noise tail `wet_db` below the direct sound."""
    tail = rng.standard_normal(samples(4 * decay_s)) * np.exp(-times(4 * decay_s) / decay_s)
    tail *= 10 ** (wet_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    size = scipy.fft.next_fast_len(len(audio) + len(tail), real=True)
    wet = scipy.fft.irfft(
        scipy.fft.rfft(audio.astype(np.float32), size) * scipy.fft.rfft(tail.astype(np.float32), size), size
    )
    return wet[: len(audio)].astype(np.float64)


def repeated(
    make_strokes: Callable[[np.random.Generator, int], list[np.ndarray]], period_s: tuple[float, float]
) -> Callable[..., Sound]:
    """Turn a maker of single strokes into a synthesiser that places an exact number of them.

    Args:
        make_strokes: called with a generator and a count, returns that many strokes of one source.
        period_s: lowest and highest time between two strokes in s.
    Returns:
        a function (rng, duration_s, count) -> `Sound`. With count None it fills the duration.
    """

    def synthesize(rng: np.random.Generator, duration_s: float, count: int | None = None) -> Sound:
        period = rng.uniform(*period_s)
        if count is None:
            count = max(1, 1 + int((duration_s - period_s[1]) / period))
        strokes = make_strokes(rng, count)
        starts = np.arange(count) * period + rng.uniform(0, 0.08, count) * period * (np.arange(count) > 0)
        end_s = max(start + len(stroke) / SAMPLING_RATE for start, stroke in zip(starts, strokes, strict=True))
        out = np.zeros(samples(min(end_s, max(duration_s, starts[-1] + 0.5 * period))))
        for start, stroke in zip(starts, strokes, strict=True):
            add_at(out, start, stroke)
        return Sound(out, tuple(float(start) for start in starts))

    return synthesize


def steady(make_audio: Callable[[np.random.Generator, float], np.ndarray]) -> Callable[..., Sound]:
    """Turn a maker of audio (rng, duration_s) -> (n,) into a synthesiser without counted strokes."""

    def synthesize(rng: np.random.Generator, duration_s: float, count: int | None = None) -> Sound:
        return Sound(make_audio(rng, duration_s))

    return synthesize
