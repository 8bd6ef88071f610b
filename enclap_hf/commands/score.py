"""`enclap score`: score a file of captions.

enclap score predictions.csv --references clotho_captions_evaluation.csv --metrics paper
enclap score mine.jsonl --compare theirs.jsonl --references captions.csv --bootstrap 1000
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

from ..metrics.audio_captioning_metrics import AudioCaptioningMetrics
from ..metrics.caption_files import CaptionRow, check_names, match_references, read_caption_file
from ..metrics.caption_scores import CaptionScores
from ..metrics.java_runtime import MetricUnavailableError
from ..metrics.metric_sets import METRIC_SETS
from ..metrics.significance import POOLED_METRICS, bootstrap_interval, paired_permutation_test

NUM_PERMUTATIONS = 10_000


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap score`.

    Args:
        parser: of the sub-command.
    """
    parser.add_argument(
        "predictions",
        type=Path,
        help="csv, jsonl or json with the columns file_name (or file) and candidate (or caption, prediction, text); "
        "references may be there too, as caption_1, caption_2, ... or a list in `references`",
    )
    parser.add_argument("--references", type=Path, help="file with the references, matched by file name")
    parser.add_argument("--metrics", default="paper", help=f"{', '.join(METRIC_SETS)}, or metrics parted by commas")
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
    parser.add_argument("--java-heap", help="memory limit of each Java process, such as 8g")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="limit for each Java process")


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
        args.metrics if args.metrics in METRIC_SETS else [name.strip() for name in args.metrics.split(",")],
        sentence_encoder=args.sentence_encoder,
        error_detector=args.error_detector,
        java_heap=args.java_heap,
        timeout_s=args.timeout,
    )
    rows = _read_predictions(args.predictions)
    references = _read_references(rows, args)
    others = _align(rows, _read_predictions(args.compare), args) if args.compare else None
    scores = metrics.compute([row.caption for row in rows], references)
    report = _build_report(scores, args.bootstrap)
    if others is not None:
        other_scores = metrics.compute([row.caption for row in others], references)
        report["compared_with"] = str(args.compare)
        report["comparison"] = _compare(scores, other_scores, args.bootstrap)
    print(_format_table(report, args))
    for name, reason in scores.missing.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if args.per_clip:
        _write_per_clip(args.per_clip, rows, scores)
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if scores.corpus else 1


def _read_predictions(path: Path) -> list[CaptionRow]:
    """Rows of a file of predictions."""
    rows = read_caption_file(path)
    check_names(rows, path)
    return rows


def _read_references(rows: list[CaptionRow], args: argparse.Namespace) -> list[list[str]]:
    """References of every prediction, from their own file or from the predictions' file."""
    if args.references is None:
        if not all(row.references for row in rows):
            raise ValueError(
                f"Got no references for a clip of {args.predictions}; expected caption_1, caption_2, ... there, or "
                "a file as --references."
            )
        return [row.references for row in rows]
    reference_rows = read_caption_file(args.references)
    references = match_references(rows, reference_rows)
    unused = {row.file_name for row in reference_rows} - {row.file_name for row in rows} - {None}
    if unused:
        print(f"note: {len(unused)} clips of {args.references} have no prediction and are not scored", file=sys.stderr)
    return references


def _align(rows: list[CaptionRow], others: list[CaptionRow], args: argparse.Namespace) -> list[CaptionRow]:
    """The other system's rows in the order of the first one's."""
    if all(row.file_name is not None for row in [*rows, *others]):
        by_name = {row.file_name: row for row in others}
        for row in rows:
            if row.file_name not in by_name:
                raise ValueError(
                    f"{args.compare} has no prediction for {row.file_name!r}; expected the same clips in both."
                )
        if len(others) != len(rows):
            raise ValueError(
                f"Got {len(rows)} clips in {args.predictions} and {len(others)} in {args.compare}; expected the same."
            )
        return [by_name[row.file_name] for row in rows]
    if len(rows) != len(others):
        raise ValueError(
            f"Got {len(rows)} lines in {args.predictions} and {len(others)} in {args.compare}; expected the same clips "
            "in the same order, or file names in both."
        )
    return others


def _build_report(scores: CaptionScores, num_samples: int) -> dict:
    """What is printed and written, without the per-clip scores."""
    report = {"scores": scores.corpus}
    report.update({key: scores[key] for key in ("num_clips", "num_references", "metric_set", "tokenizer", "versions")})
    report["missing"] = scores.missing
    if num_samples:
        report["intervals"] = {
            name: bootstrap_interval(scores.per_clip[name], num_samples)
            for name in scores.corpus
            if name in scores.per_clip and name not in POOLED_METRICS
        }
    return report


def _compare(scores: CaptionScores, others: CaptionScores, num_samples: int) -> dict[str, dict[str, float]]:
    """The other system's scores, the mean difference per clip, its interval and p value."""
    comparison = {}
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
        f"{report['num_clips']} clips, {report['num_references']} references, metrics: {report['metric_set']}",
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


def _format_comparison(name: str, row: dict, width: int) -> str:
    """One line of the comparison."""
    line = f"{name:<{width}}  {row['score']:>9.4f}  {row['other']:>9.4f}"
    if "p" in row:
        interval = "[{:.4f}, {:.4f}]".format(*row["interval"])
        line += f"  {row['mean_difference']:>+9.4f}  {interval:>20}  {row['p']:>7.4f}"
    return line


def _write_per_clip(path: Path, rows: list[CaptionRow], scores: CaptionScores) -> None:
    """Write one line a clip."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "candidate", *scores.per_clip])
        for row, *values in zip(rows, *scores.per_clip.values(), strict=True):
            writer.writerow([row.file_name or "", row.caption, *values])


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
