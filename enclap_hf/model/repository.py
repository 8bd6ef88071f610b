"""Writes and uploads what a captioner consists of: model, processor with its encoders, and the code to load them.

The repository loads with the package installed, and without it through `trust_remote_code=True`. This file travels in
it too, so that what was loaded from a repository is saved and pushed as completely as what the package made.
"""

import json
import os
import re
import shutil
import tempfile

from huggingface_hub import CommitInfo, HfApi
from transformers.utils import cached_file

# Whether this code was loaded from a repository, by `trust_remote_code`, and not with the package.
RUNS_FROM_REPOSITORY = __name__.startswith("transformers_modules.")
CODE_FOLDER = os.path.dirname(os.path.abspath(__file__))
# Run by Inference Endpoints, which looks for this name.
HANDLER_FILE = "handler.py"
REQUIREMENTS = ("torch", "transformers>=5.0,<6", "numpy", "soundfile", "soxr")
MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_enclap.EnClapConfig",
    "AutoModel": "modeling_enclap.EnClapModel",
    "AutoModelForSeq2SeqLM": "modeling_enclap.EnClapForConditionalGeneration",
    "AutoModelForSpeechSeq2Seq": "modeling_enclap.EnClapForConditionalGeneration",
}
PROCESSOR_AUTO_MAP = {
    "AutoProcessor": "processing_enclap.EnClapProcessor",
    "AutoFeatureExtractor": "feature_extraction_enclap.EnClapFeatureExtractor",
}
CUSTOM_PIPELINES = {
    "audio-captioning": {
        "impl": "pipeline.AudioCaptioningPipeline",
        "pt": ["AutoModelForSeq2SeqLM"],
        "type": "audio",
    }
}
# What tells that a folder holds a part.
PART_FILES = {"model": "config.json", "processor": "processor_config.json"}


def save_repository(model, processor, save_directory: str, **kwargs) -> None:
    """Write everything that a stranger needs to caption with this model.

    Args:
        model: [`EnClapForConditionalGeneration`].
        processor: [`EnClapProcessor`]; its encoders are written too, unless they are on the Hub.
        save_directory: made when missing.
        kwargs: of the model's `save_pretrained`.
    """
    processor.check_captioner(model.config)
    model.save_pretrained(save_directory, **kwargs)
    processor.save_pretrained(save_directory)


def add_remote_code(save_directory: str, origin: str | None = None) -> None:
    """Add the code files, and the entries of config.json and processor_config.json that point to them.

    Args:
        save_directory: holds a saved model, a saved processor, or both.
        origin: folder or Hub name of the repository that this code was loaded from; the package needs none.
    """
    entries = [] if RUNS_FROM_REPOSITORY else list_entry_files()  # of a repository, it was done before
    for name in list_code_files():
        with open(os.path.join(CODE_FOLDER, name), encoding="utf-8") as file:
            code = file.read()
        write_text(os.path.join(save_directory, name), code + (name_code_files(name) if name in entries else ""))
    if RUNS_FROM_REPOSITORY and HANDLER_FILE not in list_code_files() and origin is not None:
        # transformers copies what is imported, and nothing imports the handler.
        handler = cached_file(origin, HANDLER_FILE, _raise_exceptions_for_missing_entries=False)
        if handler is not None:
            shutil.copyfile(handler, os.path.join(save_directory, HANDLER_FILE))
    write_text(os.path.join(save_directory, "requirements.txt"), "".join(f"{line}\n" for line in REQUIREMENTS))
    path = os.path.join(save_directory, "config.json")
    if os.path.exists(path):
        update_json(path, {"auto_map": MODEL_AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES})
    path = os.path.join(save_directory, "processor_config.json")
    if os.path.exists(path):
        feature_extractor = {**read_json(path)["feature_extractor"], "auto_map": PROCESSOR_AUTO_MAP}
        update_json(path, {"auto_map": PROCESSOR_AUTO_MAP, "feature_extractor": feature_extractor})


