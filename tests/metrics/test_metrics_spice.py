"""SPICE: command line, output, what is kept, and every way to fail.

Two stand-ins. A Python program in Java's place goes through all paths on any machine. Where Java and pycocoevalcap are
there, SPICE's real scorer runs too, with kept parses instead of the parser, which needs CoreNLP 3.6.0.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import enclap_hf
from enclap_hf.metrics import AudioCaptioningMetrics, corenlp, spice_classes
from enclap_hf.metrics.corenlp_files import FILE_NAMES, fingerprint
from enclap_hf.metrics.java_runtime import JavaError, JavaMemoryError, JavaTimeoutError, find_coco_file
from enclap_hf.metrics.parse_store import ParseStore
from enclap_hf.metrics.spice import compute_spice, find_class_path
from spice_stand_in import assert_gone, count_lines, find_store, install, read_runs

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")
needs_spice = pytest.mark.skipif(
    shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None,
    reason="needs pycocoevalcap and a Java runtime on the PATH",
)

CANDIDATES = ["a dog barks", "rain", ""]
REFERENCES = [["a dog is barking", "one dog"], ["rain falls"], ["a cat"]]
SCORES = [pytest.approx(2 / 3), 1.0, 0.0]  # "a" and "dog" of three words, "rain" of one


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Folder of a program that behaves like SPICE, or badly."""
    install(tmp_path, monkeypatch)
    return tmp_path


@needs_posix
def test_the_command_line_has_heap_classes_and_no_cache_option(stand_in):
    corpus, per_clip = compute_spice(CANDIDATES, REFERENCES, java_heap="3g", num_threads=2)
    assert per_clip == SCORES and corpus == pytest.approx(sum(per_clip) / 3)
    (arguments,) = read_runs(stand_in)
    assert "-Xmx3g" in arguments and "-Duser.language=en" in arguments and arguments[-1] == "2"
    assert "-XX:+ExitOnOutOfMemoryError" in arguments
    assert not {"-cache", "-out"} & set(arguments)  # both fail on Java 17
    class_path = arguments[arguments.index("-cp") + 1].split(os.pathsep)
    coco = stand_in / "modules" / "pycocoevalcap" / "spice"
    assert class_path[1:] == [
        str(coco / "spice-1.0.jar"),
        *(str(stand_in / "corenlp" / name) for name in FILE_NAMES),
        str(coco / "lib" / "guava-19.0.jar"),
    ]
    assert arguments[arguments.index("-cp") + 2] == "edu.anu.spice.SpiceRunner"


@needs_posix
def test_scores_and_parses_are_kept_between_calls(stand_in):
    first = compute_spice(CANDIDATES, REFERENCES)
    assert compute_spice(CANDIDATES, REFERENCES) == first
    assert len(read_runs(stand_in)) == 1, "the second call found every score in the cache"
    assert count_lines(stand_in / "cache", "parses.txt") == 5  # an empty candidate needs none, nor does its reference
    # Another candidate with the same references: only that clip runs, and the parses of before are there.
    compute_spice(["a cat", *CANDIDATES[1:]], REFERENCES)
    assert len(read_runs(stand_in)) == 2 and count_lines(stand_in / "cache", "parses.txt") == 6
    # The same candidate with other references is another clip.
    compute_spice(CANDIDATES[:1], [["a cat"]])
    assert len(read_runs(stand_in)) == 3 and count_lines(stand_in / "cache", "parses.txt") == 6


@needs_posix
def test_a_caption_that_several_clips_share_is_parsed_once(stand_in):
    compute_spice(["rain"] * 3, [["rain falls", "rain falls"], ["rain falls"], ["rain"]])
    assert count_lines(stand_in / "cache", "parses.txt") == 2


