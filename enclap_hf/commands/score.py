"""`enclap score`: score a file of captions.

enclap score predictions.csv --references clotho_captions_evaluation.csv --metrics paper
enclap score mine.jsonl --compare theirs.jsonl --references captions.csv --bootstrap 1000
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from ..data.caption_files import read_caption_file
from ..data.caption_matching import (
    MISSING_RULES,
    ScoredClip,
    add_system,
    describe_lacking,
    pair_references,
    read_predictions,
    settle_missing,
    take_own_references,
)
from ..data.recording_names import normalise_name
from ..metrics.audio_captioning_metrics import AudioCaptioningMetrics
from ..metrics.caption_scores import CaptionScores
from ..metrics.java_runtime import MetricUnavailableError
from ..metrics.metric_notes import warnings_as_notes
from ..metrics.metric_sets import DEFAULT_METRICS, METRIC_SETS
from ..metrics.significance import POOLED_METRICS, bootstrap_interval, paired_permutation_test

NUM_PERMUTATIONS = 10_000


EXAMPLES = """examples:
  enclap score captions.csv --references references.csv                   what is installed of the standard metrics
  enclap score captions.csv --references references.csv --metrics paper   those of the paper
  enclap score mine.csv --compare theirs.csv --references references.csv  two systems on the same clips"""


def describe_sets() -> str:
    """What each set of metrics holds and what the metrics need, for the help."""
    lines = ["sets of metrics:"]
    for name, metrics in METRIC_SETS.items():
        lines += textwrap.wrap(", ".join(metrics), 100, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
    needs = (
        'meteor needs Java and pycocoevalcap: pip install "enclap-hf[metrics]". spice, and spider with it, also needs '
        "CoreNLP 3.6.0 in the folder that ENCLAP_CORENLP names. fluency_error_rate, sbert_similarity, spider_fl and "
        "fense fetch weights. clap_similarity needs audio and works from Python only. What cannot be computed is named "
        "and left out; nothing stands in for it."
    )
    return "\n".join([*lines, "", *textwrap.wrap(needs, 110)])


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap score`, and to its help what the sets of metrics hold.

    Args:
        parser: of the sub-command.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{describe_sets()}\n\n{EXAMPLES}"
    parser.add_argument(
        "predictions",
        type=Path,
        help="csv, tsv, jsonl or json with the columns file_name (or another that trainings read) and candidate (or "
        "caption, prediction, text), as `enclap caption --output` writes them; references may be there too, as "
        "caption_1, caption_2, ... or a list in `references`",
    )
    parser.add_argument(
        "--references",
        type=Path,
        help="file with the references, matched by file name; folders that only one of the files names are passed over "
        "where that leaves no choice",
    )
    parser.add_argument(
        "--encoding",
        default="utf-8",
        help="of the files; a byte order mark counts over it (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics",
        default=DEFAULT_METRICS,
        metavar="NAMES",
        help="sets and metrics, with commas between them; the sets are listed below (default: %(default)s)",
    )
    parser.add_argument(
        "--missing",
        choices=MISSING_RULES,
        default="skip",
        help="clips without a caption, failed ones and those that a file does not name: skip leaves them out and says "
        "so, empty counts them as empty captions, error refuses them. An empty caption would score 0 for what the "
        "model never said, so that is only done when asked for; where every clip must count, as beside published "
        "figures, use error (default: %(default)s)",
    )
    parser.add_argument("--per-clip", type=Path, metavar="OUT.csv", help="write one line of scores a clip")
    parser.add_argument(
        "--output", type=Path, metavar="OUT.json", help="write the corpus scores and how they came about"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=0, metavar="N", help="95 %% intervals from N samples of the clips"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="OTHER", help="predictions of another system for the same clips"
    )
    parser.add_argument("--sentence-encoder", help="folder or Hub name of FENSE's sentence encoder")
    parser.add_argument("--error-detector", help="name or file of FENSE's fluency error detector")
    parser.add_argument(
        "--java-heap",
        help="memory limit of each Java process, such as 4g (default: 2g for METEOR; for SPICE half of the memory that "
        "this process may use, its control group's limit included, but 8g at most)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="limit for each Java process (default: %(default)g). SPICE keeps what it parsed until then, and the next "
        "run goes on from there",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bars; there are none in a pipe either")


def run_score(args: argparse.Namespace) -> int:
    """Run `enclap score`.

    Args:
        args: parsed arguments.
    Returns:
        exit status: 0, or 1 when every metric was left out, or 2 on input that cannot be scored.
    """
    try:
        return _score(args)
    except (ValueError, TypeError, OSError, MetricUnavailableError) as error:
        print(f"enclap score: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _score(args: argparse.Namespace) -> int:
    """Read, score, print, write."""
    if args.bootstrap < 0:
        raise ValueError(f"Got --bootstrap {args.bootstrap}; expected 0 for none, or a number of samples such as 1000.")
    metrics = AudioCaptioningMetrics(
        args.metrics,
        sentence_encoder=args.sentence_encoder,
        error_detector=args.error_detector,
        java_heap=args.java_heap,
        timeout_s=args.timeout,
        show_progress=False if args.quiet else None,
    )
    _check_outputs(args)
    all_clips = _read_clips(args)
    clips, left_out, emptied = settle_missing(all_clips, args.missing)
    reason = f"--missing {args.missing}" if args.missing == "skip" else "they have no references either"
    if left_out:
        _note(f"left out of the scores ({reason}): {describe_lacking(left_out, len(all_clips))}")
    if emptied:
        _note(f"counted as empty captions (--missing empty): {describe_lacking(emptied, len(all_clips))}")
    references = [clip.references for clip in clips]
    names = [clip.file_name for clip in clips if clip.file_name]
    clip_names = names if len(names) == len(clips) else None
    with warnings_as_notes(_note):
        scores = metrics.compute([clip.captions[0] or "" for clip in clips], references, clip_names=clip_names)
        others = [clip.captions[1] or "" for clip in clips] if args.compare else None
        other_scores = metrics.compute(others, references, clip_names=clip_names) if others else None
    report = _build_report(scores, args.bootstrap)
    report["missing_captions"] = {
        "left_out": [clip.file_name for clip in left_out],
        "counted_as_empty": [clip.file_name for clip in emptied],
    }
    if other_scores is not None:
        report["compared_with"] = str(args.compare)
        report["comparison"] = _compare(scores, other_scores, args.bootstrap)
    print(_format_table(report, args))
    for name, reason in scores.missing.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if args.per_clip:
        _write_per_clip(args.per_clip, clips, scores)
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if scores.corpus else 1


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse outputs that could not be written, or would replace an input, before an hour of scoring."""
    outputs = {"--per-clip": args.per_clip, "--output": args.output}
    taken = {path.resolve(): path for path in (args.predictions, args.references, args.compare) if path}
    for option, path in outputs.items():
        if path is None:
            continue
        if not path.parent.is_dir():
            raise ValueError(f"The folder of {option} {path} does not exist; make it first: mkdir -p {path.parent}")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError(f"Got {option} {path}, which cannot be written; expected a file in a folder of yours.")
        if path.resolve() in taken:
            raise ValueError(f"Got {option} {path}, which another argument names too; expected a file of its own.")
        taken[path.resolve()] = path


