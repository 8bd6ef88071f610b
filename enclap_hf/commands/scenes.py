"""`enclap scenes`: synthesised sound scenes with captions, as a data set on disk."""

import argparse
import sys

from ..sound_scenes.scene_captions import RELATIONS
from ..sound_scenes.scene_files import write_scenes
from .argument_types import positive_int, whole_number
from .terminal_text import add_quiet_argument, print_problem

DESCRIPTION = "Write synthesised sound scenes with captions in the layout of Clotho."
EXAMPLES = """examples:
  enclap scenes --output scenes --num-scenes 1000
  enclap scenes --output test_scenes --num-scenes 200 --first-seed 1000000 --num-events 2 --relation then

A run that was stopped goes on where it ended when the same command is given again.
"""


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
    parser.add_argument("--num-events", type=int, choices=(1, 2, 3), help="events in each scene (default: drawn)")
    parser.add_argument("--relation", choices=RELATIONS, help="how events relate (default: drawn)")
    add_quiet_argument(parser)


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
            show_progress=sys.stderr.isatty() and not args.quiet,
        )
    except (ValueError, OSError) as error:
        print_problem("enclap scenes", error)
        return 2
    if not args.quiet:
        scenes = "1 scene" if args.num_scenes == 1 else f"{args.num_scenes} scenes"
        print(f"Wrote {scenes} to {args.output}: audio/, captions.csv and events.jsonl.")
    return 0


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    return f"the scenes in {args.output}/audio are kept, and the same command goes on with them."
