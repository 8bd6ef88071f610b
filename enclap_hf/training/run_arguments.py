"""Arguments of a training run: what there is, what is refused before anything is loaded, what a run was begun with."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from transformers import Seq2SeqTrainingArguments

from ..data.caption_clips import CaptionDataError
from ..model.configuration_enclap import EnClapConfig
from .clips import CAPTION_CHOICES
from .recipes import parse_json_object
from .reward_trainer import RewardSettings
from .rewards import read_reward
from .trainer_settings import check_settings, find_sampling_strategy

logger = logging.getLogger(__name__)

FRAMES = ("codes", "latents", "log_mel", "clap_frames")
# Kept out of uploads by its first letter: it has paths of this machine.
RUN_ARGUMENTS = "_run_arguments.json"
# What decides the weights of each step, beside the model's arguments. The number of steps does not: a run may be made
# longer. Batch sizes are in `clips_per_step`.
_TRAINING_FIELDS = (
    ("train_data", "streaming", "captions_per_clip", "max_caption_tokens", "max_duration_s", "max_frames_per_batch")
    + ("max_train_clips", "train_sampling_strategy", "group_by_length", "seed", "data_seed", "learning_rate")
    + ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm")
    + ("bf16", "fp16", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")
)


@dataclass
class EncoderArguments:
    """What a training starts from, and with it the encoders."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "EnCLAP or BART to start from, directory or Hub repository; left out, weights are random, of the "
            "sizes in config_overrides"
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of a Hub repository"})
    processor_name_or_path: str | None = field(
        default=None, metadata={"help": "EnCLAP repository with encoders and tokenizer; left out, the model's"}
    )
    frame_encoder_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "another frame encoder in the place of the processor's: EnCodec, DAC, Mimi or X-Codec, directory "
            "or Hub repository; an EnCLAP that is trained on gets a new embedding of its frames"
        },
    )
    codec_name_or_path: str | None = field(
        default=None, metadata={"help": "another name of frame_encoder_name_or_path"}
    )
    frames: str | None = field(
        default=None,
        metadata={
            "help": "what the captioner reads: 'codes' of a codec, its 'latents' before quantisation, 'log_mel', or "
            "the 'clap_frames' of the CLAP tower; left out, what the frame encoder gives"
        },
    )
    num_codebooks: int | None = field(
        default=None, metadata={"help": "codebooks that the model reads; features keep 16 at least, or all"}
    )
    clap_name_or_path: str | None = field(
        default=None, metadata={"help": "another CLAP in the place of the processor's, with or without fusion"}
    )
    use_clap: bool = field(
        default=True, metadata={"help": "read CLAP's vector of a recording; False makes a captioner without"}
    )
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "another tokenizer in the place of the processor's or the BART's"}
    )

    def __post_init__(self):
        names = {self.frame_encoder_name_or_path, self.codec_name_or_path} - {None}
        if len(names) > 1:
            raise ValueError(
                f"Got `frame_encoder_name_or_path`={self.frame_encoder_name_or_path} and `codec_name_or_path`="
                f"{self.codec_name_or_path}, which are two names of one argument; leave one of them out."
            )
        self.frame_encoder_name_or_path, self.codec_name_or_path = next(iter(names), None), None
        if self.frames is not None and self.frames not in FRAMES:
            raise ValueError(f"Got `frames`={self.frames}; expected one of {', '.join(FRAMES)}.")
        if self.frames == "clap_frames" and self.frame_encoder_name_or_path is not None:
            raise ValueError(
                "Got `frames`=clap_frames and `frame_encoder_name_or_path`="
                f"{self.frame_encoder_name_or_path}; these are frames of CLAP, which `clap_name_or_path` names: leave "
                "the other out."
            )
        if self.num_codebooks is not None and self.num_codebooks < 1:
            raise ValueError(f"Got `num_codebooks`={self.num_codebooks}; expected at least 1.")

    @property
    def names_frames(self) -> bool:
        """Whether another frame encoder than the model's own is asked for."""
        return self.frames is not None or self.frame_encoder_name_or_path is not None


