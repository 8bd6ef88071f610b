"""The command line of `enclap caption`."""

import argparse

from ..data.caption_formats import FORMATS
from ..model.audio_decoding import RAW_FORMATS
from ..model.caption_choice import CANDIDATE_KINDS
from ..model.reranking import SCORERS
from ..model.windows import SEGMENTATIONS
from .argument_types import add_backend_argument, cosine, decibels_or_none, mixture, positive_int, seconds, whole_number
from .terminal_text import add_quiet_argument

EXAMPLES = """examples:
  enclap caption rain.wav                                  print one caption
  enclap caption day.wav --chunk-length-s 10               a caption for every ten seconds, printed as they are done
  enclap caption day.wav --output day.srt                  as subtitles
  enclap caption recordings/ --format all --output-dir captions/   a file for each recording in every format
  enclap caption recordings/ --output captions.csv         a folder, into a table
  enclap caption recordings/ --output captions.csv --resume        go on where that stopped, within a recording too
  enclap caption recordings/ --silence-dbfs -50            call quieter recordings silent
  enclap caption recordings/ --rerank consensus            write 30 captions of each, keep the one most like the others
  enclap caption 'field/*.flac' --model owner/name --num-return-sequences 3 --output captions.jsonl
  arecord -t raw -f S16_LE -r 16000 | enclap caption - --raw-format s16le --raw-sampling-rate 16000 --chunk-length-s 5

Recordings longer than the model hears at once are captioned in windows of ten seconds. The last window holds what
remains; where that is less than a second, it reaches back to the full length, and its times are what remains.
A table has the columns file_name, start_s, end_s, duration_s, caption, score (mean log probability of the caption's
tokens), confidence (similarity with the recording by CLAP, where the model has its text tower), silent and error.
captions.csv.manifest.json beside it remembers the model and the settings, so that --resume never mixes them.
Exit status: 0 every recording is captioned or silent, 1 some cannot be read, 2 the command cannot start or go on.
"""

SILENCE_DBFS = -70.0


def add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap caption`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder or pattern; - is standard input")
    parser.add_argument(
        "--model", metavar="DIR|OWNER/NAME", help="folder or Hub repository (default: the bundled small model)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    add_window_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="recordings and windows captioned together (default: 8; of standard input 1, each as soon as it is there)",
    )
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
    add_choice_arguments(parser)
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


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about candidates and confidence."""
    parser.add_argument(
        "--num-candidates",
        type=positive_int,
        metavar="N",
        help="write N captions of each recording and choose the best (default: 30 with --candidates or --rerank)",
    )
    parser.add_argument(
        "--candidates", choices=CANDIDATE_KINDS, help="where they come from: a beam search, samples (default), or both"
    )
    parser.add_argument(
        "--rerank",
        type=mixture,
        metavar="HOW",
        help=f"how they are ranked: {', '.join(SCORERS)}, or a mixture such as clap=0.6,consensus=0.4 (default: "
        "consensus)",
    )
    parser.add_argument("--seed", type=whole_number, metavar="N", help="of the samples (default: 0)")
    parser.add_argument(
        "--fluency-filter",
        action="store_true",
        help="put candidates last in which FENSE's detector finds a fault of language; its weights are downloaded",
    )
    parser.add_argument(
        "--min-confidence",
        type=cosine,
        metavar="COSINE",
        help="leave out captions whose similarity with the recording by CLAP is below this",
    )


def add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about long recordings, and about samples without a header."""
    parser.add_argument(
        "--chunk-length-s",
        type=seconds,
        metavar="S",
        help="caption every S seconds of longer recordings (default: 10, or less where the model hears less, and only "
        "where a recording is longer than the model hears at once; 0 captions the beginning alone)",
    )
    parser.add_argument(
        "--stride-length-s",
        type=seconds,
        nargs="+",
        metavar="S",
        help="seconds that a window shares with its neighbours: one number, or left and right (default: 0)",
    )
    parser.add_argument(
        "--segmentation",
        choices=SEGMENTATIONS,
        help="where windows begin: fixed, one every so many seconds (default), or changes, where the sound changes; "
        "--chunk-length-s is then the longest (default: 20, or less where the model holds less)",
    )
    parser.add_argument(
        "--raw-format", choices=tuple(RAW_FORMATS), help="recordings hold such samples, without a header"
    )
    parser.add_argument("--raw-sampling-rate", type=positive_int, metavar="HZ", help="of such samples")
    parser.add_argument("--raw-channels", type=positive_int, metavar="N", help="of such samples (default: 1)")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about the output."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write to a file instead of printing, in the order in which recordings are done; FILE names recordings "
        "relative to its own folder; - is standard output",
    )
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write a file for each recording into DIR, in the sub-folders that the recording has",
    )
    parser.add_argument(
        "--format",
        choices=(*FORMATS, "all"),
        help="of what is written (default: what FILE's name ends in); all needs --output-dir",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the captions that are there and caption only the rest: recordings without a caption, with an error, "
        "or changed since; other settings than before are refused",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--escape-formulas",
        action="store_true",
        help="in a .csv, put ' before names and captions that begin with = + - @, which spreadsheets would calculate",
    )
