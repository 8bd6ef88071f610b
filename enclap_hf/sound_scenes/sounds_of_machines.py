"""Synthesis of alarms, bells, vehicles and tools. Each function draws one random instance of its sound.

Continuous sounds are functions (rng, duration_s) -> (n,); counted ones are functions (rng, count) -> list of strokes.
"""

from __future__ import annotations

import numpy as np

from .sound_synthesis import (
    SAMPLING_RATE,
    add_at,
    band_noise,
    beat_times,
    control_curve,
    fade,
    falling_harmonics,
    glide,
    harmonic_tone,
    lowpass,
    mix,
    noise_burst,
    partials,
    samples,
    scatter,
    shaped_noise,
    times,
)


def alarm_clock(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Groups of four short square beeps near 2 kHz."""
    t = times(duration_s)
    beep_s, pause_s = rng.uniform(0.06, 0.085), rng.uniform(0.3, 0.5)
    within = t % (8 * beep_s + pause_s)
    gate = (within < 8 * beep_s) & (within % (2 * beep_s) < beep_s)
    smooth = lowpass(gate.astype(float), 300, 1)
    return smooth * harmonic_tone(rng.uniform(1800, 2300), falling_harmonics(5, 1.0, odd_only=True), len(t))


def siren(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A wail that rises and falls between about 500 and 1400 Hz."""
    t = times(duration_s)
    low, high, period_s = rng.uniform(450, 600), rng.uniform(1100, 1500), rng.uniform(1.3, 2.6)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (t / period_s + rng.uniform()))
    return harmonic_tone(low * (high / low) ** sweep, falling_harmonics(6, rng.uniform(0.9, 1.4)))


