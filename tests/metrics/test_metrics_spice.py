"""SPICE: command line, output, caches, and every way to fail.

Two stand-ins. A Python program in Java's place goes through all paths on any machine. Where Java and pycocoevalcap are
there, SPICE's real scorer runs too, with parses from the cache instead of the parser, which needs CoreNLP 3.6.0.
"""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import enclap_hf
from enclap_hf.metrics import AudioCaptioningMetrics, corenlp, spice_classes
from enclap_hf.metrics.java_runtime import JavaError, MetricUnavailableError, find_coco_file
from enclap_hf.metrics.spice import compute_spice

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")
needs_spice = pytest.mark.skipif(
    shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None,
    reason="needs pycocoevalcap and a Java runtime on the PATH",
)

STAND_IN = """\
#!{python}
import json, os, sys, time
folder, behaviour = {folder!r}, os.environ.get("BEHAVIOUR", "answer")
with open(os.path.join(folder, "runs.jsonl"), "a") as log:
    log.write(json.dumps([os.getpid(), sys.argv[1:]]) + "\\n")
input_path, output_path, num_threads, cache = sys.argv[-4:]
items = json.load(open(input_path))
with open(os.path.join(cache, "parses.txt"), "a") as parses:
    parses.write("a parse\\x04\\n")
if behaviour == "sleep":
    time.sleep(600)
if behaviour == "memory":
    print("Exception: java.lang.OutOfMemoryError thrown", file=sys.stderr)
    sys.exit(1)
if behaviour == "missing class":
    print("java.lang.NoClassDefFoundError: edu/stanford/nlp/pipeline/Annotation", file=sys.stderr)
    sys.exit(1)
if behaviour == "nothing":
    sys.exit(0)
score = lambda item: sum(word in " ".join(item["refs"]).split() for word in item["test"].split()) / 10
result = [{{"image_id": item["image_id"], "scores": {{"All": {{"f": score(item)}}}}}} for item in items]
if behaviour == "garbage":
    result = "no scores at all"
if behaviour == "null":
    result[0]["scores"]["All"]["f"] = None
if behaviour == "half":
    result = result[1:]
json.dump(result, open(output_path, "w"))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Path of a program that behaves like SPICE, or badly; CoreNLP's files are there, and empty."""
    for name in corenlp.FILE_NAMES:
        (tmp_path / "corenlp").mkdir(exist_ok=True)
        (tmp_path / "corenlp" / name).touch()
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path / "corenlp"))
    monkeypatch.setattr("enclap_hf.metrics.spice.find_coco_file", lambda name: Path("coco") / name)
    program = tmp_path / "java"
    program.write_text(STAND_IN.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    return program


def runs(folder: Path) -> list[list[str]]:
    log = folder / "runs.jsonl"
    return [json.loads(line)[1] for line in log.read_text().splitlines()] if log.exists() else []


def assert_gone(folder: Path) -> None:
    for line in (folder / "runs.jsonl").read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(json.loads(line)[0], 0)


CANDIDATES = ["a dog barks", "rain", ""]
REFERENCES = [["a dog is barking", "one dog"], ["rain falls"], ["a cat"]]


@needs_posix
def test_the_command_line_has_heap_classes_and_no_cache_option(stand_in, tmp_path):
    corpus, per_clip = compute_spice(
        CANDIDATES, REFERENCES, java=str(stand_in), cache_dir=tmp_path / "cache", java_heap="3g", num_threads=2
    )
    assert per_clip == [0.2, 0.1, 0.0] and corpus == pytest.approx(0.1)
    (arguments,) = runs(tmp_path)
    assert "-Xmx3g" in arguments and "-Duser.language=en" in arguments and arguments[-2] == "2"
    assert not {"-cache", "-out"} & set(arguments)  # both fail on Java 17
    class_path = arguments[arguments.index("-cp") + 1].split(os.pathsep)
    assert class_path[1:] == [
        os.path.join("coco", "spice", "spice-1.0.jar"),
        os.path.join("coco", "spice", "lib", "*"),
        *(str(tmp_path / "corenlp" / name) for name in corenlp.FILE_NAMES),
    ]
    assert arguments[arguments.index("-cp") + 2] == "edu.anu.spice.SpiceRunner"


@needs_posix
def test_scores_and_parses_are_kept_between_calls(stand_in, tmp_path):
    options = {"java": str(stand_in), "cache_dir": tmp_path / "cache"}
    first = compute_spice(CANDIDATES, REFERENCES, **options)
    assert compute_spice(CANDIDATES, REFERENCES, **options) == first
    assert len(runs(tmp_path)) == 1, "the second call found every score in the cache"
    # Another candidate with the same references: only that clip runs, and the parses of before are there.
    compute_spice(["a cat", *CANDIDATES[1:]], REFERENCES, **options)
    assert len(runs(tmp_path)) == 2
    assert (tmp_path / "cache" / "parses.txt").read_text() == "a parse\x04\n" * 2
    # The same candidate with other references is another clip.
    compute_spice(CANDIDATES[:1], [["a cat"]], **options)
    assert len(runs(tmp_path)) == 3


@needs_posix
def test_a_spoiled_cache_is_only_a_slow_one(stand_in, tmp_path):
    options = {"java": str(stand_in), "cache_dir": tmp_path / "cache"}
    first = compute_spice(CANDIDATES, REFERENCES, **options)
    for spoiled in ("{", "[]", '{"key": "no number"}', ""):
        (tmp_path / "cache" / "scores.json").write_text(spoiled)
        assert compute_spice(CANDIDATES, REFERENCES, **options) == first


@needs_posix
@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("sleep", "time limit of 1 s"),
        ("memory", "ran out of memory; give it a larger heap"),
        ("missing class", "NoClassDefFoundError: edu/stanford/nlp/pipeline/Annotation"),
        ("nothing", "without writing scores"),
        ("garbage", "wrote '\"no scores at all\"' where its scores"),
        ("null", "where its scores should be"),
        ("half", "scored 1 of 2 clips"),
    ],
)
def test_every_failure_is_explained_and_kept_out_of_the_cache(stand_in, tmp_path, monkeypatch, behaviour, message):
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    options = {"java": str(stand_in), "cache_dir": tmp_path / "cache"}
    with pytest.raises(JavaError, match=message):
        compute_spice(CANDIDATES, REFERENCES, timeout_s=1 if behaviour == "sleep" else 30, **options)
    assert_gone(tmp_path)
    assert not (tmp_path / "cache" / "scores.json").exists()
    assert (tmp_path / "cache" / "parses.txt").exists(), "what was parsed before the failure is not lost"
    monkeypatch.setenv("BEHAVIOUR", "answer")
    assert compute_spice(CANDIDATES, REFERENCES, **options)[1] == [0.2, 0.1, 0.0]


