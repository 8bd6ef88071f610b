"""What `enclap caption --resume` keeps of an output, and what is captioned again."""

import argparse
import os
from dataclasses import dataclass, field

from .caption_manifest import Manifest, RecordingState, find_difference, read_manifest, read_state
from .caption_output import has_caption, identify, identify_row, read_rows, remove_escape


@dataclass
class Plan:
    """What a run does.

    Args:
        waiting: recordings to caption.
        kept_rows: rows of the output that stay.
        manifest: to be written beside the output.
        notices: what the user should know.
    """

    waiting: list[str]
    kept_rows: list[dict]
    manifest: Manifest
    notices: list[str] = field(default_factory=list)


def plan_rows(args: argparse.Namespace, paths: list[str], manifest: Manifest) -> Plan:
    """Decide what is kept and what is captioned.

    Args:
        args: of the command, with --resume.
        paths: recordings of this run.
        manifest: of this run, as if it started anew.
    Raises:
        ValueError: the output is another program's file, was made with another model or other settings, or its
            manifest is damaged.
    """
    output = args.output
    recordings: dict[str, list[dict]] = {}
    for row in read_rows(output):
        recordings.setdefault(identify_row(row, output), []).append(row)
    if not any(has_caption(row) for rows in recordings.values() for row in rows):
        recordings_here = {identify(path, "") for path in paths}
        kept = [row for name, rows in recordings.items() if name not in recordings_here for row in rows]
        return Plan(paths, kept, manifest)
    old = read_manifest(output)
    if old is not None:
        refuse_difference(output, old, manifest)
        manifest.earlier_versions = [*old.earlier_versions]
        if old.versions != manifest.versions and old.versions not in manifest.earlier_versions:
            manifest.earlier_versions.append(old.versions)
    states = find_states(output, old, recordings)
    again = {identify(path, ""): path for path in paths}
    changed = {
        name for name, path in again.items() if name in recordings and is_changed(states.get(name), read_state(path))
    }
    for name, rows in recordings.items():
        if name not in changed and is_complete(rows, old):
            again.pop(name, None)
    kept = [row for name, rows in recordings.items() if name not in again for row in rows]
    folder = os.path.dirname(output)
    for row in kept:
        name = remove_escape(row["file_name"], folder)
        manifest.recordings[name] = states.get(identify(name, folder), RecordingState())
    waiting = [path for path in paths if identify(path, "") in again]
    return Plan(waiting, kept, manifest, list(list_notices(output, old, manifest, len(paths), waiting, len(changed))))


def refuse_difference(output: str, old: Manifest, new: Manifest) -> None:
    """Refuse to go on with another model or other settings."""
    difference = find_difference(old, new)
    if difference:
        raise ValueError(
            f"{output} cannot be resumed with other settings: {difference}. Pass the same ones, name another --output, "
            "or replace it with --overwrite."
        )


def find_states(output: str, old: Manifest | None, recordings: dict[str, list[dict]]) -> dict[str, RecordingState]:
    """The state of each recording that rows were made from; without a manifest, the one that it has at present."""
    folder = os.path.dirname(output)
    if old is None:
        return {name: read_state(name) for name in recordings}
    return {identify(name, folder): state for name, state in old.recordings.items()}


def is_changed(old: RecordingState | None, new: RecordingState) -> bool:
    """Whether a recording is another one than its rows were made from; one that has gone is not."""
    return new != RecordingState() and new != old


def is_complete(rows: list[dict], manifest: Manifest | None) -> bool:
    """Whether a recording has all its captions, or is silent."""
    captions = [row for row in rows if has_caption(row)]
    if any(str(row.get("silent", "")).lower() == "true" for row in captions):
        return True
    wanted = (manifest.settings.get("num_return_sequences") if manifest else None) or 1
    return len(captions) >= wanted


def list_notices(
    output: str, old: Manifest | None, new: Manifest, num_paths: int, waiting: list[str], num_changed: int
):
    """What the user should know before the run goes on."""
    yield f"{num_paths - len(waiting)} of {num_paths} recordings are captioned already."
    if old is None:
        yield (
            f"{output} has no manifest, so which model and settings its captions are from is not known; they are kept "
            "as they are."
        )
        return
    if num_changed:
        have = "1 recording has" if num_changed == 1 else f"{num_changed} recordings have"
        yield f"{have} changed since, and will be captioned again."
    differing = [
        f"{name} {old.versions.get(name)} (here {version})"
        for name, version in new.versions.items()
        if version != old.versions.get(name)
    ]
    if differing:
        yield f"{output} was begun with {', '.join(differing)}; captions may differ in rare cases."
