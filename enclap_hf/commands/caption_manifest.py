"""What an output of `enclap caption` was made with, remembered beside it, so that --resume never mixes settings.

    captions.csv                     the rows
    captions.csv.manifest.json       model, settings that change captions, versions, counts, and from which state of
                                     each recording its rows were made
    captions.csv.recordings.jsonl    these states while a run goes on, and after one was killed: one line each

A recording is known by its address, its size and the time of its last change. They are read before its sound is, and
written before its rows are, so a recording that changes meanwhile is captioned again by the next --resume. One that is
captioned window by window is noted as unfinished at first, and once more when all of it is done.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

from ..model.recordings import RecordingState
from ..version import __version__
from .caption_output import OutputError, WholeRecordsFile, describe_failure
from .captioner_loading import ModelIdentity

FORMAT = 1
# What a setting does that is left out, where that is not "none".
LEFT_OUT = {
    **dict.fromkeys(("num_beams", "max_new_tokens", "dtype", "chunk_length_s"), "left to the model"),
    "backend": "torch",
}
# What manifests without a setting were written with: recordings were not cut.
EARLIER_SETTINGS = {"chunk_length_s": 0.0, "segmentation": "fixed"}
UNFINISHED = "unfinished"
PACKAGES = ("transformers", "torch")


@dataclass
class Manifest:
    """How an output was made.

    Args:
        model: what [`ModelIdentity`] says.
        settings: those that change captions or how they are written, by the names of their options.
        versions: of the packages that captions depend on.
        settings_hash: of model and settings.
        earlier_versions: of earlier runs, where they were others.
        counts: how many recordings are captioned, silent and failed, once a run has ended.
        recordings: states by the names in the output.
    """

    model: dict
    settings: dict
    versions: dict = field(default_factory=lambda: read_versions())
    settings_hash: str = ""
    earlier_versions: list[dict] = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    recordings: dict[str, RecordingState] = field(default_factory=dict)

    def __post_init__(self):
        self.settings_hash = hash_settings(self.model, self.settings)


def read_versions() -> dict[str, str]:
    """Versions of the packages that captions depend on, without importing them."""
    versions = {"enclap-hf": __version__}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def hash_settings(model: dict, settings: dict) -> str:
    """SHA-256 of what captions depend on; the model counts by its content where that is known."""
    content = model.get("fingerprint") or model.get("commit")
    model = {"content": content} if content else {"name": model["name"], "revision": model["revision"]}
    text = json.dumps({"model": model, "settings": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find_difference(old: Manifest, new: Manifest) -> str | None:
    """What two runs differ in that changes captions, with both values; None where nothing."""
    differences = []
    if not is_same_model(old.model, new.model):
        differences.append(("--model", describe_model(old.model), describe_model(new.model)))
    for name in dict.fromkeys([*old.settings, *new.settings]):
        values = [settings.get(name, EARLIER_SETTINGS.get(name)) for settings in (old.settings, new.settings)]
        if values[0] != values[1]:
            words = [LEFT_OUT.get(name, "none") if value is None else str(value).lower() for value in values]
            differences.append((f"--{name.replace('_', '-')}", *words))
    return "; ".join(f"{option} was {before} and is {after}" for option, before, after in differences) or None


def is_same_model(old: dict, new: dict) -> bool:
    """Whether two models have the same content; where only one of them tells, whether they have the same name."""
    if old.get("fingerprint") or new.get("fingerprint"):
        return old.get("fingerprint") == new.get("fingerprint")
    if old.get("commit") and new.get("commit") and old["commit"] != new["commit"]:
        return False
    same_revision = old.get("revision") == new.get("revision") or bool(old.get("commit") and new.get("commit"))
    return old.get("name") == new.get("name") and same_revision


def describe_model(model: dict) -> str:
    """A model and which state of it, for a message."""
    if model.get("fingerprint"):
        return f"{model['name']} (weights {model['fingerprint'][:12]})"
    state = model.get("commit") or model.get("revision")
    return f"{model['name']} (commit {state[:12]})" if state else str(model["name"])


# On disk


def place_manifest(output: str) -> str:
    """Where the manifest of an output lies."""
    return f"{os.path.realpath(output)}.manifest.json"


def place_states(output: str) -> str:
    """Where the states of recordings lie while a run goes on."""
    return f"{os.path.realpath(output)}.recordings.jsonl"


def read_manifest(output: str) -> Manifest | None:
    """The manifest of an output, with what an unfinished run has added; None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = place_manifest(output)
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if content["format"] > FORMAT:
            raise ValueError("written by a later version")
        recordings = {name: parse_state(state) for name, state in content["recordings"].items()}
        manifest = Manifest(
            dict(content["model"]),
            dict(content["settings"]),
            dict(content["versions"]),
            earlier_versions=list(content["earlier_versions"]),
            recordings=recordings,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged ({reason}), so what its output was made with is not known; restore it, or name another "
            "--output."
        ) from None
    manifest.recordings.update(read_states(output))
    return manifest