def _read_clips(args: argparse.Namespace) -> list[ScoredClip]:
    """Every clip with its references and the captions of all systems."""
    rows = read_predictions(args.predictions, args.encoding)
    if args.references is None:
        clips = take_own_references(rows, args.predictions)
    else:
        clips = pair_references(rows, read_caption_file(args.references, args.encoding))
        _note_other_folders(clips)
    if args.compare:
        add_system(clips, read_predictions(args.compare, args.encoding), args.compare)
    for system, path in enumerate([args.predictions] + [args.compare] * bool(args.compare)):
        captions = [clip.captions[system] for clip in clips]
        num_empty = sum(caption is not None and not caption.strip() for caption in captions)
        if num_empty:
            _note(f"{num_empty} captions of {path} are empty, and are scored as empty captions")
    return clips


def _note_other_folders(clips: list[ScoredClip]) -> None:
    """Say which names were matched although they differ."""
    differing = [
        clip
        for clip in clips
        if clip.reference_name and normalise_name(clip.reference_name) != normalise_name(clip.file_name or "")
    ]
    if differing and differing[0].file_name:
        _note(
            f"{len(differing)} clips are matched without the folders or endings that only one file names, such as "
            f"{differing[0].file_name!r} with {differing[0].reference_name!r}"
        )


