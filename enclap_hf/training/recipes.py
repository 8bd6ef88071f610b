"""What a training starts from: a recipe, the processor, the captioner, and the features of each data set."""

import json
import os
import time

import torch
import yaml
from transformers import AutoConfig, AutoTokenizer, TrainingArguments

from ..configuration_enclap import EnClapConfig
from ..feature_extraction_enclap import EnClapFeatureExtractor
from ..modeling_enclap import PUBLISHED_DECODING, EnClapForConditionalGeneration
from ..processing_enclap import EnClapProcessor
from .captioning_data import DataSource, count_rows, read_clips
from .feature_shards import FeatureSettings, prepare_features
from .prepared_features import PreparedClips, is_prepared, read_manifest

RECIPE_EXTENSIONS = (".json", ".yaml", ".yml")
# Fields of a BART's configuration that are not sizes.
_IDENTITY_FIELDS = ("model_type", "architectures", "transformers_version", "task_specific_params", "dtype")
_SECONDS_BETWEEN_LOOKS = 1.0


def expand_recipe(arguments: list[str]) -> list[str]:
    """Replace a recipe at the head of a command line by the arguments that it holds; those behind it override them.

    Args:
        arguments: a command line without the program's name.
    Returns:
        a command line without a recipe.
    Raises:
        ValueError: the recipe holds no mapping of names to values.
    """
    if not arguments or not arguments[0].endswith(RECIPE_EXTENSIONS):
        return arguments
    with open(arguments[0], encoding="utf-8") as file:
        recipe = yaml.safe_load(file)  # JSON is YAML
    if not isinstance(recipe, dict):
        raise ValueError(f"{arguments[0]} holds no arguments; expected a mapping of their names to values.")
    expanded = []
    for name, value in recipe.items():
        if name == "description" or value is None or value == []:
            continue
        if name == "train_sampling_strategy" and name not in TrainingArguments.__dataclass_fields__:
            name, value = "group_by_length", value == "group_by_length"  # transformers 5.0
        values = value if isinstance(value, list) else [value]
        expanded += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return expanded + arguments[1:]


def load_training_processor(
    name: str | None,
    *,
    codec_name: str | None = None,
    clap_name: str | None = None,
    tokenizer_name: str | None = None,
    device: str | torch.device = "cpu",
) -> EnClapProcessor:
    """Load encoders and tokenizer.

    Args:
        name: EnCLAP repository; None puts a processor together from the three others, read as the published captioners
            read recordings.
        codec_name: another EnCodec.
        clap_name: another CLAP audio tower; clips longer than its window are then read as its kind, with or without
            fusion, was trained to.
        tokenizer_name: another tokenizer, such as that of the BART that training starts from.
        device: of the encoders.
    Raises:
        ValueError: without `name`, one of the others is missing.
    """
    if name is not None:
        processor = EnClapProcessor.from_pretrained(name)
    elif None in (codec_name, clap_name, tokenizer_name):
        raise ValueError(
            "Got no processor; name an EnCLAP repository as `processor_name_or_path`, or all of `codec_name_or_path`, "
            "`clap_name_or_path` and `tokenizer_name_or_path`."
        )
    else:
        processor = EnClapProcessor(EnClapFeatureExtractor(), AutoTokenizer.from_pretrained(tokenizer_name))
    if codec_name is not None:
        processor.codec_source = make_encoder_source(codec_name)
    if clap_name is not None:
        config = AutoConfig.from_pretrained(clap_name)
        fusion = getattr(config, "audio_config", config).enable_fusion
        processor.clap_source = make_encoder_source(clap_name)
        processor.feature_extractor.long_clips = "fusion" if fusion else "middle"
        processor.feature_extractor.mel_scale = "htk" if fusion else "slaney"
    if tokenizer_name is not None:
        processor.tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    return processor.to(device)


def make_encoder_source(name: str) -> dict:
    """A reference to an encoder in a repository of its own."""
    return {"repo_id": os.path.abspath(name) if os.path.isdir(name) else name}


def read_model_type(name: str | None, revision: str | None = None) -> str | None:
    """`model_type` of a repository; None where no name is given."""
    return None if name is None else AutoConfig.from_pretrained(name, revision=revision).model_type


