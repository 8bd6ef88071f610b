"""A Python program in the place of Java and SPICE, with made-up jars: tests of SPICE's surroundings run on any machine.

It reads and writes what `java/SpiceRunner.java` does. A parse has a tuple for each word, and a score is the share of
the candidate's words that a reference has. It does as the environment's `BEHAVIOUR` says.
"""

import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from enclap_hf.metrics import corenlp_files

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """\
#!{python}
import json, os, signal, sys, time
if sys.argv[1:] == ["-version"]:
    sys.exit(print('stand-in version "17.0.1"', file=sys.stderr))
folder, behaviour = {folder!r}, os.environ.get("BEHAVIOUR", "answer")
with open(os.path.join(folder, "runs.jsonl"), "a") as log:
    log.write(json.dumps([os.getpid(), sys.argv[1:]]) + "\\n")
clips_path, captions_path, num_threads = sys.argv[-3:]
items, captions = json.load(open(clips_path)), json.load(open(captions_path))
parses = {{caption: tuples for caption, tuples in captions["parsed"]}}

def say(*words):
    print(*words, flush=True)

def fail(complaint, status=1):
    print(complaint, file=sys.stderr)
    os._exit(status)

if behaviour == "sleep at once":
    time.sleep(600)
if behaviour == "too old":
    fail("java.lang.UnsupportedClassVersionError: edu/anu/spice/SpiceRunner has been compiled by a later version")
if behaviour == "missing class":
    fail("java.lang.NoClassDefFoundError: edu/stanford/nlp/semgraph/SemanticGraph")
if behaviour == "missing library":
    fail("Caused by: java.lang.ClassNotFoundException: com.google.common.base.Stopwatch")
if behaviour == "broken model":
    fail("java.io.IOException: Unable to open \\"edu/stanford/nlp/models/x.gz\\" as class path, filename or URL")
if behaviour == "unknown":
    fail("Exception in thread \\"main\\" java.lang.IllegalStateException: the moon is full\\n\\tat edu.anu.Spice.main")
if captions["unparsed"]:
    say("Adding annotator ner")  # a word of the parser's own
    say("ready")
for number, caption in enumerate(captions["unparsed"]):
    say("start", number)
    if behaviour.startswith("slow"):
        time.sleep(float(behaviour.split()[1]))
    if behaviour == "stuck at long" and len(caption.split()) > 80:
        time.sleep(600)
    if behaviour == "memory for two" and num_threads == "2" and len(caption.split()) > 80:
        say("start", number + 1)  # what the other thread is at
        say("Terminating due to java.lang.OutOfMemoryError: Java heap space")
        os._exit(3)
    if behaviour == "memory" and len(caption.split()) > 80:
        os._exit(3)
    if behaviour == "memory at three" and number == 3:
        fail("Exception: java.lang.OutOfMemoryError thrown")
    if behaviour == "killed" and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "failed caption" and "barks" in caption:
        say("failed", number)
        continue
    parses[caption] = [[word] for word in caption.split()]
    say("parse", number, json.dumps(parses[caption]))
if behaviour == "failed caption":
    say("unscored")
    sys.exit(0)
if behaviour == "nothing":
    sys.exit(0)

def words(caption):
    return [word for word, in parses[caption]]

def score(item):
    reference_words = [word for caption in item["refs"] for word in words(caption)]
    return sum(word in reference_words for word in words(item["test"])) / len(words(item["test"]))

result = [{{"image_id": item["image_id"], "scores": {{"All": {{"f": score(item)}}}}}} for item in items]
if behaviour == "garbage":
    result = "no scores at all"
if behaviour == "null":
    result[0]["scores"]["All"]["f"] = None
if behaviour == "half":
    result = result[1:]
say("scores", json.dumps(result))
"""


def make_jar(path: Path, entries: dict[str, str]) -> Path:
    """Write a small jar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def make_corenlp(folder: Path, word: str = "model") -> Path:
    """Write jars with the names of all that SPICE loads of CoreNLP; `word` is in each entry's content."""
    program, models = corenlp_files.FILE_NAMES
    make_jar(folder / program, {name: f"{word} {name} " * 20 for name in corenlp_files._PROGRAM_ENTRIES})
    make_jar(folder / models, {name: f"{word} {name} " * 20 for name in corenlp_files.MODEL_ENTRIES})
    return folder


def make_program(folder: Path) -> Path:
    """Write the program that stands in for Java; it notes its runs in `folder`."""
    program = folder / "java"
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    return program


def make_coco(folder: Path) -> Path:
    """Write a package with what SPICE loads of pycocoevalcap; `folder` is for the search path of modules."""
    package = folder / "pycocoevalcap"
    make_jar(package / "spice" / "spice-1.0.jar", {"edu/anu/spice/A.class": "class", "coco/a.json": "captions"})
    make_jar(package / "spice" / "lib" / "guava-19.0.jar", {"com/google/common/base/Stopwatch.class": "class"})
    (package / "__init__.py").touch()
    return folder


def install(folder: Path, monkeypatch) -> dict[str, str]:
    """Put the stand-ins in the place of Java, CoreNLP and pycocoevalcap, and caches and temporary files into `folder`.

    Returns:
        the environment for a child process that shall meet them, too.
    """
    monkeypatch.syspath_prepend(make_coco(folder / "modules"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocoevalcap"]:
        monkeypatch.delitem(sys.modules, name)  # another test's, which would be found before the stand-in
    (folder / "tmp").mkdir()
    variables = {
        "ENCLAP_JAVA": str(make_program(folder)),
        "ENCLAP_CORENLP": str(make_corenlp(folder / "corenlp")),
        "ENCLAP_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)  # read anew from TMPDIR
    monkeypatch.delenv("BEHAVIOUR", raising=False)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "modules"), str(ROOT)])}


def read_runs(folder: Path) -> list[list[str]]:
    """The command lines of all runs."""
    log = folder / "runs.jsonl"
    return [json.loads(line)[1] for line in log.read_text().splitlines()] if log.exists() else []


def assert_gone(folder: Path) -> None:
    """No run is left behind."""
    ids = [json.loads(line)[0] for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert ids, "the stand-in never ran: the test would prove nothing"
    deadline = time.monotonic() + 5
    while any(_is_alive(pid) for pid in ids):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def find_store(cache: Path) -> Path:
    """The folder of the only parser that was used."""
    (folder,) = (path for path in (cache / "spice").iterdir() if path.is_dir())
    return folder


def count_lines(cache: Path, name: str) -> int:
    """How many entries are kept in a file of the store."""
    return sum(bool(line) for line in (find_store(cache) / name).read_text().split("\n"))
