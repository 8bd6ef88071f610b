"""Synthesis of people, the home and music. Each function draws one random instance of its sound.

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
    voiced,
)

MAJOR_SCALE = 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
VOWELS = (
    ((750, 90, 1.0), (1150, 110, 0.7), (2500, 200, 0.2)),
    ((480, 70, 1.0), (1850, 140, 0.5), (2500, 200, 0.25)),
    ((300, 60, 1.0), (2200, 160, 0.4), (3000, 250, 0.2)),
    ((480, 70, 1.0), (850, 90, 0.7), (2400, 200, 0.1)),
    ((330, 60, 1.0), (750, 90, 0.5), (2300, 200, 0.1)),
)


def footsteps(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Steps on gravel: a dull heel and a crunch, about two a second."""
    out = np.zeros(samples(duration_s))
    thud = rng.uniform(95, 140)
    bank = [noise_burst(rng, 900, 4500, rng.uniform(0.002, 0.005)) for _ in range(8)]
    for index, beat in enumerate(beat_times(rng, duration_s, rng.uniform(0.5, 0.64), 0.03)):
        crunch = scatter(rng, np.zeros(samples(0.16)), bank, 260, 14)
        heel = partials(rng, 0.16, ((thud * (1.0 if index % 2 else 1.12), 1.6, 0.025),))
        step = fade(crunch * glide(((0, 0.3), (0.3, 1), (1, 0.2)), len(crunch)), 0.01, 0.05)
        add_at(out, beat, mix(heel, 0.8 * step))
    return out


