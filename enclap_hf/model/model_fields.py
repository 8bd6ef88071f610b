"""What the JSON files of a repository may say: fields of known types and sizes, and nothing that fetches or runs.

A repository is data. transformers obeys some fields of its files beyond that: it downloads and imports the attention
kernel that a configuration names, reads weights from where it says, imports a quantiser. Those are refused by name,
wherever in a file they stand; so are names in which a known one is misspelt, and sizes that no model has.
"""

import difflib
import functools
import math
import re

from .model_files import file_error, shorten

# Fields that fetch, import or run something, or that say how files are read, and what they would do.
REFUSED_FIELDS = {
    **dict.fromkeys(("use_kernels", "kernel_config", "allow_all_kernels"), "would fetch and run kernels"),
    **dict.fromkeys(("custom_generate", "trust_remote_code", "auto_map"), "would run code that is not this package's"),
    **dict.fromkeys(("quantization_config", "compression_config"), "would import a quantiser"),
    **dict.fromkeys(("fusion_config", "distributed_config", "device_map", "tp_plan"), "would rearrange the model"),
    **dict.fromkeys(("transformers_weights", "gguf_file", "variant"), "would read weights from elsewhere"),
    **dict.fromkeys(("weights_only", "use_safetensors", "cache_dir", "force_download"), "says how files are read"),
    **dict.fromkeys(("local_files_only", "output_loading_info", "token", "proxies"), "says how files are read"),
    **dict.fromkeys(("base_model_name_or_path", "assistant_model"), "would load another repository"),
}
# Fields that choose an implementation, and the values that name one of transformers' own.
IMPLEMENTATIONS = {
    "attn_implementation": (None, "eager", "sdpa"),
    "experts_implementation": (None, "eager"),
}
# Names that a label may have are not fields.
LABEL_FIELDS = ("id2label", "label2id")
# Beyond these, a size is damage: more than any table has rows, any list entries, and any text characters.
MAX_COUNT, MAX_NUMBER, MAX_LENGTH, MAX_CHARACTERS = 1 << 20, 1e9, 10_000, 10_000
DTYPES = (None, "auto", "float32", "float16", "bfloat16", "float64")
# Fields of every configuration that say nothing of the network.
FREE_FIELDS = ("transformers_version", "_name_or_path", "_commit_hash", "_attn_implementation_autoset")
# How alike a name is to the field that it was meant to be.
MISSPELT = 0.8

# What a generation_config.json may hold: the type, the least and the greatest value. Others are None, or refused.
GENERATION_FIELDS = {
    **dict.fromkeys(("num_beams", "num_return_sequences"), (int, 1, 256)),
    **dict.fromkeys(("max_length", "max_new_tokens"), (int, 1, MAX_COUNT)),
    **dict.fromkeys(("min_length", "min_new_tokens"), (int, 0, MAX_COUNT)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), (int, 0, 1000)),
    **dict.fromkeys(("length_penalty", "diversity_penalty"), (float, -100, 100)),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), (float, 0.01, 100)),
    **dict.fromkeys(("temperature", "guidance_scale"), (float, 0, 1000)),
    **dict.fromkeys(("top_p", "top_h", "typical_p", "min_p", "epsilon_cutoff", "eta_cutoff"), (float, 0, 1)),
    "top_k": (int, 0, MAX_COUNT),
    "max_time": (float, 0.001, MAX_NUMBER),
    **dict.fromkeys(("do_sample", "use_cache", "low_memory", "remove_invalid_values"), (bool, 0, 1)),
    **dict.fromkeys(("renormalize_logits", "output_attentions", "output_hidden_states"), (bool, 0, 1)),
    **dict.fromkeys(("output_scores", "output_logits", "return_dict_in_generate"), (bool, 0, 1)),
    **dict.fromkeys(("_from_model_config", "is_assistant", "disable_compile", "token_healing"), (bool, 0, 1)),
    **dict.fromkeys(("assistant_confidence_threshold",), (float, 0, 1)),
    **dict.fromkeys(("num_assistant_tokens", "target_lookbehind", "assistant_lookbehind"), (int, 0, 1000)),
}
TOKEN_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
TOKEN_FIELDS += ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
# Ways of decoding that transformers has moved to repositories with code, or that need more than a captioner.
REFUSED_DECODING = ("num_beam_groups", "penalty_alpha", "dola_layers", "constraints", "force_words_ids")
REFUSED_DECODING += ("cache_config", "compile_config", "watermarking_config", "continuous_batching_config", "use_mtp")
REFUSED_DECODING += ("prompt_lookup_num_tokens", "assistant_early_exit", "speculation_type", "prefill_chunk_size")
FREE_DECODING = ("transformers_version", "early_stopping", "cache_implementation", "stop_strings", "sequence_bias")
FREE_DECODING += ("exponential_decay_length_penalty", "num_assistant_tokens_schedule", "max_matching_ngram_size")
FREE_DECODING += ("assistant_ensemble_weight", "max_cache_len")

