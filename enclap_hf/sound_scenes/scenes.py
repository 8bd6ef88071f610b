"""Synthetic scenes with known events, for tests, demonstrations and small default models.

A seed gives a scene: one to three events of `SOUND_KINDS`, how they follow or overlap each other, and five captions
from a grammar that knows what was placed. No recording is needed, and the truth is exact.

    scene = make_scene(7)
    scene.audio, scene.events, scene.captions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from .scene_captions import write_captions
from .scene_plan import GAP_S, ScenePlan, needed_s, plan_scene, shortest_s
from .sound_kinds import SoundKind
from .sound_synthesis import SAMPLING_RATE, add_room, fade, samples


@dataclass(frozen=True)
class Event:
    """One placed sound. `count` is its exact number of strokes, None for kinds without; times are in s."""

    kind: str
    start_s: float
    end_s: float
    count: int | None
    role: str  # "foreground" | "background"


@dataclass(frozen=True)
class Scene:
    """A synthetic scene: `audio` is float32 (n,) within -1 to 1; events are in order of time, a background last."""

    seed: int
    audio: np.ndarray
    sampling_rate: int
    events: tuple[Event, ...]
    relation: str  # "single" | "then" | "while" | "background"
    captions: tuple[str, ...]


def _active_level_db(audio: np.ndarray) -> float:
    """Return the RMS level in dB of the parts that sound, with bass weighted down as the ear does."""
    weighted = scipy.signal.lfilter([0.9366, -0.9366], [1.0, -0.8732], audio)  # first-order high-pass at 500 Hz
    frame = samples(0.05)
    weighted = np.pad(weighted, (0, -len(weighted) % frame)).reshape(-1, frame)
    energy = np.mean(weighted**2, axis=1)
    active = energy[energy > 0.01 * np.percentile(energy, 95)]
    # Bass alone must not be raised without end: a part of the unweighted level sets a floor.
    floor = 10 ** (-11 / 10) * np.mean(audio**2)
    return 10 * np.log10(max(np.mean(active) if len(active) else 0.0, floor) + 1e-12)


def _draw_count(rng: np.random.Generator, kind: SoundKind, room_s: float, fill: bool) -> int | None:
    """Draw how many strokes a countable event gets; None fills the room (the strokes are still counted)."""
    if not kind.countable or fill:
        return None
    low, high = kind.counts
    fitting = [count for count in range(low, high + 1) if kind.longest_s(count) <= room_s]
    return int(rng.choice(fitting or [low]))


def _render(rng: np.random.Generator, kind: SoundKind, room_s: float, fill: bool) -> tuple[np.ndarray, int | None]:
    """Synthesise one event at an active level of 0 dB and return it with its number of strokes."""
    count = _draw_count(rng, kind, room_s, fill)
    sound = kind.synthesize(rng, min(room_s, kind.max_s), count)
    audio = fade(sound.audio, 0.004, 0.03)
    return audio * 10 ** (-_active_level_db(audio) / 20), len(sound.onsets_s) if kind.countable else None


def _split_time(rng: np.random.Generator, kinds: Sequence[SoundKind], span_s: float) -> list[float]:
    """Share out `span_s` among events in sequence: what each needs, and a random part of the rest."""
    needs = np.array([shortest_s(kind) for kind in kinds])
    spare = max(0.0, span_s - GAP_S * len(kinds) - needs.sum())
    return (needs + spare * rng.dirichlet(np.full(len(kinds), 3.0))).tolist()


def _place_sequence(
    rng: np.random.Generator, out: np.ndarray, kinds: Sequence[SoundKind], first_s: float, span_s: float
) -> list[Event]:
    """Place events one after another into `out`, within `span_s` from `first_s` on."""
    events, start_s = [], first_s + rng.uniform(0.02, 0.25)
    for kind, room_s in zip(kinds, _split_time(rng, kinds, span_s), strict=True):
        audio, count = _render(rng, kind, room_s, fill=bool(rng.random() < 0.15))
        start_s = min(start_s, len(out) / SAMPLING_RATE - len(audio) / SAMPLING_RATE)
        events.append(_place(rng, out, kind, audio, max(0.0, start_s), count))
        start_s = events[-1].end_s + rng.uniform(-0.12, 0.3)
    return events


def _place(
    rng: np.random.Generator,
    out: np.ndarray,
    kind: SoundKind,
    audio: np.ndarray,
    start_s: float,
    count: int | None,
    gain_db: tuple[float, float] = (-2.0, 2.0),
    role: str = "foreground",
) -> Event:
    """Add a rendered event to `out` at a random gain."""
    start = int(start_s * SAMPLING_RATE)
    audio = audio[: len(out) - start]
    out[start : start + len(audio)] += audio * 10 ** (rng.uniform(*gain_db) / 20)
    return Event(kind.name, start / SAMPLING_RATE, (start + len(audio)) / SAMPLING_RATE, count, role)


def _place_single(rng: np.random.Generator, out: np.ndarray, plan: ScenePlan) -> list[Event]:
    """Place one event with some quiet before and after it."""
    spare_s = plan.duration_s - shortest_s(plan.kinds[0])
    lead_s = rng.uniform(0.02, min(0.8, 0.5 * spare_s))
    room_s = plan.duration_s - lead_s - rng.uniform(0, min(0.3, 0.4 * spare_s))
    audio, count = _render(rng, plan.kinds[0], room_s, fill=bool(rng.random() < 0.15))
    start_s = rng.uniform(lead_s, max(lead_s, plan.duration_s - len(audio) / SAMPLING_RATE))
    return [_place(rng, out, plan.kinds[0], audio, start_s, count)]


def _place_with_background(rng: np.random.Generator, out: np.ndarray, plan: ScenePlan) -> list[Event]:
    """Place events in sequence over a softer continuous sound, which is heard alone for a part of the scene."""
    *kinds, background = plan.kinds
    span_s = max(plan.duration_s * rng.uniform(0.6, 0.85), needed_s("then", kinds))
    first_s = rng.uniform(0.2, 0.8) * max(0.0, plan.duration_s - span_s)
    events = _place_sequence(rng, out, kinds, first_s, span_s)
    audio, _ = _render(rng, background, plan.duration_s, fill=True)
    return [*events, _place(rng, out, background, audio, 0.0, None, (-12.0, -6.0), "background")]


def _place_together(rng: np.random.Generator, out: np.ndarray, plan: ScenePlan) -> list[Event]:
    """Place events that all start within half a second and last to the end."""
    events = []
    for kind in plan.kinds:
        start_s = rng.uniform(0.0, 0.4)
        audio, count = _render(rng, kind, plan.duration_s - start_s, fill=True)
        events.append(_place(rng, out, kind, audio, start_s, count))
    return events


def _place_all(rng: np.random.Generator, out: np.ndarray, plan: ScenePlan) -> list[Event]:
    """Place the events of a plan into `out`."""
    if plan.relation == "then":
        return _place_sequence(rng, out, plan.kinds, 0.0, plan.duration_s)
    place = {"single": _place_single, "background": _place_with_background, "while": _place_together}
    return place[plan.relation](rng, out, plan)


def _finish(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """Add a small room, a noise floor and a random level; float32 without clipping."""
    if rng.random() < 0.4:
        audio = add_room(rng, audio, rng.uniform(0.04, 0.15), rng.uniform(-18, -9))
    audio = audio / (np.sqrt(np.mean(audio**2)) + 1e-9)
    audio *= min(10 ** (rng.uniform(-30, -16) / 20), 0.97 / np.abs(audio).max())
    floor = rng.standard_normal(len(audio), dtype=np.float32) * 10 ** (rng.uniform(-80, -65) / 20)
    return np.clip(audio + floor, -1, 1).astype(np.float32)


def make_scene(
    seed: int,
    *,
    num_events: int | None = None,
    relation: str | None = None,
    kinds: Sequence[str] | None = None,
    duration_s: float | None = None,
) -> Scene:
    """Make one synthetic scene. The same arguments give bit-identical audio and captions in any process.

    Args:
        seed: non-negative; fixes everything that is not given.
        num_events: 1 to 3.
        relation: "single", "then" (one after another), "while" (together) or "background" (the last one soft and
            throughout).
        kinds: names from `SOUND_KINDS`. As many as events are placed in this order; of a longer list, some are drawn.
        duration_s: length of the scene in s.
    Returns:
        `Scene` at 24 kHz.
    Raises:
        ValueError: an unknown name, a contradiction, or events that do not fit into `duration_s`.
    """
    plan_rng, audio_rng, caption_rng = (np.random.default_rng([seed, stream]) for stream in range(3))
    plan = plan_scene(plan_rng, num_events, relation, kinds, duration_s)
    out = np.zeros(samples(plan.duration_s))
    events = _place_all(audio_rng, out, plan)
    captions = write_captions(caption_rng, plan.relation, [e.kind for e in events], [e.count for e in events])
    return Scene(seed, _finish(audio_rng, out), SAMPLING_RATE, tuple(events), plan.relation, captions)


def _quantise_like_mp3(rng: np.random.Generator, audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Cut off at 7 kHz and round STFT magnitudes in bands to coarse steps, as a low-rate codec does."""
    num_samples, window = len(audio), 512
    hz, _, spectrum = scipy.signal.stft(np.pad(audio, (0, max(0, window - num_samples))), sampling_rate, nperseg=window)
    spectrum = spectrum * (hz < 7000)[:, None]
    for band in np.array_split(np.arange(len(hz)), 24):
        step = 0.35 * np.abs(spectrum[band]).max(axis=0, keepdims=True) + 1e-9
        dither = rng.uniform(-0.25, 0.25, spectrum[band].shape)
        magnitude = np.abs(spectrum[band])
        spectrum[band] *= np.round(magnitude / step + dither).clip(0) * step / (magnitude + 1e-12)
    return scipy.signal.istft(spectrum, sampling_rate, nperseg=window)[1][:num_samples]


