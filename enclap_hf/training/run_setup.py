"""What a training starts from: the processor and the captioner."""

import os

import torch
from transformers import AutoConfig, AutoTokenizer, ClapAudioConfig

from ..hub.registration import DEFAULT_MODEL
from ..model.configuration_enclap import EnClapConfig
from ..model.feature_extraction_enclap import EnClapFeatureExtractor
from ..model.modeling_enclap import PUBLISHED_DECODING, EnClapForConditionalGeneration
from ..model.processing_enclap import EnClapProcessor

# Encoders beside a BART. The published captioners read another CLAP of the same kind, see examples/recipes/README.md.
PUBLISHED_CODEC, PUBLISHED_CLAP = "facebook/encodec_24khz", "laion/clap-htsat-fused"
# Fields of a BART's configuration that are not sizes.
_IDENTITY_FIELDS = ("model_type", "architectures", "transformers_version", "task_specific_params", "dtype")


def choose_training_processor(
    model_name: str | None = None,
    processor_name: str | None = None,
    codec_name: str | None = None,
    clap_name: str | None = None,
    tokenizer_name: str | None = None,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
) -> EnClapProcessor:
    """Load encoders and tokenizer for a training: the named ones, else those that belong to the model.

    They are an EnCLAP's own; beside a BART its tokenizer, EnCodec and CLAP of the Hub; and for random weights those of
    the model that the package carries. Preparing features and training choose alike, so that they fit.

    Args:
        model_name: EnCLAP or BART that training starts from; None for random weights.
        processor_name: EnCLAP repository with other encoders and tokenizer.
        codec_name: another EnCodec.
        clap_name: another CLAP audio tower.
        tokenizer_name: another tokenizer.
        revision: branch, tag or commit of `model_name`, for whatever is read from that repository.
        device: of the encoders.
    """
    model_type = read_model_type(model_name, revision)
    if processor_name is None:
        processor_name = {"enclap": model_name, "bart": None}.get(model_type, DEFAULT_MODEL)
        if model_type == "bart":
            codec_name, clap_name = codec_name or PUBLISHED_CODEC, clap_name or PUBLISHED_CLAP
    if tokenizer_name is None and model_type == "bart":
        tokenizer_name = model_name
    return load_training_processor(
        processor_name,
        revision=revision if processor_name == model_name else None,
        codec_name=codec_name,
        clap_name=clap_name,
        tokenizer_name=tokenizer_name,
        tokenizer_revision=revision if tokenizer_name == model_name else None,
        device=device,
    )


def load_training_processor(
    name: str | None,
    *,
    revision: str | None = None,
    codec_name: str | None = None,
    clap_name: str | None = None,
    tokenizer_name: str | None = None,
    tokenizer_revision: str | None = None,
    device: str | torch.device = "cpu",
) -> EnClapProcessor:
    """Load encoders and tokenizer.

    Args:
        name: EnCLAP repository; None puts a processor together from the three others, read as the published captioners
            read recordings.
        revision: branch, tag or commit of `name`, for its processor, tokenizer and encoders.
        codec_name: another EnCodec.
        clap_name: another CLAP audio tower; clips longer than its window are then read as its kind, with or without
            fusion, was trained to.
        tokenizer_name: another tokenizer, such as that of the BART that training starts from.
        tokenizer_revision: branch, tag or commit of `tokenizer_name`.
        device: of the encoders.
    Raises:
        ValueError: without `name`, one of the others is missing.
    """
    if name is not None:
        processor = EnClapProcessor.from_pretrained(name, revision=revision)
    elif None in (codec_name, clap_name, tokenizer_name):
        raise ValueError(
            "Got no processor; name an EnCLAP repository as `processor_name_or_path`, or all of `codec_name_or_path`, "
            "`clap_name_or_path` and `tokenizer_name_or_path`."
        )
    else:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_name, revision=tokenizer_revision)
        processor = EnClapProcessor(EnClapFeatureExtractor(), tokenizer)
    if codec_name is not None:
        processor.use_encoder("codec", make_encoder_source(codec_name), frame_encoder_type=None, num_codebooks=None)
    if clap_name is not None:
        fusion = ClapAudioConfig.from_pretrained(clap_name).enable_fusion  # of a whole CLAP or of its audio tower
        processor.use_encoder("clap", make_encoder_source(clap_name))
        processor.feature_extractor.long_clips = "fusion" if fusion else "middle"
        processor.feature_extractor.mel_scale = "htk" if fusion else "slaney"
    if name is not None and tokenizer_name is not None:
        processor.tokenizer = AutoTokenizer.from_pretrained(tokenizer_name, revision=tokenizer_revision)
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
    encoder, clap = processor.frame_encoder, processor.clap_encoder
    audio = {
        "frame_kind": encoder.kind,
        "frame_encoder_type": encoder.frame_encoder_type,
        "frame_rate": encoder.frame_rate,
        "clap_dim": 0 if clap is None else clap.embedding_dim,
    }
    if encoder.kind == "codes":
        audio.update(num_codebooks=processor.num_codebooks, codec_vocab_size=encoder.codebook_size)
    else:
        audio.update(frame_dim=encoder.frame_dim)
    return EnClapConfig(**{**base, **audio, **fields})