# What the feature extractor in a processor_config.json holds.
FEATURE_FIELDS = {
    **dict.fromkeys(("codec_sampling_rate", "clap_sampling_rate"), (int, 1000, 768_000)),
    "hop_length": (int, 1, 768_000),
    "codec_hop_length": (float, 1, 768_000),  # no whole number where an encoder's segments overlap
    "max_codec_frames": (int, 1, MAX_COUNT),
    "clap_window_s": (float, 0.05, 600),
    "n_fft": (int, 16, 1 << 16),
    "num_mel_bins": (int, 1, 1024),
    **dict.fromkeys(("frequency_min", "frequency_max"), (float, 0, 384_000)),
    "int16_round_trip": (bool, 0, 1),
}
# Mel frames of a CLAP window, which is computed whole.
MAX_MEL_FRAMES = 100_000


def refuse_commands(fields: object, path: str, besides: tuple[str, ...] = ()) -> None:
    """Refuse fields that fetch, import or run something, at any depth.

    Args:
        fields: content of a JSON file.
        path: the file, for messages.
        besides: names that the caller judges itself.
    Raises:
        ModelFileError: naming the field, and what it would do.
    """
    if isinstance(fields, list):
        for entry in fields:
            refuse_commands(entry, path, besides)
    if not isinstance(fields, dict):
        return
    for name, value in fields.items():
        choice = name.removeprefix("_").removesuffix("_internal")
        if name in REFUSED_FIELDS and name not in besides and value is not None:
            raise file_error(path, f"its field `{name}` {REFUSED_FIELDS[name]}.", "Remove it from the file.")
        if choice in IMPLEMENTATIONS and value not in IMPLEMENTATIONS[choice]:
            raise file_error(
                path,
                f"its field `{name}` names {shorten(value)}, which could be fetched and run; expected "
                f"{' or '.join(filter(None, IMPLEMENTATIONS[choice]))}.",
                "Remove it from the file, and pass what you trust as an argument.",
            )
        if name not in LABEL_FIELDS:
            refuse_commands(value, path, besides)


def check_config_fields(fields: dict, path: str, config_class: type) -> None:
    """Refuse a configuration with fields that run something, or of types and sizes that its class has not.

    Args:
        fields: content of the file.
        path: the file, for messages.
        config_class: a `PretrainedConfig`; its defaults show the types.
    Raises:
        ModelFileError: naming the field, its value and what is expected.
    """
    # These two are judged where they can be told from what the caller asks for.
    refuse_commands(fields, path, besides=("auto_map", "quantization_config"))
    defaults = default_fields(config_class)
    if fields.get("model_type") == config_class.model_type:
        refuse_misspelt(fields, defaults, path)
    for name, value in fields.items():
        if name in FREE_FIELDS:
            continue
        if name in ("dtype", "torch_dtype"):
            if isinstance(value, (dict, list)) or value not in DTYPES:
                raise wrong_value(path, name, value, ", ".join(filter(None, DTYPES)))
        elif name in defaults:
            check_like(name, value, defaults[name], path)
        elif callable(getattr(config_class, name, None)):
            raise file_error(path, f"its field {shorten(name)} has the name of a method.", "Remove it.")
        else:
            check_plain(name, value, path)


@functools.cache
def default_fields(config_class: type) -> dict:
    """All fields of a configuration class, with values that show their types."""
    return {name: value for name, value in config_class().to_dict().items() if name not in FREE_FIELDS}


