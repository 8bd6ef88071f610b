"""A data set of scenes on disk, in the layout of Clotho."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from .scene_plan import plan_scene
from .scenes import make_scene


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
    **scene_options: Any,
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
