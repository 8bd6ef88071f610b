"""`enclap caption`: recordings in, captions to the terminal or to files, one recording's failure never another's."""

import argparse
import contextlib
import glob
import math
import os
import re
import sys
from collections.abc import Iterator

from ..data.audio_files import find_audio_files
from ..data.caption_writing import printable
from ..model.audio_loading import AudioLoadError
from ..model.audio_sources import check_raw
from ..model.caption_choice import CHOICES, read_choice
from ..model.windows import describe_plan, plan_windows
from .caption_documents import make_document, place_documents, plan_document, plan_documents
from .caption_manifest import begin_manifest
from .caption_output import OutputError, check_writable, describe_failure
from .caption_progress import Progress, Report
from .caption_resume import Plan, plan_rows
from .caption_rows import STANDARD_INPUT, has_caption, is_silent, name_in_output
from .caption_sinks import DocumentSink, FolderSink, LineSink, StreamSink, TableSink
from .caption_targets import Target, check_recordings, choose_target
from .captioner_loading import find_model, load_pipeline
from .freed_memory import keep_freed_memory
from .output_lock import OutputLockedError, lock_output
from .terminal_text import print_notice, print_problem

# Batches whose recordings are sorted by length together, so that little of a batch is padding.
SORTED_BATCHES = 8
BATCH_SIZE = 8
WINDOW_OPTIONS = ("chunk_length_s", "stride_length_s", "segmentation")
RAW_OPTIONS = ("raw_format", "raw_sampling_rate", "raw_channels")
CHOICE_OPTIONS = (*CHOICES, "seed", "min_confidence")


def run_caption(args: argparse.Namespace) -> int:
    """Caption.

    Args:
        args: parsed arguments.
    Returns:
        exit status: 0 when every recording is captioned or silent, 1 when some failed, 2 when the command cannot
        start or go on.
    """
    keep_freed_memory()
    try:
        target = choose_target(args)
        check_options(args)
        with hold_output(args, target):
            return caption_recordings(args, target)
    except BrokenPipeError:
        raise
    except (OutputLockedError, OutputError, ValueError, OSError, RuntimeError) as error:
        print_problem("enclap", name_options(str(error)))
        return 2


def check_options(args: argparse.Namespace) -> None:
    """Refuse windows and samples without a header that cannot be, before anything is loaded.

    Raises:
        ValueError: with the reason.
    """
    plan_windows(None, **find_options(args, WINDOW_OPTIONS))
    raw = find_options(args, RAW_OPTIONS)
    if raw:
        check_raw(**raw)
    read_choice({**find_options(args, (*CHOICES, "seed", "num_beams")), "is_fluent": args.fluency_filter or None})


def find_fluent(captions: list[str]) -> list[bool]:
    """Whether captions are without the faults of language that FENSE's detector knows.

    Raises:
        RuntimeError: its weights are not to be had.
    """
    from ..metrics.fense import compute_fluency_errors

    return [error == 0 for error in compute_fluency_errors(captions)[1]]


def find_options(args: argparse.Namespace, names: tuple[str, ...]) -> dict:
    """Those of some options that were passed; of the stride one number, or two."""
    found = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if len(found.get("stride_length_s", ())) == 1:
        (found["stride_length_s"],) = found["stride_length_s"]
    return found


def name_options(text: str) -> str:
    """A message of the pipeline with the names that its arguments have on the command line."""
    names = "|".join((*WINDOW_OPTIONS, *RAW_OPTIONS, *CHOICE_OPTIONS))
    shared = r"(?<=Got )`(?:num_beams|num_return_sequences)`"  # elsewhere fields of a file

    def name_option(found: re.Match) -> str:
        return f"--{found[1].strip('`').replace('_', '-')}{' ' if found[2] else ''}"

    return re.sub(rf"(`(?:{names})`|{shared})(=?)", name_option, text)