def refuse_misspelt(fields: dict, known, path: str) -> None:
    """Refuse a name that is a known one but for a letter or two, while that one is missing: a default would pass."""
    missing = [name for name in known if name not in fields]
    for name in fields:
        if name not in known and (meant := difflib.get_close_matches(name, missing, 1, MISSPELT)):
            raise file_error(path, f"it lacks `{meant[0]}` and has the unknown field {shorten(name)}.", "Correct it.")


def check_like(name: str, value: object, default: object, path: str) -> None:
    """Refuse a value of another type than the default has, or of a size that nothing has."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise wrong_value(path, name, value, "true or false")
    elif isinstance(default, (int, float)):
        check_number(name, value, path, isinstance(default, int), least=min(default, 0))
    elif isinstance(default, str):
        if not isinstance(value, str):
            raise wrong_value(path, name, value, "text")
        check_plain(name, value, path)
    elif isinstance(default, (list, tuple)):
        if not isinstance(value, list) or len(value) > MAX_LENGTH:
            raise wrong_value(path, name, value, "a list")
        for entry in value:
            if default:
                check_like(name, entry, default[0], path)
            else:
                check_plain(name, entry, path)
    elif isinstance(default, dict):
        if not isinstance(value, dict):
            raise wrong_value(path, name, value, "an object")
        check_plain(name, value, path)
    elif isinstance(value, dict):
        raise wrong_value(path, name, value, "a number, text, a list or null")
    else:
        check_plain(name, value, path)


def check_number(name: str, value: object, path: str, whole: bool, least: float) -> None:
    """Refuse what is not a number, and numbers that nothing has."""
    greatest = MAX_COUNT if whole else MAX_NUMBER
    if any(word in name for word in ("dropout", "layerdrop", "drop_path", "smoothing")) or name.endswith("_prob"):
        greatest = 1
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= greatest or ("eps" in name.split("_") and not 0 < value < 1):
        kind = "a whole number" if whole else "a number"
        raise wrong_value(path, name, value, f"{kind} from {least:g} to {greatest:g}")


def check_plain(name: str, value: object, path: str) -> None:
    """Bound a value whose type is free."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, (int, float)):
        if not -MAX_NUMBER <= value <= MAX_NUMBER or (isinstance(value, float) and math.isnan(value)):
            raise wrong_value(path, name, value, f"a number up to {MAX_NUMBER:g}")
        if isinstance(value, int) and name.startswith(("num_", "n_")) and value > MAX_COUNT:
            raise wrong_value(path, name, value, f"a whole number up to {MAX_COUNT}")
    elif isinstance(value, str):
        if len(value) > MAX_CHARACTERS:
            raise wrong_value(path, name, value, f"at most {MAX_CHARACTERS} characters")
    elif len(value) > MAX_LENGTH:
        raise wrong_value(path, name, value, f"at most {MAX_LENGTH} entries")
    else:
        entries = value.items() if isinstance(value, dict) else ((name, entry) for entry in value)
        for key, entry in entries:
            check_plain(key, entry, path)


def wrong_value(path: str, name: str, value: object, expected: str):
    """The error for a field's value."""
    return file_error(path, f"its field {shorten(name)[1:-1]} is {shorten(value)}; expected {expected}.", "Correct it.")


def check_ranges_of(fields: dict, ranges: dict, path: str) -> None:
    """Refuse values outside of a table of types and ranges; None is always allowed."""
    for name, (kind, least, greatest) in ranges.items():
        value = fields.get(name)
        if value is None:
            continue
        if kind is bool:
            check_like(name, value, False, path)
            continue
        types = int if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, types) or not least <= value <= greatest:
            number = "a whole number" if kind is int else "a number"
            raise wrong_value(path, name, value, f"{number} from {least:g} to {greatest:g}")


