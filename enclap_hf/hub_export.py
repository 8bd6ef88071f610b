"""Writes and uploads a repository for the Hub: model, processor with both encoders, and the code to load them.

The repository loads with the package installed, and without it through `trust_remote_code=True`. This is the one place
that knows what belongs to it: `push_to_hub` of model, processor and pipeline, the Trainer and `enclap push` end here.
"""

import json
import os
import shutil
import tempfile

from huggingface_hub import CommitInfo, HfApi

# Shipped flat beside the weights; each imports the others as `from .x import y`.
CODE_FILES = (
    *("configuration_enclap.py", "modeling_enclap.py", "encoder_enclap.py", "generation_enclap.py", "losses_enclap.py"),
    *("onednn_linear.py", "audio_loading.py", "feature_extraction_enclap.py"),
    *("audio_formats.py", "audio_errors.py", "audio_arrays.py", "audio_bytes.py", "audio_memory.py"),
    *("audio_headers.py", "audio_links.py", "audio_decoding.py", "audio_av.py", "audio_reader.py", "audio_sources.py"),
    *("audio_resampling.py", "audio_chatter.py"),
    *("codec_encoder.py", "audio_encoders.py"),
    *("data_collator.py", "processing_enclap.py", "pipeline.py"),
)
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
# What lies in a Trainer's output folder beside the repository. `training_args.bin` is a pickle, and may hold a token.
NOT_UPLOADED = (
    *("checkpoint-*", "_*", "__pycache__", "training_args.bin"),
    *("optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json"),
)


def save_repository(model, processor, save_directory: str, **kwargs) -> None:
    """Write everything that a stranger needs to caption with this model.

    Args:
        model: [`EnClapForConditionalGeneration`].
        processor: [`EnClapProcessor`]; its two encoders are written too.
        save_directory: made when missing.
        kwargs: of the model's `save_pretrained`.
    """
    model.save_pretrained(save_directory, **kwargs)
    processor.save_pretrained(save_directory, include_encoders=True)
    add_remote_code(save_directory)


def add_remote_code(save_directory: str) -> None:
    """Add the code files, and the entries of config.json and processor_config.json that point to them.

    Args:
        save_directory: holds a saved model, a saved processor, or both.
    """
    source = os.path.dirname(os.path.abspath(__file__))
    for name in list_code_files():
        shutil.copyfile(os.path.join(source, name), os.path.join(save_directory, name))
    with open(os.path.join(save_directory, "requirements.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{requirement}\n" for requirement in REQUIREMENTS)
    path = os.path.join(save_directory, "config.json")
    if os.path.exists(path):
        update_json(path, {"auto_map": MODEL_AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES})
    path = os.path.join(save_directory, "processor_config.json")
    if os.path.exists(path):
        feature_extractor = {**read_json(path)["feature_extractor"], "auto_map": PROCESSOR_AUTO_MAP}
        update_json(path, {"auto_map": PROCESSOR_AUTO_MAP, "feature_extractor": feature_extractor})


def list_code_files() -> list[str]:
    """Names of the files of code that travel with a model."""
    has_handler = os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), HANDLER_FILE))
    return [*CODE_FILES, HANDLER_FILE] if has_handler else list(CODE_FILES)


def push_parts(
    repo_id: str,
    *,
    model=None,
    processor=None,
    include_encoders: bool = True,
    max_shard_size: int | str | None = None,
    **upload,
) -> CommitInfo:
    """Upload a model, a processor, or both in one commit, with the code that loads them.

    Args:
        repo_id: "name" or "owner/name".
        model: [`EnClapForConditionalGeneration`] or None.
        processor: [`EnClapProcessor`] or None.
        include_encoders: False uploads references to the two encoders instead of their weights.
        max_shard_size: as in `PreTrainedModel.save_pretrained`.
        upload: keyword arguments of [`push_repository`].
    Returns:
        the commit; as a string, its address.
    Raises:
        HfHubHTTPError: the Hub refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        if model is not None:
            model.save_pretrained(folder, **({"max_shard_size": max_shard_size} if max_shard_size else {}))
        if processor is not None:
            processor.save_pretrained(folder, include_encoders=include_encoders)
        add_remote_code(folder)
        return _upload(folder, repo_id, **upload)


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
            "`from_pretrained` and write one with `enclap_hf.hub_export.save_repository(model, processor, FOLDER)`."
        )
    with tempfile.TemporaryDirectory() as copy:
        ignored = shutil.ignore_patterns(*NOT_UPLOADED)
        shutil.copytree(folder, copy, ignore=ignored, copy_function=_link_weights, dirs_exist_ok=True)
        if not has_remote_code(copy):
            add_remote_code(copy)
        return _upload(copy, repo_id, **upload)


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
    processor = read_json(path)
    for name in ("codec", "clap"):
        source = processor.get(f"{name}_source") or {"subfolder": name}
        place = source.get("repo_id", "")
        if os.path.isabs(place) and on_this_machine:
            place = os.path.join(place, source.get("subfolder", ""))
            if not os.path.isdir(place):
                missing.append(f"{name} (the processor refers to {place}, which does not exist)")
        elif os.path.isabs(place):
            missing.append(f"{name}/ (the processor refers to {place}, a place on this machine)")
        elif not place and not _has_model(os.path.join(folder, source["subfolder"])):
            missing.append(f"{source['subfolder']}/ (config.json, model.safetensors)")
    return missing


def has_remote_code(folder: str) -> bool:
    """Whether a complete repository can be loaded without the package."""
    files = [*list_code_files(), "requirements.txt"]
    configs = [read_json(os.path.join(folder, name)) for name in ("config.json", "processor_config.json")]
    return all("auto_map" in config for config in configs) and set(files) <= set(os.listdir(folder))


def update_json(path: str, entries: dict) -> None:
    """Set top-level entries of a JSON file."""
    content = {**read_json(path), **entries}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")


def read_json(path: str) -> dict:
    """The content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _has_model(folder: str) -> bool:
    """Whether a folder holds a configuration and weights, in one file or in all the shards that its index names."""
    index = os.path.join(folder, "model.safetensors.index.json")
    files = {"config.json", "model.safetensors"}
    if os.path.exists(index):
        files = {"config.json", *read_json(index)["weight_map"].values()}
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


def _upload(
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
