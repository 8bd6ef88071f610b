"""What a training starts from: the captioner, of an EnCLAP, of a BART, or of random weights."""

import logging

import torch
from transformers import AutoConfig

from ..model.configuration_enclap import EnClapConfig
from ..model.modeling_enclap import PUBLISHED_DECODING, EnClapForConditionalGeneration
from ..model.processing_enclap import EnClapProcessor
from .run_encoders import read_model_type

logger = logging.getLogger(__name__)

# Fields of a BART's configuration that are not sizes.
_IDENTITY_FIELDS = ("model_type", "architectures", "transformers_version", "task_specific_params", "dtype")
# Parts of a captioner that mean one frame encoder's frames, or CLAP's vector, and start anew with another.
_FRAME_PARTS = ("model.encoder.embed_encodec.", "model.encoder.embed_features.", "mcm_heads.")
_CLAP_PARTS = ("model.encoder.clap_projection.",)


def build_captioner(
    name: str | None,
    processor: EnClapProcessor,
    *,
    revision: str | None = None,
    num_codebooks: int | None = None,
    config_fields: dict | None = None,
    may_replace_frames: bool = False,
) -> EnClapForConditionalGeneration:
    """Build the model to train.

    Args:
        name: an EnCLAP, whose training goes on; a BART, whose weights fill all but the audio parts; None for random
            weights.
        processor: its encoders and tokenizer decide the sizes that are not given.
        revision: branch, tag or commit of a Hub repository.
        num_codebooks: K, read the first codebooks only; None reads those of the EnCLAP, or all of the processor's.
        config_fields: fields of [`EnClapConfig`] to set.
        may_replace_frames: an EnCLAP whose own frame encoder is another than the processor's gets a new embedding of
            frames, and new heads for masked codec modelling.
    Returns:
        float32 model.
    Raises:
        ValueError: a model of another kind, or a tokenizer with more tokens than the model.
    """
    model_type, fields = read_model_type(name, revision), dict(config_fields or {})
    fields.update({} if num_codebooks is None else {"num_codebooks": num_codebooks})
    if model_type not in ("enclap", "bart", None):
        raise ValueError(f"Got {name}, a {model_type} model; expected an EnCLAP or BART repository.")
    if model_type == "enclap":
        model = _continue_captioner(name, processor, revision, fields, may_replace_frames)
    else:
        model = _start_captioner(name, processor, revision, fields)
    num_tokens = len(processor.tokenizer)
    if num_tokens > model.config.vocab_size:
        raise ValueError(
            f"Got a tokenizer of {num_tokens} tokens and a model of {model.config.vocab_size}; load the model's own "
            "with `tokenizer_name_or_path`."
        )
    return model


def _start_captioner(
    bart_name: str | None, processor: EnClapProcessor, revision: str | None, fields: dict
) -> EnClapForConditionalGeneration:
    """A captioner of random weights, or of a BART's."""
    if bart_name is None:
        return EnClapForConditionalGeneration(make_config(None, processor, fields))
    config = make_config(AutoConfig.from_pretrained(bart_name, revision=revision), processor, fields)
    model = EnClapForConditionalGeneration.from_pretrained(
        bart_name, revision=revision, config=config, dtype=torch.float32
    )
    model.generation_config.update(  # its repository's decoding is for summaries
        **PUBLISHED_DECODING, forced_bos_token_id=config.bos_token_id, forced_eos_token_id=config.eos_token_id
    )
    return model


def _continue_captioner(
    name: str, processor: EnClapProcessor, revision: str | None, fields: dict, may_replace_frames: bool
) -> EnClapForConditionalGeneration:
    """An EnCLAP, without the parts for frames or for a CLAP vector that the processor does not give."""
    own, anew = EnClapConfig.from_pretrained(name, revision=revision), ()
    if may_replace_frames and _has_other_frames(name, revision, own, processor):
        fields = {**describe_frames(processor), **fields}
        if own.frame_kind == "features":
            fields.setdefault("mcm_loss_weight", EnClapConfig().mcm_loss_weight)
        anew += _FRAME_PARTS
        logger.warning(
            "%s goes on with another frame encoder, %s: the embedding of its frames starts anew, and so do the heads "
            "of masked codec modelling.",
            *(name, processor.frame_encoder.frame_encoder_type),
        )
    if own.clap_dim and processor.clap_encoder is None:
        fields = {**fields, "clap_dim": 0}
        anew += _CLAP_PARTS
        logger.warning("%s goes on without a CLAP vector: what read it is left out.", name)
    if not anew:
        config = EnClapConfig.from_pretrained(name, revision=revision, **fields)
        return EnClapForConditionalGeneration.from_pretrained(
            name, revision=revision, config=config, dtype=torch.float32
        )
    old = EnClapForConditionalGeneration.from_pretrained(name, revision=revision, dtype=torch.float32)
    model = EnClapForConditionalGeneration(EnClapConfig.from_dict({**own.to_dict(), **fields}))
    kept = {key: value for key, value in old.state_dict().items() if not key.startswith(anew)}
    missing, unexpected = model.load_state_dict(kept, strict=False)
    lost = [*unexpected, *(key for key in missing if not key.startswith(anew))]
    if lost:
        raise ValueError(
            f"The weights of {name} do not fit the configuration with other frames ({', '.join(lost[:3])}); leave out "
            "`config_overrides` of sizes."
        )
    model.generation_config = old.generation_config
    return model


def _has_other_frames(name: str, revision: str | None, config: EnClapConfig, processor: EnClapProcessor) -> bool:
    """Whether an EnCLAP's own frame encoder is not the processor's."""
    encoder = processor.frame_encoder
    if config.frame_kind != encoder.kind or config.frame_encoder_type not in (None, encoder.frame_encoder_type):
        return True
    own = EnClapProcessor.from_pretrained(name, revision=revision)
    if own.frame_encoder.frame_encoder_type != encoder.frame_encoder_type:
        return True
    ours, theirs = own.encoders, processor.encoders
    return ours.fingerprint(ours.part_of_frames) != theirs.fingerprint(theirs.part_of_frames)


def describe_frames(processor: EnClapProcessor) -> dict:
    """Fields of [`EnClapConfig`] that a processor's frame encoder decides."""
    encoder = processor.frame_encoder
    described = {
        "frame_kind": encoder.kind,
        "frame_encoder_type": encoder.frame_encoder_type,
        "frame_rate": encoder.frame_rate,
    }
    if encoder.kind == "codes":
        sizes = {"num_codebooks": processor.num_codebooks, "codec_vocab_size": encoder.codebook_size, "frame_dim": None}
    else:
        sizes = {"frame_dim": encoder.frame_dim}
    return {**described, **sizes}


def make_config(bart_config, processor: EnClapProcessor, fields: dict) -> EnClapConfig:
    """Configuration of a captioner for this processor, of the sizes of a BART where one is given."""
    if bart_config is None:
        tokenizer = processor.tokenizer
        base = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        base.update(vocab_size=len(tokenizer), decoder_start_token_id=tokenizer.eos_token_id)
    else:
        base = {name: value for name, value in bart_config.to_dict().items() if name not in _IDENTITY_FIELDS}
    clap = processor.clap_encoder
    base.update(describe_frames(processor), clap_dim=0 if clap is None else clap.embedding_dim)
    return EnClapConfig(**{**base, **fields})
