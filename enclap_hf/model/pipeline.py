"""`pipeline("audio-captioning")`: recordings in any form, to captions."""

from collections.abc import Iterable

import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline
from transformers.modeling_outputs import BaseModelOutput

from .audio_loading import AudioLoadError, as_audio_batch
from .caption_scores import score_sequences
from .repository import save_repository

TASK = "audio-captioning"
# Peak below which a recording counts as silent, dB of full scale: 10 of the 16 bits of a sample are then never used.
SILENCE_DBFS = -70.0
# Arguments of `generate` beside those of `GenerationConfig` that a pipeline passes on.
GENERATE_ARGUMENTS = (
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer"),
    "decoder_input_ids",
)
# What `generate` returns beside token ids when it is asked to, which a pipeline's result has no place for.
OUTPUT_ARGUMENTS = (
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    "return_dict_in_generate",
)
_UNSET = object()


class ClipDataset(Dataset):
    """A list of recordings that the pipeline reads lazily, in worker processes where wanted."""

    def __init__(self, clips: list):
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int):
        return self.clips[index]


class AudioCaptioningPipeline(Pipeline):
    """Captions recordings.

    Calling it with one recording (path, bytes, file object, array or tensor, `datasets` audio dict) returns
    `{"text": caption, "score": score}`; with a list or a dataset column, a list of such; with an iterator, a streamed
    column or a `KeyDataset`, they come one by one. With `num_return_sequences=n` every recording gives a list of n such
    dicts: beams in the order of the search, samples best first. The score is the mean log probability of the caption's
    tokens, see `caption_scores.py`. A recording without sound gives `{"text": "", "silent": True}`.

    Args of a call, or of `pipeline(...)` for every call:
        sampling_rate: Hz of arrays and tensors, which do not carry it.
        batch_size: recordings captioned together; the captions are the same for any.
        errors: "raise" stops at a recording that cannot be read; "return" gives `{"text": None, "error": reason}` for
            it and goes on.
        silence_dbfs: peak below which a recording is silent, dB of full scale, -70 unless given; None captions all.
        generate_kwargs: arguments of `generate`; those of `GenerationConfig`, `generation_config`, `logits_processor`,
            `stopping_criteria`, `prefix_allowed_tokens_fn`, `decoder_input_ids` (one row for all recordings) and
            `streamer` may also be passed by themselves.

    Raises:
        AudioLoadError: a recording that cannot be read, with `errors="raise"`.
        TypeError: an argument that neither the pipeline nor `generate` knows, or whose result a pipeline cannot return.
        ValueError: the processor is not the captioner's, or an argument is out of its range.

    Example:
        >>> from transformers import pipeline
        >>> import enclap_hf
        >>> caption = pipeline("audio-captioning", model=enclap_hf.DEFAULT_MODEL)  # the model where none is passed
    """

    _load_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_image_processor = False
    _pipeline_calls_generate = False  # the model's own generation_config holds the decoding, not the pipeline's

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.processor.check_captioner(self.model.config)
        self.processor.to(self.device)
        if getattr(self.model, "front_end", None) is not None:
            self.processor.use_front_end(self.model.front_end)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "call_count": 0}  # whether it was used decides no hash

    def _sanitize_parameters(
        self, sampling_rate=None, errors=None, silence_dbfs=_UNSET, generate_kwargs=None, **kwargs
    ):
        if errors not in (None, "raise", "return"):
            raise ValueError(f'Got `errors`={errors!r}; expected "raise" or "return".')
        is_number = isinstance(silence_dbfs, (int, float)) and not isinstance(silence_dbfs, bool)
        if silence_dbfs is not _UNSET and silence_dbfs is not None and not (is_number and silence_dbfs <= 0):
            raise ValueError(
                f"Got `silence_dbfs`={silence_dbfs!r}; expected dB of full scale, 0 or below, or None to caption all."
            )
        preprocess = {"sampling_rate": sampling_rate, "errors": errors}
        preprocess = {name: value for name, value in preprocess.items() if value is not None}
        if silence_dbfs is not _UNSET:
            preprocess["silence_dbfs"] = silence_dbfs
        for name in kwargs.keys() & (generate_kwargs or {}).keys():
            raise ValueError(f"Got `{name}` twice, by itself and in `generate_kwargs`; pass it once.")
        return preprocess, check_generate_arguments({**(generate_kwargs or {}), **kwargs}), {}

    def __call__(self, inputs, **kwargs):
        """Caption one recording or several; see the class."""
        if isinstance(inputs, Dataset):
            return super().__call__(inputs, **kwargs)
        if is_stream(inputs):
            return super().__call__((clip for clip in inputs), **kwargs)
        clips, is_batch = as_audio_batch(inputs)
        if is_batch:
            return list(super().__call__(ClipDataset(clips), **kwargs))
        clip = clips[0]
        if isinstance(clip, (list, tuple)):  # one clip, which the base class would take for several
            return next(iter(super().__call__(ClipDataset([clip]), **kwargs)))
        return super().__call__(clip, **kwargs)

    def preprocess(
        self,
        inputs,
        sampling_rate: int | None = None,
        errors: str = "raise",
        silence_dbfs: float | None = SILENCE_DBFS,
    ) -> dict:
        """Load one recording and prepare it for the two encoders."""
        try:
            prepared = self.processor.prepare([inputs], sampling_rate=sampling_rate)
        except AudioLoadError as error:
            if errors == "raise":
                raise
            return {"clip": [{"error": str(error)}]}
        if silence_dbfs is not None and prepared["peak"].item() < 10 ** (silence_dbfs / 20):
            return {"clip": [{"silent": True}]}
        return {"clip": [dict(prepared)]}

    def _forward(self, model_inputs: dict, **generate_kwargs) -> dict:
        """Encode and caption a batch: of each recording the captions' ids (n, S) and scores (n,), or its fate."""
        # Batches come as a list of one-element lists, a single clip as that one element.
        clips = [clip[0] if isinstance(clip, list) else clip for clip in model_inputs["clip"]]
        results = [{name: clip[name] for name in ("error", "silent") if name in clip} for clip in clips]
        captioned = [i for i, result in enumerate(results) if not result]
        if captioned:
            sequences, scores = self._caption([clips[i] for i in captioned], generate_kwargs)
            for i, ids, clip_scores in zip(captioned, sequences, scores, strict=True):
                results[i] = {"sequences": ids, "scores": clip_scores}
        return {"results": results}

    def _caption(self, clips: list[dict], generate_kwargs: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (B, n, S) and scores (B, n) of prepared clips, each clip's captions in the order to show them."""
        batch = self.processor.encode_prepared(join_prepared(clips)).to(self.device)
        mask = batch.pop("attention_mask")
        states = self.model.get_encoder()(**batch, attention_mask=mask)[0]
        prompt = generate_kwargs.get("decoder_input_ids")
        if prompt is not None and len(prompt) == 1:  # one for all
            prompt = prompt.expand(len(clips), -1)
            generate_kwargs = {**generate_kwargs, "decoder_input_ids": prompt}
        decoding = self.model.find_decoding(**generate_kwargs)
        sequences = self.model.generate(encoder_outputs=BaseModelOutput(states), attention_mask=mask, **generate_kwargs)
        sequences = getattr(sequences, "sequences", sequences)  # where the model's own decoding returns more
        scores = score_sequences(
            self.model,
            sequences,
            BaseModelOutput(states),
            mask,
            decoding,
            1 if prompt is None else prompt.shape[1],
        )
        sequences, scores = sequences.unflatten(0, (len(clips), -1)), scores.unflatten(0, (len(clips), -1))
        if decoding.do_sample and decoding.num_beams == 1:  # samples come in no order
            order = scores.argsort(dim=1, descending=True, stable=True)
            sequences, scores = sequences.take_along_dim(order.unsqueeze(2), 1), scores.take_along_dim(order, 1)
        return sequences, scores

    def postprocess(self, model_outputs: dict) -> dict | list[dict]:
        """Decode one recording's captions."""
        result = model_outputs["results"][0] if isinstance(model_outputs["results"], list) else model_outputs["results"]
        if "error" in result:
            return {"text": None, "error": result["error"]}
        if "silent" in result:
            return {"text": "", "silent": True}
        texts, scores = self.processor.batch_decode(result["sequences"]), result["scores"].tolist()
        captions = [{"text": text, "score": score} for text, score in zip(texts, scores, strict=True)]
        return captions[0] if len(captions) == 1 else captions

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        """Write model, processor with its encoders, and their code, so that the directory is self-contained."""
        save_repository(self.model, self.processor, save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs) -> str:
        """Upload what [`save_pretrained`] writes, see [`EnClapForConditionalGeneration.push_to_hub`]."""
        return self.model.push_to_hub(repo_id, processor=self.processor, **kwargs)


def check_generate_arguments(arguments: dict) -> dict:
    """Refuse what `generate` does not know, and what a pipeline's result has no place for."""
    known = vars(GenerationConfig())
    config = arguments.get("generation_config")
    asked = [(name, getattr(config, name, None)) for name in OUTPUT_ARGUMENTS]
    for name, value in [*arguments.items(), *asked]:
        if name in OUTPUT_ARGUMENTS and value:
            raise TypeError(
                f"Got `{name}`, and a pipeline returns texts and scores alone; for the rest call `pipe.model.generate` "
                "with `pipe.processor(audio=...)`."
            )
        if name not in known and name not in GENERATE_ARGUMENTS:
            raise TypeError(
                f"Got `{name}`, which neither the pipeline nor `generate` knows; pass arguments of "
                "`GenerationConfig`, such as `num_beams`."
            )
    return {name: value for name, value in arguments.items() if name not in OUTPUT_ARGUMENTS}


def is_stream(inputs) -> bool:
    """Whether recordings come one by one, without a length: an iterator, or a column of a streamed data set."""
    if hasattr(inputs, "read") or not isinstance(inputs, Iterable) or hasattr(inputs, "column_names"):
        return False
    return not hasattr(inputs, "__len__") and not hasattr(inputs, "get_all_samples")


def join_prepared(clips: list[dict]) -> dict:
    """What the processor prepared of each clip, as it prepares several."""
    joined = {"input_values": [clip["input_values"][0] for clip in clips]}
    if "clap_values" in clips[0]:
        joined["clap_values"] = [clip["clap_values"][0] for clip in clips]
    for name in ("input_features", "is_longer"):
        if name in clips[0]:
            joined[name] = torch.cat([clip[name] for clip in clips])
    return joined


def register_audio_captioning(default_model: str) -> None:
    """Make `pipeline("audio-captioning")` known to transformers.

    Args:
        default_model: folder or Hub name of what it loads where no model is passed.
    """
    from transformers import AutoModelForSeq2SeqLM
    from transformers.pipelines import PIPELINE_REGISTRY

    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=AudioCaptioningPipeline,
            pt_model=AutoModelForSeq2SeqLM,
            default={"model": (default_model, None)},  # and its revision
            type="audio",
        )