@contextlib.contextmanager
def hold_output(args: argparse.Namespace, target: Target) -> Iterator[None]:
    """Keep other runs from the output while this one writes it.

    Raises:
        OutputLockedError: another run writes it.
        OutputError: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if target.path:
            option = "--output-dir" if target.kind == "folder" else "--output"
            try:
                if target.kind == "folder":
                    os.makedirs(target.path, exist_ok=True)
                is_locked = stack.enter_context(lock_output(target.base))
            except OSError as error:
                raise OutputError(f"{option} {describe_failure(target.path, error)}") from error
            if not is_locked:
                print_notice(
                    args, f"{target.path} is on a file system without locks; let no other run write it meanwhile."
                )
            choose_target(args)  # another run may have just ended
            check_writable(target.base)
        yield


def caption_recordings(args: argparse.Namespace, target: Target) -> int:
    """Find, load, caption and report; returns the exit status."""
    found, num_failed = find_recordings(args.paths)
    paths = [path for _, path in found]
    if not paths:
        return 2
    check_recordings(args, target, paths)
    model = find_model(args, with_fingerprint=target.path is not None)
    documents = place_documents(found, target) if target.kind == "folder" else {}
    plan = make_plan(args, target, paths, documents, begin_manifest(args, model))
    for notice in plan.notices:
        print_notice(args, notice)
    caption, report = None, Report()
    if plan.waiting:
        caption = load_pipeline(args, model)
        report.heard_s = caption.plan_windows(find_options(args, WINDOW_OPTIONS)).heard_s or math.inf
        if args.model is None:
            print_notice(args, describe_default_model())
    write_captions(args, target, plan, paths, documents, caption, report)
    for line in report.summarise(args, target):
        print_notice(args, line)
    return 1 if num_failed or report.num_failed else 0


def find_recordings(arguments: list[str]) -> tuple[list[tuple[str, str]], int]:
    """Audio files of all arguments, each once, and how many arguments had none; each of these is reported.

    Returns:
        for each recording the folder that its place is told from, the argument's own, and its path.
    """
    found, num_failed = {}, 0
    for argument in arguments:
        if argument == STANDARD_INPUT:
            found.setdefault(STANDARD_INPUT, ("", STANDARD_INPUT))
            continue
        try:
            for path in find_audio_files([argument]):
                found.setdefault(os.path.abspath(path), (find_root(argument, path), path))
        except AudioLoadError as error:
            num_failed += 1
            print_problem("enclap", error)
    return list(found.values()), num_failed


def find_root(argument: str, path: str) -> str:
    """The folder that the place of a recording is told from: a given folder, a pattern's plain part, or its own."""
    if os.path.isdir(os.path.expanduser(argument)):
        return os.path.expanduser(argument)
    if os.path.exists(argument) or not glob.has_magic(argument):
        return os.path.dirname(path)
    root = os.path.dirname(os.path.expanduser(argument))
    while glob.has_magic(root):
        root = os.path.dirname(root)
    return root


def describe_default_model() -> str:
    """What the bundled model knows, in one line."""
    from ..sound_scenes import SOUND_KINDS

    return (
        f"Using the bundled small model: it knows {len(SOUND_KINDS)} kinds of synthesised sounds only. "
        "For real recordings pass --model DIRECTORY_OR_HUB_REPOSITORY."
    )


def make_plan(args: argparse.Namespace, target: Target, paths: list[str], documents: dict, manifest) -> Plan:
    """What is captioned, and what of an earlier run stays."""
    if target.kind == "folder":
        manifest.settings["format"] = args.format
    if not args.resume:
        return Plan(paths, [], manifest)
    if target.kind == "folder":
        return plan_documents(target, documents, manifest)
    if target.kind == "document":
        return plan_document(target, make_document(target), paths, manifest)
    return plan_rows(target.path, target.path, paths, manifest)


def write_captions(
    args: argparse.Namespace, target: Target, plan: Plan, paths: list[str], documents: dict, caption, report: Report
) -> None:
    """Caption what waits, and hand it on as it comes.

    Raises:
        OutputError: the output cannot be written any further; its rows are safe.
    """
    if target.kind == "document" and not plan.waiting and not os.path.exists(make_document(target).journal):
        return  # it is complete
    with make_sink(args, target, plan, paths, documents) as sink:
        try:
            if plan.waiting:
                run_stream(args, target, plan, caption, report, sink)
            sink.finish(count_rows(target, plan, report, len(documents)))
        except OutputError as error:
            raise OutputError(f"{error} Its rows are kept; make room, and go on with --resume.") from error


