"""Synthesis of weather, water, fire and animals. Each function draws one random instance of its sound.

Continuous sounds are functions (rng, duration_s) -> (n,); counted ones are functions (rng, count) -> list of strokes.
"""

from __future__ import annotations

import numpy as np

from .sound_synthesis import (
    SAMPLING_RATE,
    add_at,
    add_room,
    band_noise,
    beat_times,
    control_curve,
    fade,
    falling_harmonics,
    glide,
    harmonic_tone,
    mix,
    noise_burst,
    partials,
    samples,
    scatter,
    shaped_noise,
    times,
    voiced,
)


def rain(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Even, high hiss made of hundreds of drops a second."""
    n = samples(duration_s)
    hiss = shaped_noise(rng, n, ((200, -40), (1200, -22), (3500, 0), (6500, 0), (10000, -6)))
    bank = [noise_burst(rng, 2500, 6500, rng.uniform(0.001, 0.003)) for _ in range(12)]
    drops = scatter(rng, np.zeros(n), bank, rng.uniform(70, 130), 14)
    return hiss + 3.0 * drops


def wind(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Gusts of low noise with a howl that wanders between about 250 and 700 Hz."""
    n = samples(duration_s)
    strength = control_curve(rng, n, 1.1, 0.15, 1.0)
    roar = shaped_noise(rng, n, ((40, -4), (150, 0), (400, -6), (900, -22), (3000, -45)))
    # Noise that modulates a gliding tone gives a narrow band whose centre follows the gust.
    slow = shaped_noise(rng, n, ((10, 0), (30, -6), (80, -40)))
    howl = harmonic_tone(260 + 420 * strength + control_curve(rng, n, 4, -20, 20), (1.0,)) * slow
    return strength * (roar + 1.0 * howl)


def thunder(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A crack and a long rolling rumble."""
    n = samples(duration_s)
    t = times(duration_s)
    rolls = sum(
        rng.uniform(0.4, 1.0) * np.exp(-np.maximum(0, t - start) / rng.uniform(0.25, 0.6)) * (t > start)
        for start in (0.0, *rng.uniform(0.15, 0.65 * duration_s, 4))
    )
    rumble = shaped_noise(rng, n, ((25, -4), (60, 0), (130, -3), (300, -18), (1000, -36), (4000, -60)))
    crack = shaped_noise(rng, n, ((100, -6), (500, 0), (2000, -6), (6000, -20))) * np.exp(-t / rng.uniform(0.06, 0.12))
    return fade(rumble * np.minimum(rolls, 1.5) + 1.2 * crack, 0.004, 0.4)


def ocean_waves(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Waves that swell, break and draw back every two to three seconds."""
    n = samples(duration_s)
    within = (times(duration_s) / rng.uniform(1.9, 2.7) + rng.uniform(0, 0.3)) % 1.0
    swell = np.interp(within, (0, 0.45, 0.55, 1.0), (0.06, 0.8, 1.0, 0.06)) ** 1.6
    low = shaped_noise(rng, n, ((60, -10), (200, 0), (800, -3), (2000, -14), (6000, -34)))
    foam = shaped_noise(rng, n, ((300, -24), (1500, 0), (4000, -2), (9000, -12)))
    return swell * low + 0.7 * swell**2 * foam


def bubble(hz: float, rise: float, decay_s: float) -> np.ndarray:
    """One bubble: a sine at `hz` that rises by the factor `rise` while it dies away."""
    t = times(6 * decay_s)
    phase = 2 * np.pi * hz * (t + (rise - 1) * t**2 / (2 * t[-1]))
    return np.sin(phase) * np.exp(-t / decay_s) * np.minimum(1, t / 0.002)


def stream(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Dozens of gurgling bubbles a second between 350 and 1700 Hz."""
    n = samples(duration_s)
    bank = [
        bubble(np.exp(rng.uniform(np.log(350), np.log(1700))), rng.uniform(1.2, 1.9), rng.uniform(0.01, 0.03))
        for _ in range(48)
    ]
    out = scatter(rng, np.zeros(n), bank, rng.uniform(38, 60), 16)
    return out + 0.05 * band_noise(rng, n, 500, 2500)


def water_dripping(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Single drops into water: a click and a clear rising plink with a little echo."""
    hz = rng.uniform(1300, 1900)
    drops = []
    for _ in range(count):
        plink = bubble(hz * rng.uniform(0.92, 1.08), 1.7, rng.uniform(0.025, 0.035))
        drop = np.zeros(samples(0.4))
        add_at(drop, 0.0, noise_burst(rng, 2500, 6000, 0.002), 0.3)
        add_at(drop, 0.02, plink)
        add_at(drop, 0.14, plink, 0.22)
        drops.append(drop)
    return drops


def fire(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Sparse sharp crackles of very different strength over a soft low roar."""
    n = samples(duration_s)
    out = 0.10 * shaped_noise(rng, n, ((50, -6), (120, 0), (400, -8), (1500, -30))) * control_curve(rng, n, 5, 0.5, 1)
    snaps = [noise_burst(rng, rng.uniform(700, 2000), 6000, rng.uniform(0.0012, 0.004)) for _ in range(16)]
    pops = [noise_burst(rng, 400, 3000, rng.uniform(0.008, 0.015)) for _ in range(4)]
    scatter(rng, out, snaps, rng.uniform(16, 26), 24)
    return scatter(rng, out, pops, rng.uniform(1.5, 3), 6)


def birds(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Phrases of quick whistled notes that sweep between 2.5 and 5.5 kHz."""
    out = np.zeros(samples(duration_s))
    time_s = 0.0
    while time_s < duration_s - 0.15:
        base, sweep, note_s = rng.uniform(2700, 4300), rng.choice([0.75, 0.85, 1.2, 1.35]), rng.uniform(0.05, 0.12)
        for _ in range(rng.integers(3, 7)):
            n = samples(note_s)
            f0 = base * rng.uniform(0.95, 1.05) * glide(((0, 1), (0.4, sweep), (1, 2 - sweep)), n)
            add_at(out, time_s, np.sin(np.pi * np.linspace(0, 1, n)) * harmonic_tone(f0, (1.0, 0.06)))
            time_s += note_s + rng.uniform(0.02, 0.05)
        time_s += rng.uniform(0.15, 0.4)
    return out


def dog(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Short hoarse barks whose pitch jumps up and drops."""
    peak = rng.uniform(430, 640)
    formants = ((rng.uniform(700, 900), 150, 1.0), (rng.uniform(1300, 1700), 200, 0.8), (2700, 300, 0.35))
    barks = []
    for _ in range(count):
        n = samples(rng.uniform(0.16, 0.24))
        f0 = peak * rng.uniform(0.95, 1.05) * glide(((0, 0.6), (0.25, 1.0), (1, 0.5)), n)
        shape = glide(((0, 0), (0.08, 1), (0.45, 0.8), (1, 0)), n)
        barks.append(shape * (voiced(f0, [formants], 0.3) + 0.25 * band_noise(rng, n, 600, 2800)))
    return barks


def cat(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Meows: one long arch of pitch that opens from ee to ah and closes to oo."""
    peak = rng.uniform(620, 800)
    vowels = (((700, 200, 0.5), (2600, 300, 1.0)), ((1300, 300, 1.0), (2300, 300, 0.7)), ((900, 200, 1.0),))
    meows = []
    for _ in range(count):
        n = samples(rng.uniform(0.65, 0.9))
        f0 = peak * rng.uniform(0.96, 1.04) * glide(((0, 0.72), (0.3, 1.0), (0.6, 0.95), (1, 0.6)), n)
        meows.append(fade(voiced(f0, vowels, 0.5), 0.12, 0.25))
    return meows


def owl(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Soft, almost pure hoots below 450 Hz with an echo of the woods."""
    hz = rng.uniform(330, 420)
    hoots = []
    for _ in range(count):
        n = samples(rng.uniform(0.35, 0.5))
        f0 = hz * glide(((0, 0.93), (0.2, 1.0), (0.8, 0.99), (1, 0.9)), n)
        hoot = fade(harmonic_tone(f0, (1.0, 0.12, 0.05)) + 0.02 * band_noise(rng, n, 400, 1500), 0.08, 0.12)
        hoots.append(fade(add_room(rng, np.pad(hoot, (0, samples(0.25))), 0.08, -10), 0.01, 0.1))
    return hoots


def frogs(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Ribbits: pairs of rattling croaks, some 55 pulses a second around 1 kHz."""
    out = np.zeros(samples(duration_s))
    carrier, rate = rng.uniform(850, 1250), rng.uniform(45, 65)
    for beat in beat_times(rng, duration_s, rng.uniform(0.6, 0.8), 0.06):
        for start, length, rise in ((0.0, 0.13, 1.0), (0.17, 0.2, 1.25)):
            t = times(length)
            rattle = np.exp(-((t * rate) % 1.0) * 5)
            tone = np.sin(2 * np.pi * carrier * rise * t) + 0.5 * np.sin(2 * np.pi * carrier * 1.9 * rise * t)
            add_at(out, beat + start, fade(rattle * tone, 0.01, 0.04), rng.uniform(0.8, 1.0))
    return out


def crickets(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Trills of three or four fast pulses of a pure tone between 4 and 5 kHz."""
    t = times(duration_s)
    out = np.zeros(len(t))
    for gain in (1.0, 0.25):
        hz, rate, trill_s = rng.uniform(4100, 4900), rng.uniform(28, 36), rng.uniform(0.3, 0.42)
        within = (t + rng.uniform(0, trill_s)) % trill_s
        pulses = rng.integers(3, 5)
        gate = np.where(within < pulses / rate, np.sin(np.pi * ((within * rate) % 1.0)), 0.0)
        out += gain * gate * np.sin(2 * np.pi * hz * t)
    return out


def bee(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A nasal buzz near 200 Hz that comes and goes and changes pitch as it turns."""
    n = samples(duration_s)
    f0 = rng.uniform(185, 235) * control_curve(rng, n, 4, 0.88, 1.12)
    distance = control_curve(rng, n, 2.2, 0.2, 1.0)
    flutter = control_curve(rng, n, 40, 0.7, 1.0)
    return distance * flutter * harmonic_tone(f0, falling_harmonics(22, 0.9) * rng.uniform(0.6, 1.4, 22))


def cow(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Moos: long low calls that open from mm to oo."""
    hz = rng.uniform(125, 165)
    vowels = (
        ((260, 70, 1.0),),
        ((450, 110, 1.0), (900, 150, 0.5)),
        ((600, 130, 1.0), (1000, 200, 0.6)),
        ((400, 90, 1),),
    )
    moos = []
    for _ in range(count):
        n = samples(rng.uniform(1.1, 1.5))
        f0 = hz * glide(((0, 0.8), (0.25, 1.0), (0.7, 1.08), (1, 0.78)), n) * control_curve(rng, n, 12, 0.985, 1.015)
        moos.append(fade(voiced(f0, vowels, 0.4), 0.15, 0.3))
    return moos


def horse(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A gallop: three hollow hoof beats in quick succession and a rest."""
    out = np.zeros(samples(duration_s))
    period_s, hz = rng.uniform(0.46, 0.58), rng.uniform(620, 850)
    for beat in beat_times(rng, duration_s, period_s, 0.02):
        for index, ratio in enumerate((1.0, 1.22, 0.86)):
            modes = ((hz * ratio, 1.0, 0.016), (hz * ratio * 1.62, 0.6, 0.01), (170, 0.5, 0.02))
            hoof = mix(partials(rng, 0.12, modes), 0.3 * noise_burst(rng, 500, 2500, 0.006))
            add_at(out, beat + index * 0.21 * period_s, hoof, (0.7, 0.8, 1.0)[index] * rng.uniform(0.9, 1.1))
    return out


def rooster(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Cock-a-doodle-doo: three short notes and a long one that falls."""
    hz, speed = rng.uniform(560, 680), min(1.0, duration_s / 1.75)
    formants = ((1500, 350, 1.0), (2700, 500, 0.8))
    out = np.zeros(samples(duration_s))
    notes = ((0.0, 0.16, 1.0, 1.1), (0.24, 0.13, 1.25, 1.3), (0.42, 0.22, 1.35, 1.5), (0.74, 0.9, 1.55, 0.85))
    for start, length, first, last in notes:
        n = samples(length * speed)
        f0 = hz * glide(((0, first), (0.4, max(first, last)), (1, last)), n)
        wobble = 1 + 0.01 * np.sin(2 * np.pi * 28 * np.arange(n) / SAMPLING_RATE)
        add_at(out, start * speed, fade(voiced(f0 * wobble, [formants], 0.2), 0.03, 0.06))
    return out[: samples(1.68 * speed)]
