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
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def whole_number(text: str) -> int:
    """An argument that counts something, or 0 for none."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 0")
    return int(text)


def decibels_or_none(text: str) -> float | None:
    """A level in decibels below full scale, or None for "none"."""
    if text.lower() == "none":
        return None
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not -math.inf < level <= 0:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a level of at most 0 dBFS, such as -70, or none")
    return level


def port_number(text: str) -> int:
    """A port that a page may have."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a port from 1 to 65535")
    return int(text)
