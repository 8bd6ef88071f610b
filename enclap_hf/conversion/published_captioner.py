"""The captioner in the published format: a folder with config.json and pytorch_model.bin, read and written.

The tensors have the same names and bits in both formats; the configurations differ in five names.
"""

import os

import torch

from ..model.configuration_enclap import EnClapConfig
from ..model.modeling_enclap import PUBLISHED_DECODING, EnClapForConditionalGeneration
from .published_files import ConversionError, read_json, read_state_dict
from .published_tensor_maps import SIZE_ERRORS, count_modules, load_strictly, shape_of

# Published name of a field, ours, and the published default: files written from a plain BART lack them.
RENAMED_FIELDS = (
    ("num_rvq", "num_codebooks", 16),
    ("encodec_vocab_size", "codec_vocab_size", 1024),
    ("d_clap", "clap_dim", 512),
    ("mcm_loss_scale", "mcm_loss_weight", 0.7),
    ("label_smoothing", "label_smoothing", 0.2),
)
# Fields of the published config.json that say nothing about the network.
UNNEEDED_FIELDS = ("model_type", "architectures", "transformers_version", "torch_dtype", "dtype", "auto_map")
# Copies of the text embedding that the published files hold beside `model.shared.weight`.
TIED_COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
WEIGHT_FILES = ("pytorch_model.bin", "model.safetensors")


def find_weights(folder: str) -> str:
    """The weights file of a published folder.

    Raises:
        ConversionError: there is no such folder, or no weights in it.
    """
    if not os.path.isdir(folder):
        raise ConversionError(f"{folder} is not a folder; expected one with config.json and {WEIGHT_FILES[0]}.")
    for name in WEIGHT_FILES:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise ConversionError(f"{folder} has no {WEIGHT_FILES[0]}; expected the published folder.")


def read_captioner(folder: str) -> EnClapForConditionalGeneration:
    """Build the captioner of a published folder, on its own tensors.

    Raises:
        ConversionError: the configuration or a tensor is missing, damaged or does not fit; it is named.
    """
    path = find_weights(folder)
    config = read_captioner_config(os.path.join(folder, "config.json"))
    tensors = dict(read_state_dict(path))
    check_captioner_sizes(config, tensors, path)
    shared = tensors["model.shared.weight"]
    for name in TIED_COPIES:
        if name not in tensors and path.endswith(".safetensors"):
            tensors[name] = shared  # that format leaves copies out
        if name in tensors and not torch.equal(tensors[name], shared):
            raise ConversionError(
                f"{path}: tensors `{name}` and `model.shared.weight` differ; the published model has them equal."
            )
    try:
        with torch.device("meta"):
            model = EnClapForConditionalGeneration(config)
    except SIZE_ERRORS as error:
        raise ConversionError(f"{folder}/config.json describes no model that can be built ({error}).") from error
    load_strictly(model, tensors, path, assign=True)
    model.tie_weights()
    return model.eval()


def read_captioner_config(path: str) -> EnClapConfig:
    """Our configuration from the published config.json.

    Raises:
        ConversionError: no such file, a field of a wrong type, or fields that do not fit each other.
    """
    fields = read_json(path)
    if fields.get("model_type") != "bart":
        raise ConversionError(
            f'{path} has `model_type` {fields.get("model_type")!r}; expected the published folder\'s, "bart".'
        )
    ours = {new: fields.get(old, default) for old, new, default in RENAMED_FIELDS}
    mask_id = fields.get("encodec_pad_token_id", 1024)
    if mask_id != ours["codec_vocab_size"]:
        raise ConversionError(
            f"{path} has `encodec_pad_token_id` {mask_id!r}; expected {ours['codec_vocab_size']}, the first id after "
            "the codes, as all published models have."
        )
    defaults = EnClapConfig().to_dict()
    kept = {name: fields[name] for name in defaults if name in fields and name not in (*UNNEEDED_FIELDS, *ours)}
    for name, value in {**kept, **ours}.items():
        expected = type(defaults[name])
        numbers = (int, float) if expected is float else expected
        if expected is not type(None) and (
            not isinstance(value, numbers) or isinstance(value, bool) != (expected is bool)
        ):
            raise ConversionError(f"{path} has `{name}` {value!r}; expected {expected.__name__}.")
    try:
        return EnClapConfig(**{**kept, **ours})
    except SIZE_ERRORS as error:
        raise ConversionError(f"{path}: {error}") from error


def check_captioner_sizes(config: EnClapConfig, tensors: dict[str, torch.Tensor], path: str) -> None:
    """Compare the sizes that decide how large a model is built, before one is.

    Raises:
        ConversionError: a size differs from that of the configuration.
    """
    vocab_size, d_model = shape_of(tensors, "model.shared.weight", 2, path)
    found = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "num_codebooks": count_modules(tensors, r"model\.encoder\.embed_encodec\.(\d+)\."),
        "encoder_layers": count_modules(tensors, r"model\.encoder\.layers\.(\d+)\."),
        "decoder_layers": count_modules(tensors, r"model\.decoder\.layers\.(\d+)\."),
    }
    for name, size in found.items():
        if getattr(config, name) != size:
            raise ConversionError(
                f"{path} holds `{name}` {size} by its tensors, but config.json says {getattr(config, name)}; the two "
                "files belong to different models."
            )


def make_published_config(model: EnClapForConditionalGeneration) -> dict:
    """The published config.json; the published training reads the decoding settings from it too."""
    fields = model.config.to_dict()
    for name in (*UNNEEDED_FIELDS, "custom_pipelines", "_name_or_path"):
        fields.pop(name, None)
    for old, new, _ in RENAMED_FIELDS:
        fields[old] = fields.pop(new)
    names = (*PUBLISHED_DECODING, "forced_bos_token_id", "forced_eos_token_id")
    decoding = {name: getattr(model.generation_config, name, None) for name in names}
    return {
        **fields,
        **{name: value for name, value in decoding.items() if value is not None},
        "model_type": "bart",
        "architectures": ["EnClapBartForConditionalGeneration"],
        "encodec_pad_token_id": model.config.codec_mask_token_id,
        "torch_dtype": str(model.dtype).removeprefix("torch."),
    }
