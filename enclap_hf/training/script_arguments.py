"""Command lines of the training scripts: recipes, and a help that shows the script's header."""

import argparse
from collections.abc import Sequence

from transformers import HfArgumentParser


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The header as it is written, and the default of each argument."""


def parse_script_arguments(dataclass_types: Sequence[type], header: str, usage: str, arguments: Sequence[str]) -> tuple:
    """Parse a script's command line.

    Args:
        dataclass_types: of the arguments.
        header: what `--help` prints first.
        usage: the same for the line of usage, without the program's name.
        arguments: the command line, with any recipe expanded.
    Returns:
        an instance of each type.
    Raises:
        ValueError: an argument that nothing takes, or a value that its type refuses.
    """
    parser = HfArgumentParser(
        tuple(dataclass_types), description=header, formatter_class=_HelpFormatter, usage=f"%(prog)s {usage}"
    )
    *parsed, unused = parser.parse_args_into_dataclasses(list(arguments), return_remaining_strings=True)
    if unused:
        raise ValueError(
            f"Got {' '.join(unused)}, which nothing takes; expected: {parser.prog} {usage}. A recipe stands first; "
            "--help lists the arguments."
        )
    return tuple(parsed)
