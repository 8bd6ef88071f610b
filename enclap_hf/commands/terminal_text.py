"""Text for the terminal: one line each, and nothing in it that a terminal would obey."""

import argparse
import contextlib
import os
import re
import sys
import unicodedata
from typing import TextIO

# Control characters, lone surrogates, and the two separators that end a line.
ESCAPED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# Characters that turn the direction of the text after them, and so can disguise a name.
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escape_controls(text: str) -> str:
    r"""Show as backslash escapes what would move the cursor, colour the screen, break the line or turn the text.

    Letters, spaces and signs of every script stay as they are, and so do backslashes: what is printed is for people.
    Files keep exact names.
    """
    return "".join(escape_character(character) for character in text)


def escape_character(character: str) -> str:
    """One character, or its escape."""
    if unicodedata.category(character) in ESCAPED_CATEGORIES or character in DIRECTION_MARKS:
        return character.encode("unicode_escape").decode("ascii")
    return character


def print_line(*columns: str, file: TextIO | None = None) -> None:
    """Print columns with tabs between them as one line; what the stream's encoding does not have becomes escapes.

    Raises:
        BrokenPipeError: the reader of our output, such as `head`, has seen enough.
        OSError: it cannot be written for another reason, such as a full disk.
    """
    file = sys.stdout if file is None else file
    line = "\t".join(escape_controls(column) for column in columns)
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)
    except OSError as error:
        discard_rest(file)
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(f"The captions cannot be printed: {error.strerror or error}.") from error


def discard_rest(file: TextIO) -> None:
    """Send what Python still holds of a stream nowhere, or it would fail once more when the program ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)


def print_problem(command: str, problem: object) -> None:
    """Say on the error stream, in one line, what went wrong.

    Args:
        command: who says it, such as "enclap convert".
        problem: the error, or its text.
    """
    print_line(f"{command}: {join_lines(str(problem))}", file=sys.stderr)


def join_lines(text: str) -> str:
    """A message of several lines as one; spaces within a line, as in names of files, stay."""
    return re.sub(r"\s*[\n\r]\s*", " ", text.strip())


def print_notice(args: argparse.Namespace, text: str) -> None:
    """Say something on the error stream that is worth knowing, unless --quiet was passed."""
    if not args.quiet:
        print_line(text, file=sys.stderr)


def add_quiet_argument(parser: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no notices on the error stream, only errors"
    )