def check_generation(fields: dict, path: str, vocab_size: int | None = None, max_length: int | None = None) -> None:
    """Refuse what no decoding of captions says.

    Args:
        fields: content of generation_config.json.
        path: the file, for messages.
        vocab_size: V, of the model.
        max_length: positions of its decoder.
    Raises:
        ModelFileError: naming the field.
    """
    from transformers import GenerationConfig

    refuse_commands(fields, path)
    known = (*GENERATION_FIELDS, *TOKEN_FIELDS, *FREE_DECODING)
    refuse_misspelt(fields, known, path)
    for name in REFUSED_DECODING:
        if fields.get(name) not in (None, False, 1 if name == "num_beam_groups" else None):
            raise file_error(path, f"its field `{name}` chooses a decoding that is not the model's own.", "Remove it.")
    check_ranges_of(fields, GENERATION_FIELDS, path)
    if fields.get("max_length") is None and fields.get("max_new_tokens") is None:
        raise file_error(path, "it lacks `max_length`, the most tokens of a caption.", "Add it.")
    for name in ("max_length", "max_new_tokens"):
        if max_length is not None and (fields.get(name) or 0) > max_length:
            raise wrong_value(path, name, fields[name], f"at most {max_length}, the positions of the decoder")
    for name in TOKEN_FIELDS:
        check_token_ids(name, fields.get(name), path, vocab_size or MAX_COUNT)
    if fields.get("early_stopping") not in (None, True, False, "never"):
        raise wrong_value(path, "early_stopping", fields["early_stopping"], 'true, false or "never"')
    if fields.get("cache_implementation") not in (None, "dynamic"):
        raise wrong_value(path, "cache_implementation", fields["cache_implementation"], "dynamic")
    for name, value in fields.items():
        if callable(getattr(GenerationConfig, name, None)):
            raise file_error(path, f"its field {shorten(name)} has the name of a method.", "Remove it.")
        check_plain(name, value, path)


def check_token_ids(name: str, value: object, path: str, vocab_size: int) -> None:
    """Refuse what is neither an id of the vocabulary, nor a list of ids or of lists of them."""
    if isinstance(value, list) and len(value) <= MAX_LENGTH:
        for entry in value:
            check_token_ids(name, entry, path, vocab_size)
    elif value is not None and (type(value) is not int or not 0 <= value < vocab_size):
        raise wrong_value(path, name, value, f"ids of the vocabulary, 0 to {vocab_size - 1}")


def check_features(fields: object, path: str) -> None:
    """Refuse fields of a feature extractor that are damage."""
    if not isinstance(fields, dict):
        raise wrong_value(path, "feature_extractor", fields, "an object")
    name = fields.get("feature_extractor_type")
    if name not in (None, "EnClapFeatureExtractor"):
        raise wrong_value(path, "feature_extractor_type", name, "EnClapFeatureExtractor")
    refuse_misspelt(fields, (*FEATURE_FIELDS, "long_clips", "mel_scale", "feature_extractor_type"), path)
    for name, default in (("long_clips", ""), ("mel_scale", "")):
        if name in fields:
            check_like(name, fields[name], default, path)
    check_ranges_of(fields, FEATURE_FIELDS, path)
    rate, window_s, hop = (fields.get(name) for name in ("clap_sampling_rate", "clap_window_s", "hop_length"))
    if rate and window_s and hop and rate * window_s / hop > MAX_MEL_FRAMES:
        raise wrong_value(path, "hop_length", hop, f"a window of at most {MAX_MEL_FRAMES} mel frames")
    low, high = fields.get("frequency_min"), fields.get("frequency_max")
    if low is not None and high is not None and low >= high:
        raise wrong_value(path, "frequency_max", high, f"more than `frequency_min` {low}")


def check_code_entries(entries: object, allowed: dict[str, str], path: str, own_code_only: bool) -> None:
    """Refuse an `auto_map` that names other classes than those that travel with a model.

    Args:
        entries: of the file.
        allowed: name of the Auto class -> "module.Class".
        path: the file, for messages.
        own_code_only: refuse classes that are to be fetched from another repository, "owner/name--module.Class".
    """
    if entries is None:
        return
    if not isinstance(entries, dict):
        raise wrong_value(path, "auto_map", entries, "an object")
    for name, value in entries.items():
        repository, _, reference = value.rpartition("--") if isinstance(value, str) else ("", "", None)
        if reference != allowed.get(name, "") or (repository and own_code_only):
            raise file_error(
                path,
                f"its `auto_map` names {shorten(value)} for {shorten(name)}, which would be fetched and run.",
                "Remove `auto_map`; the package needs none.",
            )
        if repository and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
            raise wrong_value(path, "auto_map", value, "a repository's name before `--`")