@needs_posix
@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        ("sleep at once", JavaTimeoutError, "not done within the time limit of 1 s; still to parse: 5 captions"),
        ("memory at three", JavaMemoryError, "the heap of .* is too small to parse the caption of clip number 2"),
        ("missing class", JavaError, "corenlp/stanford-corenlp-3.6.0.jar lacks a part .* get it anew: python -m"),
        ("missing library", JavaError, "pycocoevalcap lacks a part .* pip install --force-reinstall"),
        ("broken model", JavaError, "corenlp/stanford-corenlp-3.6.0-models.jar cannot be loaded .*jar:models"),
        ("too old", JavaError, "this Java is too old; SPICE needs Java 8u92"),
        ("unknown", JavaError, "ended with status 1: the moon is full"),
        ("killed", JavaError, "ended by signal 9; the system does that where memory runs out"),
        ("nothing", JavaError, "ended with status 0: it gave no reason"),
        ("failed caption", JavaError, r"the parser failed at the caption of clip number 1 \(3 words\)"),
        ("garbage", JavaError, "wrote '\"no scores at all\"' where its scores"),
        ("null", JavaError, "where its scores should be"),
        ("half", JavaError, "scored 1 of 2 clips"),
    ],
)
def test_every_failure_is_explained_and_kept_out_of_the_cache(stand_in, monkeypatch, behaviour, error, message):
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    with pytest.raises(error, match=message) as caught:
        compute_spice(CANDIDATES, REFERENCES, timeout_s=1 if behaviour == "sleep at once" else 30)
    assert "Exception" not in str(caught.value) and "NoClassDef" not in str(caught.value)
    assert_gone(stand_in)
    assert os.listdir(stand_in / "tmp") == []
    assert not list(stand_in.glob("cache/spice/*/scores.txt"))
    num_parsed = {"memory at three": 3, "killed": 1, "nothing": 5, "failed caption": 4}.get(behaviour)
    if num_parsed:
        assert count_lines(stand_in / "cache", "parses.txt") == num_parsed
    monkeypatch.setenv("BEHAVIOUR", "answer")
    assert compute_spice(CANDIDATES, REFERENCES)[1] == SCORES


@needs_posix
def test_the_report_of_a_failure_is_in_a_file(stand_in, monkeypatch):
    monkeypatch.setenv("BEHAVIOUR", "unknown")
    with pytest.raises(JavaError) as caught:
        compute_spice(CANDIDATES, REFERENCES)
    report = Path(str(caught.value).rpartition("Java's report: ")[2].rstrip(")"))
    assert "java.lang.IllegalStateException: the moon is full" in report.read_text()


@needs_posix
def test_spider_is_the_mean_of_cider_d_and_spice(stand_in):
    metrics = AudioCaptioningMetrics(["cider_d", "spice", "spider"])
    scores = metrics.compute(CANDIDATES[:2], REFERENCES[:2])
    expected = [(a + b) / 2 for a, b in zip(scores.per_clip["cider_d"], scores.per_clip["spice"], strict=True)]
    assert scores.per_clip["spider"] == expected and scores["spider"] == pytest.approx(sum(expected) / 2)
    assert scores["versions"]["corenlp"].startswith("not 3.6.0 as published (contents ") and scores.missing == {}


@needs_posix
def test_names_of_clips_are_one_each(stand_in):
    with pytest.raises(ValueError, match="Got 1 `clip_names` for 2 predictions"):
        AudioCaptioningMetrics("spice").compute(CANDIDATES[:2], REFERENCES[:2], clip_names=["a.wav"])


