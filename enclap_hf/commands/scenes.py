"""`enclap scenes`: synthesised sound scenes with captions, as a data set on disk."""

import argparse
import sys

from ..sound_scenes.scene_captions import RELATIONS
from ..sound_scenes.scene_files import write_scenes
from .argument_types import positive_int, whole_number

DESCRIPTION = "Write synthesised sound scenes with captions in the layout of Clotho."
EXAMPLE = "example: enclap scenes --output scenes --num-scenes 1000"


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
