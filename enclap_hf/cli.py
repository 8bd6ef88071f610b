"""The `enclap` command: captions, scores, sound scenes, conversion, export, pushing, the demo, and what a model is."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from .version import __version__

EPILOG = """example:
  enclap caption recordings/ --output captions.csv
"""
EXIT_STATUS = """
Exit status: 0 done, 1 some inputs failed, 2 the command could not start or go on, 130 interrupted.
"""


class CommandParser(argparse.ArgumentParser):
    """The parser of a sub-command, which gets its arguments when it is first used: `enclap --help` imports nothing.

    `fill` is called with the parser then.
    """

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None, *more: Any, **options: Any) -> Any:
        """As in [`argparse.ArgumentParser`]."""
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        self.epilog = end_help(self.epilog)
        return super().parse_known_args(args, namespace, *more, **options)


def end_help(epilog: str | None) -> str:
    """What stands at the end of a help: examples, and what the exit status means."""
    return f"{(epilog or '').removesuffix(EXIT_STATUS)}{EXIT_STATUS}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of `enclap` and its sub-commands; each sets `run`, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="enclap",
        description="EnCLAP audio captioning: one sentence about a sound recording.",
        epilog=end_help(EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"enclap-hf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)
    for name, (help_line, fill) in COMMANDS.items():
        command = commands.add_parser(name, help=help_line, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.fill = fill
    return parser


def fill_caption(parser: argparse.ArgumentParser) -> None:
    """Give `enclap caption` its arguments."""
    from .commands import caption, caption_arguments

    parser.description = "Caption recordings: files, folders with their sub-folders, and patterns."
    parser.epilog = caption_arguments.EXAMPLES
    caption_arguments.add_caption_arguments(parser)
    parser.set_defaults(run=caption.run_caption, describe_interruption=caption.describe_interruption)


def fill_score(parser: argparse.ArgumentParser) -> None:
    """Give `enclap score` its arguments."""
    from .commands import score

    score.add_score_arguments(parser)
    parser.set_defaults(run=score.run_score)


def fill_scenes(parser: argparse.ArgumentParser) -> None:
    """Give `enclap scenes` its arguments."""
    from .commands import scenes

    parser.description, parser.epilog = scenes.DESCRIPTION, scenes.EXAMPLES
    scenes.add_scene_arguments(parser)
    parser.set_defaults(run=scenes.run_scenes, describe_interruption=scenes.describe_interruption)


def fill_convert(parser: argparse.ArgumentParser) -> None:
    """Give `enclap convert` its arguments."""
    from .commands import convert

    parser.description = "Turn the published EnCLAP, CLAP and EnCodec weights into one repository for transformers."
    parser.epilog = convert.EXAMPLES
    convert.add_convert_arguments(parser)
    parser.set_defaults(run=convert.run_convert, describe_interruption=convert.describe_interruption)


def fill_export(parser: argparse.ArgumentParser) -> None:
    """Give `enclap export` its arguments."""
    from .commands import export

    parser.description, parser.epilog = export.DESCRIPTION, export.EXAMPLES
    export.add_export_arguments(parser)
    parser.set_defaults(run=export.run_export, describe_interruption=export.describe_interruption)


def fill_push(parser: argparse.ArgumentParser) -> None:
    """Give `enclap push` its arguments."""
    from .commands import push

    parser.description = "Upload a model with its processor and encoders, and the code that loads them, to the Hub."
    parser.epilog = push.EXAMPLES
    push.add_push_arguments(parser)
    parser.set_defaults(run=push.run_push, describe_interruption=push.describe_interruption)


def fill_demo(parser: argparse.ArgumentParser) -> None:
    """Give `enclap demo` its arguments."""
    from .commands import demo

    parser.description = "Open a page that captions uploads, the microphone and examples."
    parser.epilog = demo.EXAMPLES
    demo.add_demo_arguments(parser)
    parser.set_defaults(run=demo.run_demo, describe_interruption=lambda args: "the page is closed.")


def fill_info(parser: argparse.ArgumentParser) -> None:
    """Give `enclap info` its arguments."""
    from .commands import info

    parser.description = "Tell what a model is, from its files: sizes, encoders, window, licence and scores."
    parser.epilog = info.EXAMPLES
    info.add_info_arguments(parser)
    parser.set_defaults(run=info.run_info)


def fill_completion(parser: argparse.ArgumentParser) -> None:
    """Give `enclap completion` its arguments."""
    from .commands import completion

    parser.description = "Print the code with which a shell completes `enclap`, its commands, options and files."
    parser.epilog = completion.EXAMPLES
    completion.add_completion_arguments(parser)
    parser.set_defaults(run=completion.run_completion)


# Name -> line of the help, and what gives the command its arguments.
COMMANDS = {
    "caption": ("caption recordings", fill_caption),
    "score": ("score captions against references", fill_score),
    "scenes": ("write synthesised sound scenes with captions", fill_scenes),
    "convert": ("fetch and convert the published checkpoints, and compare with the original packages", fill_convert),
    "export": ("write ONNX graphs beside a model's weights", fill_export),
    "push": ("upload a repository to the Hub", fill_push),
    "demo": ("caption in the browser", fill_demo),
    "info": ("tell what a model is", fill_info),
    "completion": ("complete commands and options in your shell", fill_completion),
}


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
