"""Train one recipe in several variants and seeds, and write the table of scores.

    python examples/run_ablations.py examples/recipes/ablations_scenes.json --output_dir ablations \
        --report examples/README.md
    python examples/run_ablations.py examples/recipes/ablations_scenes.json --output_dir trial --seeds 1 \
        --overrides '{"max_steps": 2, "max_train_clips": 8, "max_eval_clips": 4}'                 # a look

The plan is a JSON file: `recipe` (beside the plan), `seeds`, `metrics`, `overrides` for all runs, and `variants`, each
a name with the arguments that make it. Runs that are finished are not repeated, a killed one goes on, and the table is
made of what is there. It replaces what stands between `<!-- ablations -->` and `<!-- /ablations -->` in the report.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

import yaml
from transformers import HfArgumentParser

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_captioning.py")
MARKS = ("<!-- ablations -->", "<!-- /ablations -->")


@dataclass
class AblationArguments:
    """Which runs, and where they go."""

    plan: str = field(metadata={"help": "JSON file of variants and seeds"})
    output_dir: str = field(metadata={"help": "folder of all runs; they share their features there"})
    report: str | None = field(default=None, metadata={"help": "Markdown file with the marks of the table"})
    seeds: list[int] = field(default_factory=list, metadata={"help": "in the place of the plan's"})
    only: list[str] = field(default_factory=list, metadata={"help": "names of variants; left out, all"})
    overrides: str = field(default="{}", metadata={"help": "arguments for all runs, as JSON, over the plan's"})
    table_only: bool = field(default=False, metadata={"help": "run nothing, make the table of what is there"})


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed."""

    variant: str
    seed: int
    folder: str
    arguments: dict


def make_runs(args: AblationArguments, plan: dict) -> list[Run]:
    """All runs, seed by seed, so that a table of fewer seeds comes first."""
    with open(os.path.join(os.path.dirname(args.plan), plan["recipe"]), encoding="utf-8") as file:
        recipe = yaml.safe_load(file)
    recipe.update(plan.get("overrides", {}))
    recipe.update(json.loads(args.overrides))
    recipe["features_dir"] = os.path.join(args.output_dir, "_features")
    unknown = sorted(set(args.only) - set(plan["variants"]))
    if unknown:
        raise ValueError(f"Got the variants {', '.join(unknown)}; expected some of {', '.join(plan['variants'])}.")
    runs = []
    for seed in args.seeds or plan["seeds"]:
        for variant in args.only or plan["variants"]:
            name = re.sub(r"\W+", "-", variant.lower()).strip("-")
            folder = os.path.join(args.output_dir, f"{name}-seed{seed}")
            arguments = {**recipe, **plan["variants"][variant], "seed": seed, "output_dir": folder}
            runs.append(Run(variant, seed, folder, arguments))
    return runs


def read_scores(run: Run, metrics: list[str]) -> dict[str, float] | None:
    """Scores of a finished run; None of another."""
    path = os.path.join(run.folder, "all_results.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    return {metric: results[metric] for metric in metrics} if all(metric in results for metric in metrics) else None


def train(run: Run) -> None:
    """Train one run in a process of its own; its output goes to run.log in its folder."""
    os.makedirs(run.folder, exist_ok=True)
    recipe = os.path.join(run.folder, "recipe.json")
    with open(recipe, "w", encoding="utf-8") as file:
        json.dump(run.arguments, file, indent=2)
    log = os.path.join(run.folder, "run.log")
    with open(log, "a", encoding="utf-8") as file:
        status = subprocess.run([sys.executable, SCRIPT, recipe], stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        with open(log, encoding="utf-8") as file:
            last = (file.read().strip().splitlines() or ["no output"])[-1]
        sys.exit(f"run_ablations: {run.folder} ended with status {status}: {last} (all of it in {log})")


def format_table(runs: list[Run], metrics: list[str]) -> str:
    """Mean and spread over the seeds of each variant, as Markdown."""
    lines = ["| variant | seeds | " + " | ".join(metrics) + " |", "|---|---|" + "---|" * len(metrics)]
    for variant in dict.fromkeys(run.variant for run in runs):
        scores = [read_scores(run, metrics) for run in runs if run.variant == variant]
        scores = [score for score in scores if score is not None]
        cells = [format_spread([score[metric] for score in scores]) for metric in metrics]
        lines.append(f"| {variant} | {len(scores)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "Mean over the seeds, ± their standard deviation, and [lowest, highest]."])


def format_spread(values: list[float]) -> str:
    """Mean ± standard deviation [lowest, highest]."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    spread = statistics.stdev(values)
    return f"{statistics.mean(values):.3f} ± {spread:.3f} [{min(values):.3f}, {max(values):.3f}]"


def write_report(path: str, table: str) -> None:
    """Put the table between its marks."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not all(mark in text for mark in MARKS):
        raise ValueError(f"{path} lacks the marks {MARKS[0]} and {MARKS[1]}; add them where the table belongs.")
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--plan", *arguments]
    (args,) = HfArgumentParser(AblationArguments).parse_args_into_dataclasses(arguments)
    with open(args.plan, encoding="utf-8") as file:
        plan = json.load(file)
    runs, metrics = make_runs(args, plan), plan["metrics"]
    for number, run in enumerate(runs, start=1):
        if not args.table_only and read_scores(run, metrics) is None:
            print(f"[{number} of {len(runs)}] {run.variant}, seed {run.seed} -> {run.folder}", flush=True)
            train(run)
    table = format_table(runs, metrics)
    print(table)
    if args.report:
        write_report(args.report, table)
        print(f"Wrote the table to {args.report}.")


if __name__ == "__main__":
    main()
