"""What `enclap caption --resume` keeps of an output, and what is captioned again."""

import itertools
import os
from dataclasses import dataclass, field

from ..model.caption_choice import CHOICES
from ..model.recordings import RecordingState, read_state
from .caption_manifest import Manifest, find_difference, read_manifest
from .caption_output import read_rows
from .caption_rows import has_caption, identify, identify_row, is_silent, remove_escape


@dataclass
class Plan:
    """What a run does.

    Args:
        waiting: recordings to caption.
        kept_rows: rows of the output that stay.
        manifest: to be written beside the output.
        go_on_at: of long recordings that wait and of which a part is captioned, the second at which to go on.
        kept_by_path: rows that stay of recordings that wait, where each has a document of its own.
        notices: what the user should know.
    """

    waiting: list[str]
    kept_rows: list[dict]
    manifest: Manifest
    go_on_at: dict[str, float] = field(default_factory=dict)
    kept_by_path: dict[str, list[dict]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def plan_rows(output: str, rows_file: str, paths: list[str], manifest: Manifest) -> Plan:
    """Decide what is kept and what is captioned.

    Args:
        output: beside which the manifest lies.
        rows_file: which holds the rows, in the same folder.
        paths: recordings of this run.
        manifest: of this run, as if it started anew.
    Raises:
        ValueError: the output is another program's file, was made with another model or other settings, or its
            manifest is damaged.
    """
    recordings: dict[str, list[dict]] = {}
    for row in read_rows(rows_file):
        recordings.setdefault(identify_row(row, output), []).append(row)
    if not any(has_caption(row) for rows in recordings.values() for row in rows):
        recordings_here = {identify(path, "") for path in paths}
        kept = [row for name, rows in recordings.items() if name not in recordings_here for row in rows]
        return Plan(paths, kept, manifest)
    old = read_manifest(output)
    adopt_manifest(output, old, manifest)
    states = find_states(output, old, recordings)
    waiting = {identify(path, ""): path for path in paths}
    changed = {
        name for name, path in waiting.items() if name in recordings and is_changed(states.get(name), read_state(path))
    }
    go_on_at = {}
    for name, rows in recordings.items():
        if name in waiting:
            recordings[name], is_done = find_done(rows, states.get(name), old)
            if name in changed:
                recordings[name] = []
            elif is_done:
                waiting.pop(name)
            elif recordings[name]:
                go_on_at[waiting[name]] = float(recordings[name][-1]["end_s"])
    kept = [row for rows in recordings.values() for row in rows]
    folder = os.path.dirname(output)
    for row in kept:
        name = remove_escape(row["file_name"], folder)
        manifest.recordings[name] = states.get(identify(name, folder), RecordingState())
    left = [path for path in paths if identify(path, "") in waiting]
    notices = list_notices(output, old, manifest, len(paths), left, len(changed), go_on_at)
    return Plan(left, kept, manifest, go_on_at, notices=list(notices))


def adopt_manifest(output: str, old: Manifest | None, new: Manifest) -> None:
    """Take over what an earlier run's manifest remembers.

    Raises:
        ValueError: it was made with another model or other settings.
    """
    if old is None:
        return
    refuse_difference(output, old, new)
    new.earlier_versions = [*old.earlier_versions]
    if old.versions != new.versions and old.versions not in new.earlier_versions:
        new.earlier_versions.append(old.versions)


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


def find_done(rows: list[dict], state: RecordingState | None, manifest: Manifest | None) -> tuple[list[dict], bool]:
    """What of a recording's rows stays, and whether that is all of it.

    A window with an error, or without some of its captions, ends what stays: the recording goes on there. Of one that
    is not cut, then nothing stays.
    """
    settings = manifest.settings if manifest else {}
    # Where captions are chosen among candidates or by their confidence, fewer may be all that there are.
    may_be_fewer = any(settings.get(name) is not None for name in (*CHOICES, "min_confidence"))
    wanted = 1 if may_be_fewer else settings.get("num_return_sequences") or 1
    kept, is_whole = [], state is None or state.is_whole
    for _, group in itertools.groupby(rows, key=lambda row: row.get("start_s")):
        window = list(group)
        captions = [row for row in window if has_caption(row)]
        if len(captions) < len(window) or not (any(map(is_silent, captions)) or len(captions) >= wanted):
            is_whole = False
            break
        kept += window
    if not is_whole and (not kept or kept[-1].get("end_s") in (None, "")):
        return [], False
    return kept, is_whole


def list_notices(
    output: str,
    old: Manifest | None,
    new: Manifest,
    num_paths: int,
    waiting: list[str],
    num_changed: int,
    go_on_at: dict[str, float],
):
    """What the user should know before the run goes on."""
    begun = f", and {len(go_on_at)} in part" if go_on_at else ""
    yield f"{num_paths - len(waiting)} of {num_paths} recordings are captioned already{begun}."
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
