"""What of CoreNLP 3.6.0 SPICE loads, and a look at the files before Java starts.

Java reads jars without comparing checksums, and passes over a jar that it cannot read: what comes out then is a missing
class, a broken stream, or a model that is quietly another one. So every jar of the class path is read once here.
"""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .java_runtime import MetricUnavailableError

VERSION = "3.6.0"
FILE_NAMES = (f"stanford-corenlp-{VERSION}.jar", f"stanford-corenlp-{VERSION}-models.jar")
DOWNLOAD_LINE = "python -m enclap_hf.metrics.corenlp"
COCO_LINE = "pip install --force-reinstall --no-deps pycocoevalcap"

# Fingerprint of the two files of that version.
_PUBLISHED = "a8d89d3d5b8f018c27ec0be5"
_MODELS = "edu/stanford/nlp/models/"
# What SPICE's annotators (tokenize, ssplit, parse, lemma, ner) open of the 378 MB of models.
MODEL_ENTRIES = (
    "edu/stanford/nlp/pipeline/StanfordCoreNLP.properties",
    *(
        _MODELS + name
        for name in (
            "lexparser/englishPCFG.ser.gz",
            "ud/feature_map.txt",
            "upos/ENUniversalPOS.tsurgeon",
            "pos-tagger/english-left3words/english-left3words-distsim.tagger",
            "pos-tagger/english-left3words/english-left3words-distsim.tagger.props",
            "sutime/defs.sutime.txt",
            "sutime/english.sutime.txt",
            "sutime/english.holidays.sutime.txt",
            "sutime/jollyday/Holidays_sutime.xml",
            "ner/english.all.3class.distsim.crf.ser.gz",
            "ner/english.all.3class.distsim.prop",
            "ner/english.conll.4class.distsim.crf.ser.gz",
            "ner/english.conll.4class.distsim.prop",
            "ner/english.muc.7class.distsim.crf.ser.gz",
            "ner/english.muc.7class.distsim.prop",
            "dcoref/animate.unigrams.txt",
            "dcoref/countries",
            "dcoref/demonyms.txt",
            "dcoref/female.unigrams.txt",
            "dcoref/gender.map.ser.gz",
            "dcoref/inanimate.unigrams.txt",
            "dcoref/male.unigrams.txt",
            "dcoref/namegender.combine.txt",
            "dcoref/neutral.unigrams.txt",
            "dcoref/plural.unigrams.txt",
            "dcoref/singleton.predictor.ser",
            "dcoref/singular.unigrams.txt",
            "dcoref/state-abbreviations.txt",
            "dcoref/statesandprovinces",
        )
    ),
)
# Classes that SPICE's own code names. Jars of other versions lack one or the other.
_PROGRAM_ENTRIES = tuple(
    f"edu/stanford/nlp/{name}.class"
    for name in (
        "graph/DirectedMultiGraph",
        "ling/CoreAnnotations",
        "pipeline/Annotation",
        "pipeline/NERCombinerAnnotator",
        "pipeline/ParserAnnotator",
        "pipeline/StanfordCoreNLP",
        "semgraph/SemanticGraph",
        "semgraph/SemanticGraphCoreAnnotations$CollapsedCCProcessedDependenciesAnnotation",
        "semgraph/semgrex/SemgrexPattern",
        "trees/UniversalEnglishGrammaticalRelations",
        "util/MapFactory",
    )
)


def get_anew_line(path: Path) -> str:
    """Say how to get a jar of the class path again.

    Args:
        path: of the jar.
    Returns:
        the end of a sentence.
    """
    if path.name not in FILE_NAMES:
        return f"get it anew: {COCO_LINE}"
    classifier = ":jar:models" if path.name == FILE_NAMES[1] else ""
    artifact = f"edu.stanford.nlp:stanford-corenlp:{VERSION}{classifier}"
    return f"delete it and get it anew: {DOWNLOAD_LINE}, or mvn dependency:get -Dartifact={artifact}"