def build_captioner(
    name: str | None,
    processor: EnClapProcessor,
    *,
    revision: str | None = None,
    num_codebooks: int | None = None,
    config_fields: dict | None = None,
) -> EnClapForConditionalGeneration:
    """Build the model to train.

    Args:
        name: an EnCLAP, whose training goes on; a BART, whose weights fill all but the audio parts; None for random
            weights.
        processor: its encoders and tokenizer decide the sizes that are not given.
        revision: branch, tag or commit of a Hub repository.
        num_codebooks: K, read the first codebooks only; None reads those of the EnCLAP, or all of the processor's.
        config_fields: fields of [`EnClapConfig`] to set.
    Returns:
        float32 model.
    Raises:
        ValueError: a model of another kind, or a tokenizer with more tokens than the model.
    """
    model_type, fields = read_model_type(name, revision), dict(config_fields or {})
    fields.update({} if num_codebooks is None else {"num_codebooks": num_codebooks})
    if model_type == "enclap":
        config = EnClapConfig.from_pretrained(name, revision=revision, **fields)
    elif model_type in ("bart", None):
        bart = None if name is None else AutoConfig.from_pretrained(name, revision=revision)
        config = make_config(bart, processor, fields)
    else:
        raise ValueError(f"Got {name}, a {model_type} model; expected an EnCLAP or BART repository.")
    num_tokens = len(processor.tokenizer)
    if num_tokens > config.vocab_size:
        raise ValueError(
            f"Got a tokenizer of {num_tokens} tokens and a model of {config.vocab_size}; load the model's own with "
            "`tokenizer_name_or_path`."
        )
    if name is None:
        return EnClapForConditionalGeneration(config)
    model = EnClapForConditionalGeneration.from_pretrained(name, revision=revision, config=config, dtype=torch.float32)
    if model_type == "bart":  # its repository's decoding is for summaries
        model.generation_config.update(
            **PUBLISHED_DECODING, forced_bos_token_id=config.bos_token_id, forced_eos_token_id=config.eos_token_id
        )
    return model


def make_config(bart_config, processor: EnClapProcessor, fields: dict) -> EnClapConfig:
    """Configuration of a captioner for this processor, of the sizes of a BART where one is given."""
    if bart_config is None:
        tokenizer = processor.tokenizer
        base = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        base.update(vocab_size=len(tokenizer), decoder_start_token_id=tokenizer.eos_token_id)
    else:
        base = {name: value for name, value in bart_config.to_dict().items() if name not in _IDENTITY_FIELDS}
    audio = {
        "num_codebooks": processor.num_codebooks,
        "codec_vocab_size": processor.codec.config.codebook_size,
        "clap_dim": processor.clap.config.projection_dim,
    }
    return EnClapConfig(**{**base, **audio, **fields})


def open_features(
    source: DataSource,
    folder: str,
    processor: EnClapProcessor,
    *,
    settings: FeatureSettings,
    max_clips: int | None = None,
    process_index: int = 0,
    num_processes: int = 1,
    **preparation,
) -> PreparedClips:
    """Open the features of a data set, prepared first where it is recordings.

    Args:
        source: prepared features, or recordings.
        folder: where the features of recordings are or will be.
        processor: with the encoders.
        settings: what decides the features of recordings.
        max_clips: take the first clips only.
        process_index: this process; each does its part and waits for the others.
        num_processes: processes that call this.
        preparation: further arguments of [`~enclap_hf.training.feature_shards.prepare_features`].
    """
    if read_manifest(source.path) is not None:
        return PreparedClips(source.path, processor, max_clips)
    is_main = process_index == 0
    table = os.path.join(source.path, "captions.csv")
    while source.num_scenes is not None and not is_main and count_rows(table) != source.num_scenes:
        time.sleep(_SECONDS_BETWEEN_LOOKS)  # the main process is writing the scenes
    clips, bad = read_clips(source, show_progress=is_main)
    if max_clips is not None:
        clips = [clips[i] for i in range(min(max_clips, len(clips)))]
    prepare_features(
        clips,
        folder,
        processor,
        settings,
        source=source.path,
        bad=bad,
        process_index=process_index,
        num_processes=num_processes,
        show_progress=is_main,
        **preparation,
    )
    while not is_prepared(folder):  # not a barrier, which would time out
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return PreparedClips(folder, processor)