def read_states(output: str) -> dict[str, RecordingState]:
    """States that an unfinished run has left, the last one of each recording; a line that is cut off is left out."""
    states = {}
    if os.path.exists(place_states(output)):
        with open(place_states(output), "rb") as file:
            for line in file:
                try:
                    name, *state = json.loads(line)
                    states[name] = parse_state(state)
                except (ValueError, TypeError):  # cut off by a kill
                    continue
    return states


def list_state(state: RecordingState) -> list:
    """A state as JSON holds it."""
    return [state.size, state.modified_ns, *([] if state.is_whole else [UNFINISHED])]


def parse_state(content: list) -> RecordingState:
    """A state that JSON held.

    Raises:
        ValueError, TypeError: it is none.
    """
    size, modified_ns, *rest = content
    if rest not in ([], [UNFINISHED]):
        raise ValueError(f"no state of a recording: {content}")
    return RecordingState(size, modified_ns, is_whole=not rest)


def write_manifest(output: str, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all.

    Raises:
        OutputError: the disk is full or the like; an earlier one is as it was.
    """
    path = place_manifest(output)
    content = {
        "format": FORMAT,
        **asdict(manifest),
        "recordings": {name: list_state(state) for name, state in manifest.recordings.items()},
    }
    try:
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(f"{path}.part", path)
    except OSError as error:
        raise OutputError(describe_failure(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(f"{path}.part")


def open_states(output: str) -> WholeRecordsFile:
    """The file that states are added to while a run goes on.

    Raises:
        OutputError: it cannot be written.
    """
    file = WholeRecordsFile(place_states(output))
    if file.size:
        file.append(b"\n")  # a kill may have cut off the last line
    return file


def add_state(file: WholeRecordsFile, name: str, state: RecordingState) -> None:
    """Remember the state that a recording had before it was read."""
    file.append(json.dumps([name, *list_state(state)]).encode() + b"\n")


def remove_states(output: str) -> None:
    """Remove the file of states, once the manifest has them."""
    with contextlib.suppress(OSError):
        os.remove(place_states(output))


def begin_manifest(args, model: ModelIdentity) -> Manifest:
    """The manifest of a run that starts anew."""
    settings = {
        "num_beams": args.num_beams,
        "num_return_sequences": args.num_return_sequences,
        "max_new_tokens": args.max_new_tokens,
        "dtype": args.dtype,
        "silence_dbfs": args.silence_dbfs,
        "escape_formulas": args.escape_formulas,
        "chunk_length_s": args.chunk_length_s,
        "stride_length_s": args.stride_length_s,
        "segmentation": args.segmentation or "fixed",
        "raw_format": args.raw_format,
        "raw_sampling_rate": args.raw_sampling_rate,
        "raw_channels": args.raw_channels,
        "num_candidates": args.num_candidates,
        "candidates": args.candidates,
        "rerank": args.rerank,
        "seed": args.seed,
        "min_confidence": args.min_confidence,
        "fluency_filter": args.fluency_filter or None,
    }
    if args.backend != "torch":
        settings["backend"] = args.backend
    return Manifest(asdict(model), settings)
