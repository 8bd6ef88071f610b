"""The `enclap` command: captioning, scoring, sound scenes, converting, exporting, pushing and the demo."""

import argparse
import sys

from .version import __version__

EPILOG = """example:
  enclap caption recordings/ --output captions.csv

Exit status: 0 done, 1 some inputs failed, 2 the command could not start or go on, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `enclap` and its sub-commands; each sets `run`, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="enclap",
        description="EnCLAP audio captioning: one sentence about a sound recording.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"enclap-hf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_caption_command(commands)
    add_score_command(commands)
    add_scenes_command(commands)
    add_convert_command(commands)
    add_export_command(commands)
    add_push_command(commands)
    add_demo_command(commands)
    return parser


def add_caption_command(commands) -> None:
    """`enclap caption`."""
    from .commands import caption, caption_arguments

    parser = commands.add_parser(
        "caption",
        help="caption recordings",
        description="Caption recordings: files, folders with their sub-folders, and patterns.",
        epilog=caption_arguments.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    caption_arguments.add_caption_arguments(parser)
    parser.set_defaults(run=caption.run_caption, describe_interruption=caption.describe_interruption)


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
        epilog=scenes.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scenes.add_scene_arguments(parser)
    parser.set_defaults(run=scenes.run_scenes, describe_interruption=scenes.describe_interruption)


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
    parser.set_defaults(run=convert.run_convert, describe_interruption=convert.describe_interruption)


def add_export_command(commands) -> None:
    """`enclap export`."""
    from .commands import export

    parser = commands.add_parser(
        "export",
        help="write ONNX graphs beside a model's weights",
        description=export.DESCRIPTION,
        epilog=export.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_export_arguments(parser)
    parser.set_defaults(run=export.run_export, describe_interruption=export.describe_interruption)


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
    parser.set_defaults(run=push.run_push, describe_interruption=push.describe_interruption)


def add_demo_command(commands) -> None:
    """`enclap demo`."""
    from .commands import demo

    parser = commands.add_parser(
        "demo",
        help="caption in the browser",
        description="Open a page that captions uploads, the microphone and examples.",
        epilog=demo.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_demo_arguments(parser)
    parser.set_defaults(run=demo.run_demo, describe_interruption=lambda args: "the page is closed.")


def main(argv: list[str] | None = None) -> int:
    """Run `enclap`.

    Args:
        argv: command line without the program's name; that of the process when left out.
    Returns:
        exit status: 0 done, 1 some inputs failed, 2 the command could not start or go on, 130 interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        describe = getattr(args, "describe_interruption", lambda args: "the command did not end.")
        print(f"\nenclap: interrupted; {describe(args)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        from .commands.terminal_text import discard_rest

        discard_rest(sys.stdout)
        return 0


if __name__ == "__main__":
    sys.exit(main())
