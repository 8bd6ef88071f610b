"""Loads the captioning pipeline of `enclap caption`; what cannot be loaded is said before anything is tried."""

import argparse
import os
import re


def load_pipeline(args: argparse.Namespace):
    """The captioning pipeline for the wanted model, device and number type.

    Raises:
        ValueError: the model is none of ours or incomplete, or the device is not there.
        OSError: the Hub has no such model, or cannot be reached.
    """
    import torch
    import transformers
    from transformers import pipeline

    from ..hub.registration import DEFAULT_MODEL
    from ..model.model_files import ModelFileError

    transformers.utils.logging.disable_progress_bar()
    if args.device is not None:
        check_device(args.device)
    model = DEFAULT_MODEL if args.model is None else os.path.expanduser(args.model)
    try:
        if os.path.isdir(model):
            check_folder(model, args.trust_remote_code)
        else:
            check_hub_name(model, args.revision)
        captioner = pipeline(
            "audio-captioning",
            model=model,
            revision=args.revision,
            device=args.device,
            dtype=getattr(torch, args.dtype) if args.dtype else "auto",
            trust_remote_code=args.trust_remote_code or None,
        )
        load_encoders(captioner.processor)
    except ModelFileError as error:
        raise ValueError(str(error)) from error
    return captioner


def load_encoders(processor) -> None:
    """Load both encoders, so that damage is known before the first recording."""
    for encoder in (processor.frame_encoder, processor.clap_encoder):
        getattr(encoder, "model", None)


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
    """Refuse a folder that holds another model, or not all of ours."""
    from ..hub.export import find_missing_parts
    from ..model.model_files import read_json_object

    config = os.path.join(folder, "config.json")
    if os.path.lexists(config):
        check_model_type(folder, read_json_object(config))
    from ..model.repository_checks import check_repository

    missing = find_missing_parts(folder, on_this_machine=True)
    if missing:
        raise ValueError(
            f"--model {folder} lacks {', '.join(missing)}. Write what is missing with `model.save_pretrained` and "
            "`processor.save_pretrained(FOLDER, include_encoders=True)`."
        )
    check_repository(folder, own_code_only=trusts_code)


def check_hub_name(name: str, revision: str | None) -> None:
    """Refuse what is a path and no folder, another model on the Hub, and one without a processor."""
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
        raise OSError(f"--model {name} is no folder, and could not be loaded from the Hub: {error}") from error


def check_model_type(model: str, config: dict) -> None:
    """Refuse a model of another kind."""
    from ..model.configuration_enclap import EnClapConfig

    model_type = config.get("model_type")
    if model_type == "bart":
        raise ValueError(
            f"--model {model} is a published checkpoint or a BART; `enclap convert` makes a repository that can "
            "caption out of a published checkpoint."
        )
    if model_type != EnClapConfig.model_type:
        raise ValueError(f"--model {model} is of model type {model_type}; expected {EnClapConfig.model_type}.")