def degrade_audio(
    audio: np.ndarray,
    sampling_rate: int,
    *,
    gain_db: float = 0.0,
    mp3_like: bool = False,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:
    """Make a clip quieter or louder, and optionally like a poor stereo mp3.

    Args:
        audio: (n,), one channel.
        sampling_rate: of `audio` in Hz.
        gain_db: applied first; the result is clipped at 1.
        mp3_like: resample to 16 kHz, two slightly different channels, nothing above 7 kHz, coarse quantisation noise.
        rng: the only randomness used here.
    Returns:
        float32 audio, (n,) or (2, m) when `mp3_like`, and its sampling rate in Hz.
    Raises:
        ValueError: `audio` is not one channel.
    """
    audio = np.asarray(audio, dtype=np.float64)
    if audio.ndim != 1:
        raise ValueError(f"Got audio of shape {audio.shape}; expected one channel, (num_samples,).")
    audio = audio * 10 ** (gain_db / 20)
    if mp3_like:
        divisor = np.gcd(16000, sampling_rate)
        audio = scipy.signal.resample_poly(audio, 16000 // divisor, sampling_rate // divisor)
        sampling_rate = 16000
        channels = [
            np.roll(audio, shift) * gain for shift, gain in ((0, 1.0), (rng.integers(1, 4), rng.uniform(0.8, 1.0)))
        ]
        audio = np.stack([_quantise_like_mp3(rng, channel, sampling_rate) for channel in channels])
    return np.clip(audio, -1, 1).astype(np.float32), sampling_rate