@needs_posix
def test_spider_is_the_mean_of_cider_d_and_spice(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr("enclap_hf.metrics.audio_captioning_metrics.java_version", lambda java: "17")
    metrics = AudioCaptioningMetrics(["cider_d", "spice", "spider"], java=str(stand_in), cache_dir=tmp_path / "cache")
    scores = metrics.compute(CANDIDATES[:2], REFERENCES[:2])
    expected = [(a + b) / 2 for a, b in zip(scores.per_clip["cider_d"], scores.per_clip["spice"], strict=True)]
    assert scores.per_clip["spider"] == expected and scores["spider"] == pytest.approx(sum(expected) / 2)
    assert scores["versions"]["corenlp"] == "3.6.0" and scores.missing == {}


def test_missing_corenlp_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(corenlp, "_coco_lib_folders", lambda: [])
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path))
    monkeypatch.delenv("ENCLAP_CORENLP", raising=False)
    with pytest.raises(
        MetricUnavailableError, match=r"stanford-corenlp-3.6.0.jar and .*models.jar are missing; run python -m"
    ):
        corenlp.find_corenlp()
    (tmp_path / corenlp.FILE_NAMES[0]).touch()
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match="has no stanford-corenlp-3.6.0-models.jar; correct it"):
        corenlp.find_corenlp()


def test_corenlp_is_found_in_the_unpacked_archive(tmp_path, monkeypatch):
    folder = tmp_path / "stanford-corenlp-full-2015-12-09"
    folder.mkdir()
    for name in corenlp.FILE_NAMES:
        (folder / name).touch()
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path))
    assert [path.name for path in corenlp.find_corenlp()] == list(corenlp.FILE_NAMES)


def make_archive(names) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(f"stanford-corenlp-full-2015-12-09/{name}", name)
    return buffer.getvalue()


def test_the_download_says_its_size_and_asks_first(tmp_path, monkeypatch, capsys):
    archive = tmp_path / "archive.zip"
    archive.write_bytes(make_archive(corenlp.FILE_NAMES))
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert corenlp.download_corenlp(tmp_path / "target", archive.as_uri()) == []
    assert "0 MiB" in capsys.readouterr().out and not (tmp_path / "target").exists()
    paths = corenlp.download_corenlp(tmp_path / "target", archive.as_uri(), ask=False)
    assert [path.read_text() for path in paths] == list(corenlp.FILE_NAMES)
    assert sorted(os.listdir(tmp_path / "target")) == sorted(corenlp.FILE_NAMES)


