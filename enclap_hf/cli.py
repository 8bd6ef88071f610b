"""The `enclap` command: captioning, scoring, sound scenes, converting, pushing, the demo, and what a model is."""

import argparse
import os
import sys

from .version import __version__

EPILOG = """example:
  enclap caption recordings/ --output captions.csv
"""
EXIT_STATUS = """
Exit status: 0 done, 1 some inputs failed, 2 the command could not start or go on, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `enclap` and its sub-commands; each sets `run`, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="enclap",
        description="EnCLAP audio captioning: one sentence about a sound recording.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"enclap-hf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_caption_command(commands)
    add_score_command(commands)
    add_scenes_command(commands)
    add_convert_command(commands)
    add_push_command(commands)
    add_demo_command(commands)
    add_info_command(commands)
    add_completion_command(commands)
    for command in (parser, *commands.choices.values()):
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.epilog = f"{command.epilog or ''}{EXIT_STATUS}"
    return parser


def add_caption_command(commands) -> None:
    """`enclap caption`."""
    from .commands import caption, caption_arguments

    parser = commands.add_parser(
        "caption",
        help="caption recordings",
        description="Caption recordings: files, folders with their sub-folders, and patterns.",
        epilog=caption_arguments.EXAMPLES,
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
    )
    convert.add_convert_arguments(parser)
    parser.set_defaults(run=convert.run_convert, describe_interruption=convert.describe_interruption)


def add_push_command(commands) -> None:
    """`enclap push`."""
    from .commands import push

    parser = commands.add_parser(
        "push",
        help="upload a repository to the Hub",
        description="Upload a model with its processor and encoders, and the code that loads them, to the Hub.",
        epilog=push.EXAMPLES,
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
    )
    demo.add_demo_arguments(parser)
    parser.set_defaults(run=demo.run_demo, describe_interruption=lambda args: "the page is closed.")


def add_info_command(commands) -> None:
    """`enclap info`."""
    from .commands import info

    parser = commands.add_parser(
        "info",
        help="tell what a model is",
        description="Tell what a model is, from its files: sizes, encoders, window, licence and scores.",
        epilog=info.EXAMPLES,
    )
    info.add_info_arguments(parser)
    parser.set_defaults(run=info.run_info)


def add_completion_command(commands) -> None:
    """`enclap completion`."""
    from .commands import completion

    parser = commands.add_parser(
        "completion",
        help="complete commands and options in your shell",
        description="Print the code with which a shell completes `enclap`, its commands, options and files.",
        epilog=completion.EXAMPLES,
    )
    completion.add_completion_arguments(parser)
    parser.set_defaults(run=completion.run_completion)


def main(argv: list[str] | None = None) -> int:
    """Run `enclap`.

    Args:
        argv: command line without the program's name; that of the process when left out.
    Returns:
        exit status: 0 done, 1 some inputs failed, 2 the command could not start or go on, 130 interrupted.
    """
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may come next, see `enclap completion`
        import argcomplete

        argcomplete.autocomplete(parser)
    args = parser.parse_args(argv)
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
