"""Batches for training: padding, cropping to the window, and the codes that masked codec modelling hides."""

import functools
import logging
import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..model.caption_text import read_captions, tokenize_captions
from ..model.configuration_enclap import EnClapConfig
from ..model.frame_encoder import pad_frames
from ..model.losses_enclap import IGNORED_TARGET
from ..model.processing_enclap import EnClapProcessor

logger = logging.getLogger(__name__)

# What a clip may carry.
CLIP_PARTS = ("audio_codes", "audio_features", "audio", "clap_embedding", "labels", "caption")


@dataclass
class DataCollatorForEnClap:
    """Collates clips of any length from one frame up, and draws the codes that masked codec modelling hides.

    Args:
        source: [`EnClapProcessor`] or [`EnClapConfig`] of the captioner, which decides what is not given below; or a
            number, `codec_vocab_size`. With a processor, clips may come as recordings and captions, too.
        codec_vocab_size: codes in a codebook; this id itself marks hidden and padded codes.
        max_codec_frames: T at most; longer clips are cropped, in training at a random frame.
        mcm_probability: wanted share of hidden codes, 0 to 1; 0 switches masked codec modelling off.
        mcm_span: frames that one span hides.
        training: False crops every clip at its start and draws no targets but those of clips with a key, for a trainer
            that measures masked codec modelling beside the captions.
        tokenizer: needed only for clips that come with a `caption` instead of `labels`; None takes the processor's.
        generator: the randomness of clips without a key of their own; None takes torch's global one, which Trainer
            seeds, and restores at the end of an epoch: there a run that is taken up again goes on as an unbroken one.
            Within an epoch a stock Trainer has drawn a batch ahead, and other codes are hidden than an unbroken run
            would hide; `EnClapTrainer` gives every clip a key, and the same ones are. Either way every dataloader
            worker and every process draws differently.

    Raises:
        ValueError: `mcm_probability` is outside 0 to 1, or `mcm_span` or `max_codec_frames` is below 1.
        TypeError: `source` is neither a processor nor a configuration.

    Source: EnCLAP, arXiv 2401.17690, section 2.3; its released code drew once per data set.

    Example:
        >>> import torch
        >>> from enclap_hf import DataCollatorForEnClap, EnClapConfig
        >>> collator = DataCollatorForEnClap(EnClapConfig())
        >>> clip = {"audio_codes": torch.randint(1024, (750, 16)), "clap_embedding": torch.zeros(512), "labels": [0, 2]}
        >>> sorted(collator([clip]))
        ['attention_mask', 'audio_codes', 'clap_embedding', 'labels', 'mcm_targets']
    """

    source: object | None = None
    codec_vocab_size: int | None = None
    max_codec_frames: int | None = None
    mcm_probability: float = 0.15
    mcm_span: int = 10
    training: bool = True
    tokenizer: object | None = None
    generator: torch.Generator | None = None

    def __post_init__(self):
        check_span_arguments(self.mcm_probability, self.mcm_span)
        if isinstance(self.source, EnClapProcessor):
            encoder, extractor = self.source.frame_encoder, self.source.feature_extractor
            sizes = (encoder.codebook_size, extractor.max_codec_frames or EnClapConfig().max_codec_frames)
            self.tokenizer = self.source.tokenizer if self.tokenizer is None else self.tokenizer
        elif isinstance(self.source, EnClapConfig):
            sizes = (self.source.codec_vocab_size, self.source.max_codec_frames)
        elif self.source is None or type(self.source) is int:
            size = EnClapConfig().codec_vocab_size if self.source is None else self.source
            sizes = (size, EnClapConfig().max_codec_frames)
        else:
            raise TypeError(
                f"Got `source` of type {type(self.source).__name__}; expected the captioner's `EnClapProcessor` or "
                "`EnClapConfig`, or sizes by their names: `codec_vocab_size=`, `max_codec_frames=`."
            )
        self.codec_vocab_size = sizes[0] if self.codec_vocab_size is None else self.codec_vocab_size
        self.max_codec_frames = sizes[1] if self.max_codec_frames is None else self.max_codec_frames
        if self.max_codec_frames < 1:
            raise ValueError(f"Got `max_codec_frames`={self.max_codec_frames}; expected at least 1.")

    def for_evaluation(self) -> "DataCollatorForEnClap":
        """The same collator, without targets for hidden codes and with crops at the start."""
        return replace(self, training=False)

    def __call__(self, features: list[dict]) -> dict[str, torch.Tensor]:
        """Collate clips.

        Args:
            features: per clip `audio_codes` (T, K) of any integer type or `audio_features` (T, F), optionally
                `clap_embedding` (C,), and either `labels` (token ids) or `caption` (text), or neither; or, with a
                processor, `audio` in the place of the first three. What a processor returned for one clip may keep its
                leading dimension of 1. A clip with `rng_key`, non-negative integers, is cropped and hidden by that key
                alone, whatever batch, worker or process it is in.
        Returns:
            `audio_codes` (B, T, K) or `audio_features` (B, T, F), `attention_mask` (B, T), and as far as the clips have
            them `clap_embedding` (B, C) and `labels` (B, S); with masked codec modelling also `mcm_targets` (B, T, K),
            the codes that the model is to hide, -100 everywhere else.
        Raises:
            ValueError: clips of unlike keys or without any frames, a clip without a frame, or frames that are not
                (T, K) or (T, F); or recordings without a processor.
        """
        check_clips(features)
        features = self._encode_recordings([dict(clip) for clip in features])
        name = "audio_features" if features[0].get("audio_features") is not None else "audio_codes"
        read = as_codes if name == "audio_codes" else as_features
        frames = [read(clip[name]) for clip in features]
        rngs = self._new_rngs(features, max(map(len, frames)))
        frames = [self._crop(clip, rng) for clip, rng in zip(frames, rngs, strict=True)]
        batch = pad_frames(frames, self.codec_vocab_size if name == "audio_codes" else None)
        if name == "audio_codes" and self.mcm_probability > 0 and None not in rngs:
            targets = [self._draw_targets(codes, rng) for codes, rng in zip(frames, rngs, strict=True)]
            batch["mcm_targets"] = pad_sequence(targets, batch_first=True, padding_value=IGNORED_TARGET)
        if features[0].get("clap_embedding") is not None:
            batch["clap_embedding"] = torch.stack(
                [torch.as_tensor(clip["clap_embedding"], dtype=torch.float32).reshape(-1) for clip in features]
            )
        labels = self._labels(features)
        if labels is not None:
            batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=IGNORED_TARGET)
        elif self.training:
            warn_of_no_captions()
        return batch

    def _encode_recordings(self, features: list[dict]) -> list[dict]:
        """Clips with frames in the place of recordings."""
        if features[0].get("audio") is None:
            return features
        if not isinstance(self.source, EnClapProcessor):
            raise ValueError("The clips carry `audio`; give the collator an `EnClapProcessor`, or encode them before.")
        encoded = self.source.encode_recordings([clip.pop("audio") for clip in features])
        return [{**clip, **frames} for clip, frames in zip(features, encoded, strict=True)]

    def _draw_targets(self, codes: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The codes (T, K) that are to be hidden, -100 everywhere else."""
        hidden = torch.from_numpy(choose_spans(*codes.shape, self.mcm_probability, self.mcm_span, rng))
        # Codes that were hidden before have no name to find.
        return codes.masked_fill(~hidden | (codes == self.codec_vocab_size), IGNORED_TARGET)

    def _crop(self, frames: torch.Tensor, rng: np.random.Generator | None) -> torch.Tensor:
        """Keep one window of the clip: at a random frame in training, else at the start."""
        spare = len(frames) - self.max_codec_frames
        if spare <= 0:
            return frames
        start = int(rng.integers(spare + 1)) if self.training else 0
        return frames[start : start + self.max_codec_frames]

    def _labels(self, features: list[dict]) -> list[torch.Tensor] | None:
        """Caption token ids per clip, tokenized here where the clips carry text."""
        if features[0].get("labels") is not None:
            return [torch.as_tensor(clip["labels"], dtype=torch.long).reshape(-1) for clip in features]
        if features[0].get("caption") is None:
            return None
        if self.tokenizer is None:
            raise ValueError("The clips carry `caption` text; give the collator a `tokenizer`, or pass `labels`.")
        captions = read_captions([clip["caption"] for clip in features])
        return [torch.tensor(ids) for ids in tokenize_captions(self.tokenizer, captions)]

    def _new_rngs(self, features: list[dict], num_frames: int) -> list[np.random.Generator | None]:
        """A generator for each clip: its own by its key, else in training the batch's, else None.

        Where nothing is to be drawn for `num_frames`, torch's own randomness stays as it is.
        """
        keys = [clip.get("rng_key") for clip in features]
        draws = self.training and (self.mcm_probability > 0 or num_frames > self.max_codec_frames)
        shared = self._new_rng() if draws and None in keys else None
        return [shared if key is None else np.random.default_rng(tuple(key)) for key in keys]

    def _new_rng(self) -> np.random.Generator:
        """A generator for one batch, unlike that of any other batch, worker or process."""
        worker = torch.utils.data.get_worker_info()
        draw = torch.randint(2**62, (), generator=self.generator).item()
        worker_seed = worker.seed % 2**63 if worker is not None else 0  # differs by worker and by epoch
        return np.random.default_rng([draw, worker_seed, int(os.environ.get("RANK", 0))])


@functools.cache
def warn_of_no_captions() -> None:
    """Say once that the captioner learns no captions, which no loss shows."""
    logger.warning(
        "The clips carry neither `labels` nor `caption`: no captions are trained. Where they had a `caption`, set "
        "`remove_unused_columns=False`: a Trainer drops columns that the model does not take."
    )


def check_clips(clips: list[dict]) -> None:
    """Refuse clips without frames, and those of which some carry what others lack."""
    kept = [{name for name in CLIP_PARTS if clip.get(name) is not None} for clip in clips]
    for i, names in enumerate(kept):
        if names != kept[0]:
            raise ValueError(
                f"Got a batch whose first clip has {', '.join(sorted(kept[0])) or 'nothing'} and whose clip {i} has "
                f"{', '.join(sorted(names)) or 'nothing'}; expected the same of every clip."
            )
    if not clips or not kept[0] & {"audio_codes", "audio_features", "audio"}:
        given = ", ".join(map(str, clips[0])) if clips and clips[0] else "nothing"
        raise ValueError(
            f"Got clips with {given}; expected `audio_codes`, `audio_features` or `audio`. A Trainer drops columns "
            "that the model does not take, such as `audio` and `caption`, unless it has `remove_unused_columns=False`."
        )


def as_codes(codes) -> torch.Tensor:
    """Codes of one clip as int64 (T, K), from a tensor, array or nested list of any integer type."""
    codes = codes if isinstance(codes, torch.Tensor) else torch.from_numpy(np.asarray(codes).astype(np.int64))
    return check_frames(codes, "audio_codes", "(T, K)").long()


def as_features(features) -> torch.Tensor:
    """Continuous frames of one clip as float32 (T, F), from a tensor, array or nested list."""
    features = features if isinstance(features, torch.Tensor) else torch.from_numpy(np.asarray(features, np.float32))
    return check_frames(features, "audio_features", "(T, F)").float()


def check_frames(frames: torch.Tensor, name: str, expected: str) -> torch.Tensor:
    """Frames without the leading dimension of a batch of one, which must be two-dimensional and not empty."""
    frames = frames[0] if frames.dim() == 3 and len(frames) == 1 else frames
    if frames.dim() != 2 or 0 in frames.shape:
        raise ValueError(
            f"Got `{name}` of shape {tuple(frames.shape)} for one clip; expected {expected} with at least one frame. "
            "Make them with the model's processor."
        )
    return frames


def check_span_arguments(probability: float, span: int) -> None:
    """Raise ValueError where spans cannot be drawn."""
    if not 0 <= probability <= 1:
        raise ValueError(f"Got a masking probability of {probability}; expected 0 (off) to 1.")
    if span < 1:
        raise ValueError(f"Got a masking span of {span} frames; expected at least 1.")


def choose_spans(
    num_frames: int, num_codebooks: int, probability: float, span: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose which codes masked codec modelling hides, in each codebook independently.

    Args:
        num_frames: clip length T in codec frames.
        num_codebooks: K.
        probability: wanted share of hidden codes, 0 to 1. Spans may overlap, so the true share can be lower.
        span: frames that one span hides; in a shorter clip a span is the whole clip.
        rng: the only randomness used here.
    Returns:
        bool (T, K), True where hidden.
    Raises:
        ValueError: `probability` is outside 0 to 1, or `span` is below 1.
    Source: wav2vec 2.0's span masking as EnCLAP uses it, arXiv 2401.17690, section 2.3.
    """
    check_span_arguments(probability, span)
    span = min(span, num_frames)
    # The fraction of a span left over is drawn once per clip, so that the expected share is the wanted one.
    num_spans = min(int(probability * num_frames / span + rng.random()), num_frames // span)
    hidden = np.zeros((num_frames, num_codebooks), dtype=bool)
    for k in range(num_codebooks):
        starts = rng.choice(num_frames - span + 1, size=num_spans, replace=False)
        hidden[(starts[:, None] + np.arange(span)).ravel(), k] = True
    return hidden
