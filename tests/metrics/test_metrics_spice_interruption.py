"""SPICE interrupted: whatever ends the process, what was parsed is kept, and nothing is left behind."""

import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from enclap_hf.metrics.working_folder import remove_left_overs, working_folder
from spice_stand_in import assert_gone, count_lines, install, read_runs

pty = pytest.importorskip("pty")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")

NUM_CLIPS = 40
SCORE = [sys.executable, "-m", "enclap_hf.commands.score"]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """The environment of child processes, whose Java needs .05 s a caption."""
    environment = install(tmp_path, monkeypatch)
    rows = [{"file_name": f"{n}.wav", "caption": f"dog {n}", "references": [f"cat {n}"]} for n in range(NUM_CLIPS)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return environment | {"BEHAVIOUR": "slow 0.05"}


def start(folder: Path, environment: dict, *arguments: str, **options) -> subprocess.Popen:
    command = [*SCORE, str(folder / "captions.jsonl"), "--metrics", "spice", *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a run in the background ignores it
        **options,
    )


def wait_for_parses(folder: Path, num_lines: int) -> None:
    deadline = time.monotonic() + 60
    while (
        not list((folder / "cache").glob("spice/*/parses.txt"))
        or count_lines(folder / "cache", "parses.txt") < num_lines
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(folder: Path, environment: dict) -> str:
    process = start(folder, environment | {"BEHAVIOUR": "answer"})
    output, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    return output


def parsed_by_last_run(folder: Path) -> int:
    """How many captions the last run added; each caption is kept once here."""
    return count_lines(folder / "cache", "parses.txt")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_parses_are_kept_when_a_signal_ends_the_process(tmp_path, environment, ending):
    """Nothing was kept, though the message said so."""
    process = start(tmp_path, environment, start_new_session=True)
    wait_for_parses(tmp_path, 10)
    process.send_signal(ending)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert_gone(tmp_path)
    kept = count_lines(tmp_path / "cache", "parses.txt")
    assert 10 <= kept < 2 * NUM_CLIPS
    assert "spice" in finish(tmp_path, environment)
    # Each caption has one line: what was kept was not parsed again.
    assert count_lines(tmp_path / "cache", "parses.txt") == 2 * NUM_CLIPS
    assert os.listdir(tmp_path / "tmp") == [], "the next start removes the folder of the killed process"


def test_parses_are_kept_when_the_time_is_over(tmp_path, environment):
    process = start(tmp_path, environment, "--timeout", "1.5")
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1 and "not done within the time limit of 1.5 s" in complaints
    assert "What was parsed is kept for the next run" in complaints
    kept = count_lines(tmp_path / "cache", "parses.txt")
    assert 5 <= kept < 2 * NUM_CLIPS and f"still to parse: {2 * NUM_CLIPS - kept} captions" in complaints
    assert os.listdir(tmp_path / "tmp") == []
    # Whoever's machine needs longer than the limit finishes after some runs.
    for _ in range(10):
        process = start(tmp_path, environment, "--timeout", "1.5")
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert count_lines(tmp_path / "cache", "parses.txt") == 2 * NUM_CLIPS


def test_two_evaluations_at_once_spoil_nothing(tmp_path, environment):
    processes = [start(tmp_path, environment) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0] and outputs[0] == outputs[1]
    assert os.listdir(tmp_path / "tmp") == []
    num_runs = len(read_runs(tmp_path))
    assert finish(tmp_path, environment) == outputs[0] and len(read_runs(tmp_path)) == num_runs == 2
    lines = [line for line in next((tmp_path / "cache").glob("spice/*/parses.txt")).read_text().split("\n") if line]
    assert len({line.split("\t", 1)[1] for line in lines}) == 2 * NUM_CLIPS


# --- folders ---


def test_folders_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "enclap-spice-dead"
    (dead / "edu").mkdir(parents=True)
    (dead / "edu" / "A.class").touch()
    other = tmp_path / "something-else"
    other.mkdir()
    link = tmp_path / "enclap-spice-link"
    link.symlink_to(other)
    code = (
        "from enclap_hf.metrics.working_folder import working_folder\n"
        "with working_folder('enclap-spice-') as folder:\n    print(folder, flush=True)\n    input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    live = Path(process.stdout.readline().strip())
    assert live.is_dir() and not dead.exists() and other.is_dir()
    with working_folder("enclap-spice-") as own:
        assert remove_left_overs("enclap-spice-") == [] and own.is_dir() and live.is_dir()
    assert not own.exists()
    process.kill()
    process.communicate()
    assert live.is_dir() and remove_left_overs("enclap-spice-") == [live] and not live.exists()


def test_a_file_system_without_locks_keeps_every_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("enclap_hf.metrics.working_folder.fcntl.flock", refuse)
    with working_folder("enclap-spice-") as folder:
        assert remove_left_overs("enclap-spice-") == [] and folder.is_dir()
    assert not folder.exists()


# --- the bar ---


def run_on_terminal(folder: Path, environment: dict, *arguments: str) -> str:
    """Run the command with a pseudo-terminal as its error stream, and return what appeared there."""
    ours, theirs = pty.openpty()
    command = [*SCORE, str(folder / "captions.jsonl"), "--metrics", "spice", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                seen += os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return seen.decode()


def test_a_terminal_shows_a_bar_of_captions(tmp_path, environment):
    seen = run_on_terminal(tmp_path, environment)
    assert "SPICE: loading the parser" in seen and "SPICE: parsing: 100%" in seen
    assert f"{2 * NUM_CLIPS}/{2 * NUM_CLIPS}" in seen and "caption/s" in seen
    counts = [int(count) for count in re.findall(rf"(\d+)/{2 * NUM_CLIPS} ", seen)]
    assert len(set(counts)) > 5 and counts == sorted(counts), "the bar moves while captions are parsed"
    assert "SPICE" not in run_on_terminal(tmp_path, environment), "nothing is left to parse"


def test_quiet_shows_no_bar(tmp_path, environment):
    assert run_on_terminal(tmp_path, environment, "--quiet") == ""


def test_a_pipe_has_no_bar(tmp_path, environment):
    process = start(tmp_path, environment)
    assert process.communicate(timeout=60)[1] == ""


def test_the_bar_ticks_while_one_caption_takes_long(tmp_path, environment):
    """A bar that stands still looks as if the program hung."""
    row = {"file_name": "a.wav", "caption": "dog", "references": ["dog"]}
    (tmp_path / "captions.jsonl").write_text(json.dumps(row) + "\n")
    seen = run_on_terminal(tmp_path, environment | {"BEHAVIOUR": "slow 3.5"})
    assert len(set(re.findall(r"\[(\d\d:\d\d)<", seen))) >= 3
