"""Types of command line arguments, whose messages say what came and what is allowed."""

import argparse
import math

BACKENDS = ("torch", "onnx", "onnx-int8")


def add_backend_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--backend`."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="torch",
        help="what computes: torch, or the graphs that `enclap export` wrote into the model's folder, in float32 or in "
        "8 bits (default: torch)",
    )


def positive_int(text: str) -> int:
    """An argument that counts something.

    Raises:
        argparse.ArgumentTypeError: the text is not one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def whole_number(text: str) -> int:
    """An argument that counts something, or 0 for none.

    Raises:
        argparse.ArgumentTypeError: the text is not one.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 0")
    return int(text)


def decibels_or_none(text: str) -> float | None:
    """A level in decibels below full scale, or None for "none".

    Raises:
        argparse.ArgumentTypeError: the text is not one.
    """
    if text.lower() == "none":
        return None
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not -math.inf < level <= 0:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a level of at most 0 dBFS, such as -70, or none")
    return level


def seconds(text: str) -> float:
    """A length of time."""
    try:
        length = float(text)
    except ValueError:
        length = math.nan
    if not 0 <= length < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number of seconds, 0 or more")
    return length


def mixture(text: str) -> str | dict[str, float]:
    """How candidates are ranked: "clap", or "clap=0.6,consensus=0.4"."""
    if "=" not in text:
        return text
    try:
        return {name.strip(): float(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}; expected a name, or names with weights such as clap=0.6,consensus=0.4"
        ) from None


def cosine(text: str) -> float:
    """A cosine."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number from -1 to 1")
    return value


def port_number(text: str) -> int:
    """A port that a page may have.

    Raises:
        argparse.ArgumentTypeError: the text is not one.
    """
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a port from 1 to 65535")
    return int(text)
