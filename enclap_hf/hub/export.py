"""Uploads a folder that holds a complete repository, and says what another one lacks.

`model/repository.py` writes such folders; the Trainer and `enclap push` end here.
"""

import fnmatch
import json
import os
import shutil
import tempfile
from typing import Any, NamedTuple

from huggingface_hub import CommitInfo

from ..model.encoder_sources import PLACES_FILE, check_source
from ..model.model_files import MODEL_FILES, WEIGHTS, read_index, read_json_object
from ..model.onnx_names import FILES
from ..model.onnx_names import FOLDER as GRAPH_FOLDER
from ..model.repository import add_remote_code, list_code_files, read_json, update_json, upload_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
# What a repository consists of, beside its code; all else in a folder stays there. Names are matched in any case.
ROOT_FILES = (
    *MODEL_FILES,
    *("generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *TOKENIZER_FILES,
    *("added_tokens.json", "requirements.txt", ".gitattributes"),
    *("readme.md", "license*", "notice*", "citation.cff"),
    *("model_card.json", "evaluation.json", "training_report.json", "*_results.json"),
)
GRAPH_FILES = tuple(f"{name}*.onnx" for name in FILES.values())
SOUND_FILES = ("*.wav", "*.flac", "*.mp3", "*.ogg", "*.opus")
# An encoder whose family does not say what its files are may bring any, but for these.
ANY_FILES = ("*",)
CODE_OR_PICKLES = (".*", "*.py", "*.pkl", "*.pickle", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.joblib", "*.so")
# Why a file is left out.
LINK, OTHER = "a link out of the folder", "no part of a repository"


class UploadPlan(NamedTuple):
    """What of a folder is uploaded: paths in it, and the others with the reason."""

    files: list[str]
    left_out: dict[str, str]


def push_repository(folder: str, repo_id: str, **upload: Any) -> CommitInfo:
    """Upload a folder that holds a complete repository; the folder stays as it is.

    What the folder lacks of code and requirements is added to what is uploaded. What belongs to no repository is left
    out, see [`plan_upload`].

    Args:
        folder: with model, processor and tokenizer, and `codec/` and `clap/` or references to repositories on the Hub.
        repo_id: "name" or "owner/name"; made when missing.
        upload: `private` (if the repository is new), `token` (that of the login when left out), `revision` (a branch,
            made when missing), `commit_message`, `commit_description`, `create_pr` (open a pull request), `tags` (if
            the card is new).
    Returns:
        the commit; as a string, its address.
    Raises:
        ValueError: the folder is incomplete; the message says what is missing and how to make it.
        HfHubHTTPError: the Hub refuses.
    """
    missing = find_missing_parts(folder)
    if missing:
        raise incomplete(folder, missing)
    plan = plan_upload(folder)
    with tempfile.TemporaryDirectory() as copy:
        for path in plan.files:
            target = os.path.join(copy, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _link_weights(os.path.join(folder, path), target)
        name_in_card(copy, repo_id)
        missing = find_missing_parts(copy)
        if missing:
            links = [f"{path} ({reason})" for path, reason in plan.left_out.items() if reason == LINK]
            raise incomplete(folder, missing, f" without {', '.join(links)}" if links else "")
        if not has_remote_code(copy):
            add_remote_code(copy)
        return upload_folder(copy, repo_id, **upload)


def name_in_card(folder: str, repo_id: str) -> None:
    """Let a card that loads the model by its folder's name, as a conversion's does, load it by its repository's."""
    path, card = (os.path.join(folder, name) for name in ("model_card.json", "README.md"))
    if "/" not in repo_id or not os.path.exists(path) or not os.path.exists(card):
        return
    of_folder = read_json_object(path).get("load_from")
    if not isinstance(of_folder, str) or not of_folder.startswith('"') or "/" in of_folder:
        return
    of_repository = json.dumps(repo_id, ensure_ascii=False)
    with open(card, encoding="utf-8") as file:
        text = file.read()
    with open(card, "w", encoding="utf-8") as file:
        file.write(text.replace(f"model={of_folder}", f"model={of_repository}"))
    update_json(path, {"load_from": of_repository})


def incomplete(folder: str, missing: list[str], without: str = "") -> ValueError:
    """The error for a folder that is not a complete repository."""
    return ValueError(
        f"{folder} is not a complete repository{without}; it lacks {', '.join(missing)}. Load model and processor with "
        "`from_pretrained`, and save both into one folder with their `save_pretrained`."
    )


def plan_upload(folder: str) -> UploadPlan:
    """Tell the files of a repository from what else lies in its folder; no link is followed out of it.

    Args:
        folder: of a complete repository.
    Returns:
        the files to be uploaded; and files and whole folders that are not, with the reason.
    """
    files, left_out, root = [], {}, os.path.realpath(folder)
    code = [name.lower() for name in list_code_files()]
    folders = {**list_encoder_files(folder), GRAPH_FOLDER: GRAPH_FILES, "sounds": SOUND_FILES}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not is_within(path, root):
            left_out[name] = LINK
        elif os.path.isfile(path) and matches(name, (*ROOT_FILES, *code)):
            files.append(name)
        elif os.path.isdir(path) and name in folders:
            for inner in sorted(os.listdir(path)):
                inner_path = os.path.join(path, inner)
                if not is_within(inner_path, root):
                    left_out[f"{name}/{inner}"] = LINK
                elif os.path.isfile(inner_path) and belongs(inner, folders[name]):
                    files.append(f"{name}/{inner}")
                else:
                    left_out[f"{name}/{inner}"] = OTHER
        elif name != "__pycache__":
            left_out[f"{name}/" if os.path.isdir(path) else name] = OTHER
    return UploadPlan(files, left_out)


def belongs(name: str, files: tuple[str, ...]) -> bool:
    """Whether a file in one of a repository's folders is a part of it."""
    return matches(name, files) and not (files == ANY_FILES and matches(name, CODE_OR_PICKLES))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name fits one of the patterns, in any case."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)


def is_within(path: str, root: str) -> bool:
    """Whether a path is inside of a folder when all links are followed."""
    real = os.path.realpath(path)
    return os.path.commonpath([real, root]) == root


def list_encoder_files(folder: str) -> dict[str, tuple[str, ...]]:
    """Sub-folders that hold the encoders of a folder's processor, and patterns of the names of their files."""
    path = os.path.join(folder, "processor_config.json")
    processor = read_json_object(path) if os.path.exists(path) else {}
    name, parts = processor.get("frame_encoder_type"), dict[str, tuple[str, ...]](codec=MODEL_FILES)
    if name is not None:
        from ..model.frame_encoder_families import FRAME_ENCODERS  # takes seconds to import

        family = FRAME_ENCODERS.get(name)
        parts = {getattr(family, "part", "codec"): getattr(family, "files", ANY_FILES)}
    if processor.get("sequence_vector", "clap") == "clap":
        parts["clap"] = MODEL_FILES
        if processor.get("clap_text_source") is not None:
            parts["clap_text"] = (*MODEL_FILES, *TOKENIZER_FILES)
    return parts


def find_missing_parts(folder: str, on_this_machine: bool = False) -> list[str]:
    """What a folder lacks to be a complete repository, apart from code: a phrase for each part.

    Args:
        folder: to look into.
        on_this_machine: True accepts encoders in another place on this machine, as a Trainer's checkpoint has them.
    """
    if not os.path.isdir(folder):
        return ["everything: there is no such folder"]
    missing = [] if _has_model(folder) else ["the model (config.json, model.safetensors)"]
    if not any(os.path.exists(os.path.join(folder, name)) for name in ("tokenizer.json", "vocab.json")):
        missing.append("the tokenizer (tokenizer.json)")
    path = os.path.join(folder, "processor_config.json")
    if not os.path.exists(path):
        return [*missing, "the processor (processor_config.json)"]
    processor = read_json_object(path)
    for name, files in list_encoder_files(folder).items():
        source = check_source(processor.get(f"{name}_source") or {"subfolder": name}, f"{name}_source")
        place, subfolder = source.get("repo_id", ""), source.get("subfolder", name)
        if "fingerprint" in source and on_this_machine:
            place = read_places(folder).get(name)
            if not isinstance(place, str) or not os.path.isdir(place):
                place = place or "an encoder of another machine"
                missing.append(f"{name} (the processor refers to {place}, which does not exist)")
        elif "fingerprint" in source:
            missing.append(f"{name}/ (the folder is a checkpoint, which refers to encoders of its own machine)")
        elif os.path.isabs(place) and on_this_machine:
            place = os.path.join(place, source.get("subfolder", ""))
            if not os.path.isdir(place):
                missing.append(f"{name} (the processor refers to {place}, which does not exist)")
        elif os.path.isabs(place):
            missing.append(f"{name}/ (the processor refers to {place}, a place on this machine)")
        elif not place and not _has_files(os.path.join(folder, subfolder), files):
            named = [file for file in files[:2] if "*" not in file]
            missing.append(f"{subfolder}/ ({', '.join(named) or 'its files'})")
    return missing


def read_places(checkpoint: str) -> dict:
    """Folders of a checkpoint's encoders on this machine, where it was written here."""
    path = os.path.join(checkpoint, PLACES_FILE)
    return read_json_object(path) if os.path.exists(path) else {}


def has_remote_code(folder: str) -> bool:
    """Whether a complete repository can be loaded without the package."""
    files = [*list_code_files(), "requirements.txt"]
    configs = [read_json(os.path.join(folder, name)) for name in ("config.json", "processor_config.json")]
    return all("auto_map" in config for config in configs) and set(files) <= set(os.listdir(folder))


def _has_model(folder: str) -> bool:
    """Whether a folder holds a configuration and weights, in one file or in all the shards that its index names."""
    index = os.path.join(folder, "model.safetensors.index.json")
    files = {"config.json", "model.safetensors"}
    if os.path.exists(index):
        files = {"config.json", *read_index(index).values()}
    return all(os.path.exists(os.path.join(folder, name)) for name in files)


def _has_files(folder: str, files: tuple[str, ...]) -> bool:
    """Whether a folder holds an encoder that consists of such files."""
    if WEIGHTS in files:
        return _has_model(folder)
    present = os.listdir(folder) if os.path.isdir(folder) else []
    return all(any(matches(name, (pattern,)) for name in present) for pattern in files)


def _link_weights(source: str, target: str) -> None:
    """Copy a file, but refer to weights, which are large and never changed here, where links can be made."""
    if source.endswith((".safetensors", ".onnx")):
        try:
            os.symlink(os.path.realpath(source), target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)
