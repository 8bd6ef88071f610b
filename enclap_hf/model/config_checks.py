"""What a configuration may say, so that a damaged or a hostile one is one line and never a model."""

import copy
import os

from transformers import PretrainedConfig

from .model_fields import (
    check_code_entries,
    check_config_fields,
    check_generation,
    check_plain,
    refuse_commands,
    wrong_value,
)
from .model_files import ModelFileError, describe_cause, file_error, read_json_object
from .repository import MODEL_AUTO_MAP

MODEL_TYPE = "enclap"
CONFIGURATION, GENERATION = "config.json", "generation_config.json"
# Without these a captioner's configuration would quietly take the sizes of the published model; of all captioners,
NEEDED_FIELDS = ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads")
NEEDED_FIELDS += ("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings")
# and of those that read codes.
NEEDED_FOR_CODES = ("num_codebooks", "codec_vocab_size")


def build_config(config_class: type[PretrainedConfig], fields: dict, path: str) -> PretrainedConfig:
    """A configuration from its fields, or one line about why there is none."""
    try:
        return config_class.from_dict(copy.deepcopy(fields))
    except ModelFileError:
        raise
    except Exception as error:  # configurations check their fields with all kinds of exceptions
        raise file_error(path, f"it describes no model ({describe_cause(error)}).") from error


def load_config(config_class: type[PretrainedConfig], folder: str) -> PretrainedConfig:
    """`config_class.from_pretrained` of a folder, checked.

    Raises:
        ModelFileError: the file is missing, damaged, or says what it may not.
    """
    path = os.path.join(folder, CONFIGURATION)
    fields = read_json_object(path)
    refuse_commands(fields, path)
    check_plain(CONFIGURATION, fields, path)
    kind = fields.get("model_type")
    if kind == config_class.model_type:
        check_config_fields(fields, path, config_class)
    try:
        return config_class.from_pretrained(folder)
    except Exception as error:  # configurations check their fields with all kinds of exceptions
        raise file_error(path, f"it describes no model ({describe_cause(error)}).") from error


def check_captioner_fields(fields: dict, path: str, config_class: type, own_code_only: bool = False) -> None:
    """Refuse a config.json of a captioner that says what it may not, or lacks what it must say."""
    model_type = fields.get("model_type")
    if model_type != MODEL_TYPE:
        raise wrong_value(path, "model_type", model_type, MODEL_TYPE)
    check_config_fields(fields, path, config_class)
    refuse_commands(fields, path, besides=("auto_map",))
    check_code_entries(fields.get("auto_map"), MODEL_AUTO_MAP, path, own_code_only)
    for name in (*NEEDED_FIELDS, *(NEEDED_FOR_CODES if fields.get("frame_kind", "codes") == "codes" else ())):
        if fields.get(name) is None:
            raise file_error(path, f"it lacks the field `{name}`.")
    build_config(config_class, fields, path)


def check_generation_file(folder: str, fields: dict) -> None:
    """Refuse a generation_config.json that is not there, or says what no decoding of captions does."""
    path = os.path.join(folder, GENERATION)
    positions = fields.get("max_position_embeddings")
    check_generation(read_json_object(path), path, fields.get("vocab_size"), positions)


def refuse_adapter(folder: str) -> None:
    """Refuse an adapter beside a model: transformers would load the model that it names instead."""
    path = os.path.join(folder, "adapter_config.json")
    if os.path.lexists(path):
        raise file_error(
            path,
            "it makes transformers load another repository in the place of the model beside it.",
            "Remove it, or put the adapter into a folder of its own.",
        )
