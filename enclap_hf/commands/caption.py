"""`enclap caption`: recordings in, captions to the terminal or to a file, one recording's failure never another's."""

import argparse
import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterator

from ..freed_memory import keep_freed_memory

EXAMPLES = """examples:
  enclap caption rain.wav                                  print one caption
  enclap caption recordings/ --output captions.csv         a folder, into a table
  enclap caption recordings/ --output captions.csv --resume   go on where that stopped
  enclap caption 'field/*.flac' --model owner/name --num-return-sequences 3 --output captions.jsonl
"""

# Batches whose recordings are sorted by length together, so that little of a batch is padding.
SORTED_BATCHES = 8
# How the files begin that this command writes.
CSV_HEADER = b"file_name,caption,score,error\n"
JSONL_START = b'{"file_name": '


def add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap caption`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder or pattern")
    parser.add_argument("--model", help="directory or Hub repository; left out, the small model of the package")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    parser.add_argument("--output", metavar="FILE", help="write .jsonl or .csv instead of printing")
    parser.add_argument("--resume", action="store_true", help="keep what --output has and caption only the rest")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="recordings at a time (default: 8)")
    parser.add_argument("--num-workers", type=whole_number, default=0, help="processes that read ahead (default: 0)")
    parser.add_argument(
        "--num-beams", type=positive_int, help="beams of the search; 1 is greedy (default: the model's)"
    )
    parser.add_argument("--num-return-sequences", type=positive_int, default=1, metavar="N", help="N best, with scores")
    parser.add_argument("--max-new-tokens", type=positive_int, help="longest caption in tokens (default: the model's)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="the captioner's number type")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that a Hub repository brings")


def positive_int(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def whole_number(text: str) -> int:
    """An argument that counts something, or 0 for none."""
    return 0 if text == "0" else positive_int(text)


def run_caption(args: argparse.Namespace) -> int:
    """Caption; returns 0 when every recording has its caption, 1 when some failed, 2 when nothing could start."""
    keep_freed_memory()
    try:
        check_output(args)
        done = read_finished(args.output) if args.output and args.resume else set()
    except (ValueError, OSError) as error:
        return complain(error)
    paths, num_failed = find_recordings(args.paths)
    if not paths:
        return 2
    waiting = [path for path in paths if path not in done]
    if done:
        print(f"{len(paths) - len(waiting)} of {len(paths)} recordings are captioned already.", file=sys.stderr)
    if args.model is None:
        print(describe_default_model(), file=sys.stderr)
    try:
        caption = load_pipeline(args)
    except (OSError, ValueError, RuntimeError) as error:
        return complain(error)
    if args.overwrite and os.path.exists(args.output):
        os.remove(args.output)  # only here, where recordings and model are known to be good
    num_unreadable = write_captions(args, waiting, caption)
    if args.output:
        kept = f"; {num_unreadable} could not be read" if num_unreadable else ""
        print(f"Captioned {len(waiting) - num_unreadable} recordings into {args.output}{kept}.", file=sys.stderr)
    return 1 if num_failed or num_unreadable else 0


def find_recordings(arguments: list[str]) -> tuple[list[str], int]:
    """Audio files of all arguments, each once, and how many arguments had none, which are said."""
    from ..audio_files import find_audio_files
    from ..audio_loading import AudioLoadError

    found, num_failed = {}, 0
    for argument in arguments:
        try:
            for path in find_audio_files([argument]):
                found.setdefault(os.path.abspath(path), path)
        except AudioLoadError as error:
            num_failed += 1
            complain(error)
    return list(found.values()), num_failed


def complain(error: Exception) -> int:
    """Say in one line why nothing could start."""
    print(f"enclap: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def describe_default_model() -> str:
    """What the model inside the package knows, in one line."""
    from ..sound_scenes import SOUND_KINDS

    return (
        f"Using the package's own small model: it knows {len(SOUND_KINDS)} kinds of synthesised sounds only. "
        "For real recordings pass --model DIRECTORY_OR_HUB_REPOSITORY."
    )


def check_output(args: argparse.Namespace) -> None:
    """Refuse an output that could not be written, or that would be lost."""
    if args.output is None:
        if args.resume or args.overwrite:
            raise ValueError("--resume and --overwrite concern --output; name a file with --output FILE.")
        return
    if not args.output.endswith((".jsonl", ".csv")):
        raise ValueError(f"Got --output {args.output}; expected a name that ends in .jsonl or .csv.")
    folder = os.path.dirname(args.output) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"The folder of --output {args.output} does not exist; make it first: mkdir -p {folder}")
    if args.resume and args.overwrite:
        raise ValueError("--resume keeps what --output has and --overwrite replaces it; pass one of them.")
    if os.path.exists(args.output) and not (args.resume or args.overwrite):
        raise ValueError(f"{args.output} exists; pass --resume to go on with it or --overwrite to replace it.")


def read_finished(output: str) -> set[str]:
    """Paths that have a caption in an unfinished output; a row cut short by a kill is dropped from the file."""
    if not os.path.exists(output):
        return set()
    with open(output, "rb") as file:
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    text = io.StringIO(whole.decode("utf-8", "replace"), newline="")  # a name may hold any character but a line feed
    start = CSV_HEADER if output.endswith(".csv") else JSONL_START
    try:
        if content[: len(start)] != start[: len(content)]:
            raise ValueError("another beginning")
        rows = list(csv.DictReader(text)) if output.endswith(".csv") else [json.loads(line) for line in text]
        captions = {row["file_name"]: row.get("caption") for row in rows}
    except (ValueError, KeyError):
        raise ValueError(
            f"{output} was not written by this command; name another --output, or pass --overwrite."
        ) from None
    if len(whole) < len(content):
        os.truncate(output, len(whole))
    return {name for name, caption in captions.items() if caption}


def load_pipeline(args: argparse.Namespace):
    """The captioning pipeline for the wanted model, device and number type."""
    import torch
    import transformers
    from transformers import pipeline

    from .. import DEFAULT_MODEL

    transformers.utils.logging.disable_progress_bar()
    return pipeline(
        "audio-captioning",
        model=args.model or DEFAULT_MODEL,
        revision=args.revision,
        device=args.device,
        dtype=getattr(torch, args.dtype) if args.dtype else "auto",
        trust_remote_code=args.trust_remote_code or None,
    )


class SortedClips:
    """A list of recordings whose every window of `window_size` goes from the longest to the shortest.

    Headers are read when a window is reached, here and in worker processes alike.
    """

    def __init__(self, paths: list[str], window_size: int):
        self.paths, self.window_size = paths, window_size
        self._first, self._order = None, []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        first = index - index % self.window_size
        return self.paths[self.find_order(first)[index - first]]

    def find_order(self, first: int) -> list[int]:
        """Indices of the recordings of the window that starts at `first`, in the order in which they are read."""
        if first != self._first:
            indices = range(first, min(first + self.window_size, len(self.paths)))
            durations = {i: read_duration_s(self.paths[i]) for i in indices}
            self._first, self._order = first, sorted(indices, key=lambda i: -durations[i])
        return self._order


def read_duration_s(path: str) -> float:
    """Seconds that a file's header states; 0 where soundfile cannot tell."""
    import soundfile

    try:
        return soundfile.info(path).duration if os.path.isfile(path) else 0.0  # a pipe could be read only once
    except (OSError, soundfile.SoundFileError):
        return 0.0


def caption_in_order(args: argparse.Namespace, paths: list[str], caption) -> Iterator[dict | list[dict]]:
    """Yield the captions of each path, in the order of `paths`."""
    from ..pipeline import ClipDataset

    options = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    options = {name: value for name, value in options.items() if value is not None}
    if args.num_return_sequences > 1:
        options["num_return_sequences"] = args.num_return_sequences
        num_beams = args.num_beams or caption.model.generation_config.num_beams or 1
        options["num_beams"] = max(num_beams, args.num_return_sequences)
    # On a terminal captions are wanted soon; a file can wait for a few batches.
    clips = SortedClips(paths, args.batch_size * (SORTED_BATCHES if args.output else 1))
    results = iter(
        caption(
            ClipDataset(clips), batch_size=args.batch_size, num_workers=args.num_workers, errors="return", **options
        )
    )
    for first in range(0, len(paths), clips.window_size):
        window = {i: next(results) for i in clips.find_order(first)}
        yield from (window[i] for i in sorted(window))


def write_captions(args: argparse.Namespace, paths: list[str], caption) -> int:
    """Caption all paths, write a row for each as it comes, and return how many failed."""
    from tqdm import tqdm

    num_failed = 0
    with open_writer(args.output) as write_row:
        results = caption_in_order(args, paths, caption)
        progress = tqdm(results, total=len(paths), unit="clip", disable=None if args.output else True)
        for path, result in zip(paths, progress, strict=True):
            best = result[0] if isinstance(result, list) else result
            if best["text"] is None:
                num_failed += 1
                tqdm.write(f"enclap: {best['error']}", file=sys.stderr)
            write_row(path, result)
    return num_failed


@contextlib.contextmanager
def open_writer(output: str | None):
    """A function that writes one recording's row, to a file or to the terminal."""
    if output is None:
        yield print_row
        return
    is_new = not os.path.exists(output) or os.path.getsize(output) == 0
    with open(output, "a", encoding="utf-8", newline="") as file:
        if output.endswith(".csv"):
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(["file_name", "caption", "score", "error"])
        else:
            writer = None

        def write_row(path: str, result: dict | list[dict]) -> None:
            for row in make_rows(path, result):
                if writer is not None:
                    writer.writerow([row.get(name, "") for name in ("file_name", "caption", "score", "error")])
                else:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()

        yield write_row


def make_rows(path: str, result: dict | list[dict]) -> list[dict]:
    """Rows of one recording: one per caption, best first, or one with the reason that there is none."""
    results = result if isinstance(result, list) else [result]
    rows = []
    for entry in results:
        if entry["text"] is None:
            rows.append({"file_name": path, "error": entry["error"]})
        else:
            rows.append({"file_name": path, "caption": entry["text"]})
            if "score" in entry:
                rows[-1]["score"] = round(entry["score"], 6)
    return rows


def print_row(path: str, result: dict | list[dict]) -> None:
    """One recording's captions on the terminal; failures are said on the error stream alone."""
    for row in make_rows(path, result):
        if "caption" in row:
            score = f"{row['score']:.3f}\t" if "score" in row else ""
            print(f"{path}\t{score}{row['caption']}", flush=True)