def list_entry_files() -> list[str]:
    """Names of the files that transformers starts from."""
    entries = [*MODEL_AUTO_MAP.values(), *PROCESSOR_AUTO_MAP.values(), CUSTOM_PIPELINES["audio-captioning"]["impl"]]
    return sorted({f"{entry.partition('.')[0]}.py" for entry in entries})


def name_code_files(entry: str) -> str:
    """Lines for the end of an entry file: transformers 5.0 copies only the files that it names itself."""
    modules = [name.removesuffix(".py") for name in list_code_files() if name not in (entry, HANDLER_FILE)]
    lines = [f"    from .{module} import __name__  # noqa: F401" for module in modules]
    return "\n".join(["\n\nif False:  # names all files of this folder, for transformers 5.0 to copy", *lines, ""])


def is_checkpoint_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder is one of a Trainer's checkpoints, which hold no code and refer to the encoders."""
    return re.fullmatch(r"checkpoint-\d+", os.path.basename(os.path.normpath(folder))) is not None


def list_code_files() -> list[str]:
    """Names of the files of code that travel with a model: every file of this folder."""
    names = sorted(name for name in os.listdir(CODE_FOLDER) if name.endswith(".py"))
    return [name for name in names if name != "__init__.py"]


def push_parts(
    repo_id: str,
    *,
    model=None,
    processor=None,
    include_encoders: bool | None = None,
    max_shard_size: int | str | None = None,
    **upload,
) -> CommitInfo:
    """Upload a model, a processor, or both in one commit, with the code that loads them.

    Args:
        repo_id: "name" or "owner/name".
        model: [`EnClapForConditionalGeneration`] or None.
        processor: [`EnClapProcessor`] or None.
        include_encoders: as in [`EnClapProcessor.save_pretrained`].
        max_shard_size: as in `PreTrainedModel.save_pretrained`.
        upload: keyword arguments of [`push_repository`].
    Returns:
        the commit; as a string, its address.
    Raises:
        HfHubHTTPError: the Hub refuses.
    """
    if model is not None and processor is not None:
        processor.check_captioner(model.config)
    with tempfile.TemporaryDirectory() as folder:
        if model is not None:
            model.save_pretrained(folder, **({"max_shard_size": max_shard_size} if max_shard_size else {}))
        if processor is not None:
            processor.save_pretrained(folder, include_encoders=include_encoders)
        return upload_folder(folder, repo_id, **upload)


def update_json(path: str, entries: dict) -> None:
    """Set top-level entries of a JSON file."""
    write_text(path, json.dumps({**read_json(path), **entries}, indent=2, sort_keys=True) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a file at once: an upload that runs beside a training may read it at any time."""
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f"_{name}.part-{os.getpid()}")  # uploads of a Trainer pass such names over
    with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    os.replace(unfinished, path)


def read_json(path: str) -> dict:
    """The content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def upload_folder(
    folder: str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    create_pr: bool = False,
    tags: list[str] | None = None,
) -> CommitInfo:
    """Upload a folder of ours in one commit, with a short card if neither it nor the Hub's repository has one."""
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    card = os.path.join(folder, "README.md")
    if not os.path.exists(card) and not api.file_exists(repo_id, "README.md", revision=revision):
        with open(card, "w", encoding="utf-8") as file:
            file.write(write_short_card(repo_id, tags or []))
    parts = [name for name, file in PART_FILES.items() if os.path.exists(os.path.join(folder, file))]
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        commit_message=commit_message or f"Upload {' and '.join(parts)}",
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


def write_short_card(repo_id: str, tags: list[str]) -> str:
    """A card that says how to load the repository, for want of a better one."""
    metadata = "\n".join(f"- {tag}" for tag in dict.fromkeys(["enclap", "audio-captioning", *tags]))
    return f"""---
library_name: enclap-hf
tags:
{metadata}
---

# {repo_id.rsplit("/", 1)[-1]}

An [EnCLAP](https://arxiv.org/abs/2401.17690) audio captioner: it writes one sentence about a sound recording.

```python
from transformers import pipeline

caption = pipeline("audio-captioning", model="{repo_id}", trust_remote_code=True)
print(caption("recording.wav"))
```

With the package `enclap-hf` installed and imported, `trust_remote_code` is not needed.
"""