def check_class_path(jars: Sequence[Path], needs_models: bool = True) -> None:
    """Read all that SPICE loads of the jars, and compare it with its checksums.

    Args:
        jars: files of the class path, CoreNLP's two among them.
        needs_models: whether a caption will be parsed.
    Raises:
        MetricUnavailableError: a file is not a whole jar or lacks something; the message names it and how to get
            it anew.
    """
    for path in jars:
        if path.name == FILE_NAMES[1]:
            if needs_models:
                _check_jar(path, MODEL_ENTRIES, wants=MODEL_ENTRIES.__contains__)
        else:
            required = _PROGRAM_ENTRIES if path.name == FILE_NAMES[0] else ()
            _check_jar(path, required, wants=_is_loaded)


def fingerprint(jars: Iterable[Path]) -> str:
    """Name the parser that a class path makes, from the checksums in its jars.

    Args:
        jars: files of the class path. Of CoreNLP's models only what SPICE loads counts, so that the whole file and one
            with these entries alone have the same name.
    Returns:
        a digest that is safe as a file name.
    Raises:
        MetricUnavailableError: a file is not a whole jar.
    """
    digest = hashlib.sha256()
    for path in sorted(jars, key=lambda path: path.name):
        wants = MODEL_ENTRIES.__contains__ if path.name == FILE_NAMES[1] else _is_loaded
        with _open_jar(path) as archive:
            entries = sorted((item.filename, item.CRC, item.file_size) for item in archive.infolist())
        digest.update(repr([path.name, [entry for entry in entries if wants(entry[0])]]).encode())
    return digest.hexdigest()[:24]


def describe_version(program_and_models: Sequence[Path]) -> str:
    """Say which CoreNLP two files are, by their contents.

    Args:
        program_and_models: paths of the files.
    Returns:
        "3.6.0" for what Maven's central repository has under that version; else it is said that it is something else.
    Raises:
        MetricUnavailableError: a file is not a whole jar.
    """
    name = fingerprint(program_and_models)
    return VERSION if name == _PUBLISHED else f"not {VERSION} as published (contents {name[:8]})"


def _is_loaded(entry: str) -> bool:
    """Whether an entry of a program's jar can matter: spice-1.0.jar also holds 97 MB of captions and its sources."""
    return not entry.startswith(("META-INF/", "coco/")) and not entry.endswith(("/", ".java"))


def _check_jar(path: Path, required: Sequence[str], wants: Callable[[str], bool]) -> None:
    """Read a jar's entries; zipfile compares their checksums."""
    with _open_jar(path) as archive:
        names = set(archive.namelist())
        lacking = [name for name in required if name not in names]
        if lacking:
            kind = "classes" if lacking[0].endswith(".class") else "models"
            raise MetricUnavailableError(
                f"{path} is a jar, but lacks {len(lacking)} of {len(required)} {kind} of CoreNLP {VERSION} that SPICE "
                f"needs; {get_anew_line(path)}"
            )
        for name in filter(wants, sorted(names)):
            try:
                with archive.open(name) as entry:
                    for _ in iter(functools.partial(entry.read, 1 << 20), b""):
                        pass
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
                if isinstance(error, OSError) and error.errno:
                    raise MetricUnavailableError(f"{path} cannot be read: {error.strerror}") from error
                raise MetricUnavailableError(
                    f"{path} is damaged: part of its contents does not fit its checksum; {get_anew_line(path)}"
                ) from error


def _open_jar(path: Path) -> zipfile.ZipFile:
    """Open a jar, or say what it is instead."""
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise MetricUnavailableError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise MetricUnavailableError(f"{path} is {_describe(path)}; {get_anew_line(path)}") from error


def _describe(path: Path) -> str:
    """What a file is that is not a whole jar."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if size == 0:
        return "empty, not a jar"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a page of HTML, not a jar"
    if start.startswith(b"pk"):
        return f"not whole: a jar that was cut short or damaged ({size:,} bytes)"
    return f"not a jar ({size:,} bytes)"
