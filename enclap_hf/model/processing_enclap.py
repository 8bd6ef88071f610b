"""The processor: recordings and captions in, model inputs out; token ids in, readable captions out.

It owns the frozen encoders (`frozen_encoders.py`): the frame encoder, of any family, the CLAP tower, and perhaps that
CLAP's text tower. A saved processor holds them, in `codec/`, `clap/` and `clap_text/`, or refers to repositories on the
Hub; a training's checkpoint refers to wherever they are.
"""

import json
import logging
import os

import torch
from transformers import BatchFeature, ClapAudioModelWithProjection, PreTrainedModel, ProcessorMixin

from .caption_text import (
    clean_up_text,
    is_batch,
    pad_labels,
    read_captions,
    read_token_ids,
    tokenize_captions,
)
from .clap_encoder import ClapEncoder
from .clap_text import ClapTextEncoder, compare_with_captions, pair_captions
from .configuration_enclap import EnClapConfig
from .encoder_sources import ACCESS_ARGUMENTS, PLACES_FILE
from .feature_extraction_enclap import EnClapFeatureExtractor
from .fit_checks import (
    check_captioner,
    check_clap_encoder,
    check_clap_text,
    check_declared_sizes,
    check_frame_encoder,
    check_frames,
)
from .frame_encoder import FrameEncoder, freeze, pad_frames
from .frame_encoder_families import find_family, find_family_name
from .frozen_encoders import PARTS, FrozenEncoders
from .onnx_front_end import OnnxFrontEnd
from .processor_arguments import check_unpadded, sort_arguments
from .repository import add_remote_code, is_checkpoint_folder, push_parts
from .repository_checks import explained_loading

logger = logging.getLogger(__name__)

SEQUENCE_VECTORS = ("clap", "none")
NO_TEXT_TOWER = (
    "This processor has no text tower of its CLAP (`clap_text`), by which captions are compared with sound; use a "
    "repository that has one."
)
# Codebooks of the published captioners, where nothing else is said.
PUBLISHED_CODEBOOKS = 16