def _note(text: str) -> None:
    """Say what a reader of the scores has to know, on the error stream."""
    print(f"note: {text}", file=sys.stderr)


def _build_report(scores: CaptionScores, num_samples: int) -> dict:
    """What is printed and written, without the per-clip scores."""
    report: dict[str, Any] = {"scores": scores.corpus}
    report.update({key: scores[key] for key in ("num_clips", "num_references", "metric_set", "tokenizer", "versions")})
    report["missing"] = scores.missing
    if num_samples:
        report["intervals"] = {
            name: bootstrap_interval(scores.per_clip[name], num_samples)
            for name in scores.corpus
            if name in scores.per_clip and name not in POOLED_METRICS
        }
    return report


def _compare(scores: CaptionScores, others: CaptionScores, num_samples: int) -> dict[str, dict[str, Any]]:
    """The other system's scores, the mean difference per clip, its interval and p value."""
    comparison: dict[str, dict[str, Any]] = {}
    for name, score in scores.corpus.items():
        if name not in others.corpus:
            continue
        comparison[name] = {"score": score, "other": others[name]}
        if name in scores.per_clip:
            first, second = scores.per_clip[name], others.per_clip[name]
            differences = [a - b for a, b in zip(first, second, strict=True)]
            comparison[name]["mean_difference"] = sum(differences) / len(differences)
            comparison[name]["interval"] = bootstrap_interval(differences, num_samples or 1000)
            comparison[name]["p"] = paired_permutation_test(first, second, NUM_PERMUTATIONS)
    return comparison


def _format_table(report: dict, args: argparse.Namespace) -> str:
    """The table that is printed."""
    lines = [
        f"{count(report['num_clips'], 'clip')}, {count(report['num_references'], 'reference')}, metrics: "
        f"{report['metric_set']}",
        *_format_missing(report["missing_captions"]),
        f"tokenizer: {report['tokenizer']}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "",
    ]
    width = max([len(name) for name in report["scores"]] + [6])
    for name, score in report["scores"].items():
        line = f"{name:<{width}}  {score:>9.4f}"
        if name in report.get("intervals", {}):
            line += "  [{:.4f}, {:.4f}]".format(*report["intervals"][name])
        lines.append(line)
    if "intervals" in report:
        lines += [
            "",
            f"[ ]: 95 % of {args.bootstrap} bootstrap samples of the clips; scores that pool counts have none",
        ]
    if "comparison" in report:
        lines += ["", f"compared with {report['compared_with']}"]
        lines.append(
            f"{'metric':<{width}}  {'this':>9}  {'other':>9}  {'per clip':>9}  {'95 % interval':>20}  {'p':>7}"
        )
        lines += [_format_comparison(name, row, width) for name, row in report["comparison"].items()]
        lines.append("per clip: mean difference of the clips' scores; p: paired permutation test, two-sided")
    return "\n".join(lines)


def _format_missing(missing: dict) -> list[str]:
    """How many clips had no caption, where there are such."""
    return [
        f"clips without a caption: {len(names)}, {fate.replace('_', ' ')}" for fate, names in missing.items() if names
    ]


def _format_comparison(name: str, row: dict, width: int) -> str:
    """One line of the comparison."""
    line = f"{name:<{width}}  {row['score']:>9.4f}  {row['other']:>9.4f}"
    if "p" in row:
        interval = "[{:.4f}, {:.4f}]".format(*row["interval"])
        line += f"  {row['mean_difference']:>+9.4f}  {interval:>20}  {row['p']:>7.4f}"
    return line


def _write_per_clip(path: Path, clips: list[ScoredClip], scores: CaptionScores) -> None:
    """Write one line a clip."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "candidate", *scores.per_clip])
        for clip, *values in zip(clips, *scores.per_clip.values(), strict=True):
            writer.writerow([clip.file_name or "", clip.captions[0], *values])


def count(number: int, noun: str) -> str:
    """A number of things, in words that fit it."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def main(arguments: list[str] | None = None) -> int:
    """Run the command by itself.

    Args:
        arguments: command line; that of the program when left out.
    Returns:
        exit status.
    """
    parser = argparse.ArgumentParser(prog="enclap score", description="Score a file of captions against references.")
    add_score_arguments(parser)
    return run_score(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
