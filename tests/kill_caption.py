"""Kills `enclap caption` at random moments while rows are being written, resumes it, and compares with an unbroken run.

    python tests/kill_caption.py --kills 20 --seed 0                forks of one process, with a tiny model loaded once
    python tests/kill_caption.py --kills 5 --seed 0 --program       the program itself, with the bundled model

Each kill is SIGKILL, SIGTERM or SIGINT, into csv or jsonl, or json, whose rows are in a journal until it is complete;
with one or two captions for each recording, or window of a long one, read ahead in a worker process or not. After it
the file must hold whole rows of the unbroken run and nothing else; resumed, all of them, each once, with those that
were there before. Now and then the resumed run is killed, too, before the last one.
Prints what happened by kind; exit status 1 where anything was lost or wrong. Needs a system that can fork.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NUM_CLIPS = 12
# Seconds of long recordings, and of their windows.
LONG_S, CHUNK_LENGTH_S, NUM_WINDOWS = (9.4, 7.2), 2, 9
# A run that has not got this far by then hangs.
PATIENCE_S = 300


@dataclass
class Setting:
    """How one output is made."""

    extension: str
    n_best: int
    num_workers: int
    batch_size: int

    @property
    def arguments(self) -> list[str]:
        options = {
            "--num-return-sequences": self.n_best,
            "--num-beams": 2,
            "--num-workers": self.num_workers,
            "--batch-size": self.batch_size,
            "--chunk-length-s": CHUNK_LENGTH_S,
        }
        return [str(word) for option in options.items() for word in option]


class ForkedRuns:
    """Runs of the command in forks of this process, with a pipeline that is loaded."""

    def __init__(self, caption):
        self.caption = caption

    def start(self, arguments: list[str], log: Path) -> int:
        """Start a run; returns its process id."""
        import torch

        from enclap_hf.cli import main
        from enclap_hf.commands import caption as caption_command
        from enclap_hf.commands.captioner_loading import ModelIdentity

        process = os.fork()
        if process:
            return process
        status = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with open(log, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            torch.set_num_threads(1)  # threads do not survive a fork
            caption_command.find_model = lambda args, **options: ModelIdentity("tiny")
            caption_command.load_pipeline = lambda args, model: self.caption
            status = main(["caption", *arguments])
        finally:
            sys.stderr.flush()
            os._exit(status)


class ProgramRuns:
    """Runs of the program with the bundled model."""

    def start(self, arguments: list[str], log: Path) -> int:
        """Start a run; returns its process id."""
        command = [sys.executable, "-m", "enclap_hf", "caption", *arguments, "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(log, "wb") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env=environment).pid


def write_recordings(folder: Path) -> None:
    """Recordings of many lengths, and one that cannot be read."""
    import soundfile

    from conftest import make_clip

    folder.mkdir()
    for i in range(NUM_CLIPS):
        soundfile.write(folder / f"clip {i:02}.wav", make_clip(0.3 + 0.13 * (i * 7 % NUM_CLIPS), i), 24_000)
    for i, duration_s in enumerate(LONG_S):
        soundfile.write(folder / f"long {i}.flac", make_clip(duration_s, 50 + i), 24_000)
    (folder / "broken.wav").write_bytes(b"RIFF")


def find_rows(output: Path) -> Path:
    """Where the rows of an output are: in itself, or for one that is not complete in its journal."""
    is_journalled = output.suffix == ".json" and not output.exists()
    return output.with_name(f"{output.name}.rows.jsonl") if is_journalled else output


def read_rows(output: Path) -> list[dict]:
    """All rows; anything that is not a whole row is an error."""
    output = find_rows(output)
    content = output.read_bytes() if output.exists() else b""
    if output.suffix == ".csv":
        with open(output, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    elif output.suffix == ".json":
        rows = json.loads(content)
    else:
        rows = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    if content and not content.endswith(b"\n"):
        raise ValueError(f"{output.name} ends in the middle of a row")
    return rows


def make_keys(rows: list[dict]) -> list[tuple]:
    """What must be equal of rows, sorted."""
    return sorted(
        (row["file_name"], row.get("caption") or "", row.get("error") or "", float(row.get("start_s") or 0))
        for row in rows
    )


def list_scores(rows: list[dict]) -> list[tuple]:
    """Scores of rows, sorted by recording and caption."""
    return sorted((row["file_name"], row.get("caption") or "", float(row.get("score") or 0)) for row in rows)


def find_other_scores(rows: list[dict], expected: list[dict]) -> list[tuple]:
    """Scores that are further apart than sums in another order, as other batches have them."""
    pairs = zip(list_scores(rows), list_scores(expected), strict=False)
    return [(one, other) for one, other in pairs if abs(one[2] - other[2]) > 1e-3]


def wait_for(process: int) -> int:
    """The exit status of a run, or minus the signal that ended it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError("the run hangs")


