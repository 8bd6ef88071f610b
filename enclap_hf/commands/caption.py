"""`enclap caption`: recordings in, captions to the terminal or to a file, one recording's failure never another's."""

import argparse
import math
import os
import sys
from collections.abc import Iterator

from ..data.audio_files import find_audio_files, read_duration_s
from ..model.audio_loading import AudioLoadError
from .argument_types import positive_int, whole_number
from .caption_output import check_output, identify, keep_captioned, open_writer, read_captioned
from .captioner_loading import load_pipeline
from .freed_memory import keep_freed_memory

EXAMPLES = """examples:
  enclap caption rain.wav                                  print one caption
  enclap caption recordings/ --output captions.csv         a folder, into a table
  enclap caption recordings/ --output captions.csv --resume   go on where that stopped
  enclap caption 'field/*.flac' --model owner/name --num-return-sequences 3 --output captions.jsonl
"""

# Batches whose recordings are sorted by length together, so that little of a batch is padding.
SORTED_BATCHES = 8


def add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap caption`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder or pattern")
    parser.add_argument("--model", help="directory or Hub repository; left out, the small model of the package")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write .jsonl or .csv instead of printing; relative paths are written relative to the folder of FILE",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the captions that --output has and caption only the rest, those that failed among them; paths in "
        "--output count from its folder",
    )
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


def run_caption(args: argparse.Namespace) -> int:
    """Caption; returns 0 when every recording has its caption, 1 when some failed, 2 when nothing could start."""
    keep_freed_memory()
    try:
        check_output(args)
        captioned = read_captioned(args.output) if args.resume else []
    except (ValueError, OSError) as error:
        return complain(error)
    paths, num_failed = find_recordings(args.paths)
    if not paths:
        return 2
    done = {identify(row["file_name"], os.path.dirname(args.output)) for row in captioned}
    waiting = [path for path in paths if identify(path, "") not in done]
    if done:
        print(f"{len(paths) - len(waiting)} of {len(paths)} recordings are captioned already.", file=sys.stderr)
    try:
        caption = load_pipeline(args)
    except (OSError, ValueError, RuntimeError) as error:
        return complain(error)
    if args.model is None:
        print(describe_default_model(), file=sys.stderr)
    # The output is changed only here, where recordings and model are known to be good.
    if args.output and os.path.exists(args.output):
        if args.overwrite:
            os.remove(args.output)
        else:
            keep_captioned(args.output, captioned)
    num_unreadable = write_captions(args, waiting, caption)
    if args.output:
        captioned = count_recordings(len(waiting) - num_unreadable)
        failed = f"; {num_unreadable} could not be read" if num_unreadable else ""
        print(f"Captioned {captioned} into {args.output}{failed}.", file=sys.stderr)
    return 1 if num_failed or num_unreadable else 0


def find_recordings(arguments: list[str]) -> tuple[list[str], int]:
    """Audio files of all arguments, each once, and how many arguments had none, which are said."""
    found, num_failed = {}, 0
    for argument in arguments:
        try:
            for path in find_audio_files([argument]):
                found.setdefault(os.path.abspath(path), path)
        except AudioLoadError as error:
            num_failed += 1
            complain(error)
    return list(found.values()), num_failed


def count_recordings(number: int) -> str:
    """A number of recordings in words."""
    return "1 recording" if number == 1 else f"{number} recordings"


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


class SortedClips:
    """A list of recordings whose every window of `window_size` goes from the longest to the shortest.

    Headers are read when a window is reached, here and in worker processes alike.
    """

    def __init__(self, paths: list[str], window_size: int):
        self.paths, self.window_size = paths, window_size
        self._first, self._durations_s = None, {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        first = index - index % self.window_size
        return self.paths[list(self.read_window(first))[index - first]]

    def read_window(self, first: int) -> dict[int, float]:
        """Recordings of the window that starts at `first`: seconds by index, in the order in which they are read."""
        if first != self._first:
            indices = range(first, min(first + self.window_size, len(self.paths)))
            durations_s = {i: read_duration_s(self.paths[i]) for i in indices}
            self._first = first
            self._durations_s = dict(sorted(durations_s.items(), key=lambda item: -item[1]))
        return self._durations_s


def caption_in_order(args: argparse.Namespace, paths: list[str], caption) -> Iterator[tuple[dict | list[dict], float]]:
    """Yield the captions of each path, and its seconds as far as they are known, in the order of `paths`."""
    from ..model.pipeline import ClipDataset

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
        window = {i: (next(results), duration_s) for i, duration_s in clips.read_window(first).items()}
        yield from (window[i] for i in sorted(window))


def write_captions(args: argparse.Namespace, paths: list[str], caption) -> int:
    """Caption all paths, write rows for each as it comes, and return how many failed."""
    from tqdm import tqdm

    num_failed = num_long = 0
    longest_s = find_longest_s(caption.processor.feature_extractor)
    with open_writer(args.output) as write_rows:
        results = caption_in_order(args, paths, caption)
        progress = tqdm(results, total=len(paths), unit="clip", disable=None if args.output else True)
        for path, (result, duration_s) in zip(paths, progress, strict=True):
            best = result[0] if isinstance(result, list) else result
            if best["text"] is None:
                num_failed += 1
                tqdm.write(f"enclap: {best['error']}", file=sys.stderr)
            else:
                num_long += duration_s > longest_s
            write_rows(path, result)
    if num_long:
        long = f"{count_recordings(num_long)} {'is' if num_long == 1 else 'are'} longer"
        print(
            f"{long} than the {longest_s:.1f} s that the model's codes cover: cut long recordings into pieces.",
            file=sys.stderr,
        )
    return num_failed


def find_longest_s(feature_extractor) -> float:
    """Seconds of a recording that are read as codes; infinity where all are."""
    if feature_extractor.max_codec_frames is None:
        return math.inf
    num_samples = feature_extractor.max_codec_frames * feature_extractor.codec_hop_length
    return num_samples / feature_extractor.codec_sampling_rate
