"""Recordings and tables of captions, written for the tests that read them."""

import csv

import soundfile

from conftest import make_clip
from enclap_hf.data.captioning_data import open_source


def write_wav(path, duration_s: float = 0.1, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, make_clip(duration_s, seed), 24_000)


def write_table(path, rows: list[dict], encoding: str = "utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def by_name(clips) -> dict[str, tuple[str, ...]]:
    return {clip.name: clip.captions for clip in clips}


def read_clips(source, show_progress: bool = False):
    """Clips and bad clips of a source."""
    return open_source(source).read_clips(show_progress)
