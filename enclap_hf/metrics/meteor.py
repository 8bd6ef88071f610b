"""METEOR 1.5 from its authors' program, the METEOR of the captioning papers.

The corpus score pools the match statistics of all clips; it is not the mean of the clips' scores. NLTK's and
`evaluate`'s "meteor" is another metric, about twice as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .corenlp_files import check_class_path
from .java_memory import check_heap
from .java_runtime import JavaError, JavaProcess, find_coco_file
from .progress_bar import open_bar

JAR = "meteor/meteor-1.5.jar"
MAX_WORDS = 1000
_SEPARATOR = " ||| "
_SILENT_S = 5.0


def compute_meteor(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    timeout_s: float = 600.0,
    java_heap: str = "2g",
    java: str | None = None,
    show_progress: bool | None = None,
) -> tuple[float, list[float]]:
    """Compute corpus and per-clip METEOR 1.5.

    Args:
        candidates: one tokenised caption a clip, tokens joined by blanks.
        references: for each clip, its tokenised references.
        timeout_s: limit for the whole computation.
        java_heap: memory limit of the Java process, as its option -Xmx takes it.
        java: path of the Java program; found when left out.
        show_progress: whether to show a bar where scoring takes more than some seconds; on a terminal when left out.
    Returns:
        the corpus score, and the clips' scores. An empty candidate scores 0.
    Raises:
        ValueError: `java_heap` is nothing that Java takes.
        MetricUnavailableError: Java or the program is missing, or the program's file is damaged.
        JavaError: a caption is too long, or the process failed or took too long. It is gone when this is raised.
    Source: Denkowski and Lavie, WMT 2014; options (-l en -norm) as in the COCO caption evaluation.
    """
    jar = find_coco_file(JAR)
    arguments = [f"-Xmx{check_heap(java_heap)}", "-XX:+UseSerialGC", "-jar", str(jar)]
    arguments += ["-", "-", "-stdio", "-l", "en", "-norm"]
    longest = max(len(caption.split()) for captions in (candidates, *references) for caption in captions)
    if longest > MAX_WORDS:
        raise JavaError(
            f"a caption has {longest} words; METEOR's memory grows with the square of the "
            f"length, and {MAX_WORDS} is the most"
        )
    check_class_path([jar])
    with JavaProcess(arguments, timeout_s, java=java) as process:
        process.write_lines([_score_line(*clip) for clip in zip(candidates, references, strict=True)])
        with open_bar(show_progress, total=len(candidates), desc="METEOR", unit="clip", delay=_SILENT_S) as bar:
            statistics = []
            for _ in candidates:
                statistics.append(process.read_line(while_waiting=lambda: _tick(bar)).strip())
                bar.update()
        process.write_lines([_SEPARATOR.join(["EVAL", *statistics])])
        per_clip = [_parse_score(process.read_line()) for _ in candidates]
        corpus = _parse_score(process.read_line())
    return corpus, per_clip


def _tick(bar: Any) -> None:
    """Let the bar's clock go on, once it is to be seen."""
    if bar.format_dict["elapsed"] > _SILENT_S:
        bar.refresh()


def _score_line(candidate: str, references: Sequence[str]) -> str:
    """The request for one clip's match statistics."""
    return _SEPARATOR.join(["SCORE", *(_clean(reference) for reference in references), _clean(candidate)])


def _clean(caption: str) -> str:
    """A caption without the program's own field separator and without line ends."""
    return caption.replace("|||", "").replace("  ", " ").replace("\n", " ")


def _parse_score(line: str) -> float:
    """A score that the program printed."""
    try:
        return float(line)
    except ValueError:
        raise JavaError(f"METEOR answered {line[:80]!r} where a score should be") from None
