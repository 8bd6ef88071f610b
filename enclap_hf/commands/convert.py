"""`enclap convert`: published checkpoints into a repository for transformers, and back; checked on request."""

import argparse
import logging
import os
import sys
import tempfile

from .push import PushError, push_folder
from .terminal_text import add_quiet_argument, print_line, print_notice, print_problem

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
        "--clap-text", action="store_true", help="keep CLAP's text tower, too: captions then get a confidence (500 MB)"
    )
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
    parser.add_argument("--to-published", metavar="DIR", help="write a converted captioner in the published format")
    parser.add_argument(
        "--verify",
        nargs="+",
        metavar="AUDIO",
        help="compare with the original encodec and laion-clap packages on recordings",
    )
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload --output to this Hub repository")
    parser.add_argument("--private", action="store_true", help="make that repository private, if it is new")
    add_quiet_argument(parser)


def run_convert(args: argparse.Namespace) -> int:
    """Convert, verify and upload, as asked; returns 0 when all went well, 1 when a recording did not, 2 otherwise."""
    args.steps_done = []
    problem = find_usage_problem(args)
    if problem:
        return complain(problem)
    import transformers

    from ..conversion.published_files import ConversionError

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    handler = show_log(logging.WARNING if args.quiet else logging.INFO)
    try:
        return run_steps(args)
    except (ConversionError, PushError) as error:
        return complain(error)
    except (OSError, MemoryError) as error:
        reason = str(error) or "memory is full"
        return complain(f"{reason.rstrip('.')}. {describe_what_is_there(args).capitalize()}")
    finally:
        logging.getLogger("enclap_hf").removeHandler(handler)


def run_steps(args: argparse.Namespace) -> int:
    """The wanted steps, in their order."""
    from ..conversion.convert_published import convert_checkpoints, write_published

    status, recordings = 0, []
    if args.verify:
        from ..conversion.original_packages import import_packages

        import_packages()
        recordings = find_recordings(args.verify)
    if args.to_published:
        write_published(args.to_published, args.output, overwrite=args.overwrite)
    elif args.enclap:
        convert_checkpoints(
            args.enclap, args.clap, args.output, args.encodec, args.tokenizer, args.overwrite, args.clap_text
        )
    if args.to_published or args.enclap:
        args.steps_done.append("write")
        print_notice(args, f"Wrote {args.output}.")
    if args.verify:
        status = verify(args, recordings)
        if status and args.push_to_hub:
            complain(f"{args.output} was not uploaded, because of the above.")
            return status
    if args.push_to_hub:
        commit = push_folder(
            args.output, args.push_to_hub, private=args.private or None, commit_message="Upload converted EnCLAP"
        )
        args.steps_done.append("upload")
        print_notice(args, f"Uploaded: {commit.commit_url}")
    return status


def describe_what_is_there(args: argparse.Namespace) -> str:
    """What a command that did not end has left: a folder takes its name when it is complete, and never before."""
    if "upload" in args.steps_done:
        return f"{args.output} is complete and uploaded."
    if "write" in args.steps_done:
        not_uploaded = f", but it was not uploaded to {args.push_to_hub}" if args.push_to_hub else ""
        return f"{args.output} is complete{not_uploaded}."
    if args.to_published or args.enclap:
        return "nothing was written."
    return f"{args.output} is as it was{', and was not uploaded' if args.push_to_hub else ''}."


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    return describe_what_is_there(args)


def find_usage_problem(args: argparse.Namespace) -> str | None:
    """What cannot be done with these arguments, if anything."""
    if args.to_published and (args.enclap or args.clap or args.verify or args.push_to_hub):
        return "--to-published takes a converted folder and --output alone."
    if args.enclap and not args.clap:
        return (
            "--enclap needs --clap: the LAION-CLAP .pt that its weights were trained with, or a ClapModel repository."
        )
    if not (args.to_published or args.enclap or args.verify or args.push_to_hub):
        return "nothing to do; pass --enclap and --clap to convert, --to-published, --verify or --push-to-hub."
    if args.private and not args.push_to_hub:
        return "--private is for --push-to-hub OWNER/NAME; pass both, or neither."
    if not (args.to_published or args.enclap) and not os.path.isdir(args.output):
        return f"--output {args.output} is not a folder; pass --enclap and --clap to convert first."
    if args.verify and not os.path.isfile(args.clap or ""):
        return (
            f"--verify got --clap {args.clap}; the original package reads LAION-CLAP's .pt file, so pass the file that "
            "--output was made from."
        )
    return find_output_problem(args.output) if args.to_published or args.enclap else None


def find_output_problem(output: str) -> str | None:
    """Why no folder can be made at a place whose parent exists; found out before an hour of reading, by trying."""
    parent = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(parent):
        return None  # the conversion says so
    try:
        with tempfile.TemporaryDirectory(prefix=f".{os.path.basename(os.path.abspath(output))}-", dir=parent):
            return None
    except OSError as error:
        return f"--output {output} cannot be written: {error.strerror or error}. Nothing was written."


def show_log(level: int) -> logging.Handler:
    """Show what the package logs on the error stream; returns the handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("enclap_hf")
    package.addHandler(handler)
    package.setLevel(level)
    return handler


def complain(problem: object) -> int:
    """Say in one line why it was not done."""
    print_problem("enclap convert", problem)
    return 2


def find_recordings(arguments: list[str]) -> list[str]:
    """Recordings to compare on.

    Raises:
        ConversionError: an argument has none.
    """
    from ..conversion.published_files import ConversionError
    from ..data.audio_files import find_audio_files
    from ..model.audio_loading import AudioLoadError

    try:
        return find_audio_files(arguments)
    except AudioLoadError as error:
        raise ConversionError(str(error)) from error


def verify(args: argparse.Namespace, recordings: list[str]) -> int:
    """Compare with the original packages and print a line for each recording; 1 if one differs or cannot be read."""
    from ..conversion.original_packages import OriginalPackages, compare_recording, describe_comparison, load_converted
    from ..model.audio_loading import AudioLoadError

    originals = OriginalPackages(clap=args.clap, encodec=args.encodec)
    model, processor = load_converted(args.output)
    status = 0
    for path in recordings:
        try:
            comparison = compare_recording(model, processor, originals, path)
        except AudioLoadError as error:
            complain(error)
            status = 1
            continue
        print_line(describe_comparison(path, comparison))
        status = status if comparison.agrees else 1
    return status