@pytest.mark.parametrize("content", [b"<html>not found</html>", make_archive(["readme.txt"])])
def test_a_wrong_download_is_refused(tmp_path, content):
    (tmp_path / "archive.zip").write_bytes(content)
    with pytest.raises(ValueError, match="expected the archive of CoreNLP 3.6.0"):
        corenlp.download_corenlp(tmp_path / "target", (tmp_path / "archive.zip").as_uri(), ask=False)
    assert os.listdir(tmp_path / "target") == []


# --- the real scorer ---


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """A cache with the parses of all captions, and older CoreNLP classes under the names of those that SPICE needs."""
    (tmp_path / "corenlp").mkdir()
    shutil.copy(find_coco_file("tokenizer/stanford-corenlp-3.4.1.jar"), tmp_path / "corenlp" / corenlp.FILE_NAMES[0])
    (tmp_path / "corenlp" / corenlp.FILE_NAMES[1]).touch()
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path / "corenlp"))
    parses = {
        "a dog barks loudly": [["dog"], ["dog", "bark"]],
        "a dog is barking": [["dog"], ["dog", "bark"]],
        "the brown dog barks": [["dog"], ["dog", "brown"], ["dog", "bark"]],
        "rain falls": [["rain"], ["rain", "fall"]],
        "rain is falling on a roof": [["rain"], ["roof"], ["rain", "roof", "fall on"]],
    }
    lines = [caption + "".join("\t" + "\x1f".join(t) for t in tuples) + "\x04\n" for caption, tuples in parses.items()]
    (tmp_path / "cache").mkdir()
    # The last line was cut short, as by a full disk: it counts as not parsed.
    (tmp_path / "cache" / "parses.txt").write_text("".join(lines) + "a cat\tcat")
    return tmp_path / "cache"


@needs_spice
def test_the_real_scorer_runs_on_this_java(parsed):
    """By hand: 2 of 2 candidate tuples are among the references' 3, F = 2 * 1 * 2/3 / (1 + 2/3); then 1 of 2, of 3."""
    corpus, per_clip = compute_spice(
        ["a dog barks loudly", "rain falls"],
        [["a dog is barking", "the brown dog barks"], ["rain is falling on a roof"]],
        cache_dir=parsed,
        java_heap="1g",
        timeout_s=120,
    )
    assert per_clip == pytest.approx([0.8, 0.4]) and corpus == pytest.approx(0.6)


@needs_spice
def test_a_caption_without_a_parse_needs_the_parser(parsed):
    with pytest.raises(JavaError, match="edu/stanford/nlp/models"):
        compute_spice(["a cat"], [["a dog is barking"]], cache_dir=parsed, java_heap="1g", timeout_s=120)


@needs_spice
def test_a_heap_that_is_too_small_is_explained(parsed):
    with pytest.raises(JavaError, match="memory"):
        compute_spice(["rain falls"], [["a dog is barking"]], cache_dir=parsed, java_heap="3m", timeout_s=120)


@needs_spice
@needs_posix
def test_the_scorer_ends_when_its_parent_is_gone(tmp_path):
    """A killed parent cannot end its child; the closing of the pipe between them does."""
    spice_classes.write_classes(tmp_path)
    os.mkfifo(tmp_path / "input.json")  # reading it waits for ever
    jar = find_coco_file("spice/spice-1.0.jar")
    class_path = [tmp_path, jar, jar.parent / "lib" / "*", find_coco_file("tokenizer/stanford-corenlp-3.4.1.jar")]
    command = ["java", "-cp", os.pathsep.join(map(str, class_path)), "edu.anu.spice.SpiceRunner"]
    command += [str(tmp_path / "input.json"), str(tmp_path / "output.json"), "1", str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.5)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == 3
    finally:
        process.kill()
        process.wait()


@needs_spice
def test_the_compiled_classes_are_those_of_the_source(tmp_path):
    if shutil.which("javac") is None:
        pytest.skip("needs javac")
    sources = sorted((Path(enclap_hf.__path__[0]) / "metrics" / "java").glob("*.java"))
    command = [
        "javac",
        "--release",
        "8",
        "-Xlint:-options",
        "-g:none",
        "-cp",
        str(find_coco_file("spice/spice-1.0.jar")),
    ]
    subprocess.run([*command, "-d", str(tmp_path), *map(str, sources)], check=True, capture_output=True)
    compiled = {
        str(path.relative_to(tmp_path)).replace(os.sep, "/"): path.read_bytes() for path in tmp_path.rglob("*.class")
    }
    assert set(compiled) == set(spice_classes._CLASSES)
    version = subprocess.run(["javac", "-version"], capture_output=True, text=True).stdout
    if not version.startswith("javac 17"):
        pytest.skip(f"other compilers order constants otherwise: {version.strip()}")
    assert all(spice_classes.read_class(name) == content for name, content in compiled.items())
