"""What is checked of a saved model before and after it is loaded, so that damage is one line and never a caption.

    files      there, whole, readable; JSON says only what it may (`model_fields.py`, `model_files.py`)
    sizes      the tensors that a configuration calls for, compared with the header of the weights before any memory is
               taken for them
    weights    none missing, none of another name or size, all finite

`load_checked` guards one `from_pretrained`, `config_checks.py` does so for one configuration and
`repository_checks.py` for a whole folder.
"""

import contextlib
import logging
import math
import os
import threading
from typing import NamedTuple

from torch import nn
from torch.nn.modules import module as torch_modules
from transformers import PretrainedConfig
from transformers.utils import cached_file

from .config_checks import (
    CONFIGURATION,
    GENERATION,
    MODEL_TYPE,
    NEEDED_FIELDS,
    NEEDED_FOR_CODES,
    check_captioner_fields,
    check_generation_file,
    refuse_adapter,
)
from .model_fields import refuse_commands, wrong_value
from .model_files import (
    WEIGHTS,
    WEIGHTS_INDEX,
    TensorEntry,
    describe_cause,
    file_error,
    read_header,
    read_index,
    read_json_object,
    shorten,
)
from .weight_checks import check_finite, check_indices

logger = logging.getLogger(__name__)

# Held while a model is loaded, which changes the default device and number type of the whole process.
LOADING = threading.RLock()
# Arguments of `from_pretrained` that say where a repository is, and so apply to the files that are checked.
ACCESS_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
# Tensors of a BART's own; what else a captioner has may be missing of one, and is then trained from the start.
BART_TENSORS = (
    *("model.shared.", "model.decoder.", "model.encoder.embed_tokens.", "model.encoder.embed_positions."),
    *("model.encoder.layernorm_embedding.", "model.encoder.layers.", "final_logits_bias", "lm_head."),
)
# Modules of a captioner; a subclass may add others.
OWN_TENSORS = ("model.", "mcm_heads.", "final_logits_bias", "lm_head.", "shared.", "encoder.", "decoder.")
FLOATS = ("F16", "BF16", "F32", "F64")
# How much more may be built than what a file holds: a codec is stored without its decoder, and a tensor is registered
# when it is made, when it is loaded, and where it is shared.
SLACK_FACTOR, SLACK_TENSORS, SLACK_ELEMENTS = 8, 1000, 1 << 20


def read_headers(folder: str) -> dict[str, TensorEntry]:
    """What the weights of a folder hold, from one file or from all that its index names.

    Raises:
        ModelFileError: a file is missing or damaged, or holds other tensors than the index says.
    """
    index = os.path.join(folder, WEIGHTS_INDEX)
    if os.path.lexists(os.path.join(folder, WEIGHTS)) or not os.path.lexists(index):
        return read_header(os.path.join(folder, WEIGHTS))
    entries, shards = {}, read_index(index)
    for file in sorted(set(shards.values())):
        header = read_header(os.path.join(folder, file))
        wanted = {name for name, place in shards.items() if place == file}
        for name in sorted(wanted ^ set(header)):
            where = "lacks" if name in wanted else "holds"
            raise file_error(os.path.join(folder, file), f"it {where} tensor {shorten(name)}, unlike its index says.")
        entries.update(header)
    return entries


def load_checked(load, model_class: type, place: str | os.PathLike | None, *args, **kwargs):
    """Run a `from_pretrained` between [`check_model_folder`] and [`check_loaded`]; other threads wait.

    Args:
        load: the `from_pretrained` of the class above `model_class`, or its own where it is a stock one.
        model_class: what is loaded.
        place: folder or Hub repository.
        args, kwargs: of `from_pretrained`.
    Returns:
        what `load` returns.
    Raises:
        ModelFileError: a file is damaged, or weights are missing, of other names or sizes, or not finite.
    """
    with LOADING:
        return _load_checked(load, model_class, place, *args, **kwargs)


def _load_checked(load, model_class: type, place: str | os.PathLike | None, *args, **kwargs):
    """[`load_checked`] in the one thread that loads."""
    wants_info = kwargs.pop("output_loading_info", False)
    if place is None or kwargs.get("state_dict") is not None or kwargs.get("gguf_file") is not None:
        loaded = load(place, *args, output_loading_info=True, **kwargs)
        return loaded if wants_info else loaded[0]
    checked = check_model_folder(place, kwargs, model_class)
    may_differ = kwargs.pop("ignore_mismatched_sizes", False)
    # Tensors of other sizes come with what `load` returns, to be told in one line as missing ones are.
    options = {"output_loading_info": True, "ignore_mismatched_sizes": may_differ or checked.entries is not None}
    with explained_building(checked, kwargs):
        model, info = load(place, *args, **options, **kwargs)
    if not may_differ:
        refuse_mismatched(info, checked.folder)
    check_loaded(model, info, checked.folder, has_own_config(kwargs, checked.fields), checked.entries)
    return (model, info) if wants_info else model


