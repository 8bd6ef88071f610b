"""Train one recipe in several variants and seeds, and write the table of scores.

    python examples/run_ablations.py examples/recipes/ablations_scenes.json --output_dir output/ablations \
        --num_processes 2 --report examples/README.md
    python examples/run_ablations.py examples/recipes/ablations_scenes.json --output_dir trial --seeds 1 \
        --overrides '{"max_steps": 2, "max_train_clips": 8, "max_eval_clips": 4}'                 # a look

The plan is a JSON file: `recipe` (beside the plan), `seeds`, `metrics`, `overrides` for all runs, and `variants`, each
a name with the arguments that make it. Runs whose encoders are named alike share their features, which are computed
first. Finished runs are not repeated, a killed one goes on, one that was begun with other arguments is refused, one
that fails is named at the end while the others go on, and the table is made of what is there. It replaces what stands
between `<!-- ablations -->` and `<!-- /ablations -->` in the report.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.training.recipes import parse_json_object, parse_script_arguments, read_recipe
from enclap_hf.training.run_arguments import check_run_arguments

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_captioning.py")
RECIPE = "recipe.json"  # of a run, in its folder
PLACES = ("output_dir", "features_dir", "description")  # arguments that change no score
# Arguments that choose encoders, whose features lie in a folder of their own.
ENCODERS = ("frames", "frame_encoder_name_or_path", "codec_name_or_path", "clap_name_or_path", "processor_name_or_path")
MARKS = ("<!-- ablations -->", "<!-- /ablations -->")
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 10.0


@dataclass
class AblationArguments:
    """Which runs, and where they go."""

    plan: str = field(metadata={"help": "JSON file of variants and seeds"})
    output_dir: str = field(metadata={"help": "folder of all runs, and of features that have no `features_dir`"})
    report: str | None = field(default=None, metadata={"help": "Markdown file with the marks of the table"})
    seeds: list[int] = field(default_factory=list, metadata={"help": "in the place of the plan's"})
    only: list[str] = field(default_factory=list, metadata={"help": "names of variants; left out, all"})
    num_processes: int = field(default=1, metadata={"help": "runs at once, which share the processor's cores"})
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
    recipe = read_recipe(os.path.join(os.path.dirname(args.plan), plan["recipe"]))
    recipe.update(plan.get("overrides", {}))
    recipe.update(parse_json_object(args.overrides, "overrides"))
    recipe.setdefault("features_dir", os.path.join(args.output_dir, "_features"))
    unknown = sorted(set(args.only) - set(plan["variants"]))
    if unknown:
        raise ValueError(f"Got the variants {', '.join(unknown)}; expected some of {', '.join(plan['variants'])}.")
    runs = []
    for seed in args.seeds or plan["seeds"]:
        for variant in args.only or plan["variants"]:
            folder = os.path.join(args.output_dir, f"{shorten(variant)}-seed{seed}")
            changed = plan["variants"][variant]
            own = [str(changed[name]) for name in ENCODERS if changed.get(name) != recipe.get(name) and name in changed]
            features = "_".join([recipe["features_dir"], *map(shorten, own)])
            arguments = {**recipe, "features_dir": features, **changed, "seed": seed, "output_dir": folder}
            runs.append(Run(variant, seed, folder, arguments))
    return runs


def shorten(text: str) -> str:
    """A text as part of a folder's name."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def check_begun(runs: list[Run]) -> None:
    """Refuse runs that were begun with other arguments, so that no table mixes them."""
    for run in runs:
        remedy = "choose another `output_dir`, or delete this folder."
        check_run_arguments(os.path.join(run.folder, RECIPE), run.arguments, remedy, PLACES)


