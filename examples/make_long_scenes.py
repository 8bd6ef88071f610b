"""Write long recordings made of sound scenes, and what sounds in them when: the truth for captions with times.

python examples/make_long_scenes.py --output output/long_scenes
python examples/make_long_scenes.py --output output/long_scenes --num-recordings 1 --duration-s 60  # a look

A seed gives a recording. Scenes follow each other as days do, not as clips: some run into the next one, most leave a
short gap, some a long one; a scene has one to three events, one after another, together or over a background, of one
second to half a minute. Scenes have levels and rooms of their own, and the recording has a noise floor of its own,
which in some recordings counts as silence and in others does not.

Each recording is a 16-bit wav at 24 kHz; `events.json` lists all of them with `file_name`, `seed`, `duration_s` and
`events` (`kind`, `start_s`, `end_s`, `count`, `role`), which a scene's own events are, with the times of the recording.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from enclap_hf.sound_scenes import SAMPLING_RATE, Event, Scene, make_scene

# Seeds of scenes: those of recording n begin at FIRST + n * STEP, away from the model's training (900,000 and above).
FIRST_SCENE_SEED, SCENE_SEED_STEP, MAX_SEED = 300_000, 1000, 599
SCENE_S = (4.0, 30.0)  # drawn evenly on a logarithmic scale
# Share, shortest and longest of the gaps in front of a scene, in s; a negative gap is an overlap.
GAPS = ((0.35, -1.0, 0.3), (0.40, 0.3, 3.0), (0.25, 3.0, 20.0))
LEAD_S, TAIL_S = 0.1, 0.1  # kept of a scene in front of its first event and behind its last
FADE_S = 0.05
FLOOR_DB = (-95.0, -70.0)  # RMS of the recording's own noise


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write long recordings made of sound scenes, and their events.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder, made if missing")
    parser.add_argument("--num-recordings", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--duration-s", type=float, default=600.0, help="seconds of each (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first recording (default: %(default)s)")
    args = parser.parse_args()
    if args.num_recordings < 1 or args.first_seed < 0 or args.first_seed + args.num_recordings - 1 > MAX_SEED:
        parser.error(f"expected at least one recording, and seeds from 0 to {MAX_SEED}")
    if not SCENE_S[1] <= args.duration_s <= 3600:
        parser.error(f"expected --duration-s from {SCENE_S[1]:g} to 3600")
    return args


def make_recording(seed: int, duration_s: float) -> tuple[np.ndarray, list[Event]]:
    """A recording, float32 (num_samples,) at 24 kHz, and its events in order of time; the seed fixes both."""
    rng = np.random.default_rng([seed, 7])
    audio = rng.standard_normal(round(duration_s * SAMPLING_RATE), dtype=np.float32)
    audio *= 10 ** (rng.uniform(*FLOOR_DB) / 20)
    events, end_s, scene_seed = [], 0.0, FIRST_SCENE_SEED + seed * SCENE_SEED_STEP
    while True:
        start_s = max(0.0, end_s + draw_gap_s(rng))
        samples, scene_events = trim_scene(draw_scene(rng, scene_seed))
        start, scene_seed = round(start_s * SAMPLING_RATE), scene_seed + 1
        end_s = (start + len(samples)) / SAMPLING_RATE
        if end_s > duration_s:
            return np.clip(audio, -1, 1), sorted(events, key=lambda event: event.start_s)
        audio[start : start + len(samples)] += samples
        events += [shift_event(event, start / SAMPLING_RATE) for event in scene_events]


def draw_gap_s(rng: np.random.Generator) -> float:
    """Seconds from the end of one scene to the start of the next."""
    shares, shortest, longest = zip(*GAPS, strict=True)
    kind = rng.choice(len(GAPS), p=shares)
    return rng.uniform(shortest[kind], longest[kind])


def draw_scene(rng: np.random.Generator, seed: int) -> Scene:
    """A scene of a drawn length."""
    return make_scene(seed, duration_s=float(np.exp(rng.uniform(*np.log(SCENE_S)))))


def trim_scene(scene: Scene) -> tuple[np.ndarray, list[Event]]:
    """A scene without what is quiet at its ends, which gaps are for, and its events in the times of what is left."""
    first = max(0, round((min(event.start_s for event in scene.events) - LEAD_S) * SAMPLING_RATE))
    last = round((max(event.end_s for event in scene.events) + TAIL_S) * SAMPLING_RATE)
    samples = scene.audio[first:last].copy()
    ramp = np.linspace(0, 1, round(FADE_S * SAMPLING_RATE), dtype=np.float32)
    samples[: len(ramp)] *= ramp
    samples[-len(ramp) :] *= ramp[::-1]
    return samples, [shift_event(event, -first / SAMPLING_RATE) for event in scene.events]


def shift_event(event: Event, seconds: float) -> Event:
    """The same event at another time."""
    return replace(event, start_s=round(event.start_s + seconds, 4), end_s=round(event.end_s + seconds, 4))


def main() -> None:
    args = parse_arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in tqdm(range(args.first_seed, args.first_seed + args.num_recordings), unit="recording"):
        audio, events = make_recording(seed, args.duration_s)
        file_name = f"long_scene_{seed:03d}.wav"
        soundfile.write(args.output / file_name, audio, SAMPLING_RATE, subtype="PCM_16")
        described = [vars(event) for event in events]
        rows.append({"file_name": file_name, "seed": seed, "duration_s": args.duration_s, "events": described})
    (args.output / "events.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    num_events = sum(len(row["events"]) for row in rows)
    print(f"Wrote {len(rows)} recordings with {num_events} events, and events.json, to {args.output}.")


if __name__ == "__main__":
    main()
