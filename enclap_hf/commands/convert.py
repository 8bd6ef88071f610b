"""`enclap convert`: published checkpoints into a repository for transformers, and back; checked on request."""

import argparse
import logging
import os
import sys

from .push import PushError, push_folder

EXAMPLES = """examples:
  enclap convert --enclap audiocaps_base/ --clap 630k-audioset-fusion-best.pt --encodec encodec_24khz-d7cc33bc.th \\
      --tokenizer facebook/bart-base --output enclap-base-audiocaps
  enclap convert ... --verify dog.wav rain.flac        also run the original packages on recordings and compare
  enclap convert ... --push-to-hub owner/name          also upload the result
  enclap convert --output enclap-base-audiocaps --clap 630k-audioset-fusion-best.pt \\
      --encodec encodec_24khz-d7cc33bc.th --verify dog.wav      compare what was converted before
  enclap convert --to-published enclap-base-audiocaps --output published/      write the published format
"""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap convert`."""
    parser.add_argument("--enclap", metavar="DIR", help="published folder with config.json and pytorch_model.bin")
    parser.add_argument("--clap", metavar="FILE|REPO", help="LAION-CLAP .pt, or a transformers ClapModel")
    parser.add_argument(
        "--encodec",
        metavar="FILE|REPO",
        default="default",
        help="EnCodec .th, or a transformers EncodecModel (default: facebook/encodec_24khz)",
    )
    parser.add_argument(
        "--tokenizer", metavar="REPO|DIR", help="tokenizer (default: that of --enclap, else facebook/bart-large)"
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder to write; with --verify or --push-to-hub alone, to read"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    parser.add_argument(
        "--to-published", "--to-original", metavar="DIR", help="write a converted captioner in the published format"
    )
    parser.add_argument(
        "--verify",
        nargs="+",
        metavar="AUDIO",
        help="compare with the original encodec and laion-clap packages on recordings",
    )
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload --output to this Hub repository")
    parser.add_argument("--private", action="store_true", help="make that repository private, if it is new")


def run_convert(args: argparse.Namespace) -> int:
    """Convert, verify and upload, as asked; returns 0 when all went well, 1 when a recording did not, 2 otherwise."""
    problem = find_usage_problem(args)
    if problem:
        return complain(problem)
    import transformers

    from ..conversion.published_files import ConversionError

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    handler = say_progress()
    try:
        return run_steps(args)
    except (ConversionError, PushError) as error:
        return complain(error)
    except OSError as error:
        return complain(f"{error}. Nothing half-written is left.")
    finally:
        logging.getLogger("enclap_hf").removeHandler(handler)


def run_steps(args: argparse.Namespace) -> int:
    """The wanted steps, in their order."""
    from ..conversion.convert_published import convert_checkpoints, write_published

    status = 0
    if args.verify:
        from ..conversion.original_packages import import_packages

        import_packages()
    if args.to_published:
        write_published(args.to_published, args.output, overwrite=args.overwrite)
    elif args.enclap:
        convert_checkpoints(args.enclap, args.clap, args.output, args.encodec, args.tokenizer, overwrite=args.overwrite)
    if args.to_published or args.enclap:
        print(f"Wrote {args.output}.", file=sys.stderr)
    if args.verify:
        status = verify(args)
        if status and args.push_to_hub:
            complain(f"{args.output} was not uploaded, because of the above.")
            return status
    if args.push_to_hub:
        commit = push_folder(
            args.output, args.push_to_hub, private=args.private or None, commit_message="Upload converted EnCLAP"
        )
        print(f"Uploaded: {commit.commit_url}", file=sys.stderr)
    return status


def find_usage_problem(args: argparse.Namespace) -> str | None:
    """What cannot be done with these arguments, if anything."""
    if args.to_published and (args.enclap or args.clap or args.verify or args.push_to_hub):
        return "--to-published takes a converted folder and --output alone."
    if args.enclap and not args.clap:
        return (
            "--enclap needs --clap: the LAION-CLAP .pt that its weights were trained with, or a ClapModel repository."
        )
    if not (args.to_published or args.enclap or args.verify or args.push_to_hub):
        return "nothing to do; pass --enclap and --clap to convert, --to-published, or --verify."
    if not (args.to_published or args.enclap) and not os.path.isdir(args.output):
        return f"--output {args.output} is no folder; pass --enclap and --clap to convert first."
    if args.verify and not os.path.isfile(args.clap or ""):
        return (
            f"--verify got --clap {args.clap}; the original package reads LAION-CLAP's .pt file, so pass the file that "
            "--output was made from."
        )
    return None


def say_progress() -> logging.Handler:
    """Show what the package logs on the error stream; returns the handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("enclap_hf")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    return handler


def complain(problem: object) -> int:
    """Say in one line why it was not done."""
    print(f"enclap convert: {' '.join(str(problem).split())}", file=sys.stderr)
    return 2


def verify(args: argparse.Namespace) -> int:
    """Compare with the original packages and print a line per recording; 1 if one differs."""
    from ..conversion.original_packages import OriginalPackages, compare_recording, describe_comparison, load_converted
    from ..data.audio_files import find_audio_files
    from ..model.audio_loading import AudioLoadError

    try:
        paths = find_audio_files(args.verify)
    except AudioLoadError as error:
        return complain(error)
    originals = OriginalPackages(clap=args.clap, encodec=args.encodec)
    model, processor = load_converted(args.output)
    status = 0
    for path in paths:
        try:
            comparison = compare_recording(model, processor, originals, path)
        except AudioLoadError as error:
            complain(error)
            status = 1
            continue
        print(describe_comparison(path, comparison), flush=True)
        status = status if comparison.agrees else 1
    return status
