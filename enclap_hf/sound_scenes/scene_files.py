"""A data set of scenes on disk, in the layout of Clotho, and the command that writes it."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ..argument_types import positive_int, whole_number
from .scene_captions import RELATIONS
from .scene_plan import plan_scene
from .scenes import make_scene

DESCRIPTION = "Write synthesised sound scenes with captions in the layout of Clotho."
EXAMPLE = "example: enclap scenes --output scenes --num-scenes 1000"


def _write_scene(seed: int, output_dir: Path, options: dict) -> dict:
    """Write one scene's audio and return its row of `events.jsonl`."""
    scene = make_scene(seed, **options)
    path = output_dir / "audio" / f"scene_{seed:07d}.wav"
    # A file that is renamed when complete cannot be left half written by a stop.
    unfinished = path.with_suffix(".part")
    soundfile.write(unfinished, scene.audio, scene.sampling_rate, subtype="PCM_16", format="WAV")
    os.replace(unfinished, path)
    return {
        "file_name": path.name,
        "seed": seed,
        "relation": scene.relation,
        "duration_s": round(len(scene.audio) / scene.sampling_rate, 4),
        "events": [asdict(event) for event in scene.events],
        "captions": list(scene.captions),
        "options": options,
    }


def _read_rows(output_dir: Path, options: dict) -> dict[int, dict]:
    """Read the finished rows of `events.jsonl` by seed; a line cut off by a stop is dropped."""
    rows, path = {}, output_dir / "events.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["options"] == options and (output_dir / "audio" / row["file_name"]).exists():
            rows[row["seed"]] = row
    return rows


def _write_captions(path: Path, rows: Sequence[dict]) -> None:
    """Write the table of captions in Clotho's layout."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *(f"caption_{index}" for index in range(1, 6))])
        writer.writerows([row["file_name"], *row["captions"]] for row in rows)


def write_scenes(
    output_dir: str | Path,
    num_scenes: int,
    first_seed: int = 0,
    *,
    num_workers: int = 1,
    show_progress: bool = True,
    **scene_options,
) -> None:
    """Write scenes as a data set: `audio/*.wav`, `captions.csv` in Clotho's layout, and `events.jsonl`.

    A run that was stopped is taken up where it ended when it is called again with the same arguments.

    Args:
        output_dir: made if missing.
        num_scenes: how many scenes.
        first_seed: their seeds are `first_seed`, `first_seed` + 1, ...
        num_workers: processes.
        show_progress: whether to draw a progress bar.
        scene_options: passed to `make_scene`.
    Raises:
        ValueError: `num_scenes` or `num_workers` is below 1, or no scene has the options; nothing is written then.
    """
    if num_scenes < 1 or num_workers < 1:
        raise ValueError(f"Got `num_scenes` {num_scenes} and `num_workers` {num_workers}; both must be at least 1.")
    options = {name: value for name, value in scene_options.items() if value is not None}
    request = {"num_events": None, "relation": None, "kinds": None, "duration_s": None, **options}
    plan_scene(np.random.default_rng(first_seed), **request)  # refuses what cannot be, before anything is written
    output_dir = Path(output_dir)
    (output_dir / "audio").mkdir(parents=True, exist_ok=True)
    seeds = range(first_seed, first_seed + num_scenes)
    rows = {seed: row for seed, row in _read_rows(output_dir, options).items() if seed in seeds}
    todo = [seed for seed in seeds if seed not in rows]
    write = partial(_write_scene, output_dir=output_dir, options=options)
    with (output_dir / "events.jsonl").open("w", encoding="utf-8") as log, ExitStack() as stack:
        log.writelines(json.dumps(row) + "\n" for row in rows.values())
        if num_workers > 1:
            written = stack.enter_context(ProcessPoolExecutor(num_workers)).map(write, todo, chunksize=16)
        else:
            written = map(write, todo)
        for row in tqdm(written, total=num_scenes, initial=len(rows), unit="scene", disable=not show_progress):
            rows[row["seed"]] = row
            log.write(json.dumps(row) + "\n")
    _write_captions(output_dir / "captions.csv", [rows[seed] for seed in seeds])


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for audio/, captions.csv and events.jsonl"
    )
    parser.add_argument("--num-scenes", type=positive_int, required=True, metavar="N", help="how many scenes")
    parser.add_argument(
        "--first-seed", type=whole_number, default=0, metavar="S", help="seed of the first scene (default: 0)"
    )
    parser.add_argument("--num-workers", type=positive_int, default=1, metavar="W", help="processes (default: 1)")
    parser.add_argument("--num-events", type=int, choices=(1, 2, 3), help="events a scene (default: drawn)")
    parser.add_argument("--relation", choices=RELATIONS, help="how events relate (default: drawn)")


def run_scenes(args: argparse.Namespace) -> int:
    """Write scenes; returns 0 when all are written, 2 with the reason when they cannot be."""
    try:
        write_scenes(
            args.output,
            args.num_scenes,
            args.first_seed,
            num_workers=args.num_workers,
            num_events=args.num_events,
            relation=args.relation,
        )
    except (ValueError, OSError) as error:
        print(f"enclap scenes: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    scenes = "1 scene" if args.num_scenes == 1 else f"{args.num_scenes} scenes"
    print(f"Wrote {scenes} to {args.output}: audio/, captions.csv and events.jsonl.")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m enclap_hf.sound_scenes`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m enclap_hf.sound_scenes", description=DESCRIPTION, epilog=EXAMPLE)
    add_scene_arguments(parser)
    return run_scenes(parser.parse_args(argv))