def read_scores(run: Run, metrics: list[str]) -> dict[str, float] | None:
    """Scores of a finished run; None of another."""
    path = os.path.join(run.folder, "all_results.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    return {metric: results[metric] for metric in metrics} if all(metric in results for metric in metrics) else None


def start(run: Run, num_at_once: int, *arguments: str) -> subprocess.Popen:
    """Start a run in a process of its own with its share of the cores; its output goes to run.log in its folder."""
    os.makedirs(run.folder, exist_ok=True)
    recipe = os.path.join(run.folder, RECIPE)
    with open(recipe, "w", encoding="utf-8") as file:
        json.dump(run.arguments, file, indent=2)
    threads = max(1, (os.cpu_count() or 1) // num_at_once)
    with open(os.path.join(run.folder, "run.log"), "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, SCRIPT, recipe, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
        )


def run_all(runs: list[Run], num_at_once: int, what: str, *arguments: str) -> list[tuple[Run, str]]:
    """Run all, so many at once; a stop of this process ends them. Returns those that failed, each with a message."""
    waiting, running, failures = list(runs), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < num_at_once:
                run = waiting.pop(0)
                print(f"[{len(runs) - len(waiting)} of {len(runs)}] {what} of {run.folder} begins", flush=True)
                running[start(run, num_at_once, *arguments)] = run, time.perf_counter()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for process in [process for process in running if process.poll() is not None]:
                run, began = running.pop(process)
                outcome = f"took {(time.perf_counter() - began) / 60:.1f} minutes"
                if process.returncode:
                    outcome = describe_failure(run, process.returncode)
                    failures.append((run, f"{run.folder} {outcome}"))
                print(f"{what} of {run.folder} {outcome}", flush=True)
    finally:
        end(list(running))
    return failures


def end(processes: list[subprocess.Popen]) -> None:
    """End processes that are still running, and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()


def describe_failure(run: Run, status: int) -> str:
    """The last line that a run wrote."""
    log = os.path.join(run.folder, "run.log")
    with open(log, encoding="utf-8", errors="replace") as file:
        last = (file.read().strip().splitlines() or ["no output"])[-1]
    return f"ended with status {status}: {last} (all of it in {log})"


def train_all(runs: list[Run], num_at_once: int) -> list[tuple[Run, str]]:
    """Compute the features that runs share, each folder once, then train. Returns what failed, with messages."""
    first_of = {}
    for run in sorted(runs, key=lambda run: run.arguments.get("use_clap") is False):  # features have all that is read
        first_of.setdefault(run.arguments["features_dir"], run)
    failures = run_all(list(first_of.values()), 1, "features", "--prepare_only", "True")
    missing = {run.arguments["features_dir"] for run, _ in failures}
    remaining = [run for run in runs if run.arguments["features_dir"] not in missing]
    return failures + run_all(remaining, num_at_once, "training")


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


def read_arguments() -> tuple[AblationArguments, dict]:
    """The command line, and the plan that it names."""
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--plan", *arguments]
    (args,) = parse_script_arguments([AblationArguments], __doc__, "PLAN [--argument VALUE ...]", arguments)
    if args.num_processes < 1:
        raise ValueError(f"Got `num_processes`={args.num_processes}; expected at least 1 run at once.")
    return args, read_recipe(args.plan)


def set_up() -> tuple[AblationArguments, list[Run], list[str]]:
    """The command line, the runs and their metrics."""
    args, plan = read_arguments()
    missing = [name for name in ("recipe", "seeds", "metrics", "variants") if name not in plan]
    if missing:
        raise ValueError(f"{args.plan} has no {', '.join(missing)}; see examples/recipes/ablations_scenes.json.")
    runs = make_runs(args, plan)
    check_begun(runs)
    return args, runs, plan["metrics"]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: the runs end too
    try:
        args, runs, metrics = set_up()
    except (ValueError, OSError) as error:  # of what the user named
        raise CaptionDataError(str(error)) from error
    unfinished = [run for run in runs if read_scores(run, metrics) is None]
    failures = [] if args.table_only else train_all(unfinished, args.num_processes)
    table = format_table(runs, metrics)
    print(table)
    if args.report:
        write_report(args.report, table)
        print(f"Wrote the table to {args.report}.")
    if failures:
        sys.exit("\n".join([f"run_ablations: {len(failures)} runs failed.", *(message for _, message in failures)]))


if __name__ == "__main__":
    try:
        main()
    except CaptionDataError as error:
        sys.exit(f"run_ablations: {error}")