class EnClapProcessor(ProcessorMixin):
    """Wraps a feature extractor, a tokenizer, a frame encoder and the CLAP audio tower.

    Args:
        feature_extractor: [`EnClapFeatureExtractor`].
        tokenizer: the caption tokenizer.
        codec_source: where the frame encoder is: `{"subfolder": "codec"}` in the processor's own repository, or
            `{"repo_id": ..., "revision": ..., "subfolder": ...}` elsewhere.
        clap_source: the same for the CLAP audio tower.
        num_codebooks: K, codebooks kept of the codec's; None keeps 16, or all where it has fewer.
        frame_encoder_type: family of the frame encoder; None is told by the `model_type` of its configuration.
        sequence_vector: "clap", or "none" for captioners that read no CLAP vector.
        clap_text_source: the same for the text tower of that CLAP; None where there is none.

    Raises:
        ValueError: an unknown sequence vector.

    Example:
        >>> from enclap_hf import DEFAULT_MODEL, EnClapProcessor
        >>> processor = EnClapProcessor.from_pretrained(DEFAULT_MODEL)
        >>> inputs = processor(audio="examples/sounds/dog_then_telephone.flac")  # doctest: +SKIP
    """

    def __init__(
        self,
        feature_extractor: EnClapFeatureExtractor,
        tokenizer,
        codec_source: dict | None = None,
        clap_source: dict | None = None,
        num_codebooks: int | None = None,
        frame_encoder_type: str | None = None,
        sequence_vector: str = "clap",
        clap_text_source: dict | None = None,
        **kwargs,
    ):
        if sequence_vector not in SEQUENCE_VECTORS:
            raise ValueError(f"Got `sequence_vector`={sequence_vector!r}; expected {' or '.join(SEQUENCE_VECTORS)}.")
        self.codec_source = codec_source or {"subfolder": "codec"}
        self.clap_source = clap_source or {"subfolder": "clap"}
        self.clap_text_source = clap_text_source
        self.num_codebooks = num_codebooks
        self.frame_encoder_type = frame_encoder_type
        self.sequence_vector = sequence_vector
        self._location = {}  # where this processor was loaded from; empty when it was built in memory
        self._encoders = None
        self._front_end = None  # what encodes in their place
        super().__init__(feature_extractor, tokenizer, **kwargs)

    # Making one

    @classmethod
    def from_encoders(
        cls,
        feature_extractor: EnClapFeatureExtractor,
        tokenizer,
        codec: PreTrainedModel | FrameEncoder,
        clap: ClapAudioModelWithProjection | None,
        num_codebooks: int | None = None,
        clap_text: ClapTextEncoder | None = None,
    ) -> "EnClapProcessor":
        """Build a processor from loaded encoders; it is saved with them inside.

        Args:
            feature_extractor, tokenizer, num_codebooks: as in the class.
            codec: a codec of transformers of a known family, or any frame encoder.
            clap: None for a captioner that reads no CLAP vector.
            clap_text: the text tower of that CLAP.
        Raises:
            ValueError: a codec of no known family, or parts that do not fit.
        """
        if isinstance(codec, PreTrainedModel):
            codec = find_family(codec.config.model_type)(freeze(codec))
        name = find_family_name(codec)
        processor = cls(
            feature_extractor,
            tokenizer,
            num_codebooks=num_codebooks,
            frame_encoder_type=name,
            sequence_vector="none" if clap is None else "clap",
            clap_text_source=None if clap_text is None else {"subfolder": "clap_text"},
        )
        tower = None if clap is None else ClapEncoder(freeze(clap))
        processor._encoders = processor._make_encoders(frame_encoder=codec, clap_encoder=tower, clap_text=clap_text)
        if hasattr(codec, "bind"):
            codec.bind(processor)
        processor.check_parts()
        return processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "EnClapProcessor":
        """Load from a directory or the Hub, as every transformers processor; the encoders' weights follow on first use.

        `use_safetensors=False` lets these be weights of torch's own format, which are read without running code.

        Raises:
            ValueError: feature extractor, frame encoder and CLAP tower do not fit each other.
            OSError: it cannot be read.
        """
        names = (*ACCESS_ARGUMENTS, "revision", "use_safetensors")
        location = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        kwargs.pop("use_safetensors", None)
        with explained_loading(pretrained_model_name_or_path):
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        name = str(pretrained_model_name_or_path)
        processor._location = {"repo_id": os.path.abspath(name) if os.path.isdir(name) else name, **location}
        try:
            processor.check_parts()
        except OSError as error:  # encoders that are not there are missed when they are needed
            logger.info("The encoders of %s are not checked: %s", name, error)
        return processor

    @classmethod
    def register_for_auto_class(cls, auto_class: str | None = None) -> None:
        """Nothing: the code comes with `add_remote_code`, where transformers would add it to every checkpoint, too."""

    def _make_encoders(self, **loaded) -> FrozenEncoders:
        return FrozenEncoders(
            {part: getattr(self, f"{part}_source") for part in PARTS},
            self._location,
            find_family,
            self.frame_encoder_type,
            self.sequence_vector == "clap",
            **loaded,
        )

    def use_encoder(self, part: str, source: dict, **fields) -> None:
        """Read another encoder in the place of this processor's.

        Args:
            part: "codec", "clap" or "clap_text". Another CLAP leaves the text tower of the one before behind.
            source: where it is, as `codec_source`.
            fields: of this class, to set with it: `frame_encoder_type`, `sequence_vector`, `num_codebooks`.
        """
        if part == "clap":
            self.clap_text_source = None
        for other in PARTS:
            place = getattr(self, f"{other}_source")
            if other != part and self._location and place is not None and "repo_id" not in place:
                setattr(self, f"{other}_source", self.encoders.resolve_source(other))
        setattr(self, f"{part}_source", source)
        for name, value in fields.items():
            setattr(self, name, value)
        if part == "codec":
            self.feature_extractor.codec_sampling_rate = self.feature_extractor.codec_hop_length = None
        device, self._encoders = self.encoders.device, None
        self.encoders.to(device)

    # The encoders

    @property
    def encoders(self) -> FrozenEncoders:
        """The frozen encoders."""
        if self._encoders is None:
            self._encoders = self._make_encoders()
        return self._encoders

    @property
    def frame_encoder(self) -> FrameEncoder:
        """What turns recordings into frames; its weights are loaded when it first encodes."""
        encoder = self.encoders.load_frame_encoder(self)
        if getattr(encoder, "kind", None) == "codes" and self.num_codebooks is None:
            check_declared_sizes(encoder)
            self.num_codebooks = min(PUBLISHED_CODEBOOKS, encoder.num_codebooks)
        return encoder

    @property
    def clap_encoder(self) -> ClapEncoder | None:
        """The CLAP tower; None for a captioner that reads no CLAP vector."""
        return self.encoders.load_clap_encoder()

    @property
    def clap_text_encoder(self) -> ClapTextEncoder | None:
        """The text tower of the CLAP; None where there is none."""
        return self.encoders.load_clap_text()

    @property
    def codec(self) -> PreTrainedModel:
        """The frame encoder's stock codec, frozen, float32."""
        return self.frame_encoder.model

    @property
    def clap(self) -> ClapAudioModelWithProjection | None:
        """The stock CLAP audio tower, frozen, float32."""
        return None if self.clap_encoder is None else self.clap_encoder.model

    @property
    def front_end(self) -> OnnxFrontEnd | None:
        """What encodes recordings in the place of the encoders' weights; None where these do."""
        return self._front_end

    def use_front_end(self, front_end: OnnxFrontEnd | None) -> None:
        """Encode recordings with the graph of an ONNX captioner, `model.front_end`, or with None by torch again.

        Raises:
            ModelFileError: the graph was exported for another processor.
        """
        if front_end is not None:
            front_end.check_processor(self)
        self._front_end = front_end

    def load_encoders(self) -> None:
        """Read now what encodes recordings and captions, so that damage is known before the first recording."""
        if self.front_end is not None:
            self.front_end.graph.session  # noqa: B018
        else:
            for encoder in (self.frame_encoder, self.clap_encoder):
                getattr(encoder, "model", None)
        if self.clap_text_encoder is not None:
            self.clap_text_encoder.model, self.clap_text_encoder.tokenizer  # noqa: B018

    def to(self, device: str | torch.device) -> "EnClapProcessor":
        """Run the encoders on `device`."""
        self.encoders.to(device)
        return self

    def check_parts(self) -> None:
        """Refuse a feature extractor, a frame encoder and a CLAP tower that do not fit each other.

        Raises:
            ValueError: what does not fit.
            OSError: an encoder is not there.
        """
        check_frame_encoder(self.feature_extractor, self.frame_encoder, self.num_codebooks)
        if self.clap_encoder is not None:
            check_clap_encoder(self.feature_extractor, self.clap_encoder)
        if self.clap_text_encoder is not None:
            check_clap_text(self.clap_encoder, self.clap_text_encoder)

    def check_captioner(self, config: EnClapConfig) -> None:
        """Refuse a captioner that was not trained on what this processor gives, see `fit_checks.py`."""
        check_captioner(config, self)

    @property
    def window_s(self) -> float | None:
        """Seconds of a recording that its frames cover; None where all of it is kept."""
        kept = self.feature_extractor.max_codec_frames
        return None if kept is None else kept / self.frame_encoder.frame_rate

    # Recordings and captions

    def __call__(
        self,
        audio=None,
        sampling_rate: int | None = None,
        text: str | list[str] | None = None,
        rng=None,
        **kwargs,
    ) -> BatchFeature:
        """Prepare recordings, captions, or both.

        Args:
            audio: one recording or a list: path, bytes, file object, array or tensor (num_samples,) or
                (channels, num_samples), or a `datasets` audio dict.
            sampling_rate: Hz of arrays and tensors.
            text: one caption or a list, which become `labels`.
            rng: numpy generator that draws CLAP's windows of long clips, to augment training.
            kwargs: those of every processor, by themselves or in `audio_kwargs`, `text_kwargs` and `common_kwargs`:
                `return_tensors` ("pt"); `padding`, True unless given, where False refuses a batch of unlike lengths and
                "max_length" concerns captions alone; and of captions `truncation`, `max_length`, `add_special_tokens`.
        Returns:
            `BatchFeature` with what `model.forward` and `generate` take: `audio_codes` (B, T, K) int64, padded with
            the mask id, or `audio_features` (B, T, F) float32; `clap_embedding` (B, C) float32, unless the captioner
            reads none; `attention_mask` (B, T); and `labels` (B, S), -100 on padding.
        Raises:
            ValueError: neither audio nor text, not one caption per recording, or an argument that does not hold here.
            TypeError: an argument that no processor takes, or captions that are not text.
            AudioLoadError: a recording that cannot be read; the message names it.
        """
        if audio is None and text is None:
            raise ValueError("Got neither `audio` nor `text`; pass recordings, captions, or both.")
        of_audio, of_text = sort_arguments(sampling_rate, kwargs)
        if text is None and len(of_text) > 1:
            named = ", ".join(f"`{name}`" for name in of_text if name != "padding")
            raise ValueError(f"Got {named}, which is for captions, and no `text`; recordings are cut to the window.")
        inputs = {}
        if audio is not None:
            inputs.update(self.encode_prepared(self.prepare(audio, of_audio.get("sampling_rate"), rng=rng)))
            if of_audio["padding"] == "do_not_pad":
                check_unpadded(inputs["attention_mask"].sum(1).tolist())
        if text is not None:
            inputs["labels"] = self.encode_captions(text, **of_text)
            if audio is not None and len(inputs["labels"]) != len(inputs["attention_mask"]):
                raise ValueError(
                    f"Got {len(inputs['labels'])} captions for {len(inputs['attention_mask'])} recordings; pass one "
                    "caption per recording."
                )
        return BatchFeature(inputs)

    def prepare(self, audio, sampling_rate: int | None = None, rng=None) -> BatchFeature:
        """Read recordings and prepare them for the encoders, without running these.

        Args:
            audio, sampling_rate, rng: as in [`__call__`].
        Returns:
            what [`encode_prepared`] takes, see [`EnClapFeatureExtractor.__call__`].
        Raises:
            AudioLoadError: a recording that cannot be read; the message names it.
        """
        return self.feature_extractor(
            audio,
            sampling_rate=sampling_rate,
            rng=rng,
            device=self.encoders.device,
            frame_encoder=self.frame_encoder,
            with_clap=self.sequence_vector == "clap",
        )

    def encode_prepared(self, prepared: dict) -> BatchFeature:
        """Run the frozen encoders on what [`prepare`] returned.

        Returns:
            `BatchFeature` of `audio_codes` or `audio_features`, `attention_mask` and `clap_embedding`, see
            [`__call__`].
        """
        is_codes = self.frame_encoder.kind == "codes"
        if self.front_end is not None:
            frames, embeddings = self.front_end.encode(**prepared)
            kept = self.feature_extractor.max_codec_frames
            batch = pad_frames([codes[:kept] for codes in frames], self.frame_encoder.codebook_size)
            return BatchFeature(batch if embeddings is None else {**batch, "clap_embedding": embeddings})
        batch = pad_frames(
            self.encode_frames(prepared["input_values"]), self.frame_encoder.codebook_size if is_codes else None
        )
        if self.clap_encoder is not None:
            batch["clap_embedding"] = self.clap_encoder.embed(prepared["input_features"], prepared["is_longer"])
        return BatchFeature(batch)

    def encode_frames(self, samples: list[torch.Tensor]) -> list[torch.Tensor]:
        """Frames of each prepared clip, no more than the window holds: int64 (T, K) or float32 (T, F)."""
        encoder, kept = self.frame_encoder, self.feature_extractor.max_codec_frames
        is_codes = encoder.kind == "codes"
        if is_codes and hasattr(encoder, "limit_codebooks"):
            encoder.limit_codebooks(self.num_codebooks)
        encoded = check_frames(encoder.encode(samples), len(samples), encoder, self.num_codebooks)
        if is_codes:
            return [codes[:kept, : self.num_codebooks].long() for codes in encoded]
        return [features[:kept].float() for features in encoded]

    def encode_recordings(self, recordings: list, sampling_rate: int | None = None) -> list[dict[str, torch.Tensor]]:
        """Encode recordings into clips without padding, as a data collator takes them.

        Args:
            recordings: a list, see [`__call__`].
            sampling_rate: Hz of arrays and tensors.
        Returns:
            for each, `audio_codes` (T, K) or `audio_features` (T, F), and `clap_embedding` (C,).
        """
        batch = self.encode_prepared(self.prepare(recordings, sampling_rate))
        lengths = batch.pop("attention_mask").sum(1).tolist()
        name = "audio_codes" if self.frame_encoder.kind == "codes" else "audio_features"
        clips = [{name: frames[:length]} for frames, length in zip(batch[name], lengths, strict=True)]
        for clip, embedding in zip(clips, batch.get("clap_embedding", []), strict=False):
            clip["clap_embedding"] = embedding
        return clips

    def score_captions(self, audio, captions, sampling_rate: int | None = None) -> float | list:
        """How well captions fit recordings: the cosine of both in CLAP's space.

        It tells captions that fit from those that do not, on the whole; it is no proof that one is true. Cosines of
        other CLAPs are on other scales.

        Args:
            audio: one recording or a list, see [`__call__`].
            captions: of one recording, a caption or a list of them; of a list, such an entry for each recording.
            sampling_rate: Hz of arrays and tensors.
        Returns:
            a float where one recording has a caption, lists in the form of `captions` otherwise; -1 to 1.
        Raises:
            ValueError: there is no text tower, or not one entry per recording.
            TypeError: captions that are no text.
            AudioLoadError: a recording that cannot be read; the message names it.
        """
        if self.clap_text_encoder is None:
            raise ValueError(NO_TEXT_TOWER)
        recordings, entries, shape = pair_captions(audio, captions)
        prepared = self.prepare(recordings, sampling_rate)
        embeddings = self.clap_encoder.embed(prepared["input_features"], prepared["is_longer"])
        return shape(compare_with_captions(self.clap_text_encoder, embeddings, entries))

    def encode_captions(self, text: str | list[str], padding: str = "longest", **kwargs) -> torch.Tensor:
        """Tokenize captions into `labels`: <s> tokens </s>, -100 on padding; (B, S). See [`__call__`]."""
        rows = tokenize_captions(self.tokenizer, read_captions(text), **kwargs)
        return pad_labels(rows, padding, kwargs.get("max_length") or self.tokenizer.model_max_length)

    def decode(self, token_ids, skip_special_tokens: bool = True, **kwargs) -> str | list[str]:
        """Token ids (S,) -> the caption as it is written: "doesn't stop.", not "does n't stop ."; (B, S) -> a list.

        Ids below 0, as `labels` have on padding, are passed over.

        Raises:
            TypeError: anything but whole numbers.
        """
        if is_batch(token_ids):
            return self.batch_decode(token_ids, skip_special_tokens, **kwargs)
        ids = read_token_ids(token_ids)
        return clean_up_text(self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, **kwargs))

    def batch_decode(self, sequences, skip_special_tokens: bool = True, **kwargs) -> list[str]:
        """Token ids (B, S) -> captions, see [`decode`]."""
        return [self.decode(token_ids, skip_special_tokens, **kwargs) for token_ids in sequences]

    @property
    def model_input_names(self) -> list[str]:
        """What `model.forward` takes of this processor's output."""
        frames = "audio_codes" if self.frame_encoder.kind == "codes" else "audio_features"
        return [frames, *(["clap_embedding"] if self.sequence_vector == "clap" else []), "attention_mask"]

    # Saving

    def to_dict(self) -> dict:
        """The processor's fields, without the encoders."""
        fields = super().to_dict()
        if self.clap_text_source is None:
            fields.pop("clap_text_source")
        return {name: value for name, value in fields.items() if not name.startswith("_")}

    def save_pretrained(
        self, save_directory: str | os.PathLike, include_encoders: bool | None = None, **kwargs
    ) -> list[str]:
        """Write the processor, and the code that loads it without the package, to a directory.

        Args:
            save_directory: made when missing.
            include_encoders: None writes encoders of this machine in full, into `codec/` and `clap/`, and refers to
                those that have a repository of their own on the Hub; True writes all in full, a text tower into
                `clap_text/`. In folders called
                `checkpoint-*`, and with False, all are references: for encoders of this machine a fingerprint, and
                their place in a file beside it that is never uploaded.
        Returns:
            paths of the files written.
        """
        is_checkpoint = is_checkpoint_folder(save_directory)
        refers = is_checkpoint if include_encoders is None else not include_encoders
        os.makedirs(save_directory, exist_ok=True)
        own = {part: getattr(self, f"{part}_source") for part in PARTS}
        parts = self.encoders.list_parts()
        written = [] if refers else [p for p in parts if include_encoders or not self.encoders.is_elsewhere(p)]
        places = {}
        for part in parts:
            if part in written:
                self.encoders.check_savable(part)  # fails before anything is written
            source = {"subfolder": part} if part in written else self.encoders.refer_to(part, places)
            setattr(self, f"{part}_source", source)
        try:
            files = super().save_pretrained(save_directory, **kwargs)
        finally:
            for part, source in own.items():
                setattr(self, f"{part}_source", source)
        if places:
            path = os.path.join(save_directory, PLACES_FILE)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(places, file, indent=2)
        for part in written:
            self.encoders.save_part(part, os.path.join(save_directory, part))
        if not is_checkpoint:
            add_remote_code(str(save_directory), self._location.get("repo_id"))
        return files

    def push_to_hub(self, repo_id: str, include_encoders: bool | None = None, **kwargs) -> str:
        """Upload the processor with the code to load it, and its encoders as [`save_pretrained`] writes them.

        Args:
            repo_id: "name" or "owner/name".
            include_encoders: True uploads encoders in full that have a repository of their own on the Hub, too.
            kwargs: `private`, `token`, `revision`, `commit_message`, `commit_description`, `create_pr`, `tags`.
        Returns:
            the commit's address.
        """
        return push_parts(repo_id, processor=self, include_encoders=include_encoders, **kwargs)
