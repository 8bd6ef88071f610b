"""The `enclap` command: captioning, scoring, sound scenes, converting, pushing and the demo."""

import argparse
import sys

from .version import __version__


def build_parser() -> argparse.ArgumentParser:
    """The parser of `enclap` and its sub-commands; each sets `run`, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="enclap",
        description="EnCLAP audio captioning: one sentence about a sound recording.",
        epilog="example: enclap caption recordings/ --output captions.csv",
    )
    parser.add_argument("--version", action="version", version=f"enclap-hf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_caption_command(commands)
    add_score_command(commands)
    add_scenes_command(commands)
    add_convert_command(commands)
    add_push_command(commands)
    add_demo_command(commands)
    return parser


def add_caption_command(commands) -> None:
    """`enclap caption`."""
    from .commands import caption

    parser = commands.add_parser(
        "caption",
        help="caption recordings",
        description="Caption recordings: files, folders (searched through) and patterns.",
        epilog=caption.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    caption.add_caption_arguments(parser)
    parser.set_defaults(run=caption.run_caption)


def add_score_command(commands) -> None:
    """`enclap score`."""
    from .commands import score

    parser = commands.add_parser("score", help="score captions against references")
    score.add_score_arguments(parser)
    parser.set_defaults(run=score.run_score)


def add_scenes_command(commands) -> None:
    """`enclap scenes`."""
    from .commands import scenes

    parser = commands.add_parser(
        "scenes",
        help="write synthesised sound scenes with captions",
        description=scenes.DESCRIPTION,
        epilog=scenes.EXAMPLE,
    )
    scenes.add_scene_arguments(parser)
    parser.set_defaults(run=scenes.run_scenes)


def add_convert_command(commands) -> None:
    """`enclap convert`."""
    from .commands import convert

    parser = commands.add_parser(
        "convert",
        help="convert the published checkpoints, and compare with the original packages",
        description="Turn the published EnCLAP, CLAP and EnCodec weights into one repository for transformers.",
        epilog=convert.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_convert_arguments(parser)
    parser.set_defaults(run=convert.run_convert)


def add_push_command(commands) -> None:
    """`enclap push`."""
    from .commands import push

    parser = commands.add_parser(
        "push",
        help="upload a repository to the Hub",
        description="Upload a model with its processor and encoders, and the code that loads them, to the Hub.",
        epilog=push.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    push.add_push_arguments(parser)
    parser.set_defaults(run=push.run_push)


def add_demo_command(commands) -> None:
    """`enclap demo`."""
    from .commands import demo

    parser = commands.add_parser(
        "demo", help="caption in the browser", description="Open a page that captions uploads and the microphone."
    )
    demo.add_demo_arguments(parser)
    parser.set_defaults(run=demo.run_demo)


def main(argv: list[str] | None = None) -> int:
    """Run `enclap`; returns the exit status: 0 done, 1 some inputs failed, 2 wrong usage, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nenclap: interrupted; what was written so far is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