@dataclass
class ModelArguments(EncoderArguments):
    """What is trained."""

    config_overrides: dict | str | None = field(
        default=None, metadata={"help": 'fields of EnClapConfig, as JSON: {"d_model": 256, "label_smoothing": 0.1}'}
    )
    mcm_loss_weight: float | None = field(default=None, metadata={"help": "weight of masked codec modelling"})
    mcm_probability: float = field(default=0.15, metadata={"help": "share of codes hidden; 0 trains without MCM"})
    mcm_span: int = field(default=10, metadata={"help": "codec frames that one span hides"})
    use_codes: bool = field(default=True, metadata={"help": "show the frames; False is an ablation"})

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.config_overrides, str):
            self.config_overrides = parse_json_object(self.config_overrides, "config_overrides")
        unknown = sorted(name for name in self.config_overrides or {} if not hasattr(EnClapConfig(), name))
        if set(unknown) - {"attn_implementation"}:
            raise ValueError(f"Got `config_overrides` of {', '.join(unknown)}, which EnClapConfig does not have.")
        if not 0 <= self.mcm_probability <= 1:
            raise ValueError(f"Got `mcm_probability`={self.mcm_probability}; expected a share from 0 to 1.")
        if self.mcm_span < 1:
            raise ValueError(f"Got `mcm_span`={self.mcm_span}; expected at least 1 codec frame.")
        if not self.use_codes and not self.use_clap:
            raise ValueError("Got `use_codes` False and `use_clap` False; expected at least one of them to be True.")
        if not self.use_codes:
            self.mcm_probability = 0.0  # nothing is there to hide


@dataclass
class DataArguments:
    """What it is trained and evaluated on."""

    train_data: list[str] = field(default_factory=list, metadata={"help": "data sets to train on"})
    validation_data: list[str] = field(default_factory=list, metadata={"help": "data sets to evaluate on in training"})
    test_data: list[str] = field(default_factory=list, metadata={"help": "data sets to evaluate on at the end"})
    features_dir: str | None = field(
        default=None, metadata={"help": "where features of recordings are kept; left out, a folder in output_dir"}
    )
    streaming: bool = field(default=False, metadata={"help": "stream the training data; nothing is kept on the disk"})
    captions_per_clip: str = field(
        default="all", metadata={"help": "'all': an epoch sees each caption once; 'one': each clip once"}
    )
    max_caption_tokens: int = field(default=128, metadata={"help": "longer captions are cut"})
    max_duration_s: float = field(default=60.0, metadata={"help": "seconds read from the start of a recording"})
    max_bad_share: float = field(default=0.01, metadata={"help": "share of clips that may be missing or broken"})
    max_frames_per_batch: int | None = field(
        default=None, metadata={"help": "codec frames in a process's batch, in the place of a number of clips"}
    )
    max_train_clips: int | None = field(
        default=None,
        metadata={"help": "use the first clips of each data set only; their features have a folder of their own"},
    )
    max_eval_clips: int | None = field(default=None, metadata={"help": "the same for validation and test"})
    feature_batch_size: int = field(default=16, metadata={"help": "clips encoded at a time"})
    feature_workers: int = field(default=0, metadata={"help": "processes that read recordings ahead"})
    prepare_only: bool = field(default=False, metadata={"help": "prepare the features of all data sets and stop"})
    metrics: str = field(default="fast", metadata={"help": "sets or names of metrics, see `enclap score --help`"})

    def __post_init__(self):
        if self.captions_per_clip not in CAPTION_CHOICES:
            raise ValueError(
                f"Got `captions_per_clip`={self.captions_per_clip}; expected {' or '.join(CAPTION_CHOICES)}."
            )
        for name in ("max_train_clips", "max_eval_clips", "feature_batch_size", "max_caption_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Got `{name}`={value}; expected at least 1.")


@dataclass
class CaptioningTrainingArguments(Seq2SeqTrainingArguments):
    """Those of transformers; validation and test clips are captioned, not only their losses computed."""

    predict_with_generate: bool = field(
        default=True, metadata={"help": "caption the validation and test clips and score the captions"}
    )
    reward: dict | str | None = field(
        default=None,
        metadata={
            "help": "train on a reward of whole captions, in a second stage: cider_d, clap, or both with weights, such "
            "as cider_d=0.8,clap=0.2"
        },
    )
    reward_share: float = field(
        default=0.9, metadata={"help": "share of the reward's loss; the rest is that of the captions' words"}
    )
    reward_samples: int = field(default=5, metadata={"help": "captions drawn of each clip to be rewarded"})


