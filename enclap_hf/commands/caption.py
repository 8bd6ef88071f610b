"""`enclap caption`: recordings in, captions to the terminal or to a file, one recording's failure never another's."""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator

from ..data.audio_files import find_audio_files
from ..data.caption_writing import printable
from ..model.audio_loading import AudioLoadError
from .caption_manifest import add_state, begin_manifest, open_states, remove_states, write_manifest
from .caption_output import (
    OutputError,
    WholeRecordsFile,
    check_output,
    check_writable,
    has_caption,
    name_in_output,
    print_rows,
    replace_rows,
    start_writing,
)
from .caption_resume import Plan, plan_rows
from .captioner_loading import find_model, load_pipeline
from .freed_memory import keep_freed_memory
from .output_lock import OutputLockedError, lock_output
from .terminal_text import print_notice, print_problem

# Batches whose recordings are sorted by length together, so that little of a batch is padding.
SORTED_BATCHES = 8


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
        check_output(args)
        with hold_output(args):
            return caption_recordings(args)
    except BrokenPipeError:
        raise
    except (OutputLockedError, OutputError, ValueError, OSError, RuntimeError) as error:
        print_problem("enclap", error)
        return 2


@contextlib.contextmanager
def hold_output(args: argparse.Namespace) -> Iterator[None]:
    """Keep other runs from the output while this one writes it.

    Raises:
        OutputLockedError: another run writes it.
        OutputError: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if args.output:
            try:
                is_locked = stack.enter_context(lock_output(args.output))
            except OSError as error:
                raise OutputError(f"--output {args.output} cannot be written: {error.strerror or error}.") from error
            if not is_locked:
                print_notice(
                    args, f"{args.output} is on a file system without locks; let no other run write it meanwhile."
                )
            check_output(args)  # another run may have just ended
            check_writable(args.output)
        yield


def caption_recordings(args: argparse.Namespace) -> int:
    """Find, load, caption and report; returns the exit status."""
    paths, num_failed = find_recordings(args.paths)
    if not paths:
        return 2
    model = find_model(args, with_fingerprint=args.output is not None)
    plan = Plan(paths, [], begin_manifest(args, model))
    if args.resume:
        plan = plan_rows(args, paths, plan.manifest)
        for notice in plan.notices:
            print_notice(args, notice)
    caption, report = None, Report()
    if plan.waiting:
        caption = load_pipeline(args, model)
        report.longest_s = find_longest_s(caption.processor.feature_extractor)
        if args.model is None:
            print_notice(args, describe_default_model())
    if args.output:
        write_captions(args, plan, caption, report)
    else:
        run_stream(args, plan.waiting, caption, report, print_rows)
    for line in report.summarise(args):
        print_notice(args, line)
    return 1 if num_failed or report.num_failed else 0


def find_recordings(arguments: list[str]) -> tuple[list[str], int]:
    """Audio files of all arguments, each once, and how many arguments had none; each of these is reported."""
    found, num_failed = {}, 0
    for argument in arguments:
        try:
            for path in find_audio_files([argument]):
                found.setdefault(os.path.abspath(path), path)
        except AudioLoadError as error:
            num_failed += 1
            print_problem("enclap", error)
    return list(found.values()), num_failed


def count_recordings(number: int) -> str:
    """A number of recordings in words."""
    return "1 recording" if number == 1 else f"{number} recordings"


def describe_default_model() -> str:
    """What the bundled model knows, in one line."""
    from ..sound_scenes import SOUND_KINDS

    return (
        f"Using the bundled small model: it knows {len(SOUND_KINDS)} kinds of synthesised sounds only. "
        "For real recordings pass --model DIRECTORY_OR_HUB_REPOSITORY."
    )


class Report:
    """Counts what came of the recordings."""

    def __init__(self):
        self.longest_s = math.inf  # of a recording, that are read as codes
        self.num_captioned = self.num_silent = self.num_failed = self.num_long = 0

    def add(self, result: dict | list[dict], duration_s: float) -> None:
        """Count one recording."""
        best = result[0] if isinstance(result, list) else result
        if best["text"] is None:
            self.num_failed += 1
            return
        if best.get("silent"):
            self.num_silent += 1
            return
        self.num_captioned += 1
        self.num_long += duration_s > self.longest_s

    def summarise(self, args: argparse.Namespace) -> Iterator[str]:
        """Lines that end the run."""
        if self.num_long:
            yield (
                f"{count_recordings(self.num_long)} {'is' if self.num_long == 1 else 'are'} longer than the "
                f"{self.longest_s:.1f} s that the model's codes cover: cut long recordings into pieces."
            )
        if self.num_silent:
            silent = f"{count_recordings(self.num_silent)} {'is' if self.num_silent == 1 else 'are'} silent"
            yield f"{silent} (no sample above {args.silence_dbfs:g} dBFS) and got no caption."
        if args.output:
            failed = f"; {self.num_failed} failed" if self.num_failed else ""
            yield f"Captioned {count_recordings(self.num_captioned)} into {args.output}{failed}."


def run_stream(
    args: argparse.Namespace,
    paths: list[str],
    caption,
    report: Report,
    write_rows: Callable,
    before_rows: Callable = lambda path, state: None,
) -> None:
    """Caption all paths and hand on the rows of each as it is done.

    Args:
        args: of the command.
        paths: the recordings.
        caption: the pipeline.
        report: counts them.
        write_rows: called with path and result.
        before_rows: called before that, with path and the state of the file.
    """
    from tqdm import tqdm

    from .caption_stream import caption_as_done, is_end_of_worker

    options = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    if args.num_return_sequences > 1:
        options["num_return_sequences"] = args.num_return_sequences
        num_beams = args.num_beams or caption.model.generation_config.num_beams or 1
        options["num_beams"] = max(num_beams, args.num_return_sequences)
    clips = caption_as_done(
        caption,
        paths,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        # On a terminal captions are wanted soon and in order; a file can wait for a few batches.
        window_size=args.batch_size * (SORTED_BATCHES if args.output else 1),
        silence_dbfs=args.silence_dbfs,
        **options,
    )
    # A bar between printed captions would break their lines.
    hides_bar = args.quiet or (not args.output and sys.stdout.isatty())
    try:
        with contextlib.closing(clips), tqdm(total=len(paths), unit="clip", disable=hides_bar or None) as progress:
            for clip in clips:
                best = clip.result[0] if isinstance(clip.result, list) else clip.result
                with progress.external_write_mode(sys.stderr):
                    if best["text"] is None:
                        print_problem("enclap", best["error"])
                    before_rows(paths[clip.index], clip.state)
                    write_rows(paths[clip.index], clip.result)
                report.add(clip.result, clip.duration_s)
                progress.update()
    except RuntimeError as error:
        if not is_end_of_worker(error):
            raise
        raise RuntimeError(
            "A process that reads recordings was killed, perhaps because memory was full. Captions written so far are "
            "kept; try again with --num-workers 0, and with --resume where there is an --output."
        ) from error


def write_captions(args: argparse.Namespace, plan: Plan, caption, report: Report) -> None:
    """Caption what waits into the output, and remember beside it what it was made with.

    Raises:
        OutputError: it cannot be written any further; its rows are safe.
    """
    output, manifest = args.output, plan.manifest
    # The output is changed only here, where recordings and model are known to be good.
    if os.path.exists(output):
        replace_rows(output, plan.kept_rows)
    if not plan.kept_rows:
        remove_states(output)
    write_manifest(output, manifest)
    with contextlib.ExitStack() as stack:
        states = stack.enter_context(contextlib.closing(open_states(output)))
        file = stack.enter_context(contextlib.closing(WholeRecordsFile(output)))

        def remember(path: str, state) -> None:
            name = printable(name_in_output(path, output))
            manifest.recordings[name] = state
            add_state(states, name, state)

        write_rows = start_writing(file, output, args.escape_formulas)
        try:
            if plan.waiting:
                run_stream(args, plan.waiting, caption, report, write_rows, remember)
        except OutputError as error:
            raise OutputError(f"{error} Its rows are kept; make room, and go on with --resume.") from error
    manifest.counts = count_rows(plan, report)
    write_manifest(output, manifest)
    remove_states(output)


def count_rows(plan: Plan, report: Report) -> dict[str, int]:
    """Recordings in the finished output, by what came of them."""
    kept = {}
    for row in plan.kept_rows:
        is_silent = str(row.get("silent", "")).lower() == "true"
        kept[row["file_name"]] = "silent" if is_silent else "captioned" if has_caption(row) else "failed"
    new = {"captioned": report.num_captioned, "silent": report.num_silent, "failed": report.num_failed}
    return {name: number + list(kept.values()).count(name) for name, number in new.items()}


def find_longest_s(feature_extractor) -> float:
    """Seconds of a recording that are read as codes; infinity where all are."""
    if feature_extractor.max_codec_frames is None:
        return math.inf
    num_samples = feature_extractor.max_codec_frames * feature_extractor.codec_hop_length
    return num_samples / feature_extractor.codec_sampling_rate


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    if not args.output or not os.path.exists(args.output):
        return "nothing was written to a file."
    return f"the rows in {args.output} are kept; --resume goes on with it."
