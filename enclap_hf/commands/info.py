"""`enclap info`: what a model is, from its files, without loading it."""

import argparse
import json
from collections.abc import Iterator

from .terminal_text import print_line, print_problem

EXAMPLES = """examples:
  enclap info                                   the bundled small model
  enclap info enclap-base
  enclap info owner/name --revision v1 --json
"""


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap info`."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="folder or Hub repository (default: the bundled small model)"
    )
    parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit of a Hub repository")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_info(args: argparse.Namespace) -> int:
    """Print what is known of a model; returns 0, or 2 with the reason when it cannot be told."""
    from ..hub.hub_errors import DownloadError
    from ..hub.model_info import read_model_info
    from ..hub.registration import DEFAULT_MODEL
    from ..model.model_files import ModelFileError

    try:
        info = read_model_info(args.model or DEFAULT_MODEL, args.revision)
    except (ValueError, OSError, DownloadError, ModelFileError) as error:
        print_problem("enclap info", error)
        return 2
    if args.json:
        print(json.dumps(info, indent=2))
        return 0
    for label, text in describe_info(info):
        print_line(f"{label:<14}{text}")
    return 0


def describe_info(info: dict) -> Iterator[tuple[str, str]]:
    """Lines for people: what, and what it is."""
    captioner = info["captioner"]
    yield "model", info["name"]
    yield (
        "captioner",
        f"{describe_count(captioner['num_parameters'])} parameters, {captioner['encoder_layers']} + "
        f"{captioner['decoder_layers']} layers of width {captioner['d_model']}, {captioner['vocab_size']:,} tokens, "
        f"{captioner['dtype']}",
    )
    yield "frames", describe_frames(info["encoders"]["codec"])
    yield "CLAP", describe_clap(info["encoders"]["clap"])
    window = info["window_s"]
    yield "window", "of any length" if window is None else f"{window:g} s of a recording for each caption"
    yield "size", f"{info['num_bytes'] / 1e6:,.1f} MB in {info['num_files']} files"
    yield "licence", info["licence"] or "not stated"
    for part in info["parts"]:
        yield "", f"{part['name']}: {part['licence']}"
    for number, row in enumerate(info["scores"]):
        yield "scores" if number == 0 else "", describe_scores(row)
    if not info["scores"]:
        yield "scores", "none stated"


def describe_count(number: int | None) -> str:
    """A number of parameters for people."""
    if number is None:
        return "an unknown number of"
    return f"{number / 1e6:.3g} M" if number < 1e9 else f"{number / 1e9:.3g} B"


def describe_frames(encoder: dict | None) -> str:
    """The frame encoder."""
    if encoder is None:
        return "none"
    codes = (
        f", {encoder['num_codebooks']} codebooks of {encoder['codebook_size']:,}" if encoder["num_codebooks"] else ""
    )
    rate = (
        f", {encoder['frames_per_s']:g} frames/s at {encoder['sampling_rate']:,} Hz" if encoder["frames_per_s"] else ""
    )
    return f"{encoder['family'] or 'unknown family'}{rate}{codes}{describe_place(encoder)}"


def describe_clap(encoder: dict | None) -> str:
    """The CLAP tower."""
    if encoder is None:
        return "none"
    rate = f", {encoder['sampling_rate']:,} Hz" if encoder["sampling_rate"] else ""
    return f"vectors of {encoder['width']}{rate}, windows of {encoder['window_s']:g} s{describe_place(encoder)}"


def describe_place(encoder: dict) -> str:
    """How large an encoder is, or where its weights are."""
    if encoder.get("source"):
        revision = f" at {encoder['revision']}" if encoder.get("revision") else ""
        return f"; weights from {encoder['source']}{revision}"
    return f"; {describe_count(encoder['num_parameters'])} parameters" if encoder["num_parameters"] else ""


def describe_scores(row: dict) -> str:
    """Scores of one test."""
    where = ", ".join(
        text
        for text in (
            " ".join(filter(None, (row["dataset"], row.get("split")))),
            row.get("condition"),
            f"{row['num_clips']:,} clips" if row.get("num_clips") else None,
        )
        if text
    )
    metrics = ", ".join(f"{name} {score:.3f}" for name, score in row["metrics"].items())
    origin = " by ".join(text for text in (row.get("origin"), row.get("source")) if text)
    return f"{where}: {metrics}{f' ({origin})' if origin else ''}"