def check_arguments(model_args, data_args, training_args) -> None:
    """Refuse what cannot be, before anything is loaded or encoded."""
    if data_args.prepare_only and data_args.streaming:
        raise ValueError("Got `prepare_only` with `streaming`; a stream has no features to prepare.")
    evaluates_only = data_args.validation_data or data_args.test_data
    if data_args.train_data and not (training_args.do_train or data_args.prepare_only or evaluates_only):
        raise ValueError("Got `train_data` without `do_train`; add --do_train to train, or leave `train_data` out.")
    if not (training_args.do_train or data_args.validation_data or data_args.test_data or data_args.prepare_only):
        raise ValueError(
            "Got nothing to do; expected `do_train` with `train_data`, or clips to caption as `validation_data` or "
            "`test_data`."
        )
    if training_args.do_train and not data_args.train_data:
        raise ValueError("Got no `train_data`; expected at least one data set, or leave `do_train` out.")
    if model_args.model_name_or_path is None and not model_args.config_overrides:
        raise ValueError(
            "Got no `model_name_or_path`; expected an EnCLAP or BART, such as facebook/bart-base, or the sizes of a "
            'model of random weights: --config_overrides \'{"d_model": 256, "encoder_layers": 3, ...}\'.'
        )
    evaluates = training_args.do_eval or training_args.eval_strategy != "no"
    if evaluates and not data_args.validation_data:
        raise ValueError(
            "Got no `validation_data` to evaluate on; name it, or leave `do_eval` and `eval_strategy` out."
        )
    model, folder = model_args.model_name_or_path or "", training_args.output_dir
    is_other = os.path.realpath(model) != os.path.realpath(folder)
    if not training_args.do_train and is_other and os.path.exists(os.path.join(folder, "model.safetensors")):
        raise ValueError(f"{folder} holds another model and its scores; choose another `output_dir`.")
    if training_args.reward is not None:
        read_reward(training_args.reward)
        RewardSettings(training_args.reward_share, training_args.reward_samples)
        if data_args.streaming:
            raise ValueError("Got a stream with a `reward`, which needs all references at once; leave one of them out.")
    if training_args.do_train:
        check_settings(training_args, data_args.max_frames_per_batch)
        if data_args.streaming:
            check_streaming(data_args, training_args)


def check_streaming(data_args, training_args) -> None:
    """Refuse what a stream cannot do, and say what it does not heed."""
    for name in ("eval_strategy", "save_strategy"):
        if getattr(training_args, name) == "epoch":
            steps = name.replace("strategy", "steps")
            raise ValueError(
                f"Got `{name}`=epoch, and a stream has no epochs: it would come at the end alone. Give --{name} steps "
                f"--{steps} 1000."
            )
    if training_args.max_steps < 1:
        raise ValueError("Got a stream, which has no end, without `max_steps`; give --max_steps.")
    unheeded = [name for name in ("max_train_clips", "max_frames_per_batch") if getattr(data_args, name) is not None]
    if find_sampling_strategy(training_args) == "group_by_length":
        unheeded.append("train_sampling_strategy")
    if unheeded:
        logger.warning(
            "A stream is read in its own order, each clip with one caption; not heeded: %s.", ", ".join(unheeded)
        )
    if training_args.dataloader_num_workers:
        logger.warning("A stream is encoded where it is read; `dataloader_num_workers` is set to 0.")
        training_args.dataloader_num_workers = 0
        training_args.dataloader_persistent_workers, training_args.dataloader_prefetch_factor = False, None


def find_run_arguments(model_args, data_args, training_args) -> dict:
    """Collect what decides the weights of each step, names and values as JSON holds them."""
    values = {**asdict(data_args), **training_args.to_dict()}
    found = {**asdict(model_args), **{name: values[name] for name in _TRAINING_FIELDS if name in values}}
    clips = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps
    if training_args.reward is not None:
        found.update({name: values[name] for name in ("reward", "reward_share", "reward_samples")})
    found["clips_per_step"] = clips * training_args.world_size
    return json.loads(json.dumps(found))


def write_run_arguments(folder: str, arguments: Mapping) -> None:
    """Write down what a training begins with."""
    with open(os.path.join(folder, RUN_ARGUMENTS), "w", encoding="utf-8") as file:
        json.dump(arguments, file, indent=2)


def check_run_arguments(path: str, arguments: Mapping, remedy: str, ignored: Iterable[str] = ()) -> None:
    """Refuse to go on with other arguments than a run was begun with.

    Args:
        path: JSON of those; where there is none, nothing is refused.
        arguments: of this command.
        remedy: what to do about it, the end of the message.
        ignored: names that may differ.
    Raises:
        CaptionDataError: with both values of each that differs.
    """
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        begun = json.load(file)
    names = [name for name in {**begun, **arguments} if name not in ignored]
    differing = [name for name in names if begun.get(name) != arguments.get(name)]
    if differing:
        before, here = (
            ", ".join(f"{name}={json.dumps(values.get(name))}" for name in differing) for values in (begun, arguments)
        )
        raise CaptionDataError(
            f"{os.path.dirname(path)} was begun with {before}, and this command has {here}; {remedy}"
        )
