"""Checks a captioner's folder whole, before any of it is loaded: model, processor, tokenizer and encoders.

One line for whatever is wrong: the file, the fault, what to do. `model_checks.py` does the same for one model.
"""

import contextlib
import json
import os

from .config_checks import CONFIGURATION, check_captioner_fields, check_generation_file, refuse_adapter
from .configuration_enclap import EnClapConfig
from .model_checks import read_headers
from .model_fields import check_code_entries, check_features, check_plain, refuse_commands, refuse_misspelt, wrong_value
from .model_files import (
    WEIGHTS,
    WEIGHTS_INDEX,
    ModelFileError,
    describe_cause,
    file_error,
    find_size,
    read_json_object,
    shorten,
)
from .repository import MODEL_AUTO_MAP, PROCESSOR_AUTO_MAP

PROCESSOR, TOKENIZER, TOKENIZER_CONFIGURATION = "processor_config.json", "tokenizer.json", "tokenizer_config.json"
# Files of a tokenizer, apart from those above, that hold JSON.
TOKENIZER_JSON = ("special_tokens_map.json", "added_tokens.json", "vocab.json")
CHAT_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
ENCODER_FOLDERS = ("codec", "clap", "clap_text")
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "mask_token")
SPECIAL_TOKENS += ("cls_token", "sep_token")
# Those that captioning needs, and the tokenizers that have none of themselves.
NEEDED_TOKENS = ("bos_token", "eos_token", "pad_token")
PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


def check_repository(folder: str, own_code_only: bool = False) -> None:
    """Check the files of a captioner's folder, before any of it is loaded.

    Args:
        folder: holds model and processor, and perhaps `codec/`, `clap/` and `clap_text/`.
        own_code_only: refuse code of other repositories; for whoever trusts this one's.
    Raises:
        ModelFileError: one line that names the file, the fault and what to do.
    """
    fields = read_json_object(os.path.join(folder, CONFIGURATION))
    check_captioner_fields(fields, os.path.join(folder, CONFIGURATION), EnClapConfig, own_code_only)
    refuse_adapter(folder)
    check_generation_file(folder, fields)
    read_headers(folder)
    check_processor_files(folder, own_code_only)
    for part in ENCODER_FOLDERS:
        check_encoder_folder(os.path.join(folder, part))


def check_encoder_folder(folder: str) -> None:
    """Check a frozen encoder's folder, if there is one."""
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise file_error(folder, "it is not a folder.")
    path = os.path.join(folder, CONFIGURATION)
    if os.path.lexists(path):  # an encoder of another family may have none
        fields = read_json_object(path)
        refuse_commands(fields, path)
        check_plain(CONFIGURATION, fields, path)
    if any(os.path.lexists(os.path.join(folder, name)) for name in (WEIGHTS, WEIGHTS_INDEX)):
        read_headers(folder)


def check_processor_files(folder: str, own_code_only: bool = False) -> None:
    """Check processor_config.json and the tokenizer's files.

    Raises:
        ModelFileError: one line that names the file, the fault and what to do.
    """
    path = os.path.join(folder, PROCESSOR)
    fields = read_json_object(path)
    refuse_commands(fields, path, besides=("auto_map",))
    entries = {**MODEL_AUTO_MAP, **PROCESSOR_AUTO_MAP}
    check_code_entries(fields.get("auto_map"), entries, path, own_code_only)
    known = ("codec_source", "clap_source", "num_codebooks", "feature_extractor", "processor_class")
    known += ("frame_encoder_type", "sequence_vector", "clap_text_source")
    refuse_misspelt(fields, known, path)
    check_plain(PROCESSOR, fields, path)
    if fields.get("processor_class") not in (None, "EnClapProcessor"):
        raise wrong_value(path, "processor_class", fields["processor_class"], "EnClapProcessor")
    if fields.get("sequence_vector") not in (None, "clap", "none"):
        raise wrong_value(path, "sequence_vector", fields["sequence_vector"], "clap or none")
    if not isinstance(fields.get("frame_encoder_type"), (str, type(None))):
        raise wrong_value(path, "frame_encoder_type", fields["frame_encoder_type"], "the name of a frame encoder")
    number = fields.get("num_codebooks")
    if number is not None and (type(number) is not int or not 1 <= number <= 1024):
        raise wrong_value(path, "num_codebooks", number, "a whole number from 1 to 1024")
    for name in ("codec_source", "clap_source", "clap_text_source"):
        if not isinstance(fields.get(name), (dict, type(None))):
            raise wrong_value(path, name, fields[name], "an object")
    other_path = os.path.join(folder, "preprocessor_config.json")
    if "feature_extractor" in fields:
        check_features(fields["feature_extractor"], path)
        check_code_entries(fields["feature_extractor"].get("auto_map"), entries, path, own_code_only)
    elif not os.path.lexists(other_path):
        raise file_error(path, "it lacks the field `feature_extractor`.")
    if os.path.lexists(path := other_path):
        other = read_json_object(path)
        refuse_commands(other, path, besides=("auto_map",))
        check_code_entries(other.get("auto_map"), entries, path, own_code_only)
        check_features(other, path)
    check_tokenizer_files(folder, read_model_fields(folder))


def read_model_fields(folder: str) -> dict:
    """The configuration of the captioner beside a processor, if there is one."""
    path = os.path.join(folder, CONFIGURATION)
    return read_json_object(path) if os.path.lexists(path) else {}