def car_horn(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Two buzzing tones a third apart, starting and stopping at once."""
    low = rng.uniform(370, 450)
    amplitudes = falling_harmonics(20, 0.5) * rng.uniform(0.6, 1.4, 20)
    blasts = []
    for _ in range(count):
        n = samples(rng.uniform(0.3, 0.5))
        tones = harmonic_tone(low, amplitudes, n) + harmonic_tone(low * 1.25, amplitudes, n)
        blasts.append(fade(tones, 0.008, 0.02))
    return blasts


def bicycle_bell(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """A bright metal bell struck some 20 times a second by its thumb lever, then ringing out."""
    hz, rate = rng.uniform(2300, 3000), rng.uniform(16, 22)
    rings = []
    for _ in range(count):
        out = np.zeros(samples(0.85))
        modes = [
            (hz * ratio, gain, decay) for ratio, gain, decay in ((1, 1, 0.13), (1.51, 0.5, 0.08), (2.3, 0.4, 0.05))
        ]
        for index in range(rng.integers(6, 9)):
            add_at(out, index / rate, partials(rng, 0.5, modes), 1.0 if index % 2 == 0 else 0.6)
        rings.append(fade(out, 0.001, 0.1))
    return rings


def church_bell(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """A large bell: a low hum and inharmonic partials that ring for seconds."""
    hz = rng.uniform(330, 520)
    ratios = ((0.5, 0.5, 1.0), (1, 1.0, 0.7), (1.19, 0.8, 0.6), (1.5, 0.5, 0.4), (2, 0.9, 0.4), (2.67, 0.4, 0.2))
    modes = [(hz * ratio, gain * rng.uniform(0.7, 1.3), decay) for ratio, gain, decay in (*ratios, (4.1, 0.3, 0.1))]
    return [fade(partials(rng, 1.9, modes), 0.002, 0.5) for _ in range(count)]


def telephone(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """The two bells of an old telephone, struck in turn 20 times a second, in rings of about a second."""
    t = times(duration_s)
    rate, on_s, off_s = rng.uniform(18, 24), rng.uniform(0.8, 1.2), rng.uniform(0.4, 0.7)
    low = rng.uniform(1100, 1350)
    out = np.zeros(len(t))
    for offset, hz in ((0.0, low), (0.5, low * rng.uniform(1.2, 1.3))):
        strike = np.exp(-((t * rate / 2 + offset) % 1.0) * 2.2)
        out += strike * sum(g * np.sin(2 * np.pi * hz * r * t) for r, g in ((1, 1.0), (2.76, 0.5)))
    ringing = lowpass((t % (on_s + off_s) < on_s).astype(float), 12, 1)
    return out * ringing


def doorbell(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """A two-tone chime: ding, and a third lower, dong."""
    high, gap_s = rng.uniform(640, 780), rng.uniform(0.42, 0.55)
    chimes = []
    for _ in range(count):
        out = np.zeros(samples(gap_s + 0.9))
        for start, hz in ((0.0, high), (gap_s, high * 0.794)):
            modes = ((hz, 1.0, 0.35), (2 * hz, 0.15, 0.25), (3.0 * hz, 0.3, 0.12), (5.4 * hz, 0.12, 0.04))
            add_at(out, start, partials(rng, 0.9, modes))
        chimes.append(fade(out, 0.002, 0.2))
    return chimes


def engine(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """An idling engine: 20 to 30 uneven low pulses a second."""
    n = samples(duration_s)
    rate = rng.uniform(20, 30) * control_curve(rng, n, 3, 0.96, 1.04)
    phase = np.cumsum(rate) / SAMPLING_RATE
    uneven = rng.uniform(0.45, 1.0, 4)[phase.astype(np.int64) % 4]
    pulses = uneven * np.exp(-(phase % 1.0) * 4)
    body = band_noise(rng, n, 90, 420) + 0.35 * band_noise(rng, n, 700, 1800)
    return body * pulses + 0.5 * harmonic_tone(rate * 3, falling_harmonics(10, 0.8)) * pulses


def motorcycle(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """An engine whose rasping tone is revved up and let down again and again."""
    n = samples(duration_s)
    low, high = rng.uniform(50, 65), rng.uniform(150, 210)
    period_s = rng.uniform(0.9, 1.4)
    within = (times(duration_s) / period_s + rng.uniform()) % 1.0
    rev = np.interp(within, (0, 0.35, 0.5, 1), (0, 1, 0.9, 0))
    f0 = low + (high - low) * lowpass(rev, 6, 1)
    tone = harmonic_tone(f0, falling_harmonics(45, 0.8) * rng.uniform(0.5, 1.5, 45))
    rasp = band_noise(rng, n, 600, 2500) * np.maximum(0, harmonic_tone(f0 / 2, (1.0,)))
    return (0.35 + 0.65 * rev) * (np.tanh(2.5 * tone) + 0.25 * rasp)


def train(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A heavy rumble with pairs of clacks from the rail joints."""
    n = samples(duration_s)
    out = 0.45 * shaped_noise(rng, n, ((30, -6), (70, 0), (250, -8), (800, -26), (3000, -42)))
    period_s, pair_s = rng.uniform(0.62, 0.85), rng.uniform(0.12, 0.16)
    for beat in beat_times(rng, duration_s, period_s, 0.02):
        for index in range(2):
            clack = mix(
                noise_burst(rng, 700, 2200, 0.022), 0.8 * partials(rng, 0.2, ((190, 1.0, 0.04), (410, 0.6, 0.03)))
            )
            add_at(out, beat + index * pair_s, clack, rng.uniform(2.2, 2.8))
    return out


def train_whistle(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """A steam chord of four pipes that slides up into pitch, with breath."""
    root = rng.uniform(520, 640)
    blasts = []
    for _ in range(count):
        n = samples(rng.uniform(0.9, 1.2))
        scoop = glide(((0, 0.9), (0.18, 1.0), (0.85, 1.0), (1, 0.93)), n)
        chord = sum(harmonic_tone(root * ratio * scoop, (1.0, 0.3, 0.15)) for ratio in (1, 1.19, 1.41, 1.68))
        blasts.append(fade(chord + 0.5 * band_noise(rng, n, 1200, 4500), 0.12, 0.2))
    return blasts


def helicopter(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Blade slaps some 11 times a second over a turbine's whine."""
    n = samples(duration_s)
    rate = rng.uniform(9.5, 13) * control_curve(rng, n, 1, 0.98, 1.02)
    slap = np.exp(-((np.cumsum(rate) / SAMPLING_RATE) % 1.0) * 6)
    swell = control_curve(rng, n, 0.7, 0.7, 1.0)
    air = shaped_noise(rng, n, ((40, -12), (100, 0), (700, -4), (1500, -14), (5000, -34)))
    whine = harmonic_tone(rng.uniform(900, 1200), (1.0, 0.4), n)
    return swell * (air * (0.06 + slap) + 0.08 * whine)


def vacuum_cleaner(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A steady motor whine with many harmonics in rushing air."""
    n = samples(duration_s)
    spin = rng.uniform(430, 560) * (1 - np.exp(-times(duration_s) / 0.12) * 0.5)
    whine = harmonic_tone(spin * control_curve(rng, n, 1.5, 0.985, 1.015), (1, 0.9, 0.5, 0.6, 0.3, 0.25, 0.2, 0.15))
    air = shaped_noise(rng, n, ((100, -16), (400, -4), (1200, 0), (2500, -6), (6000, -16)))
    return air + 1.6 * whine


def drill(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Bursts of an electric drill: the screech of its gears speeds up, holds and drops."""
    out = np.zeros(samples(duration_s))
    top, start = rng.uniform(210, 280), 0.0
    amplitudes = 0.15 + np.exp(-(((np.arange(1, 29) - rng.uniform(9, 12)) / 4.0) ** 2))
    while start < duration_s - 0.3:
        length = min(rng.uniform(0.8, 1.3), duration_s - start)
        n = samples(length)
        spin = glide(((0, 0.35), (0.25, 1), (0.75, 0.94), (1, 0.4)), n) * top
        roughness = 1 + 0.5 * np.sin(2 * np.pi * 31 * np.arange(n) / SAMPLING_RATE)
        burst = harmonic_tone(spin, amplitudes) * roughness + 0.06 * band_noise(rng, n, 1500, 5000)
        add_at(out, start, fade(burst, 0.03, 0.08))
        start += length + rng.uniform(0.2, 0.35)
    return out


def hand_saw(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Strokes to and fro, the pull lower and softer than the push, rough from the teeth."""
    out = np.zeros(samples(duration_s))
    stroke_s, centre, teeth = rng.uniform(0.2, 0.28), rng.uniform(1500, 2000), rng.uniform(70, 100)
    for index, beat in enumerate(beat_times(rng, duration_s, stroke_s * 1.12, 0.03)):
        n = samples(stroke_s)
        push = index % 2 == 0
        tone = band_noise(rng, n, centre * (1.2 if push else 0.6), centre * (2.2 if push else 1.0))
        ticks = harmonic_tone(glide(((0, 0.8), (0.5, 1.2), (1, 0.7)), n) * teeth, falling_harmonics(6, 0.5))
        add_at(out, beat, np.sin(np.pi * np.linspace(0, 1, n)) * tone * (1 + ticks), 1.0 if push else 0.55)
    return out


def hammer(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Blows on a nail: a hard metal clank that rings for a tenth of a second."""
    hz = rng.uniform(1250, 1700)
    modes = [(hz * ratio, gain, decay) for ratio, gain, decay in ((1, 1, 0.06), (1.47, 0.8, 0.05), (2.09, 0.7, 0.04))]
    modes += [(hz * 2.9, 0.6, 0.03), (rng.uniform(140, 180), 1.2, 0.025)]
    return [mix(partials(rng, 0.4, modes), 0.9 * noise_burst(rng, 800, 6000, 0.008)) for _ in range(count)]


def typing(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Irregular bursts of plastic key clicks, each with a softer release."""
    out = np.zeros(samples(duration_s))
    time_s = 0.0
    thock = rng.uniform(380, 520)
    while time_s < duration_s - 0.1:
        modes = ((thock * rng.uniform(0.9, 1.1), 0.7, 0.012), (rng.uniform(2600, 3400), 0.5, 0.005))
        press = mix(noise_burst(rng, 2000, 5500, 0.004), partials(rng, 0.09, modes))
        add_at(out, time_s, press, rng.uniform(0.75, 1.0))
        add_at(out, time_s + rng.uniform(0.04, 0.06), noise_burst(rng, 2500, 6000, 0.003), 0.35)
        time_s += rng.uniform(0.07, 0.17) if rng.random() > 0.1 else rng.uniform(0.25, 0.4)
    return out


def clock_ticking(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A dry tick and a lower tock in strict turn."""
    out = np.zeros(samples(duration_s))
    high = rng.uniform(2300, 2900)
    ticks = [
        mix(partials(rng, 0.06, ((hz, 1.0, 0.007), (hz * 1.7, 0.5, 0.004))), 0.4 * noise_burst(rng, 2000, 6000, 0.0015))
        for hz in (high, high * rng.uniform(0.68, 0.76))
    ]
    for index, beat in enumerate(beat_times(rng, duration_s, rng.uniform(0.36, 0.5))):
        add_at(out, beat, ticks[index % 2])
        add_at(out, beat + 0.028, ticks[index % 2], 0.4)
    return out


def radio_static(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Flat hiss that drops in and out, with pops and the sliding whistle of a set between stations."""
    n = samples(duration_s)
    hiss = shaped_noise(rng, n, ((60, -18), (300, 0), (6500, 0), (9000, -20)))
    rate = rng.uniform(5, 9)
    dropouts = lowpass((control_curve(rng, n, rate, 0, 1) > 0.4).astype(float), 60, 1) * 0.75 + 0.25
    squeal = harmonic_tone(control_curve(rng, n, 2.0, 600, 2600), (1.0, 0.2))
    pops = scatter(rng, np.zeros(n), [noise_burst(rng, 300, 6000, 0.004) for _ in range(4)], 9, 8)
    return hiss * dropouts + 1.1 * squeal + 3 * pops