class CheckedFolder(NamedTuple):
    """A folder whose files were checked; `entries` is None where its weights are not safetensors, or quantised.

    Attributes:
        fields: of its config.json.
    """

    folder: str
    fields: dict
    entries: dict[str, TensorEntry] | None


@contextlib.contextmanager
def explained_building(checked: CheckedFolder, kwargs: dict):
    """Say in one line that a configuration describes no model, or one that is larger than its weights."""
    limits = (1 << 60, 1 << 60)
    if checked.entries is not None:
        num_elements = sum(math.prod(entry.shape) for entry in checked.entries.values())
        limits = (SLACK_FACTOR * len(checked.entries) + SLACK_TENSORS, SLACK_FACTOR * num_elements + SLACK_ELEMENTS)
    path = os.path.join(checked.folder, CONFIGURATION)
    loader = logging.getLogger("transformers.modeling_utils")
    loader.addFilter(is_no_report)
    try:
        with limited_building(*limits):
            yield
    except TooLarge as error:
        raise file_error(path, f"it describes a model of {error}, unlike the weights beside it.") from None
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a model's parts refuse sizes and names that fit nothing in all kinds of ways
        if has_own_config(kwargs, checked.fields) or any(repr(name) in str(error) for name in kwargs):
            raise  # it concerns what the caller passed
        raise file_error(path, f"no model can be built from it ({describe_cause(error)}).") from error
    finally:
        loader.removeFilter(is_no_report)


def is_no_report(record: logging.LogRecord) -> bool:
    """Whether a message is other than the table of missing tensors, which are told here in one line."""
    return "LOAD REPORT" not in str(record.msg)


def has_own_config(kwargs: dict, fields: dict) -> bool:
    """Whether a caller brings a configuration of other sizes than the file's, of which its tensors may be a part."""
    names = [name for name in (*NEEDED_FIELDS, *NEEDED_FOR_CODES) if name in fields]
    config = kwargs.get("config")
    if isinstance(config, PretrainedConfig):
        return any(getattr(config, name, None) != fields[name] for name in names)
    return config is not None or any(kwargs.get(name, fields[name]) != fields[name] for name in names)


def check_model_folder(place: str | os.PathLike, kwargs: dict, model_class: type) -> CheckedFolder:
    """Check the configuration and the header of the weights of one model, before memory is taken for it.

    Args:
        place: folder or Hub repository; of the latter what is checked is downloaded.
        kwargs: of `from_pretrained`.
        model_class: what is to be loaded.
    Returns:
        the folder of the files, and what the weights hold.
    Raises:
        ModelFileError: a file is damaged, or the weights are not those that the configuration calls for.
    """
    config_path = find_file(place, CONFIGURATION, kwargs)
    if config_path is None:
        return CheckedFolder(os.fspath(place), {}, None)  # transformers says what is missing
    folder, fields = os.path.dirname(config_path), read_json_object(config_path)
    is_captioner = fields.get("model_type") == MODEL_TYPE
    besides = ("auto_map", *(("quantization_config",) if kwargs.get("quantization_config") is not None else ()))
    refuse_commands(fields, config_path, besides if is_captioner else ("auto_map", "quantization_config"))
    if is_captioner and kwargs.get("config") is None:
        check_captioner_fields(fields, config_path, model_class.config_class)
    if is_captioner:
        refuse_adapter(folder)
        if find_file(place, GENERATION, kwargs) is not None and kwargs.get("generation_config") is None:
            check_generation_file(folder, fields)
    if kwargs.get("use_safetensors") is False or kwargs.get("variant") is not None:
        return CheckedFolder(folder, fields, None)
    weights = find_file(place, WEIGHTS, kwargs) or find_file(place, WEIGHTS_INDEX, kwargs)
    if weights is None:
        if is_captioner or kwargs.get("use_safetensors"):
            raise file_error(os.path.join(folder, WEIGHTS), "there is no such file, and no index of several.")
        return CheckedFolder(folder, fields, None)
    if weights.endswith(WEIGHTS_INDEX):
        for file in sorted(set(read_index(weights).values())):
            find_file(place, file, kwargs)
    if is_quantised(fields, kwargs):
        return CheckedFolder(folder, fields, None)
    entries = read_headers(folder)
    check_counts(fields, entries, config_path)
    return CheckedFolder(folder, fields, entries)


