"""The command line of `enclap caption`."""

import argparse

from .argument_types import add_backend_argument, decibels_or_none, positive_int, whole_number
from .terminal_text import add_quiet_argument

EXAMPLES = """examples:
  enclap caption rain.wav                                  print one caption
  enclap caption recordings/ --output captions.csv         a folder, into a table
  enclap caption recordings/ --output captions.csv --resume        go on where that stopped
  enclap caption recordings/ --silence-dbfs -50            call quieter recordings silent
  enclap caption 'field/*.flac' --model owner/name --num-return-sequences 3 --output captions.jsonl

A table has the columns file_name, caption, score (mean log probability of the caption's tokens), silent and error.
captions.csv.manifest.json beside it remembers the model and the settings, so that --resume never mixes them.
Exit status: 0 every recording is captioned or silent, 1 some cannot be read, 2 the command cannot start or go on.
"""

SILENCE_DBFS = -70.0


def add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap caption`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder or pattern")
    parser.add_argument(
        "--model", metavar="DIR|OWNER/NAME", help="folder or Hub repository (default: the bundled small model)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    add_output_arguments(parser)
    parser.add_argument("--batch-size", type=positive_int, default=8, metavar="N", help="recordings at a time (8)")
    parser.add_argument(
        "--num-workers", type=whole_number, default=0, metavar="N", help="processes that read ahead (default: 0)"
    )
    parser.add_argument(
        "--num-beams", type=positive_int, metavar="N", help="beams of the search; 1 is greedy (default: the model's)"
    )
    parser.add_argument(
        "--num-return-sequences",
        type=positive_int,
        default=1,
        metavar="N",
        help="the N best captions of each recording, with their scores (default: 1)",
    )
    parser.add_argument(
        "--max-new-tokens", type=positive_int, metavar="N", help="longest caption in tokens (default: the model's)"
    )
    parser.add_argument(
        "--silence-dbfs",
        type=decibels_or_none,
        default=SILENCE_DBFS,
        metavar="DB",
        help="a recording whose loudest sample is below this is reported as silent and gets no caption; none captions "
        f"every recording (default: {SILENCE_DBFS:g})",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add_backend_argument(parser)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="the captioner's number type")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that a Hub repository brings")
    add_quiet_argument(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about the output file."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write .csv or .jsonl instead of printing, in the order in which recordings are done; FILE names "
        "recordings relative to its own folder",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the captions in --output and caption only the rest: recordings without a caption, with an error, "
        "or changed since; other settings than before are refused",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    parser.add_argument(
        "--escape-formulas",
        action="store_true",
        help="in a .csv, put ' before names and captions that begin with = + - @, which spreadsheets would calculate",
    )