def knocking(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Knuckles on a wooden door: dull knocks below 600 Hz."""
    hz = rng.uniform(230, 330)
    modes = ((hz, 1.0, 0.03), (hz * 1.55, 0.7, 0.022), (hz * 2.4, 0.25, 0.012))
    return [
        mix(partials(rng, 0.22, modes), 0.25 * noise_burst(rng, 300, 1200, 0.006)) * rng.uniform(0.85, 1.1)
        for _ in range(count)
    ]


def glass_breaking(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A crash and then the tinkle of many falling shards between 2 and 6.5 kHz."""
    out = np.zeros(samples(min(duration_s, 1.8)))
    add_at(out, 0.0, noise_burst(rng, 1200, 7000, rng.uniform(0.04, 0.07)), 1.6)
    for start in rng.exponential(0.3, rng.integers(32, 50)):
        hz = rng.uniform(2000, 6500)
        shard = partials(rng, 0.25, ((hz, 1.0, rng.uniform(0.02, 0.06)), (hz * 1.31, 0.5, 0.02)))
        add_at(out, 0.05 + start, shard, rng.uniform(0.15, 0.6))
    return fade(out, 0.001, 0.2)


def applause(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Many hands clapping: dense claps, each near its own pitch between 700 and 1800 Hz."""
    out = np.zeros(samples(duration_s))
    bank = []
    for _ in range(20):
        hz = rng.uniform(750, 1700)
        bank.append(noise_burst(rng, hz * 0.85, hz * 1.2, rng.uniform(0.006, 0.012)))
    return scatter(rng, out, bank, rng.uniform(45, 90), 12) + 0.04 * band_noise(rng, len(out), 600, 2500)


def melody_steps(rng: np.random.Generator, root_hz: float) -> float:
    """Return one random note of the major scale on `root_hz` in Hz."""
    return root_hz * rng.choice(MAJOR_SCALE)


def whistling(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A person whistling: a pure tone between 900 and 2200 Hz that glides from note to note."""
    n = samples(duration_s)
    root, knots, start = rng.uniform(900, 1100), [], 0.0
    while start < duration_s:
        note_s, hz = rng.uniform(0.22, 0.5), melody_steps(rng, root)
        knots += [(start, hz), (start + note_s * 0.7, hz)]
        start += note_s
    t = times(duration_s)
    f0 = np.exp(np.interp(t, [knot[0] for knot in knots], np.log([knot[1] for knot in knots])))
    f0 *= 1 + 0.012 * np.sin(2 * np.pi * rng.uniform(5, 6.5) * t)
    breath = 0.025 * shaped_noise(rng, n, ((500, -20), (1500, 0), (4000, -4), (8000, -20)))
    return harmonic_tone(f0, (1.0, 0.03)) * control_curve(rng, n, 4, 0.6, 1.0) + breath


def man_talking(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Syllables of a low voice: gliding vowels, hissed consonants and short pauses."""
    out = np.zeros(samples(duration_s))
    hz, time_s = rng.uniform(95, 135), 0.0
    while time_s < duration_s - 0.1:
        fall = 1.15
        for _ in range(rng.integers(4, 9)):
            n = samples(rng.uniform(0.1, 0.22))
            f0 = hz * fall * glide(((0, 0.95), (0.4, 1.06), (1, 0.93)), n)
            first, last = rng.integers(0, len(VOWELS), 2)
            add_at(out, time_s, fade(voiced(f0, (VOWELS[first], VOWELS[last]), 0.2), 0.02, 0.04), rng.uniform(0.7, 1))
            time_s += n / SAMPLING_RATE
            if rng.random() < 0.45:
                hiss = fade(band_noise(rng, samples(0.07), 2800, 6500), 0.02, 0.03)
                add_at(out, time_s - 0.01, hiss, 0.07)
                time_s += 0.06
            fall *= 0.96
        time_s += rng.uniform(0.15, 0.3)
    return out


def baby_crying(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Harsh wails of a second with a gasp between them."""
    out = np.zeros(samples(duration_s))
    hz, start = rng.uniform(380, 460), 0.0
    formants = ((1100, 250, 0.8), (1700, 250, 0.5), (3300, 500, 1.0), (5200, 600, 0.3))
    while start < duration_s - 0.3:
        n = samples(rng.uniform(0.7, 1.0))
        shake = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(8, 11) * np.arange(n) / SAMPLING_RATE)
        f0 = hz * glide(((0, 0.8), (0.12, 1.1), (0.6, 1.05), (1, 0.75)), n) * shake
        wail = np.tanh(2 * voiced(f0, [formants], 0.1)) + 0.04 * band_noise(rng, n, 1000, 5000)
        add_at(out, start, fade(wail, 0.03, 0.1))
        start += n / SAMPLING_RATE + 0.04
        add_at(out, start, fade(band_noise(rng, samples(0.16), 1200, 4000), 0.08, 0.03), 0.12)
        start += 0.22
    return out


def snoring(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A rattling breath in and a soft hiss out."""
    out = np.zeros(samples(duration_s))
    start, rate = 0.0, rng.uniform(32, 42)
    while start < duration_s - 0.3:
        n = samples(rng.uniform(0.9, 1.2))
        rattle = np.exp(-(np.cumsum(np.full(n, rate) * control_curve(rng, n, 8, 0.9, 1.1)) / SAMPLING_RATE % 1.0) * 4)
        breath_in = rattle * shaped_noise(rng, n, ((80, -8), (250, 0), (600, -3), (1100, -3), (2000, -20), (5000, -45)))
        add_at(out, start, np.sin(np.pi * np.linspace(0, 1, n)) ** 0.7 * breath_in)
        start += n / SAMPLING_RATE + 0.15
        m = samples(rng.uniform(0.5, 0.7))
        add_at(out, start, np.sin(np.pi * np.linspace(0, 1, m)) * band_noise(rng, m, 900, 3000), 0.09)
        start += m / SAMPLING_RATE + 0.15
    return out


def bouncing_ball(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Rubbery bounces that come faster and softer until the ball lies still."""
    hz, gap_s, keep = rng.uniform(260, 360), rng.uniform(0.4, 0.5), rng.uniform(0.74, 0.8)
    out, start, gain = np.zeros(samples(duration_s)), 0.0, 1.0
    while start < duration_s - 0.1 and gap_s > 0.04:
        t = times(0.16)
        bend = np.sin(2 * np.pi * hz * (t + 0.012 * np.exp(-t / 0.01)))
        bounce = bend * np.exp(-t / 0.03) + 0.5 * np.sin(2 * np.pi * 2.7 * hz * t) * np.exp(-t / 0.018)
        add_at(out, start, mix(bounce, 0.35 * noise_burst(rng, 800, 2500, 0.005)), gain)
        start += gap_s
        gap_s *= keep
        gain *= 0.5 + 0.5 * keep
    return out[: samples(start + 0.1)]


def piano(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Single piano notes over a low bass note now and then."""
    out = np.zeros(samples(duration_s))
    root, step_s = rng.uniform(330, 460), rng.uniform(0.24, 0.36)
    ranks = np.arange(1, 9)
    for index, beat in enumerate(beat_times(rng, duration_s, step_s, 0.03)):
        notes = [melody_steps(rng, root)] + ([root / 2 * rng.choice([1, 1.335, 1.5])] if index % 4 == 0 else [])
        for hz in notes:
            t = times(0.9)
            low = harmonic_tone(hz, ranks**-1.2, len(t)) * np.exp(-t / 0.4)
            high = harmonic_tone(hz * 1.002, ranks**-0.8, len(t)) * np.exp(-t / 0.12)
            note = mix(low + 0.6 * high, 0.2 * noise_burst(rng, 200, 1500, 0.008))
            add_at(out, beat, fade(note, 0.002, 0.15), rng.uniform(0.7, 1.0))
    return out


def guitar(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Strummed chords: six bright strings struck one after the other, down and up."""
    out = np.zeros(samples(duration_s))
    root, step_s = rng.uniform(98, 131), rng.uniform(0.42, 0.58)
    ranks = np.arange(1, 17)
    t = times(0.7)
    pluck = np.abs(np.sin(np.pi * ranks * 0.19))
    for index, beat in enumerate(beat_times(rng, duration_s, step_s, 0.02)):
        if index % 4 == 0:
            chord = root * rng.choice([1.0, 1.122, 1.335, 1.498]) * np.array([1, 1.5, 2, 2.52, 3, 4])
            strings = [
                harmonic_tone(hz, pluck * ranks**-0.3, len(t)) * np.exp(-t / 0.09)
                + harmonic_tone(hz, pluck * ranks**-1.2, len(t)) * np.exp(-t / 0.3)
                for hz in chord
            ]
            strings = [fade(string, 0.001, 0.15) for string in strings]
        stagger_s = rng.uniform(0.012, 0.022)
        for place, string in enumerate(strings if index % 2 == 0 else strings[::-1]):
            add_at(out, beat + place * stagger_s, string, 0.6)
    return out


def violin(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Bowed notes, long and bright, with strong vibrato."""
    out = np.zeros(samples(duration_s))
    root, start = rng.uniform(390, 520), 0.0
    ranks = np.arange(1, 19)
    while start < duration_s - 0.15:
        n = samples(min(rng.uniform(0.5, 0.9), duration_s - start + 0.05))
        hz = melody_steps(rng, root)
        body = 0.4 + np.exp(-(((ranks * hz - 1100) / 500) ** 2)) + 0.8 * np.exp(-(((ranks * hz - 2900) / 700) ** 2))
        vibrato = np.sin(2 * np.pi * rng.uniform(5.2, 6.5) * np.arange(n) / SAMPLING_RATE) * glide(
            ((0, 0), (0.3, 1), (1, 1)), n
        )
        tone = harmonic_tone(hz * (1 + 0.013 * vibrato), body * ranks**-0.7)
        add_at(out, start, fade(tone * (1 + 0.15 * vibrato) + 0.02 * band_noise(rng, n, 1500, 5000), 0.07, 0.07))
        start += n / SAMPLING_RATE - 0.04
    return out


def drums(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A rock beat: bass drum and snare in turn with hi-hats on the eighths."""
    out = np.zeros(samples(duration_s))
    t = times(0.3)
    kick = np.sin(2 * np.pi * (rng.uniform(55, 70) * t + 3.0 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.09)
    snare = mix(0.7 * partials(rng, 0.2, ((rng.uniform(180, 220), 1.0, 0.05),)), noise_burst(rng, 1200, 6500, 0.05))
    hat = noise_burst(rng, 5000, 9000, 0.015)
    for index, beat in enumerate(beat_times(rng, duration_s, 60 / rng.uniform(105, 135) / 2)):
        add_at(out, beat, hat, 0.45)
        if index % 2 == 0:
            add_at(out, beat, kick if index % 4 == 0 else snare, 1.5 if index % 4 == 0 else 1.0)
        elif rng.random() < 0.25:
            add_at(out, beat, kick, 1.2)
    return out


def music_box(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Quick tinkling notes between 1.4 and 3.4 kHz that ring into each other."""
    out = np.zeros(samples(duration_s))
    root = rng.uniform(1350, 1650)
    for beat in beat_times(rng, duration_s, rng.uniform(0.15, 0.21), 0.03):
        hz = melody_steps(rng, root)
        note = partials(rng, 0.7, ((hz, 1.0, 0.22), (hz * 2.01, 0.15, 0.1), (hz * 3.9, 0.2, 0.015)))
        add_at(out, beat, fade(note, 0.001, 0.1), rng.uniform(0.6, 1.0))
    return out


def laughing(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Ha ha ha: five breathy syllables a second whose pitch falls, then a gasp."""
    out = np.zeros(samples(duration_s))
    hz, time_s, period_s = rng.uniform(270, 340), 0.0, rng.uniform(0.17, 0.21)
    formants = ((900, 150, 1.0), (1500, 180, 0.7), (2900, 300, 0.25))
    while time_s < duration_s - 0.1:
        for index in range(rng.integers(5, 8)):
            n = samples(0.1)
            f0 = hz * (1.15 - 0.06 * index) * glide(((0, 1.08), (1, 0.9)), n)
            add_at(out, time_s, fade(band_noise(rng, samples(0.07), 900, 3500), 0.02, 0.03), 0.1)
            add_at(out, time_s + 0.05, fade(voiced(f0, [formants], 0.2), 0.015, 0.04), 1.0 - 0.07 * index)
            time_s += period_s
        time_s += rng.uniform(0.3, 0.45)
    return out


def heartbeat(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """A low double thump, lub and dub, about 70 times a minute."""
    out = np.zeros(samples(duration_s))
    hz = rng.uniform(62, 80)
    for beat in beat_times(rng, duration_s, rng.uniform(0.78, 0.95), 0.01):
        for start, ratio, gain in ((0.0, 1.0, 1.0), (0.27, 1.3, 0.75)):
            thump = partials(
                rng, 0.25, ((hz * ratio, 1.0, 0.04), (hz * ratio * 2, 0.5, 0.03), (hz * ratio * 3, 0.25, 0.02))
            )
            add_at(out, beat + start, fade(thump, 0.008, 0.05), gain)
    return lowpass(out, 350)