def make_sink(args: argparse.Namespace, target: Target, plan: Plan, paths: list[str], documents: dict):
    """What takes the captions."""
    if target.kind == "lines":
        return LineSink()
    if target.kind == "stream":
        return StreamSink(target)
    if target.kind == "table":
        return TableSink(args, target, plan)
    if target.kind == "folder":
        return FolderSink(args, target, plan, documents)
    return DocumentSink(args, target, plan, make_document(target), paths)


def run_stream(args: argparse.Namespace, target: Target, plan: Plan, caption, report: Report, sink) -> None:
    """Caption what waits and hand on each piece as it is done."""
    from ..model.caption_stream import is_end_of_worker

    paths = plan.waiting
    go_on_at = {number: plan.go_on_at[path] for number, path in enumerate(paths) if path in plan.go_on_at}
    limit_s = caption.plan_windows(find_options(args, WINDOW_OPTIONS)).limit_s
    try:
        with (
            contextlib.closing(start_stream(args, target, paths, caption, go_on_at)) as pieces,
            Progress(args, target, paths, limit_s, go_on_at) as progress,
        ):
            for piece in pieces:
                with progress.bar.external_write_mode(sys.stderr):
                    for entry in piece.captions[:1]:
                        if "error" in entry:
                            print_problem("enclap", entry["error"])
                    sink.write(paths[piece.index], piece)
                report.add(piece)
                progress.update(piece)
    except RuntimeError as error:
        if not is_end_of_worker(error):
            raise
        raise RuntimeError(
            "A process that reads recordings was killed, perhaps because memory was full. Captions written so far are "
            "kept; try again with --num-workers 0, and with --resume where there is an --output."
        ) from error


def start_stream(args: argparse.Namespace, target: Target, paths: list[str], caption, go_on_at: dict[int, float]):
    """The pieces of all recordings, each as soon as it is captioned."""
    has_input = STANDARD_INPUT in paths
    options = find_options(args, (*WINDOW_OPTIONS, *RAW_OPTIONS, *CHOICE_OPTIONS, "num_beams", "max_new_tokens"))
    if args.fluency_filter:
        options["is_fluent"] = find_fluent
    if args.num_return_sequences > 1:
        options["num_return_sequences"] = args.num_return_sequences
    if args.num_return_sequences > 1 and not options.keys() & CHOICES:
        num_beams = args.num_beams or caption.model.generation_config.num_beams or 1
        options["num_beams"] = max(num_beams, args.num_return_sequences)
    # What comes over a pipe may come slowly: each window is then captioned when it is there.
    batch_size = args.batch_size or (1 if has_input else BATCH_SIZE)
    said = []

    def say_plan(plan) -> None:
        if not said and plan.limit_s != math.inf:  # of recordings that are not cut the last line says how many
            said.append(plan)
            print_notice(args, name_options(describe_plan(plan)))

    return caption.stream_pieces(
        [sys.stdin.buffer if path == STANDARD_INPUT else path for path in paths],
        batch_size=batch_size,
        num_workers=0 if has_input else args.num_workers,
        # On a terminal captions are wanted soon and in order; a file can wait for a few batches.
        group_size=batch_size * (SORTED_BATCHES if target.path else 1),
        go_on_at=go_on_at,
        notify=say_plan,
        errors="return",
        silence_dbfs=args.silence_dbfs,
        **options,
    )


def count_rows(target: Target, plan: Plan, report: Report, num_documents: int) -> dict[str, int]:
    """Recordings in the finished output, by what came of them."""
    counts = {"captioned": report.num_captioned, "silent": report.num_silent, "failed": report.num_failed}
    if target.kind == "folder":
        return {**counts, "captioned": counts["captioned"] + num_documents - len(plan.waiting)}
    waiting = {printable(name_in_output(path, target.base)) for path in plan.waiting} if target.base else set()
    kept = {}
    for row in plan.kept_rows:
        kept[row["file_name"]] = "silent" if is_silent(row) else "captioned" if has_caption(row) else "failed"
    kept = [outcome for name, outcome in kept.items() if name not in waiting]
    return {name: number + kept.count(name) for name, number in counts.items()}


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    path = args.output_dir or args.output
    if path in (None, "-") or not (os.path.exists(path) or os.path.exists(f"{path}.manifest.json")):
        return "nothing was written to a file."
    return f"the rows in {path} are kept; --resume goes on with it."
