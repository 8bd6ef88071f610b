"""The processor: recordings and captions in, model inputs out; token ids in, readable captions out.

It owns the two frozen encoders (`audio_encoders.py`). A saved processor either holds them, in `codec/` and `clap/`, or
holds references to where they are; both kinds load the same way, and the encoders only with the first recording.
"""

import os

import torch
from transformers import BatchFeature, ClapAudioModelWithProjection, EncodecModel, ProcessorMixin

from .audio_encoders import AudioEncoders
from .audio_loading import AudioLoadError  # noqa: F401 (transformers 5.0 copies only what this file names itself)
from .codec_encoder import CodecEncoder  # noqa: F401 (as above)
from .data_collator import pad_codes
from .feature_extraction_enclap import EnClapFeatureExtractor
from .losses_enclap import IGNORED_TARGET
from .onednn_linear import use_onednn  # noqa: F401 (as above)

ENCODER_NAMES = ("codec", "clap")
# Arguments of `from_pretrained` that say how to reach a repository, and so apply to the encoders' files too.
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
# The clean-up that transformers applied to BART's text before version 5, in its order.
PUNCTUATION_CLEAN_UP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


class EnClapProcessor(ProcessorMixin):
    """Wraps a feature extractor, a tokenizer, EnCodec and the CLAP audio tower.

    Args:
        feature_extractor: [`EnClapFeatureExtractor`].
        tokenizer: the caption tokenizer.
        codec_source: where EnCodec is: `{"subfolder": "codec"}` in the processor's own repository, or
            `{"repo_id": ..., "revision": ..., "subfolder": ...}` elsewhere.
        clap_source: the same for the CLAP audio tower.
        num_codebooks: K, codebooks kept of EnCodec's.

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
        num_codebooks: int = 16,
        **kwargs,
    ):
        self.codec_source = codec_source or {"subfolder": "codec"}
        self.clap_source = clap_source or {"subfolder": "clap"}
        self.num_codebooks = num_codebooks
        self._location = {}  # where this processor was loaded from; empty when it was built in memory
        self._encoders = None
        super().__init__(feature_extractor, tokenizer, **kwargs)

    @classmethod
    def from_encoders(
        cls,
        feature_extractor: EnClapFeatureExtractor,
        tokenizer,
        codec: EncodecModel,
        clap: ClapAudioModelWithProjection,
        num_codebooks: int = 16,
    ) -> "EnClapProcessor":
        """Build a processor from loaded encoders; it is saved with them inside."""
        processor = cls(feature_extractor, tokenizer, num_codebooks=num_codebooks)
        codec, clap = (model.float().eval().requires_grad_(False) for model in (codec, clap))
        processor._encoders = AudioEncoders(codec, clap)
        return processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "EnClapProcessor":
        """Load from a directory or the Hub, as every transformers processor; the encoders follow on first use."""
        location = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        name = str(pretrained_model_name_or_path)
        processor._location = {"repo_id": os.path.abspath(name) if os.path.isdir(name) else name, **location}
        return processor

    @property
    def encoders(self) -> AudioEncoders:
        """The two frozen encoders; each is loaded when it is first used."""
        if self._encoders is None:
            self._encoders = AudioEncoders(**{name: self._loading_arguments(name) for name in ENCODER_NAMES})
        return self._encoders

    @property
    def codec(self) -> EncodecModel:
        """EnCodec, frozen, float32."""
        return self.encoders.codec

    @property
    def clap(self) -> ClapAudioModelWithProjection:
        """The CLAP audio tower, frozen, float32."""
        return self.encoders.clap

    def to(self, device: str | torch.device) -> "EnClapProcessor":
        """Run the two encoders on `device`."""
        self.encoders.to(device)
        return self

    def _resolved_source(self, name: str) -> dict:
        """Where an encoder is, as seen from outside of this processor's own repository."""
        source = getattr(self, f"{name}_source")
        if "repo_id" in source:
            return dict(source)
        if not self._location:
            raise ValueError(
                f"This processor was built in memory and has no `{name}`; build it with "
                "`EnClapProcessor.from_encoders(...)` or load it with `EnClapProcessor.from_pretrained(...)`."
            )
        own = {key: self._location[key] for key in ("repo_id", "revision") if key in self._location}
        return {**own, **source}

    def _source_seen_from(self, folder: str | os.PathLike, name: str) -> dict:
        """Where an encoder is, as a processor in `folder` says it, so that a folder that holds it can be moved."""
        source = self._resolved_source(name)
        place = source["repo_id"]
        if os.path.isabs(place) and os.path.realpath(place) == os.path.realpath(folder):
            return {"subfolder": source["subfolder"]} if "subfolder" in source else source
        return source

    def _loading_arguments(self, name: str) -> dict:
        """Keyword arguments of the encoder's `from_pretrained`."""
        arguments = self._resolved_source(name)
        arguments["pretrained_model_name_or_path"] = repo_id = arguments.pop("repo_id")
        if os.path.isabs(repo_id) and not os.path.isdir(os.path.join(repo_id, arguments.get("subfolder", ""))):
            raise FileNotFoundError(
                f"The processor refers to its {name} in {os.path.join(repo_id, arguments.get('subfolder', ''))}, which "
                "does not exist. Put it back, or load a processor that was saved with `include_encoders=True`."
            )
        access = {key: value for key, value in self._location.items() if key not in ("repo_id", "revision")}
        return {**access, **{key: value for key, value in arguments.items() if value is not None}}

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
            kwargs: `return_tensors` may be "pt"; `truncation` and `max_length` reach the tokenizer.
        Returns:
            `BatchFeature` with what `model.forward` and `generate` take: `audio_codes` (B, T, K) int64, padded with
            the mask id; `clap_embedding` (B, C) float32; `attention_mask` (B, T); and `labels` (B, S), -100 on padding.
        Raises:
            ValueError: neither audio nor text, or not one caption per recording.
            AudioLoadError: a recording that cannot be read; the message names it.
        """
        if audio is None and text is None:
            raise ValueError("Got neither `audio` nor `text`; pass recordings, captions, or both.")
        if kwargs.pop("return_tensors", "pt") != "pt":
            raise ValueError('The processor returns torch tensors; leave `return_tensors` out or pass "pt".')
        inputs = {}
        if audio is not None:
            device = self.encoders.device
            prepared = self.feature_extractor(audio, sampling_rate=sampling_rate, rng=rng, device=device)
            inputs.update(self.encode_prepared(prepared))
        if text is not None:
            inputs["labels"] = self.encode_captions(text, **kwargs)
            if audio is not None and len(inputs["labels"]) != len(inputs["audio_codes"]):
                raise ValueError(
                    f"Got {len(inputs['labels'])} captions for {len(inputs['audio_codes'])} recordings; pass one "
                    "caption per recording."
                )
        return BatchFeature(inputs)

    def encode_prepared(self, prepared: dict) -> BatchFeature:
        """Run both frozen encoders on what the feature extractor returned.

        Returns:
            `BatchFeature` of `audio_codes`, `attention_mask` and `clap_embedding`, see [`__call__`].
        """
        codes = self.encoders.encode_codes(prepared["input_values"], self.num_codebooks)
        embeddings = self.encoders.embed_features(prepared["input_features"], prepared["is_longer"])
        padded = pad_codes(codes, self.codec.config.codebook_size)
        return BatchFeature({**padded, "clap_embedding": embeddings})

    def encode_captions(self, text: str | list[str], **kwargs) -> torch.Tensor:
        """Tokenize captions into `labels`: <s> tokens </s>, -100 on padding; (B, S)."""
        captions = [text] if isinstance(text, str) else list(text)
        tokens = self.tokenizer(captions, padding=True, return_tensors="pt", **kwargs)
        return tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, IGNORED_TARGET)

    def decode(self, token_ids, skip_special_tokens: bool = True, **kwargs) -> str:
        """Token ids (S,) -> the caption as it is written: "doesn't stop.", not "does n't stop ."."""
        return clean_up_text(self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs))

    def batch_decode(self, sequences, skip_special_tokens: bool = True, **kwargs) -> list[str]:
        """Token ids (B, S) -> captions, see [`decode`]."""
        return [self.decode(token_ids, skip_special_tokens, **kwargs) for token_ids in sequences]

    @property
    def model_input_names(self) -> list[str]:
        """What `model.forward` takes of this processor's output."""
        return ["audio_codes", "clap_embedding", "attention_mask"]

    def to_dict(self) -> dict:
        """The processor's fields, without the encoders."""
        fields = super().to_dict()
        return {name: value for name, value in fields.items() if not name.startswith("_")}

    def save_pretrained(
        self, save_directory: str | os.PathLike, include_encoders: bool | None = None, **kwargs
    ) -> list[str]:
        """Write the processor to a directory.

        Args:
            save_directory: made when missing.
            include_encoders: True writes both encoders into `codec/` and `clap/`, which makes the directory
                self-contained; False writes references to where they are: for a processor that was loaded from a
                folder, the absolute path of that folder, or `codec/` and `clap/` where it is saved into that folder.
                None includes them only if they are nowhere else, so a Trainer's checkpoints stay small.
        Returns:
            paths of the files written.
        Raises:
            ValueError: references are wanted of encoders that are in memory alone.
        """
        in_memory = not self._location and "repo_id" not in self.codec_source
        include_encoders = in_memory if include_encoders is None else include_encoders
        own_sources = {name: getattr(self, f"{name}_source") for name in ENCODER_NAMES}
        os.makedirs(save_directory, exist_ok=True)
        for name in ENCODER_NAMES:
            source = {"subfolder": name} if include_encoders else self._source_seen_from(save_directory, name)
            setattr(self, f"{name}_source", source)
        try:
            files = super().save_pretrained(save_directory, **kwargs)
        finally:
            for name in ENCODER_NAMES:
                setattr(self, f"{name}_source", own_sources[name])
        if include_encoders:
            self.encoders.save_pretrained(str(save_directory))
        return files

    def push_to_hub(self, repo_id: str, include_encoders: bool = True, **kwargs) -> str:
        """Upload the processor with the code to load it, and with both encoders unless told otherwise.

        Args:
            repo_id: "name" or "owner/name".
            include_encoders: False uploads references to where they are.
            kwargs: `private`, `token`, `revision`, `commit_message`, `commit_description`, `create_pr`, `tags`.
        Returns:
            the commit's address.
        """
        if __name__.startswith("transformers_modules."):
            return super().push_to_hub(repo_id, **kwargs)  # transformers knows where this code came from
        from . import hub_export

        return hub_export.push_parts(repo_id, processor=self, include_encoders=include_encoders, **kwargs)


def clean_up_text(text: str) -> str:
    """Join punctuation to its word, as transformers 4 did for BART: "it does n't stop ." -> "it doesn't stop."."""
    for apart, joined in PUNCTUATION_CLEAN_UP:
        text = text.replace(apart, joined)
    return text
