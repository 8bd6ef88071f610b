"""SPICE from its authors' program, on any Java from version 8 on.

Two options of that program fail on newer Java: `-cache` (its serialiser needs what Java 16 closed) and `-out` (its
JSON goes through the JavaScript engine that Java 15 removed). `java/SpiceRunner.java` and `java/LmdbTupleDB.java` stand
in for just these two parts; parsing, tuples and scores are the authors' code.

Two things are kept between calls, in the cache folder: the parse of every caption, because the same references are
scored at every evaluation, and the score of every (candidate, references) pair.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .corenlp import cache_folder, find_corenlp
from .java_runtime import JavaError, JavaProcess, find_coco_file
from .spice_classes import write_classes

JAR = "spice/spice-1.0.jar"
_PARSES_FILE = "parses.txt"
_SCORES_FILE = "scores.json"


def compute_spice(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    timeout_s: float = 3600.0,
    java_heap: str = "8g",
    java: str | None = None,
    cache_dir: Path | str | None = None,
    num_threads: int | None = None,
) -> tuple[float, list[float]]:
    """Compute the mean and the per-clip SPICE.

    Args:
        candidates: one tokenised caption a clip, tokens joined by blanks.
        references: for each clip, its tokenised references.
        timeout_s: limit for the whole computation.
        java_heap: memory limit of the Java process, as its option -Xmx takes it.
        java: path of the Java program; found when left out.
        cache_dir: where parses and scores are kept; the user's cache folder when left out.
        num_threads: parser threads; one a processor when left out.
    Returns:
        the mean over the clips, and the clips' F scores. An empty candidate scores 0.
    Raises:
        MetricUnavailableError: Java, the program or the parser is missing.
        JavaError: the process failed, took too long, ran out of memory, or wrote something else than scores.
    Source: Anderson et al., ECCV 2016.
    """
    cache = Path(cache_dir) if cache_dir is not None else cache_folder() / "spice"
    scores = _read_scores(cache)
    keys = [
        _clip_key(candidate, clip_references) for candidate, clip_references in zip(candidates, references, strict=True)
    ]
    wanted = {
        key: {"image_id": key, "test": candidate, "refs": [reference for reference in clip_references if reference]}
        for key, candidate, clip_references in zip(keys, candidates, references, strict=True)
        if key not in scores
    }
    # Nothing to parse on one side: no tuple can match.
    scores.update({key: 0.0 for key, item in wanted.items() if not item["test"] or not item["refs"]})
    items = [item for key, item in wanted.items() if key not in scores]
    if items:
        arguments = [f"-Xmx{java_heap}", "-cp", "", "edu.anu.spice.SpiceRunner"]
        scores.update(_run(items, arguments, cache, timeout_s, java, num_threads or os.cpu_count() or 1))
        _write_scores(scores, cache)
    per_clip = [scores[key] for key in keys]
    return sum(per_clip) / len(per_clip), per_clip


def _run(
    items: list[dict], arguments: list[str], cache: Path, timeout_s: float, java: str | None, num_threads: int
) -> dict[str, float]:
    """Score clips in one Java process; parses go to the cache even when the scores do not come."""
    jar = find_coco_file(JAR)
    class_path = [jar, jar.parent / "lib" / "*", *find_corenlp()]
    with tempfile.TemporaryDirectory(prefix="enclap-spice-") as name:
        folder = Path(name)
        write_classes(folder)
        arguments[arguments.index("-cp") + 1] = os.pathsep.join(map(str, [folder, *class_path]))
        (folder / "input.json").write_text(json.dumps(items), encoding="ascii")
        # The process works on a copy, which then replaces the original: two evaluations at once cannot spoil the file.
        if (cache / _PARSES_FILE).is_file():
            shutil.copyfile(cache / _PARSES_FILE, folder / _PARSES_FILE)
        files = [str(folder / "input.json"), str(folder / "output.json"), str(num_threads), str(folder)]
        try:
            with JavaProcess([*arguments, *files], timeout_s, java=java) as process:
                process.wait()
        finally:
            if (folder / _PARSES_FILE).is_file():
                _replace_file(cache / _PARSES_FILE, (folder / _PARSES_FILE).read_bytes())
        return _parse_output(folder / "output.json", [item["image_id"] for item in items])


def _parse_output(path: Path, keys: list[str]) -> dict[str, float]:
    """Read the F score of every clip from the program's JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise JavaError("SPICE ended without writing scores") from None
    try:
        scores = {item["image_id"]: float(item["scores"]["All"]["f"]) for item in json.loads(text)}
    except (ValueError, TypeError, KeyError):
        raise JavaError(f"SPICE wrote {text[:60]!r} where its scores should be") from None
    if sorted(scores) != sorted(keys) or any(math.isnan(score) for score in scores.values()):
        raise JavaError(f"SPICE scored {len(scores)} of {len(keys)} clips")
    return scores


def _clip_key(candidate: str, references: Sequence[str]) -> str:
    """A name for a candidate together with its references, whose order does not matter to SPICE's tuples."""
    text = json.dumps([candidate, sorted(references)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _read_scores(cache: Path) -> dict[str, float]:
    """Scores of earlier calls; none where the file is missing or cut short."""
    try:
        scores = json.loads((cache / _SCORES_FILE).read_text(encoding="utf-8"))
        return {str(key): float(score) for key, score in scores.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write_scores(scores: dict[str, float], cache: Path) -> None:
    """Keep the scores for later calls."""
    _replace_file(cache / _SCORES_FILE, json.dumps(scores).encode("ascii"))


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
