"""Types of command line arguments, whose messages say what came and what is allowed."""

import argparse


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