def check_counts(fields: dict, entries: dict[str, TensorEntry], path: str) -> None:
    """Refuse more layers than there are tensors: each has one at least."""
    for name, value in fields.items():
        if name == "depths" or name.endswith(("layers", "codebooks", "quantizers")):
            counts = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
            if sum(counts) > len(entries):
                raise wrong_value(path, name, value, f"at most {len(entries)}, the number of tensors beside it")


def is_quantised(fields: dict, kwargs: dict) -> bool:
    """Whether the weights may be stored in another form than the model's."""
    return kwargs.get("quantization_config") is not None or fields.get("quantization_config") is not None


def find_file(place: str | os.PathLike, name: str, kwargs: dict) -> str | None:
    """A file of a folder or of a Hub repository on this machine; None where there is none."""
    place = os.fspath(place)
    if os.path.isdir(place):
        path = os.path.join(place, kwargs.get("subfolder") or "", name)
        return path if os.path.lexists(path) else None
    access = {key: kwargs[key] for key in ACCESS_ARGUMENTS if kwargs.get(key) is not None}
    return cached_file(place, name, **access, _raise_exceptions_for_missing_entries=False)


class TooLarge(Exception):
    """A model that is being built is larger than its weights are."""


@contextlib.contextmanager
def limited_building(max_tensors: int, max_elements: int):
    """Stop building a model, in this thread, when it has more tensors, modules or elements than allowed."""
    thread, counts = threading.get_ident(), {"tensors": 0, "modules": 0, "elements": 0}

    def count(kind: str, size: int = 0) -> None:
        if threading.get_ident() != thread:
            return
        counts[kind] += 1
        counts["elements"] += size
        if counts["tensors"] > max_tensors or counts["modules"] > 4 * max_tensors:
            raise TooLarge(f"more than {counts[kind] - 1} {kind}")
        if counts["elements"] > max_elements:
            raise TooLarge(f"more than {max_elements} numbers")

    hooks = [
        torch_modules.register_module_parameter_registration_hook(
            lambda module, name, parameter: count("tensors", 0 if parameter is None else parameter.numel())
        ),
        torch_modules.register_module_module_registration_hook(lambda module, name, child: count("modules")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def refuse_mismatched(info: dict, place: str) -> None:
    """Refuse tensors of other sizes than the configuration calls for."""
    for name, stored, expected in sorted(info["mismatched_keys"]):
        raise file_error(
            place,
            f"tensor {shorten(name)} has shape {tuple(stored)}, and {CONFIGURATION} calls for {tuple(expected)}.",
        )


def check_loaded(
    model: nn.Module, info: dict, place: str, is_part: bool = False, entries: dict[str, TensorEntry] | None = None
) -> None:
    """Refuse a model of which weights are missing, of other names or sizes, or not finite.

    Args:
        model: just loaded.
        info: as `from_pretrained(output_loading_info=True)` returns it.
        place: folder or repository, for messages.
        is_part: True where a caller's own configuration may leave some of the weights out.
        entries: of the weights' header, where it was read.
    Raises:
        ModelFileError: naming one of the tensors.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    is_captioner = getattr(model.config, "model_type", None) == MODEL_TYPE
    if is_captioner and reads_plain_bart(place):
        own = [name for name in missing if not name.startswith(BART_TENSORS)]
        missing = [name for name in missing if name.startswith(BART_TENSORS)]
        unexpected = []
        if own:
            logger.warning("%s is a BART; %d tensors start untrained: %s", place, len(own), ", ".join(summarise(own)))
    elif is_captioner:
        missing = [name for name in missing if name.startswith(OWN_TENSORS)]
        # A model without its heads leaves those of the file unread.
        unexpected = [name for name in unexpected if hasattr(model, "lm_head") and not is_part]
    else:
        unexpected = []
    if missing:
        raise file_error(place, f"the weights lack {name_some(missing)} of the model.")
    if unexpected:
        raise file_error(place, f"the weights hold {name_some(unexpected)} that the model has no place for.")
    for name, _ in model.named_parameters() if entries else ():
        if name in entries and entries[name].dtype not in FLOATS:
            raise file_error(place, f"tensor {shorten(name)} holds {entries[name].dtype}; expected floats.")
    check_finite(model, place)
    check_indices(model, place)


def reads_plain_bart(place: str) -> bool:
    """Whether a folder's configuration is a BART's."""
    path = os.path.join(place, CONFIGURATION)
    return os.path.isfile(path) and read_json_object(path).get("model_type") == "bart"


def summarise(names: list[str]) -> list[str]:
    """Names of modules, those of a list by the list's."""
    return sorted({name.split(".0.")[0] if ".0." in name else name.rpartition(".")[0] for name in names})[:8]


def name_some(names: list[str]) -> str:
    """The first of some tensors, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {shorten(names[0])}{more}"
