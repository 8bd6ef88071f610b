"""Documents that are written at their end: subtitles, labels, JSON, one for each recording or one for all.

day.srt                  the document, complete or not there
day.srt.rows.jsonl       its rows, until it is complete: a file that only grows, from which --resume goes on
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..data.caption_formats import FORMATS
from ..data.caption_writing import printable
from ..model.recordings import read_state
from .caption_manifest import Manifest, read_manifest
from .caption_output import OutputError, describe_failure, read_rows
from .caption_resume import Plan, adopt_manifest, find_done, is_changed, list_notices, plan_rows
from .caption_rows import STANDARD_INPUT, escape_formulas, name_in_output
from .caption_targets import Target, place_journal

# What the document of standard input is called.
INPUT_NAME = "stdin"


@dataclass(frozen=True)
class Document:
    """One text in one or several formats.

    Args:
        files: by the names of the formats.
        journal: where its rows are kept.
    """

    files: dict[str, str]
    journal: str

    def write(self, rows: list[dict], escapes: bool = False) -> None:
        """Write every file of it whole; one that was there is replaced.

        Raises:
            OutputError: a file cannot be written; an earlier one of its name is as it was.
            ValueError: a format needs what rows lack.
        """
        for name, path in self.files.items():
            safe = [escape_formulas(row, path) for row in rows] if escapes and name == "csv" else rows
            write_document(path, name, safe)

    @property
    def is_written(self) -> bool:
        """Whether all files of it are there."""
        return all(map(os.path.exists, self.files.values()))


def write_document(path: str, format_name: str, rows: list[dict]) -> None:
    """Write rows in a format, whole or not at all.

    Raises:
        OutputError: the disk is full or the like.
        ValueError: the format needs what rows lack.
    """
    target = os.path.realpath(path)
    unfinished = f"{target}.part"
    try:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            writer = FORMATS[format_name](file)
            for row in rows:
                writer.write(row)
            writer.close()
        os.replace(unfinished, target)
    except OSError as error:
        raise OutputError(describe_failure(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(unfinished)


def sort_rows(rows: list[dict], names: Iterable[str]) -> list[dict]:
    """Rows of each recording together, in the order of the recordings' names; others first."""
    places = {name: number for number, name in enumerate(names)}
    return sorted(rows, key=lambda row: places.get(row["file_name"], -1))


# One document for all


def make_document(target: Target) -> Document:
    """The document of --output FILE."""
    return Document({target.formats[0]: target.path}, place_journal(target.path))


def plan_document(target: Target, document: Document, paths: list[str], manifest: Manifest) -> Plan:
    """What of an earlier run stays, with --resume.

    Raises:
        ValueError: it was made with another model or other settings, or what is there is damaged.
    """
    if os.path.exists(document.journal):
        return plan_rows(target.path, document.journal, paths, manifest)
    plan, old = Plan(paths, [], manifest), read_manifest(target.base)
    adopt_manifest(target.base, old, manifest)
    if document.is_written and old is not None and is_same_content(old, target, paths):
        manifest.recordings |= old.recordings
        manifest.counts |= old.counts
        return Plan([], [], manifest, notices=[f"{len(paths)} of {len(paths)} recordings are captioned already."])
    if document.is_written:
        plan.notices.append(f"{target.path} is complete and cannot be added to; all is captioned again.")
    return plan


def is_same_content(manifest: Manifest, target: Target, paths: list[str]) -> bool:
    """Whether a complete document is of these recordings alone, as they are."""
    names = {printable(name_in_output(path, target.path)): path for path in paths}
    known = manifest.recordings
    return known.keys() == names.keys() and all(
        known[name].is_whole and not is_changed(known[name], read_state(path)) for name, path in names.items()
    )


# A document for each


def place_documents(found: list[tuple[str, str]], target: Target) -> dict[str, Document]:
    """The documents of --output-dir, by recording: named like it, in the sub-folders that it has below its argument.

    Where two would get the same name, they keep their extensions too; where that does not tell them apart, their whole
    paths below the folder that all share.

    Args:
        found: for each recording, the folder that its place is told from, and its path.
        target: the folder.
    """
    relative = {path: INPUT_NAME if path == STANDARD_INPUT else os.path.relpath(path, root) for root, path in found}
    names = {path: os.path.splitext(name)[0] for path, name in relative.items()}
    names |= {path: relative[path] for path in find_repeated(names)}
    repeated = find_repeated(names)
    if repeated:
        shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in repeated])
        names |= {path: os.path.relpath(os.path.abspath(path), shared) for path in repeated}
    return {path: make_folder_document(target, name) for path, name in names.items()}


def find_repeated(names: dict[str, str]) -> list[str]:
    """Recordings whose name another one has, in any case: some file systems know no case."""
    by_name: dict[str, list[str]] = {}
    for path, name in names.items():
        by_name.setdefault(name.casefold(), []).append(path)
    return [path for paths in by_name.values() if len(paths) > 1 for path in paths]


def make_folder_document(target: Target, name: str) -> Document:
    """The document of one recording."""
    stem = os.path.join(target.path, name)
    files = {made: f"{stem}{FORMATS[made].suffix}" for made in target.formats}
    return Document(files, place_journal(next(iter(files.values())) if len(files) == 1 else stem))


def plan_documents(target: Target, documents: dict[str, Document], manifest: Manifest) -> Plan:
    """What of the documents of an earlier run stays, with --resume.

    Raises:
        ValueError: they were made with another model or other settings, or what is there is damaged.
    """
    old = read_manifest(target.base)
    adopt_manifest(target.base, old, manifest)
    plan = Plan([], [], manifest)
    num_changed = 0
    for path, document in documents.items():
        name = printable(name_in_output(path, target.base))
        before = old.recordings.get(name) if old else None
        changed = before is not None and is_changed(before, read_state(path))
        num_changed += changed
        if before is not None and not changed:
            manifest.recordings[name] = before
            if before.is_whole and document.is_written:
                continue
            rows, _ = find_done(read_rows(document.journal), before, old)
            if rows and rows[-1].get("end_s") is not None:
                plan.go_on_at[path] = float(rows[-1]["end_s"])
                plan.kept_by_path[path] = rows
        plan.waiting.append(path)
    if old is not None:
        plan.notices += list_notices(
            target.path, old, manifest, len(documents), plan.waiting, num_changed, plan.go_on_at
        )
    return plan