# --- the real scorer ---


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """A cache with the parses of all captions, and older CoreNLP classes under the names of those that SPICE needs."""
    (tmp_path / "corenlp").mkdir()
    shutil.copy(find_coco_file("tokenizer/stanford-corenlp-3.4.1.jar"), tmp_path / "corenlp" / FILE_NAMES[0])
    shutil.copy(tmp_path / "corenlp" / FILE_NAMES[0], tmp_path / "corenlp" / FILE_NAMES[1])
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path / "corenlp"))
    # The scorer needs few of CoreNLP's classes, which the older version has, too; the parser needs all.
    monkeypatch.setattr("enclap_hf.metrics.corenlp_files._PROGRAM_ENTRIES", ())
    monkeypatch.setattr("enclap_hf.metrics.corenlp_files.MODEL_ENTRIES", ())
    parses = {
        "a dog barks loudly": [["dog"], ["dog", "bark"]],
        "a dog is barking": [["dog"], ["dog", "bark"]],
        "the brown dog barks": [["dog"], ["dog", "brown"], ["dog", "bark"]],
        "rain falls": [["rain"], ["rain", "fall"]],
        "rain is falling on a roof": [["rain"], ["roof"], ["rain", "roof", "fall on"]],
    }
    with ParseStore(tmp_path / "cache", fingerprint(find_class_path())) as store:
        for caption, tuples in parses.items():
            store.add_parse(caption, tuples)
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
    """What Java said was the name of a class or of a model inside a jar."""
    with pytest.raises(JavaError, match=r"stanford-corenlp-3.6.0(-models)?.jar .*get it anew") as caught:
        compute_spice(["a cat"], [["a dog is barking"]], cache_dir=parsed, java_heap="1g", timeout_s=120)
    assert "edu/stanford" not in str(caught.value) and "Exception" not in str(caught.value)


@needs_spice
def test_a_heap_that_is_too_small_is_explained(parsed):
    with pytest.raises(JavaError, match="memory"):
        compute_spice(["rain falls"], [["a dog is barking"]], cache_dir=parsed, java_heap="3m", timeout_s=120)


@needs_spice
@needs_posix
def test_the_scorer_ends_when_its_parent_is_gone(tmp_path):
    """A killed parent cannot end its child; the closing of the pipe between them does."""
    spice_classes.write_classes(tmp_path)
    os.mkfifo(tmp_path / "captions.json")  # reading it waits for ever
    jar = find_coco_file("spice/spice-1.0.jar")
    class_path = [tmp_path, jar, jar.parent / "lib" / "*", find_coco_file("tokenizer/stanford-corenlp-3.4.1.jar")]
    command = ["java", "-cp", os.pathsep.join(map(str, class_path)), "edu.anu.spice.SpiceRunner"]
    command += [str(tmp_path / "clips.json"), str(tmp_path / "captions.json"), "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.5)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == 4
    finally:
        process.kill()
        process.wait()


@needs_spice
def test_the_compiled_classes_are_those_of_the_source(tmp_path):
    if shutil.which("javac") is None or not os.environ.get("ENCLAP_CORENLP"):
        pytest.skip("needs javac, and ENCLAP_CORENLP, the folder of CoreNLP 3.6.0")
    sources = sorted((Path(enclap_hf.__path__[0]) / "metrics" / "java").glob("*.java"))
    class_path = os.pathsep.join(map(str, find_class_path()))
    command = ["javac", "--release", "8", "-Xlint:-options", "-g:none", "-cp", class_path, "-d", str(tmp_path)]
    subprocess.run([*command, *map(str, sources)], check=True, capture_output=True)
    compiled = {
        str(path.relative_to(tmp_path)).replace(os.sep, "/"): path.read_bytes() for path in tmp_path.rglob("*.class")
    }
    assert set(compiled) == set(spice_classes._CLASSES)
    version = subprocess.run(["javac", "-version"], capture_output=True, text=True).stdout
    if not version.startswith("javac 17"):
        pytest.skip(f"other compilers order constants otherwise: {version.strip()}")
    assert all(spice_classes.read_class(name) == content for name, content in compiled.items())


def test_the_cache_folder_is_the_environments(monkeypatch, tmp_path):
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path))
    assert corenlp.cache_folder() == tmp_path
    monkeypatch.delenv("ENCLAP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert corenlp.cache_folder().name == "enclap-hf"


@needs_posix
def test_the_store_of_a_call_is_named_by_its_parser(stand_in):
    compute_spice(CANDIDATES, REFERENCES)
    assert find_store(stand_in / "cache").name == fingerprint(find_class_path())
    parses = ParseStore(stand_in / "cache" / "spice", fingerprint(find_class_path())).read_parses()
    assert parses["rain falls"] == [["rain"], ["falls"]] and json.dumps(parses)
