"""`enclap convert`: published checkpoints into a repository for transformers, and back; checked on request."""

import argparse
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator

from .push import PushError, push_folder
from .terminal_text import add_quiet_argument, print_line, print_notice, print_problem

EXAMPLES = """examples:
  enclap convert --published both-base --output enclap-base      fetch a published checkpoint and convert it
  enclap convert --published audiocaps-base --enclap audiocaps/base --output enclap-base-audiocaps
  enclap convert --enclap hf://spaces/enclap-team/enclap/ckpt --output enclap-base
  enclap convert --enclap audiocaps_base/ --clap 630k-audioset-fusion-best.pt --encodec encodec_24khz-d7cc33bc.th \\
      --tokenizer facebook/bart-base --output enclap-base-audiocaps
  enclap convert ... --verify dog.wav rain.flac        also run the original packages on recordings and compare
  enclap convert ... --push-to-hub owner/name          also upload the result
  enclap convert --output enclap-base-audiocaps --encodec encodec_24khz-d7cc33bc.th --verify dog.wav
                                                       compare what was converted before
  enclap convert --to-published enclap-base-audiocaps --output published/      write the published format

Each source is a place on this machine or on the Hub: hf://OWNER/NAME/FILE, hf://spaces/OWNER/NAME/FOLDER, with
@REVISION after NAME. Downloads go to the Hub's cache (HF_HOME), resume when they were broken off, and are checked
against the hash that the Hub states. With HF_HUB_OFFLINE=1 only the cache is used.
"""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap convert`."""
    parser.add_argument(
        "--published",
        metavar="NAME",
        help="a checkpoint that the authors of EnCLAP published: both-base is fetched from the Hub; of audiocaps, "
        "clotho, audiocaps-then-clotho and both, each with -base or -large, pass the folder as --enclap, too",
    )
    parser.add_argument("--enclap", metavar="DIR|hf://", help="published folder with config.json and pytorch_model.bin")
    parser.add_argument(
        "--clap",
        metavar="FILE|REPO|hf://",
        help="LAION-CLAP .pt, or a transformers ClapModel (default: lukewys/laion_clap, 630k-audioset-fusion-best.pt)",
    )
    parser.add_argument(
        "--clap-text", action="store_true", help="keep CLAP's text tower, too: captions then get a confidence (500 MB)"
    )
    parser.add_argument(
        "--encodec",
        metavar="FILE|REPO|hf://",
        help="EnCodec .th, or a transformers EncodecModel (default: facebook/encodec_24khz)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR|REPO|hf://",
        help="tokenizer (default: that of --published or --enclap, else facebook/bart-large)",
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

    hide_progress_bars(args)
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
    from ..hub.published_weights import find_published

    status, recordings = 0, []
    if args.verify:
        from ..conversion.original_packages import import_packages

        import_packages()
        recordings = find_recordings(args.verify)
    if args.to_published:
        write_published(args.to_published, args.output, overwrite=args.overwrite)
    elif args.enclap or args.published:
        checkpoint = find_published(args.published) if args.published else None
        captioner, tokenizer = (checkpoint.captioner, checkpoint.tokenizer) if checkpoint else (None, None)
        convert_checkpoints(
            args.enclap or str(captioner),  # `find_published_problem` has seen to one of them
            args.clap,
            args.output,
            args.encodec,
            args.tokenizer or tokenizer,
            overwrite=args.overwrite,
            published=checkpoint,
            clap_text=args.clap_text,
        )
    if writes(args):
        args.steps_done.append("write")
        print_notice(args, f"Wrote {args.output}.")
    if args.enclap or args.published:
        for line in describe_result(args):
            print_notice(args, line)
    if args.verify:
        status = verify(args, recordings)
        if status and args.push_to_hub:
            complain(f"{args.output} was not uploaded, because of the above.")
            return status
    if args.push_to_hub:
        commit = push_folder(
            args.output,
            args.push_to_hub,
            quiet=args.quiet,
            private=args.private or None,
            commit_message="Upload converted EnCLAP",
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
    if writes(args):
        return "nothing was written."
    return f"{args.output} is as it was{', and was not uploaded' if args.push_to_hub else ''}."


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    return describe_what_is_there(args)


def writes(args: argparse.Namespace) -> bool:
    """Whether --output is written; otherwise it is read."""
    return bool(args.to_published or args.enclap or args.published)


def find_usage_problem(args: argparse.Namespace) -> str | None:
    """What cannot be done with these arguments, if anything."""
    if args.to_published and (args.enclap or args.published or args.clap or args.verify or args.push_to_hub):
        return "--to-published takes a converted folder and --output alone."
    if not (writes(args) or args.verify or args.push_to_hub):
        return "nothing to do; pass --published or --enclap to convert, --to-published, --verify or --push-to-hub."
    if args.private and not args.push_to_hub:
        return "--private is for --push-to-hub OWNER/NAME; pass both, or neither."
    if not writes(args) and not os.path.isdir(args.output):
        return f"--output {args.output} is not a folder; pass --published or --enclap to convert first."
    if args.verify and args.clap and not (os.path.isfile(args.clap) or args.clap.startswith("hf://")):
        return (
            f"--verify got --clap {args.clap}; the original package reads LAION-CLAP's .pt file, so pass the file that "
            "--output was made from."
        )
    return find_published_problem(args) or (find_output_problem(args.output) if writes(args) else None)


def find_published_problem(args: argparse.Namespace) -> str | None:
    """Why a published checkpoint cannot be fetched: no such name, or not on the Hub."""
    if not args.published:
        return None
    from ..hub.published_weights import describe_manual_download, find_published

    try:
        checkpoint = find_published(args.published)
    except ValueError as error:
        return str(error)
    return None if args.enclap or checkpoint.captioner else describe_manual_download(checkpoint, args.output)


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


def hide_progress_bars(args: argparse.Namespace) -> None:
    """Show the progress of downloads on a terminal only, and not with --quiet."""
    from huggingface_hub.utils import disable_progress_bars

    if args.quiet or not sys.stderr.isatty():
        disable_progress_bars()


def describe_result(args: argparse.Namespace) -> Iterator[str]:
    """What to do with a converted folder: how to caption, under which licences, which scores to expect."""
    from ..hub.model_card import read_card

    card = read_card(os.path.join(args.output, "model_card.json"))
    folder = shlex.quote(args.output)
    yield f"Caption:   enclap caption recordings/ --model {folder}"
    yield f"Licences:  {'; '.join(f'{part.name.strip(chr(96))} {part.licence}' for part in card.parts)}"
    yield f"           {card.licence_note}"
    if not card.scores:
        yield "Scores:    none of this checkpoint is reported."
    for row in card.scores:
        metrics = ", ".join(f"{name} {score:.3f}" for name, score in row.metrics.items())
        source = f" by the {row.source}" if row.source else ""
        yield f"Scores:    {row.dataset} {row.split}, {row.num_clips} clips: {metrics} ({row.origin}{source})"
    data = f"{card.scores[0].dataset}_{card.scores[0].split}".lower() if card.scores else "test"
    yield f"Check:     enclap caption {data}/ --model {folder} --output captions.csv"
    yield f"           enclap score captions.csv --references {data}.csv"


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
    from ..conversion.published_sources import find_clap_file
    from ..model.audio_loading import AudioLoadError

    originals = OriginalPackages(clap=find_clap_file(args.clap), encodec=args.encodec or "default")
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