def check_tokenizer_files(folder: str, model: dict) -> None:
    """Refuse a tokenizer that is damaged, brings code or templates, or reads files of its own choice.

    Args:
        folder: of the processor.
        model: configuration of the captioner, whose tokens the tokenizer has to have; empty where there is none.
    """
    for name in CHAT_FILES:
        if os.path.lexists(path := os.path.join(folder, name)):
            raise file_error(path, "it is a chat's template, which captioning has no use for.", "Remove it.")
    for name in TOKENIZER_JSON:
        if os.path.lexists(path := os.path.join(folder, name)):
            check_tokenizer_fields(read_json_object(path), path, name == "vocab.json")
    fields, path = {}, os.path.join(folder, TOKENIZER_CONFIGURATION)
    if os.path.lexists(path):
        fields = read_json_object(path)
        check_tokenizer_fields(fields, path)
    path = os.path.join(folder, TOKENIZER)
    if not os.path.lexists(path) and os.path.lexists(os.path.join(folder, "vocab.json")):
        find_size(os.path.join(folder, "merges.txt"))
        return
    if os.path.lexists(path + ".index.json"):
        raise file_error(path + ".index.json", "no tokenizer has such a file.", "Remove it.")
    special = read_special_tokens(folder, fields)
    vocabulary = read_vocabulary(path)
    for name, token in special.items():
        if token not in vocabulary:
            raise file_error(path, f"it has no token {shorten(token)}, the `{name}` of {TOKENIZER_CONFIGURATION}.")
        number = model.get(f"{name}_id")
        if number is not None and name in NEEDED_TOKENS and number != vocabulary[token]:
            raise file_error(path, f"its `{name}` {shorten(token)} has id {vocabulary[token]}, the model's {number}.")
    size = model.get("vocab_size")
    if isinstance(size, int) and len(vocabulary) > size:
        raise file_error(path, f"it has {len(vocabulary)} tokens, and the model {size} (`vocab_size`).")


def read_special_tokens(folder: str, fields: dict) -> dict[str, str]:
    """The special tokens that a tokenizer's files name.

    Args:
        folder: of the processor.
        fields: content of tokenizer_config.json.
    """
    path = os.path.join(folder, "special_tokens_map.json")
    named = {**(read_json_object(path) if os.path.lexists(path) else {}), **fields}
    path, tokens = os.path.join(folder, TOKENIZER_CONFIGURATION), {}
    for name in SPECIAL_TOKENS:
        token = named.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None and name in NEEDED_TOKENS and named.get("tokenizer_class") in (None, *PLAIN_TOKENIZERS):
            raise file_error(path, f"it is missing, or lacks the field `{name}`.")
        if not isinstance(token, (str, type(None))) or token == "":
            raise wrong_value(path, name, token, "a token")
        if token is not None:
            tokens[name] = token
    refuse_misspelt(fields, SPECIAL_TOKENS, path)
    return tokens


def check_tokenizer_fields(fields: dict, path: str, is_vocabulary: bool = False) -> None:
    """Refuse what a tokenizer's JSON files may not say."""
    if is_vocabulary:
        if not all(type(number) is int for number in fields.values()):
            raise file_error(path, "it is damaged: not all of its ids are whole numbers.")
        return
    refuse_commands(fields, path, besides=("local_files_only",))  # transformers writes that one itself
    for name, value in fields.items():
        if name == "chat_template" and value is not None:
            raise file_error(path, "its field `chat_template` is of no use for captions.", "Remove it.")
        if name.endswith(("_file", "_object", "_path")) and name != "name_or_path" and value is not None:
            raise file_error(path, f"its field {shorten(name)} names a file to read.", "Remove it.")
    name = fields.get("tokenizer_class")
    if name is not None and not (isinstance(name, str) and is_tokenizer(name)):
        raise wrong_value(path, "tokenizer_class", name, "a tokenizer of transformers")
    if fields.get("processor_class") not in (None, "EnClapProcessor"):
        raise wrong_value(path, "processor_class", fields["processor_class"], "EnClapProcessor")
    length = fields.get("model_max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, (int, float)) or length < 1):
        raise wrong_value(path, "model_max_length", length, "a positive number")


def is_tokenizer(name: str) -> bool:
    """Whether transformers has a tokenizer of that name."""
    import transformers

    is_named_so = "Tokenizer" in name or name == "TokenizersBackend"
    return is_named_so and name.isidentifier() and hasattr(transformers, name)


def read_vocabulary(path: str) -> dict[str, int]:
    """Tokens of a tokenizer.json and their ids, which have no gaps."""
    from tokenizers import Tokenizer

    content = read_json_object(path)
    try:
        vocabulary = Tokenizer.from_str(json.dumps(content)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library's own exceptions are plain ones
        raise file_error(path, f"it is damaged ({describe_cause(error)}).") from error
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise file_error(path, "it is damaged: its ids have gaps, or two tokens share one.")
    return vocabulary


@contextlib.contextmanager
def explained_loading(place: str | os.PathLike):
    """Check the processor's files of a folder, and say in one line what yet keeps it from being loaded."""
    if not os.path.isdir(place):
        yield
        return
    if os.path.lexists(os.path.join(place, PROCESSOR)):
        check_processor_files(os.fspath(place))
    try:
        yield
    except (OSError, ImportError, MemoryError, ModelFileError):
        raise
    except Exception as error:  # the tokenizer library raises plain exceptions
        raise file_error(os.fspath(place), f"the processor cannot be loaded ({describe_cause(error)}).") from error
