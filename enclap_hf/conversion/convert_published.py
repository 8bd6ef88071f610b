"""Turns the published checkpoints into one self-contained repository, and back.

    published folder (config.json, pytorch_model.bin) --+
    LAION-CLAP .pt, or a ClapModel repository ----------+--> config.json, model.safetensors, generation_config.json,
    EnCodec .th, or an EncodecModel repository ---------+    processor and tokenizer files, codec/, clap/, README.md
    tokenizer ------------------------------------------+

* Every tensor fits or is an error that names it (`published_tensor_maps.py`, `published_captioner.py`), and no file can
  run code (`published_files.py`).
* The captioner's tensors keep their names and bits, so the way back (`write_published`) gives equal tensors.
* What is on the Hub is fetched first (`published_sources.py`).
* All is written to a folder beside the wanted one, which takes its name at the end: nothing half-written stays.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, BartTokenizer, ClapAudioModelWithProjection, EncodecModel

from ..hub.model_card import CaptionerCard, write_card
from ..hub.published_cards import describe_published, make_conversion_card
from ..hub.published_weights import PublishedCheckpoint
from ..model.configuration_enclap import EnClapConfig
from ..model.feature_extraction_enclap import EnClapFeatureExtractor
from ..model.model_files import ModelFileError
from ..model.modeling_enclap import PUBLISHED_DECODING, EnClapForConditionalGeneration
from ..model.processing_enclap import EnClapProcessor
from ..model.repository import save_repository
from .published_captioner import WEIGHT_FILES, make_published_config, read_captioner
from .published_clap_text import read_clap_text
from .published_files import ConversionError, read_json, read_state_dict, shorten_error
from .published_sources import DEFAULT_TOKENIZER, TOKENIZER_FILES, Source, find_sources, has_tokenizer
from .published_tensor_maps import convert_clap_tensors, convert_encodec_tensors

logger = logging.getLogger(__name__)

# What EnCodec has to be, whatever its codebooks: the 48 kHz model has as many of the same size.
ENCODEC_SAMPLING_RATE, ENCODEC_CHANNELS = 24_000, 1
# What a ClapModel holds beside the audio tower.
CLAP_TEXT_TENSORS = ("text_model.", "text_projection.", "logit_scale_")
# How a tokenizer was loaded, which transformers would save with it.
LOADING_FIELDS = ("local_files_only", "is_local")
# What loading a repository raises that is missing, damaged or of another kind.
NOT_FOUND_ERRORS = (OSError, ValueError, KeyError, RuntimeError, StrictDataclassError, ModelFileError)


@dataclass
class Parts:
    """What a repository is made of, and the lines of the card that say where it came from."""

    model: EnClapForConditionalGeneration
    processor: EnClapProcessor
    sources: list[str]


def convert_checkpoints(
    enclap: str,
    clap: str | None,
    output: str,
    encodec: str | None = None,
    tokenizer: str | None = None,
    overwrite: bool = False,
    published: PublishedCheckpoint | None = None,
    clap_text: bool = False,
) -> None:
    """Convert published weights into a repository that loads with `from_pretrained`.

    Each source may also be an address of the Hub, such as "hf://spaces/enclap-team/enclap/ckpt": it is fetched into the
    Hub's cache first, and checked against the hash that the Hub states.

    Args:
        enclap: the published folder, with config.json and pytorch_model.bin.
        clap: LAION-CLAP's .pt file, or a directory or Hub repository of a transformers `ClapModel`; None for the one
            that the published captioners were trained with.
        output: the folder to write.
        encodec: EnCodec's .th file, or a directory or Hub repository of a transformers `EncodecModel`; None or
            "default" for the published one.
        tokenizer: directory or Hub repository; None takes the one in `enclap`, or BART's where it has none.
        overwrite: replace `output` if it exists.
        published: which published checkpoint `enclap` is, where that is known; the card then has its scores.
        clap_text: keep CLAP's text tower, by which captions get a confidence.
    Raises:
        ConversionError: a source is missing, damaged, unsafe or does not fit the others; nothing is written.
    """
    encodec = None if encodec == "default" else encodec
    here = [source for source in (enclap, clap, encodec, tokenizer) if source]
    check_output_folder(output, overwrite, sources=tuple(here))
    parts = read_parts(find_sources(enclap, clap, encodec, tokenizer), clap_text)
    logger.info("Writing %s", output)
    with staged_folder(output, overwrite) as folder:
        save_repository(parts.model, parts.processor, folder)
        card = make_card(parts, os.path.basename(os.path.abspath(output)))
        if published:
            card = describe_published(card, published)
        write_card(card, os.path.join(folder, "README.md"), os.path.join(folder, "model_card.json"))


def read_parts(sources: dict[str, Source], clap_text: bool = False) -> Parts:
    """Read and check all sources, see [`convert_checkpoints`]."""
    enclap, tokenizer = sources["enclap"], sources["tokenizer"]
    logger.info("Reading the captioner from %s", enclap)
    model = read_captioner(enclap.place)
    config = cast(EnClapConfig, model.config)
    logger.info("Reading the tokenizer from %s", tokenizer)
    text_tokenizer = read_tokenizer(tokenizer.place, config)
    logger.info("Reading EnCodec from %s", sources["encodec"])
    codec = read_encodec(sources["encodec"].place)
    logger.info("Reading CLAP from %s", sources["clap"])
    tower = read_clap(sources["clap"].place)
    check_parts_fit(config, codec, tower)
    processor = EnClapProcessor.from_encoders(
        build_feature_extractor(config, codec, tower),
        text_tokenizer,
        codec,
        tower,
        num_codebooks=config.num_codebooks,
        clap_text=read_clap_text(sources["clap"].place, text_tokenizer) if clap_text else None,
    )
    lines = [
        f"* captioner: {enclap.describe()}",
        f"* EnCodec: {sources['encodec'].describe()}",
        f"* CLAP: {sources['clap'].describe()}",
        f"* tokenizer: {'that of the captioner' if tokenizer is enclap else tokenizer.describe()}",
    ]
    return Parts(model, processor, lines)


def read_encodec(source: str) -> EncodecModel:
    """EnCodec from a published file or a transformers model."""
    if os.path.isfile(source):
        return convert_encodec_tensors(read_state_dict(source), source)
    return load_from_repository(EncodecModel, source, "--encodec", ("encodec",))


def read_clap(source: str) -> ClapAudioModelWithProjection:
    """The CLAP audio tower from a published file or a transformers model."""
    if os.path.isfile(source):
        return convert_clap_tensors(read_state_dict(source), source)
    return load_from_repository(ClapAudioModelWithProjection, source, "--clap", ("clap", "clap_audio_model"))


def load_from_repository(model_class: Any, source: str, option: str, model_types: tuple[str, ...]) -> Any:
    """Load a transformers model of which no tensor may be missing or left over, but for CLAP's text tower.

    Raises:
        ConversionError: it cannot be loaded, is another kind of model, or its tensors do not fit.
    """
    try:
        fields = model_class.config_class.get_config_dict(source)[0]
        if fields.get("model_type") not in model_types:
            found = f"a model of type {fields.get('model_type')!r}" if fields else "no config.json"
            raise ConversionError(
                f"{option} {source} holds {found}; expected one of type {model_types[0]!r}, or a file in the published "
                "format."
            )
        model, info = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except ConversionError:
        raise
    except NOT_FOUND_ERRORS as error:
        raise ConversionError(
            f"{option} {source} is neither a file nor a folder or Hub repository that can be loaded: "
            f"{shorten_error(error)}"
        ) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        name = sorted([*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])])[0]
        raise ConversionError(f"{option} {source} lacks tensor `{name}`, or has it in another shape.")
    unexpected = sorted(name for name in info["unexpected_keys"] if not name.startswith(CLAP_TEXT_TENSORS))
    if unexpected:
        raise ConversionError(f"{option} {source} holds tensor `{unexpected[0]}` that the model has no place for.")
    return model.eval()


def read_tokenizer(source: str, config: EnClapConfig) -> Any:
    """Load the caption tokenizer, and check that it is the model's.

    Raises:
        ConversionError: none there, or its ids are not those of the captioner.
    """
    if os.path.isdir(source) and not has_tokenizer(source):
        expected = " or ".join(" and ".join(names) for names in TOKENIZER_FILES)
        raise ConversionError(
            f"--tokenizer {source} holds no tokenizer ({expected}); pass a folder that does, or a Hub repository such "
            f"as {DEFAULT_TOKENIZER}."
        )
    # Two files alone, as the published code kept them, do not say which tokenizer they are.
    plain = has_tokenizer(source) and not any(
        os.path.isfile(os.path.join(source, name)) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    try:
        tokenizer = (BartTokenizer if plain else AutoTokenizer).from_pretrained(source)
    except NOT_FOUND_ERRORS as error:
        raise ConversionError(f"--tokenizer {source} cannot be loaded: {shorten_error(error)}") from error
    for name in LOADING_FIELDS:
        tokenizer.init_kwargs.pop(name, None)
    ours = {"vocab_size": len(tokenizer)}
    ours |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, value in ours.items():
        if value != getattr(config, name):
            raise ConversionError(
                f"--tokenizer {source} has `{name}` {value}, the captioner {getattr(config, name)}; pass the tokenizer "
                "that it was trained with."
            )
    return tokenizer


def build_feature_extractor(
    config: EnClapConfig, codec: EncodecModel, tower: ClapAudioModelWithProjection
) -> EnClapFeatureExtractor:
    """The published front end, for these encoders."""
    fusion = tower.config.enable_fusion
    return EnClapFeatureExtractor(
        max_codec_frames=config.max_codec_frames,
        num_mel_bins=tower.config.num_mel_bins,
        long_clips="fusion" if fusion else "middle",
        mel_scale="htk" if fusion else "slaney",
    )


def check_parts_fit(config: EnClapConfig, codec: EncodecModel, tower: ClapAudioModelWithProjection) -> None:
    """Refuse encoders that the captioner was not trained with.

    Raises:
        ConversionError: one of them differs from what the captioner reads.
    """
    for what, ours, wanted in (
        ("CLAP's embedding width", tower.config.projection_dim, config.clap_dim),
        ("EnCodec's codes in a codebook", codec.config.codebook_size, config.codec_vocab_size),
        ("EnCodec's sampling rate", codec.config.sampling_rate, ENCODEC_SAMPLING_RATE),
        ("EnCodec's channels", codec.config.audio_channels, ENCODEC_CHANNELS),
    ):
        if ours != wanted:
            raise ConversionError(
                f"{what}: {ours}, but the captioner reads {wanted}; pass the encoder it was trained with."
            )
    if len(codec.quantizer.layers) < config.num_codebooks:
        raise ConversionError(
            f"EnCodec has {len(codec.quantizer.layers)} codebooks, but the captioner reads {config.num_codebooks}; "
            "pass the codec it was trained with."
        )


def check_output_folder(output: str, overwrite: bool, sources: tuple[str, ...] = ()) -> None:
    """Refuse an output that would be lost, cannot be made, or would take a source with it.

    Raises:
        ConversionError: it is in the way, holds a source, or has no parent folder.
    """
    for source in sources:
        if os.path.exists(source) and is_inside(source, output):
            raise ConversionError(f"--output {output} holds the source {source}; pass another folder.")
    if os.path.exists(output) and not overwrite:
        raise ConversionError(f"{output} exists; pass --overwrite to replace it, or another --output.")
    if os.path.exists(output) and not os.path.isdir(output):
        raise ConversionError(f"{output} is a file; pass a folder as --output.")
    parent = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(parent):
        raise ConversionError(f"The folder of --output {output} does not exist; make it first: mkdir -p {parent}")


def is_inside(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


@contextlib.contextmanager
def staged_folder(output: str, overwrite: bool) -> Iterator[str]:
    """A folder beside `output` that takes its place when all went well, and vanishes otherwise."""
    output = os.path.abspath(output)
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(output)}-", dir=os.path.dirname(output))
    folder, replaced = os.path.join(staging, "new"), os.path.join(staging, "old")
    try:
        os.mkdir(folder)
        yield folder
        check_output_folder(output, overwrite)
        if os.path.exists(output):
            os.rename(output, replaced)
        os.rename(folder, output)
    finally:
        if os.path.exists(replaced) and not os.path.exists(output):
            os.rename(replaced, output)
        shutil.rmtree(staging, ignore_errors=True)


def make_card(parts: Parts, repository: str) -> CaptionerCard:
    """The model card."""
    model, front_end = parts.model.config.to_dict(), parts.processor.feature_extractor.to_dict()
    return make_conversion_card(repository, parts.sources, model, front_end, PUBLISHED_DECODING)


def refuse_published(repository: str) -> None:
    """Say of a folder in the published format that it is in that format already.

    Raises:
        ConversionError: it is, or it is another kind of model.
    """
    if not os.path.isfile(os.path.join(repository, "config.json")):
        return
    model_type = read_json(os.path.join(repository, "config.json")).get("model_type")
    if model_type != EnClapConfig.model_type:
        is_published = model_type == "bart" and any(
            os.path.isfile(os.path.join(repository, name)) for name in WEIGHT_FILES
        )
        kind = "in the published format already" if is_published else f"of model type {model_type!r}"
        raise ConversionError(
            f"--to-published {repository} is {kind}; pass a folder that `enclap convert` or `save_pretrained` wrote."
        )


def write_published(repository: str, output: str, overwrite: bool = False) -> None:
    """Write a captioner in the published format, for the published code: config.json and pytorch_model.bin.

    Args:
        repository: directory or Hub repository of an [`EnClapForConditionalGeneration`].
        output: the folder to write.
        overwrite: replace `output` if it exists.
    Raises:
        ConversionError: the repository cannot be loaded, or `output` is in the way.
    """
    check_output_folder(output, overwrite, sources=(repository,))
    logger.info("Reading the captioner from %s", repository)
    refuse_published(repository)
    try:
        model, info = EnClapForConditionalGeneration.from_pretrained(repository, dtype="auto", output_loading_info=True)
    except NOT_FOUND_ERRORS as error:
        raise ConversionError(f"{repository} cannot be loaded: {shorten_error(error)}") from error
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ConversionError(
            f"{repository} lacks tensors: {sorted(info['missing_keys'])[:3]}; the model is not complete."
        )
    logger.info("Writing %s", output)
    with staged_folder(output, overwrite) as folder:
        torch.save(model.state_dict(), os.path.join(folder, WEIGHT_FILES[0]))
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(make_published_config(model), file, indent=2, sort_keys=True)
            file.write("\n")
