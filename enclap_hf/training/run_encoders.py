"""Which encoders and tokenizer a training reads recordings and captions with."""

import copy
import os

import torch
from transformers import AutoConfig, AutoTokenizer, ClapAudioConfig

from ..hub.registration import DEFAULT_MODEL
from ..model.configuration_enclap import EnClapConfig
from ..model.feature_extraction_enclap import EnClapFeatureExtractor
from ..model.log_mel_frames import LogMelFrames
from ..model.processing_enclap import EnClapProcessor
from .run_arguments import EncoderArguments

# Encoders beside a BART. The published captioners read another CLAP of the same kind, see examples/recipes/README.md.
PUBLISHED_CODEC, PUBLISHED_CLAP = "facebook/encodec_24khz", "laion/clap-htsat-fused"


def choose_training_processor(args: EncoderArguments, device: str | torch.device = "cpu") -> EnClapProcessor:
    """Load encoders and tokenizer for a training: the named ones, else those that belong to the model.

    They are an EnCLAP's own; beside a BART its tokenizer, EnCodec and CLAP of the Hub; and for random weights those of
    the model that the package carries. Preparing features and training choose alike, so that they fit.

    Args:
        args: what the training starts from, and what is named in the place of its parts. `model_revision` counts for
            whatever is read from the model's repository.
        device: of the encoders.
    Raises:
        ValueError: parts that do not fit each other, or frames for which no encoder is known.
        OSError: one of them cannot be read.
    """
    model_name, revision = args.model_name_or_path, args.model_revision
    model_type = read_model_type(model_name, revision)
    owner = {"enclap": model_name, "bart": None}.get(model_type, DEFAULT_MODEL)
    owner = args.processor_name_or_path or owner
    tokenizer_name = args.tokenizer_name_or_path or (model_name if model_type == "bart" else None)
    tokenizer = None
    if tokenizer_name is not None:
        of_model = revision if tokenizer_name == model_name else None
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_name, revision=of_model)
    if owner is None:
        processor = EnClapProcessor(EnClapFeatureExtractor(), tokenizer)
    else:
        processor = EnClapProcessor.from_pretrained(owner, revision=revision if owner == model_name else None)
        processor.tokenizer = processor.tokenizer if tokenizer is None else tokenizer
    _choose_clap(processor, args, is_bare=owner is None)
    processor = _choose_frames(processor, args, is_bare=owner is None)
    _keep_codebooks(processor, args.num_codebooks)
    processor.check_parts()
    return processor.to(device)


def _choose_clap(processor: EnClapProcessor, args: EncoderArguments, is_bare: bool) -> None:
    """Set the CLAP tower that is named, or the published one where there is none."""
    if not args.use_clap:
        processor.use_encoder("clap", processor.clap_source, sequence_vector="none")
    name = args.clap_name_or_path or (PUBLISHED_CLAP if is_bare else None)
    if name is None or not (args.use_clap or args.frames == "clap_frames"):
        return
    fusion = ClapAudioConfig.from_pretrained(name).enable_fusion  # of a whole CLAP or of its audio tower
    processor.use_encoder("clap", make_encoder_source(name))
    # Clips longer than its window are read as its kind was trained to.
    processor.feature_extractor.long_clips = "fusion" if fusion else "middle"
    processor.feature_extractor.mel_scale = "htk" if fusion else "slaney"


def _choose_frames(processor: EnClapProcessor, args: EncoderArguments, is_bare: bool) -> EnClapProcessor:
    """The processor with the frame encoder that is named, or with the published one where there is none."""
    name, frames = args.frame_encoder_name_or_path, args.frames
    if frames == "log_mel" and name is None:
        extractor = processor.feature_extractor
        extractor.codec_sampling_rate = extractor.codec_hop_length = None  # taken from the new encoder
        return EnClapProcessor.from_encoders(extractor, processor.tokenizer, LogMelFrames(), processor.clap)
    if frames == "clap_frames":
        processor.use_encoder("codec", processor.codec_source, frame_encoder_type="clap_frames", num_codebooks=None)
        return processor
    source = make_encoder_source(name or PUBLISHED_CODEC) if name or is_bare else None
    if frames == "latents" or (frames == "codes" and source is None and processor.frame_encoder.kind != "codes"):
        source = source or processor.encoders.resolve_source("codec")  # the codec of the codes or latents it has
    if source is not None:
        family = "encodec_latents" if frames == "latents" else None  # else told by the encoder's configuration
        processor.use_encoder("codec", source, frame_encoder_type=family, num_codebooks=None)
    kind = processor.frame_encoder.kind
    if frames is not None and (kind == "codes") != (frames == "codes"):
        raise ValueError(
            f"Got `frames` {frames}, and {name or 'the frame encoder of the model'} gives {kind}; name another as "
            "`frame_encoder_name_or_path`."
        )
    return processor


def _keep_codebooks(processor: EnClapProcessor, num_codebooks: int | None) -> None:
    """Keep as many codebooks as the captioner reads; features keep more, so that trainings on fewer share them."""
    if processor.frame_encoder.kind == "codes":
        processor.num_codebooks = max(processor.num_codebooks, num_codebooks or 0)
    elif num_codebooks is not None:
        raise ValueError(
            f"Got `num_codebooks` {num_codebooks} with a frame encoder that gives features; leave it out, or choose "
            "`frames` codes."
        )


def fit_processor(processor: EnClapProcessor, config: EnClapConfig) -> EnClapProcessor:
    """A copy of a training's processor for the captioner, which may read fewer codebooks and hold fewer frames.

    Raises:
        ValueError: the captioner was not made for what the processor gives.
    """
    fitted = copy.copy(processor)
    fitted.feature_extractor = copy.deepcopy(processor.feature_extractor)
    fitted.feature_extractor.max_codec_frames = config.max_codec_frames
    if config.frame_kind == "codes":
        fitted.num_codebooks = config.num_codebooks
    fitted.check_captioner(config)
    return fitted


def make_encoder_source(name: str) -> dict:
    """A reference to an encoder in a repository of its own."""
    return {"repo_id": os.path.abspath(name) if os.path.isdir(name) else name}


def read_model_type(name: str | None, revision: str | None = None) -> str | None:
    """`model_type` of a repository; None where no name is given."""
    return None if name is None else AutoConfig.from_pretrained(name, revision=revision).model_type
