"""Uploads a folder that holds a complete repository, and says what another one lacks.

`model/repository.py` writes such folders; the Trainer and `enclap push` end here.
"""

import os
import shutil
import tempfile

from huggingface_hub import CommitInfo

from ..model.encoder_sources import check_source
from ..model.model_files import read_index, read_json_object
from ..model.repository import add_remote_code, list_code_files, read_json, upload_folder

# What lies in a Trainer's output folder beside the repository. `training_args.bin` is a pickle, and may hold a token.
NOT_UPLOADED = (
    *("checkpoint-*", "_*", "__pycache__", "training_args.bin"),
    *("optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json"),
)


def push_repository(folder: str, repo_id: str, **upload) -> CommitInfo:
    """Upload a folder that holds a complete repository; the folder stays as it is.

    What the folder lacks of code and requirements is added to what is uploaded. What a Trainer leaves beside a
    repository is not uploaded.

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
        raise ValueError(
            f"{folder} is no complete repository; it lacks {', '.join(missing)}. Load model and processor with "
            "`from_pretrained`, and save both into one folder with their `save_pretrained`."
        )
    with tempfile.TemporaryDirectory() as copy:
        ignored = shutil.ignore_patterns(*NOT_UPLOADED)
        shutil.copytree(folder, copy, ignore=ignored, copy_function=_link_weights, dirs_exist_ok=True)
        if not has_remote_code(copy):
            add_remote_code(copy)
        return upload_folder(copy, repo_id, **upload)


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
    for name in ("codec", "clap"):
        source = check_source(processor.get(f"{name}_source") or {"subfolder": name}, f"{name}_source")
        place = source.get("repo_id", "")
        if os.path.isabs(place) and on_this_machine:
            place = os.path.join(place, source.get("subfolder", ""))
            if not os.path.isdir(place):
                missing.append(f"{name} (the processor refers to {place}, which does not exist)")
        elif os.path.isabs(place):
            missing.append(f"{name}/ (the processor refers to {place}, a place on this machine)")
        elif not place and not _has_model(os.path.join(folder, source.get("subfolder", ""))):
            missing.append(f"{source.get('subfolder', '')}/ (config.json, model.safetensors)")
    return missing


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


def _link_weights(source: str, target: str) -> None:
    """Copy a file, but refer to weights, which are large and never changed here, where links can be made."""
    if source.endswith(".safetensors"):
        try:
            os.symlink(os.path.abspath(source), target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)
