"""Loads the captioning pipeline of `enclap caption`; what cannot be loaded is refused before the weights are read."""

import argparse
import fnmatch
import hashlib
import os
import re
from dataclasses import dataclass

# Files of a repository that captions depend on, in its folder and in those of its encoders.
CAPTIONING_FILES = (
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("*.safetensors", "*.safetensors.index.json", "*.onnx", "*.onnx_data"),
)


@dataclass(frozen=True)
class ModelIdentity:
    """Which model, and which state of it.

    Args:
        name: folder or Hub repository, as it was passed; "default" for the bundled one.
        revision: as it was passed.
        commit: of a Hub repository, where the Hub or its cache tells.
        fingerprint: of a folder, see [`fingerprint_folder`].
    """

    name: str
    revision: str | None = None
    commit: str | None = None
    fingerprint: str | None = None


def find_model(args: argparse.Namespace, with_fingerprint: bool = False) -> ModelIdentity:
    """Check the wanted model and device as far as can be done without loading the weights.

    Args:
        args: of the command.
        with_fingerprint: whether a folder's files are read to tell its state.
    Raises:
        ValueError: the folder or repository holds another kind of model or lacks a part, or the device is not there.
        OSError: the Hub has no such model, or cannot be reached.
    """
    import transformers

    from ..model.model_files import ModelFileError

    transformers.utils.logging.disable_progress_bar()
    if args.device is not None:
        check_device(args.device)
    name = args.model or "default"
    folder = find_folder(args.model)
    if os.path.isdir(folder):
        try:
            check_folder(folder, args.trust_remote_code)
        except ModelFileError as error:
            raise ValueError(str(error)) from error
        return ModelIdentity(name, args.revision, None, fingerprint_folder(folder) if with_fingerprint else None)
    return ModelIdentity(name, args.revision, check_hub_name(folder, args.revision))


def load_pipeline(args: argparse.Namespace, model: ModelIdentity):
    """The captioning pipeline for the wanted model, device and number type.

    Args:
        args: of the command.
        model: what [`find_model`] found for them; of a Hub repository just this commit is loaded.
    Raises:
        ValueError, OSError, RuntimeError: it cannot be loaded.
    """
    import torch
    from transformers import pipeline

    from ..model.model_files import ModelFileError

    try:
        captioner = pipeline(
            "audio-captioning",
            model=find_folder(args.model),
            revision=model.commit or args.revision,
            device=args.device,
            dtype=getattr(torch, args.dtype) if args.dtype else "auto",
            trust_remote_code=args.trust_remote_code or None,
            model_kwargs={"backend": args.backend},
        )
        captioner.processor.load_encoders()
    except (ModelFileError, ImportError) as error:
        raise ValueError(str(error)) from error
    return captioner


def find_folder(model: str | None) -> str:
    """Folder or Hub name of a model; None is the bundled one."""
    from ..hub.registration import DEFAULT_MODEL

    return os.path.expanduser(model) if model else DEFAULT_MODEL


def fingerprint_folder(folder: str) -> str:
    """SHA-256 of the files of a local repository that captions depend on, those of its encoders among them.

    Encoders in other folders of this machine are read where the processor refers to them.
    """
    from ..model.repository import read_json

    total = hashlib.sha256()
    places = {"": folder}
    places |= {entry.name: entry.path for entry in os.scandir(folder) if entry.is_dir() and is_part(entry.name)}
    processor = read_json(os.path.join(folder, "processor_config.json"))
    for name in ("codec", "clap", "clap_text"):
        source = processor.get(f"{name}_source")
        place = source.get("repo_id") if isinstance(source, dict) else None
        if isinstance(place, str) and os.path.isdir(place):
            places[name] = os.path.join(place, source.get("subfolder") or "")
    for part, place in sorted(places.items()):
        for name in sorted(os.listdir(place) if os.path.isdir(place) else ()):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in CAPTIONING_FILES):
                total.update(f"{part}/{name} {hash_file(os.path.join(place, name))}\n".encode())
    return total.hexdigest()


def is_part(name: str) -> bool:
    """Whether a sub-folder can belong to a repository, and is not a Trainer's checkpoint or hidden."""
    return not name.startswith((".", "_", "checkpoint-"))


def hash_file(path: str) -> str:
    """SHA-256 of a file's content."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            content.update(block)
    return content.hexdigest()


def check_device(name: str) -> None:
    """Refuse a device that is not there."""
    import torch

    devices = list_devices()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (device.type != "cpu" and f"{device.type}:{device.index or 0}" not in devices):
        build = "; this torch is built without CUDA" if name.startswith("cuda") and torch.version.cuda is None else ""
        raise ValueError(f"Got --device {name}; the devices here are {', '.join(devices)}{build}.")


def list_devices() -> list[str]:
    """Names of the devices that torch can use here."""
    import torch

    if not torch.accelerator.is_available():
        return ["cpu"]
    kind = torch.accelerator.current_accelerator().type
    return ["cpu", *(f"{kind}:{i}" for i in range(torch.accelerator.device_count()))]


def check_folder(folder: str, trusts_code: bool = False) -> None:
    """Refuse a folder that holds another kind of model, or lacks a part of this one."""
    from ..hub.export import find_missing_parts
    from ..model.model_files import read_json_object

    config = os.path.join(folder, "config.json")
    if os.path.lexists(config):
        check_model_type(folder, read_json_object(config))
    from ..model.repository_checks import check_repository

    missing = find_missing_parts(folder, on_this_machine=True)
    if missing:
        raise ValueError(
            f"--model {folder} lacks {', '.join(missing)}. Save what is missing with `model.save_pretrained` and "
            "`processor.save_pretrained(FOLDER, include_encoders=True)`."
        )
    check_repository(folder, own_code_only=trusts_code)


def check_hub_name(name: str, revision: str | None) -> str | None:
    """Refuse a path that is not a folder, another kind of model on the Hub, and one without a processor.

    Returns:
        the commit of the revision, where the Hub or its cache tells.
    """
    from transformers.utils import cached_file

    from ..model.configuration_enclap import EnClapConfig

    if os.path.exists(name):
        raise ValueError(f"Got --model {name}, which is a file; pass the folder that holds it.")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name, re.ASCII):
        raise ValueError(f"Got --model {name}: there is no such folder. Pass a folder, or OWNER/NAME of the Hub.")
    try:
        config, _ = EnClapConfig.get_config_dict(name, revision=revision)
        check_model_type(name, config)
        cached_file(name, "processor_config.json", revision=revision)
    except OSError as error:
        raise OSError(f"--model {name} is not a folder, and could not be loaded from the Hub: {error}") from error
    return config.get("_commit_hash")


def check_model_type(model: str, config: dict) -> None:
    """Refuse a model of another kind."""
    from ..model.configuration_enclap import EnClapConfig

    model_type = config.get("model_type")
    if model_type == "bart":
        raise ValueError(
            f"--model {model} is a published checkpoint or a BART; turn a published checkpoint into a repository that "
            "can caption with `enclap convert`."
        )
    if model_type != EnClapConfig.model_type:
        raise ValueError(f"--model {model} is of model type {model_type}; expected {EnClapConfig.model_type}.")
