"""Configuration of EnCLAP: a BART configuration, and what audio adds to it."""

import inspect
import re

from transformers import BartConfig

from .model_fields import check_config_fields
from .repository import RUNS_FROM_REPOSITORY

# The published code tables are padded to a multiple of this many rows; converted weights keep the shape.
CODE_TABLE_ROW_MULTIPLE = 64
# Slots of the encoder that hold no codec frame: the CLAP vector, <s> and </s>.
NUM_EXTRA_SLOTS = 3
FRAME_KINDS = ("codes", "features")


class EnClapConfig(BartConfig):
    """Sizes and loss weights of an EnCLAP captioner.

    Every field of [`transformers.BartConfig`] is kept; `d_model` is D, `vocab_size` is V. The defaults are the
    published large model (BART-large, 16 codebooks of 1024 codes, LAION-CLAP).

    Args:
        num_codebooks: K, codebooks that each codec frame is read from; 0 where frames are features.
        codec_vocab_size: codes in each codebook. The id `codec_vocab_size` itself marks a hidden or padded code.
        clap_dim: C, width of the CLAP vector; 0 for a captioner that reads none.
        mcm_loss_weight: weight of the masked-codec-modelling loss beside the caption loss; 0 switches it off.
        label_smoothing: label smoothing of the caption loss, in training and in evaluation, 0 to below 1.
        frame_kind: what a frame is: "codes" (T, K), or "features" (T, F), continuous numbers.
        frame_dim: F, width of features; None for codes.
        frame_encoder_type: family of the frame encoder that it was trained with, such as "encodec"; None is unknown.
        frame_rate: frames of a second, Hz, that it was trained with; None is unknown.
        kwargs: fields of `BartConfig`.

    Raises:
        ValueError: a field is out of its range, or two fields do not fit each other.

    Source: EnCLAP, arXiv 2401.17690, sections 2 and 3.

    Example:
        >>> from enclap_hf import EnClapConfig
        >>> EnClapConfig(d_model=64, num_codebooks=4, codec_vocab_size=64, clap_dim=32).max_codec_frames
        1021
    """

    model_type = "enclap"
    # The cache is `cache` from transformers 5.24 on, and `past_key_values` before.
    keys_to_ignore_at_inference = ["cache", "past_key_values", "caption_loss", "mcm_loss"]

    def __init__(
        self,
        num_codebooks: int = 16,
        codec_vocab_size: int = 1024,
        clap_dim: int = 512,
        mcm_loss_weight: float = 0.7,
        label_smoothing: float = 0.2,
        frame_kind: str = "codes",
        frame_dim: int | None = None,
        frame_encoder_type: str | None = None,
        frame_rate: float | None = None,
        **kwargs,
    ):
        if frame_kind == "features":
            num_codebooks, mcm_loss_weight = 0, 0.0  # masked codec modelling needs codes as targets
        self.num_codebooks = num_codebooks
        self.codec_vocab_size = codec_vocab_size
        self.clap_dim = clap_dim
        self.mcm_loss_weight = mcm_loss_weight
        self.label_smoothing = label_smoothing
        self.frame_kind = frame_kind
        self.frame_dim = frame_dim
        self.frame_encoder_type = frame_encoder_type
        self.frame_rate = frame_rate
        if not RUNS_FROM_REPOSITORY:
            # A repository names its own pipeline code, for who loads it without this package. Here the package's own
            # pipeline is registered, and transformers would ask to trust the repository's.
            kwargs.pop("custom_pipelines", None)
        super().__init__(**widen_numbers(kwargs))
        self._check_fields()

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs) -> "EnClapConfig":
        """Build from the content of a config.json, which may say only what describes a captioner.

        Raises:
            ModelFileError: it has a field that would run something, or one of another type or size than any has.
        """
        check_config_fields(config_dict, "config.json", cls)
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | None = None) -> None:
        """Nothing: the code comes with `add_remote_code`, where transformers would add it to every checkpoint, too."""

    @property
    def codec_mask_token_id(self) -> int:
        """Id of a hidden or padded code; its embedding is a zero vector."""
        return self.codec_vocab_size

    @property
    def code_table_rows(self) -> int:
        """Rows of each codebook's embedding table: the codes and the mask id, rounded up as published."""
        return -(-(self.codec_vocab_size + 1) // CODE_TABLE_ROW_MULTIPLE) * CODE_TABLE_ROW_MULTIPLE

    @property
    def max_codec_frames(self) -> int:
        """Most codec frames T that one window holds, T + 3 <= max_position_embeddings."""
        return self.max_position_embeddings - NUM_EXTRA_SLOTS

    def _check_fields(self) -> None:
        if self.frame_kind not in FRAME_KINDS:
            raise ValueError(f"Got `frame_kind`={self.frame_kind!r}; expected {' or '.join(map(repr, FRAME_KINDS))}.")
        least = {"num_codebooks": 1, "codec_vocab_size": 1, "clap_dim": 0, "d_model": 1, "vocab_size": 1}
        if self.frame_kind == "features":
            least = {**least, "num_codebooks": 0, "frame_dim": 1}
        elif self.frame_dim is not None:
            raise ValueError(
                f"Got `frame_dim`={self.frame_dim!r} with codes; only features have a width: leave it out."
            )
        for name, smallest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise ValueError(f"Got `{name}`={value!r}; expected a whole number of at least {smallest}.")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = getattr(self, name)
            if heads < 1 or self.d_model % heads:
                raise ValueError(
                    f"Got `d_model`={self.d_model} and `{name}`={heads}; the width must be a multiple of the number of "
                    f"heads. Change `{name}` or `d_model`."
                )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Got `label_smoothing`={self.label_smoothing!r}; expected 0 or more and below 1.")
        if not self.mcm_loss_weight >= 0:
            raise ValueError(
                f"Got `mcm_loss_weight`={self.mcm_loss_weight!r}; expected 0 (no masked codec modelling) or more."
            )
        if self.max_codec_frames < 1:
            raise ValueError(
                f"Got `max_position_embeddings`={self.max_position_embeddings}; expected at least "
                f"{NUM_EXTRA_SLOTS + 1}: the CLAP vector, <s>, one codec frame and </s>."
            )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            token = getattr(self, name, None)
            if not isinstance(token, int) or not 0 <= token < self.vocab_size:
                raise ValueError(
                    f"Got `{name}`={token!r}; expected an id of the text vocabulary, 0 to {self.vocab_size - 1}. "
                    "Take it from the tokenizer."
                )


def widen_numbers(fields: dict) -> dict:
    """Fields with 0.0 for 0, which JSON does not tell apart, where BART's configuration accepts only the one."""
    annotations = {}
    for base in reversed(BartConfig.__mro__):
        annotations.update(inspect.get_annotations(base))
    takes_floats_alone = {name for name, kind in annotations.items() if re.findall("int|float", str(kind)) == ["float"]}
    return {
        name: float(value) if type(value) is int and name in takes_floats_alone else value
        for name, value in fields.items()
    }
