"""SPICE from its authors' program, on any Java from version 8u92 on.

Two options of that program fail on newer Java: `-cache` (its serialiser needs what Java 16 closed) and `-out` (its
JSON goes through the JavaScript engine that Java 15 removed). `java/SpiceRunner.java` and `java/LmdbTupleDB.java` stand
in for just these two parts, and `java/CaptionParser.java` hands each parse out as soon as it is there; parser, tuples
and scores are the authors' code.

Verified with CoreNLP 3.6.0 on Java 17 and 25 against the scores that CoNeTTE's authors published with their captions:
each of the 1,045 clips of Clotho's evaluation set and of the 912 of AudioCaps' test set has the published score.

Two things are kept between calls, in the cache folder: the parse of every caption, as soon as it is made, because the
same references are scored at every evaluation, and the score of every (candidate, references) pair.

A score is exact or absent. No caption is cut and no time or length is limited on the parser's side. Where its memory is
used up, CoreNLP would go on with an empty parse; here Java ends itself instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from .corenlp import cache_folder, find_corenlp
from .corenlp_files import check_class_path, fingerprint
from .java_memory import check_heap, choose_heap
from .java_runtime import find_coco_file, find_java
from .long_captions import CaptionNames
from .parse_store import ParseStore, clip_key
from .spice_process import SpiceRun

logger = logging.getLogger(__name__)

JAR = "spice/spice-1.0.jar"


def compute_spice(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    timeout_s: float = 3600.0,
    java_heap: str | None = None,
    java: str | None = None,
    cache_dir: Path | str | None = None,
    num_threads: int | None = None,
    clip_names: Sequence[str] | None = None,
    show_progress: bool | None = None,
) -> tuple[float, list[float]]:
    """Compute the mean and the per-clip SPICE.

    Captions of more than 80 words are named in a warning before they are parsed, and are parsed last: the parser's time
    grows with nearly the cube of the length.

    Args:
        candidates: one tokenised caption a clip, tokens joined by blanks.
        references: for each clip, its tokenised references.
        timeout_s: limit for the whole computation.
        java_heap: memory limit of the Java process, as its option -Xmx takes it; half of the memory that this process
            may use, but 8 GiB at most, when left out.
        java: path of the Java program; found when left out.
        cache_dir: where parses and scores are kept; the user's cache folder when left out.
        num_threads: parser threads; one a processor when left out.
        clip_names: for messages, one a clip; numbers from 1 when left out.
        show_progress: whether to show a bar of the captions to parse; on a terminal when left out.
    Returns:
        the mean over the clips, and the clips' F scores. An empty candidate scores 0.
    Raises:
        ValueError: `java_heap` is nothing that Java takes.
        MetricUnavailableError: Java, the program or the parser is missing, or one of their files is damaged.
        JavaError: the process failed, took too long, ran out of memory, or wrote something else than scores. What was
            parsed is kept.
    Source: Anderson et al., ECCV 2016.
    """
    heap = choose_heap() if java_heap is None else check_heap(java_heap)
    jars = find_class_path()
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "spice"
    keys = [clip_key(*clip) for clip in zip(candidates, references, strict=True)]
    with ParseStore(folder, fingerprint(jars)) as store:
        scores = store.read_scores()
        items = {
            key: {"image_id": key, "test": candidate, "refs": [reference for reference in clip if reference]}
            for key, candidate, clip in zip(keys, candidates, references, strict=True)
            if key not in scores
        }
        # Nothing to parse on one side: no tuple can match.
        scores.update({key: 0.0 for key, item in items.items() if not item["test"] or not item["refs"]})
        run = SpiceRun(
            items=[item for key, item in items.items() if key not in scores],
            parses=store.read_parses() if items else {},
            names=CaptionNames(candidates, references, clip_names),
            store=store,
            jars=jars,
            heap=heap,
            java=java,
            num_threads=num_threads or _count_processors(),
            timeout_s=timeout_s,
            show_progress=show_progress,
        )
        if run.items:
            scores.update(_compute_new_scores(run))
    per_clip = [scores[key] for key in keys]
    return sum(per_clip) / len(per_clip), per_clip


def _compute_new_scores(run: SpiceRun) -> dict[str, float]:
    """Look at the files, name what takes long, and let Java work."""
    run.java = run.java or find_java()
    unparsed = run.captions_to_parse()
    check_class_path(run.jars, needs_models=bool(unparsed))
    for sentence in run.names.name_long(unparsed):
        logger.warning(sentence)
    scores = run.compute_scores()
    run.store.add_scores(scores)
    return scores


def find_class_path() -> list[Path]:
    """Find all jars that SPICE's program is made of.

    Returns:
        paths: SPICE's own, CoreNLP's two, and the libraries that come with SPICE.
    Raises:
        MetricUnavailableError: one is missing; the message has the install line.
    """
    jar = find_coco_file(JAR)
    # Among the libraries there may be a CoreNLP of pycocoevalcap's own; the one that was found is the only one.
    libraries = [path for path in sorted((jar.parent / "lib").glob("*.jar")) if not path.name.startswith("stanford-")]
    return [jar, *find_corenlp(), *libraries]


def _count_processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
