"""How well captions with times fit what sounds when: windows of one length against segments between changes.

python examples/make_long_scenes.py --output output/long_scenes
python examples/benchmarks/benchmark_segments.py --recordings output/long_scenes
python examples/benchmarks/benchmark_segments.py --recordings output/long_scenes --num-recordings 1  # a look

Of each way of cutting recordings:

    recall      share of events whose kind is named by a segment that overlaps them
    precision   share of named kinds of which an event overlaps the segment
    boundary F1 of the moments at which segments meet, against those at which events begin or end; found when within
                1 s, each moment once. Moments of events less than half a second apart are one change, and the
                recording's own start and end are none.
    overlap     of each event with the segment that fits it best: intersection over union of the two stretches of time
    captions    that the model wrote, before neighbours that say the same are joined

The last line is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import pipeline

from enclap_hf import DEFAULT_MODEL
from enclap_hf.sound_scenes import parse_caption

TOLERANCE_S = 1.0
SAME_CHANGE_S = 0.5
WAYS = {
    "fixed": {"chunk_length_s": 10.0},
    "changes": {"segmentation": "changes"},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True, metavar="DIR", help="written by make_long_scenes.py")
    parser.add_argument("--num-recordings", type=int, help="the first so many (default: all)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="captioner (default: the package's own)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=8, help="segments at a time (default: %(default)s)")
    parser.add_argument(
        "--silence-dbfs",
        type=float,
        default=-55.0,
        help="peak below which a stretch is silent; the recordings' own noise is below the default, %(default)s",
    )
    parser.add_argument("--num-threads", type=int, default=1, help="of torch (default: %(default)s)")
    args = parser.parse_args()
    if not (args.recordings / "events.json").is_file():
        parser.error(f"{args.recordings} has no events.json; write it with examples/make_long_scenes.py")
    return args


class CountedCaptions:
    """Captions recordings one way, and counts what it costs."""

    def __init__(self, caption, options: dict, batch_size: int):
        self.caption, self.options, self.batch_size = caption, options, batch_size
        self.num_captions, self.seconds = 0, 0.0

    def __call__(self, path: Path) -> list[dict]:
        """The chunks of a recording."""
        hook = self.caption.model.model.encoder.register_forward_hook(self._count)
        began = time.process_time()
        try:
            result = self.caption(str(path), batch_size=self.batch_size, return_timestamps=True, **self.options)
        finally:
            hook.remove()
        self.seconds += time.process_time() - began
        return result["chunks"]

    def _count(self, module, inputs, output) -> None:
        self.num_captions += len(output[0])


def score_recording(chunks: list[dict], events: list[dict], duration_s: float) -> dict:
    """Counts of one recording, see the header; they add up over recordings."""
    segments = [(*chunk["timestamp"], set(parse_caption(chunk["text"] or "").kinds)) for chunk in chunks]
    named = [
        any(event["kind"] in kinds and overlap_s(event, start, end) > 0 for start, end, kinds in segments)
        for event in events
    ]
    right = [
        any(event["kind"] == kind and overlap_s(event, start, end) > 0 for event in events)
        for start, end, kinds in segments
        for kind in kinds
    ]
    found = sorted({moment for start, end, _ in segments for moment in (start, end) if 0 < moment < duration_s})
    truth = find_changes(events, duration_s)
    return {
        "named": sum(named),
        "events": len(events),
        "right": sum(right),
        "said": len(right),
        "matched": count_matches(found, truth),
        "found": len(found),
        "changes": len(truth),
        "overlap": sum(max(compute_iou(event, start, end) for start, end, _ in segments) for event in events),
        "segments": len(segments),
    }


def overlap_s(event: dict, start_s: float, end_s: float) -> float:
    """Seconds that an event and a segment share, 0 or less for none."""
    return min(event["end_s"], end_s) - max(event["start_s"], start_s)


def compute_iou(event: dict, start_s: float, end_s: float) -> float:
    """Intersection over union of an event and a segment in time."""
    shared = max(0.0, overlap_s(event, start_s, end_s))
    return shared / (event["end_s"] - event["start_s"] + end_s - start_s - shared)


def find_changes(events: list[dict], duration_s: float) -> list[float]:
    """Moments at which events begin or end, those that are close to each other as their mean."""
    moments = sorted(moment for event in events for moment in (event["start_s"], event["end_s"]))
    groups: list[list[float]] = []
    for moment in moments:
        if not SAME_CHANGE_S < moment < duration_s - SAME_CHANGE_S:
            continue
        if groups and moment - groups[-1][0] < SAME_CHANGE_S:
            groups[-1].append(moment)
        else:
            groups.append([moment])
    return [float(np.mean(group)) for group in groups]


def count_matches(found: list[float], truth: list[float]) -> int:
    """The most pairs of a found and a true moment within the tolerance, each moment in one pair; both sorted."""
    i = j = count = 0
    while i < len(found) and j < len(truth):
        if abs(found[i] - truth[j]) <= TOLERANCE_S:
            i, j, count = i + 1, j + 1, count + 1
        elif found[i] < truth[j]:
            i += 1
        else:
            j += 1
    return count


def summarise(counts: list[dict], captions: CountedCaptions, duration_s: float) -> dict:
    """Scores of one way from the counts of all recordings."""
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    precision, recall = total["matched"] / max(1, total["found"]), total["matched"] / max(1, total["changes"])
    return {
        "recall": total["named"] / max(1, total["events"]),
        "precision": total["right"] / max(1, total["said"]),
        "boundary_f1": 2 * precision * recall / max(1e-9, precision + recall),
        "boundary_precision": precision,
        "boundary_recall": recall,
        "overlap": total["overlap"] / max(1, total["events"]),
        "captions": captions.num_captions,
        "segments": total["segments"],
        "cpu_seconds_per_minute": captions.seconds / duration_s * 60,
    }


def print_table(scores: dict[str, dict]) -> None:
    names = ("recall", "precision", "boundary_f1", "boundary_precision", "boundary_recall", "overlap", "captions")
    print(" | ".join(["way".ljust(10), *names, "segments", "CPU s a minute"]))
    for way, row in scores.items():
        cells = [f"{row[name]:.3f}" if name != "captions" else str(row[name]) for name in names]
        cells += [str(row["segments"]), f"{row['cpu_seconds_per_minute']:.2f}"]
        print(" | ".join([way.ljust(10), *cells]))


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.num_threads)
    rows = json.loads((args.recordings / "events.json").read_text(encoding="utf-8"))[: args.num_recordings]
    caption = pipeline("audio-captioning", model=args.model)
    scores = {}
    for way in args.ways:
        captions = CountedCaptions(caption, WAYS[way] | {"silence_dbfs": args.silence_dbfs}, args.batch_size)
        counts = []
        for row in tqdm(rows, desc=way, unit="recording", file=sys.stderr):
            chunks = captions(args.recordings / row["file_name"])
            counts.append(score_recording(chunks, row["events"], row["duration_s"]))
        scores[way] = summarise(counts, captions, sum(row["duration_s"] for row in rows))
    num_events = sum(len(row["events"]) for row in rows)
    print(f"{len(rows)} recordings, {num_events} events, {args.model}")
    print_table(scores)
    print(json.dumps({"num_recordings": len(rows), "num_events": num_events, "model": args.model, "scores": scores}))


if __name__ == "__main__":
    main()