def kill_after_rows(process: int, output: Path, num_lines: int, delay_s: float, number: signal.Signals) -> int:
    """Kill a run some time after its output has so many lines; its exit status."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        rows = find_rows(output)
        if num_lines == 0 or (rows.exists() and rows.read_bytes().count(b"\n") >= num_lines):
            time.sleep(delay_s)
            os.kill(process, number)
            break
        time.sleep(0.001)
    return wait_for(process)


class KillTest:
    """One run of the test.

    Args:
        runs: starts the command.
        folder: of recordings, outputs and logs.
        seed: of everything that is random.
    """

    def __init__(self, runs, folder: Path, seed: int):
        self.runs, self.folder, self.random = runs, folder, random.Random(seed)
        self.counts, self.problems = Counter(), []
        self.unbroken: dict[tuple, list[dict]] = {}
        write_recordings(folder / "in")

    def run_whole(self, output: Path, setting: Setting, *words: str) -> int:
        """Run without a kill; the exit status."""
        arguments = [str(self.folder / "in"), "--output", str(output), *setting.arguments, *words]
        return wait_for(self.runs.start(arguments, self.folder / "log"))

    def find_unbroken(self, setting: Setting) -> list[dict]:
        """Rows of an unbroken run."""
        key = (setting.extension, setting.n_best)
        if key not in self.unbroken:
            output = self.folder / f"unbroken{setting.n_best}.{setting.extension}"
            status = self.run_whole(output, setting)
            self.unbroken[key] = read_rows(output)
            assert status == 1, (self.folder / "log").read_text()
            assert len(self.unbroken[key]) == (NUM_CLIPS + NUM_WINDOWS) * setting.n_best + 1
        return self.unbroken[key]

    def kill_once(self, number: int) -> bool:
        """Kill one run and resume it; returns whether the kill came while it ran."""
        pick = self.random
        setting = Setting(
            pick.choice(["csv", "jsonl", "json"]), pick.choice([1, 2]), pick.choice([0, 0, 1]), pick.choice([1, 2])
        )
        expected = self.find_unbroken(setting)
        output = self.folder / f"killed{number}.{setting.extension}"
        name = pick.choice(SIGNALS)
        arguments = [str(self.folder / "in"), "--output", str(output), *setting.arguments]
        num_lines = pick.randrange(2, (NUM_CLIPS + NUM_WINDOWS) * setting.n_best - 2)
        process = self.runs.start(arguments, self.folder / "log")
        status = kill_after_rows(process, output, num_lines, pick.uniform(0, 0.06), name)
        if status not in (-name, 130):
            self.counts["ended before its kill"] += 1
            return False
        self.counts[f"killed by {name.name}"] += 1
        self.counts[f"killed while writing {setting.extension}, {setting.n_best} best"] += 1
        before = self.check_rows(output, expected, f"kill {number} ({name.name}, {setting})")
        if pick.random() < 0.3:
            process = self.runs.start([*arguments, "--resume"], self.folder / "log")
            if kill_after_rows(process, output, 0, pick.uniform(0, 0.4), pick.choice(SIGNALS)) not in (0, 1):
                self.counts["killed while resuming"] += 1
            before = self.check_rows(output, expected, f"second kill {number} ({setting})")
        status = self.run_whole(output, setting, "--resume")
        self.check_resumed(output, expected, before, status, f"resumed {number} ({name.name}, {setting})")
        return True

    def check_rows(self, output: Path, expected: list[dict], what: str) -> list[tuple]:
        """Rows of a killed run: whole, and of the unbroken run; returns those with a caption."""
        try:
            rows = make_keys(read_rows(output))
        except ValueError as error:
            self.problems.append(f"{what}: {error}")
            return []
        wrong = Counter(rows) - Counter(make_keys(expected))
        if wrong:
            self.problems.append(f"{what}: rows that the unbroken run has not: {list(wrong)[:3]}")
        self.counts["rows present at a kill"] += len(rows)
        return [row for row in rows if row[1]]

    def check_resumed(self, output: Path, expected: list[dict], before: list[tuple], status: int, what: str) -> None:
        """A resumed run: all rows once, and nothing unfinished beside them."""
        rows = make_keys(read_rows(output))
        self.counts["runs resumed"] += 1
        other_scores = find_other_scores(read_rows(output), expected)
        if other_scores:
            self.problems.append(f"{what}: other scores: {other_scores[:3]}")
        if rows != make_keys(expected):
            self.problems.append(
                f"{what}: {len(rows)} rows, expected {len(expected)}; {(self.folder / 'log').read_text()}"
            )
        if Counter(before) - Counter(rows):
            self.problems.append(f"{what}: rows that were there are lost")
        if status != 1:
            self.problems.append(f"{what}: exit status {status}; {(self.folder / 'log').read_text()}")
        beside = {path.name for path in self.folder.glob(f"{output.name}?*")} - {f"{output.name}.manifest.json"}
        if output.suffix == ".json":  # kept for the recording that failed
            beside -= {f"{output.name}.rows.jsonl"}
        if beside:
            self.problems.append(f"{what}: left beside it: {sorted(beside)}")


def load_tiny_captioner(folder: Path):
    """The pipeline of a tiny captioner, whose encoders are loaded."""
    from transformers import pipeline

    from conftest import build_model, build_processor

    model = build_model()
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    caption = pipeline("audio-captioning", model=str(folder), device="cpu")
    caption.processor.codec, caption.processor.clap  # noqa: B018
    return caption


def run_kills(runs, folder: Path, num_kills: int, seed: int) -> KillTest:
    """Kill so many runs."""
    test, kills = KillTest(runs, folder, seed), 0
    for number in range(10 * num_kills):
        kills += test.kill_once(number)
        if kills == num_kills:
            break
    if kills < num_kills:
        test.problems.append(f"only {kills} of {num_kills} runs could be killed in time")
    return test


def main() -> int:
    """Run the test as a program; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--program", action="store_true", help="kill the program itself, with the bundled model")
    args = parser.parse_args()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        runs = ProgramRuns() if args.program else ForkedRuns(load_tiny_captioner(Path(folder, "model")))
        started = time.monotonic()
        test = run_kills(runs, Path(folder), args.kills, args.seed)
    for what, number in sorted(test.counts.items()):
        print(f"{number:6}  {what}")
    print(f"{time.monotonic() - started:6.0f}  seconds")
    for problem in test.problems:
        print(f"problem: {problem}")
    print(json.dumps({"kills": args.kills, "seed": args.seed, "problems": len(test.problems)}))
    return 1 if test.problems else 0


if __name__ == "__main__":
    sys.exit(main())
