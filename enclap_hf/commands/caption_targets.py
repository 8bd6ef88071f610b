"""Where `enclap caption` writes, and in which format: what the options about it ask for, and what of that cannot be."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.caption_formats import FORMATS
from ..data.caption_writing import CueFormat
from ..data.table_formats import COLUMNS
from .caption_output import WHOLE_COLUMNS
from .caption_rows import STANDARD_INPUT

ALL = "all"
STANDARD_OUTPUT = "-"
# Formats of files that rows can be added to, so that they grow as recordings are captioned.
GROWING_FORMATS = ("csv", "jsonl")
# Beside these files of a folder lie its manifest and its lock.
FOLDER_BASE = "captions"


@dataclass(frozen=True)
class Target:
    """Where captions go.

    Args:
        kind: "lines" for people, or a "stream" in a format, both on standard output; a "table" that grows; a "document"
            that is written when all is captioned; or a "folder" of documents, one for each recording.
        formats: what is written; several in a folder.
        path: of the file or folder; None for standard output.
        columns: of a csv.
    """

    kind: str
    formats: tuple[str, ...] = ()
    path: str | None = None
    columns: Sequence[str] = COLUMNS

    @property
    def base(self) -> str | None:
        """Beside which manifest and lock lie; None for standard output."""
        return os.path.join(self.path, FOLDER_BASE) if self.kind == "folder" else self.path


def choose_target(args: argparse.Namespace) -> Target:
    """What the options ask for.

    Raises:
        ValueError: they do not fit each other, or the output could not be written or would be lost.
    """
    columns = WHOLE_COLUMNS if args.chunk_length_s == 0 else COLUMNS
    if args.output is not None and args.output_dir is not None:
        raise ValueError("--output names one file and --output-dir a folder of files; pass one of them.")
    if args.resume and args.overwrite:
        raise ValueError("--resume keeps what is there and --overwrite replaces it; pass one of them.")
    if args.output_dir is not None:
        target = choose_folder(args)
    elif args.output in (None, STANDARD_OUTPUT):
        target = choose_stream(args)
    else:
        name = args.format or find_format(args.output)
        kind = "table" if name in GROWING_FORMATS else "document"
        target = Target(kind, (name,), args.output, columns)
        check_file(args, target)
    if args.chunk_length_s == 0:
        timed = [name for name in target.formats if issubclass(FORMATS[name], CueFormat) and name != "txt"]
        if timed:
            raise ValueError(f"--chunk-length-s 0 gives captions without times, which {timed[0]} needs; leave it out.")
    return target


def choose_folder(args: argparse.Namespace) -> Target:
    """The target of --output-dir."""
    if args.format is None:
        raise ValueError(f"--output-dir needs --format: {', '.join(FORMATS)} or {ALL}.")
    if args.escape_formulas and args.format not in ("csv", ALL):
        raise ValueError("--escape-formulas is for csv, which spreadsheets open; leave it out.")
    if os.path.exists(args.output_dir) and not os.path.isdir(args.output_dir):
        raise ValueError(f"--output-dir {args.output_dir} is a file; name a folder.")
    target = Target("folder", tuple(FORMATS) if args.format == ALL else (args.format,), args.output_dir)
    if os.path.exists(f"{target.base}.manifest.json") and not (args.resume or args.overwrite):
        raise ValueError(
            f"{args.output_dir} holds captions of an earlier run; pass --resume to go on with it or --overwrite to "
            "replace them."
        )
    return target


def choose_stream(args: argparse.Namespace) -> Target:
    """The target on standard output."""
    if args.resume or args.overwrite or args.escape_formulas:
        raise ValueError(
            "--resume, --overwrite and --escape-formulas need --output or --output-dir; name a file: --output FILE."
        )
    if args.format == ALL:
        raise ValueError(f"--format {ALL} writes several files; name a folder for them: --output-dir DIR.")
    return Target("lines") if args.format is None else Target("stream", (args.format,))


def check_file(args: argparse.Namespace, target: Target) -> None:
    """Refuse an output file that could not be written, or would be lost.

    Raises:
        ValueError: with the reason, and what to do.
    """
    output, name = target.path, target.formats[0]
    if name == ALL:
        raise ValueError(f"--format {ALL} writes several files; name a folder for them: --output-dir DIR.")
    if target.kind == "table" and not output.endswith(f".{name}"):
        raise ValueError(f"Got --format {name} and --output {output}; expected a name that ends in .{name}.")
    if args.escape_formulas and name != "csv":
        raise ValueError(f"--escape-formulas is for .csv, which spreadsheets open; leave it out for .{name}.")
    folder = os.path.dirname(output) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"The folder of --output {output} does not exist; make it first: mkdir -p {folder}")
    if os.path.isdir(output):
        raise ValueError(f"--output {output} is a folder; name a file in it, such as {output}/captions.csv.")
    is_begun = os.path.exists(output) or (target.kind == "document" and os.path.exists(place_journal(output)))
    if is_begun and not (args.resume or args.overwrite):
        raise ValueError(f"{output} exists; pass --resume to go on with it or --overwrite to replace it.")


def find_format(output: str) -> str:
    """The format that a file's name stands for, the longest ending first.

    Raises:
        ValueError: for none.
    """
    for name in sorted(FORMATS, key=lambda name: -len(FORMATS[name].suffix)):
        if output.lower().endswith(FORMATS[name].suffix):
            return name
    suffixes = ", ".join(made.suffix for made in FORMATS.values())
    raise ValueError(f"Got --output {output}; expected a name that ends in {suffixes}, or --format with another.")


def check_recordings(args: argparse.Namespace, target: Target, paths: list[str]) -> None:
    """Refuse recordings that do not fit the output.

    Raises:
        ValueError: several for a file that says not which is which, or standard input where it must be read again.
    """
    if STANDARD_INPUT in paths and args.resume:
        raise ValueError("Standard input cannot be read a second time, as --resume needs; name files instead of -.")
    if target.kind in ("stream", "document") and len(paths) > 1 and not FORMATS[target.formats[0]].has_file_column:
        raise ValueError(
            f"--format {target.formats[0]} does not say which recording a caption is of, and there are {len(paths)}; "
            "write a file for each with --output-dir DIR, or choose csv, json, jsonl or raven."
        )


def place_journal(document: str) -> str:
    """Where the rows of a document lie until it can be written."""
    return f"{document}.rows.jsonl"
