"""`pipeline("audio-captioning")`: recordings in any form, to captions."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline

from .audio_arrays import scale_to_float32  # noqa: F401 (transformers 5.0 copies only what this file names itself)
from .audio_decoding import LoadedAudio  # noqa: F401 (as above)
from .audio_errors import AudioLoadError
from .audio_formats import AUDIO_EXTENSIONS  # noqa: F401 (as above)
from .audio_loading import as_audio_batch
from .audio_resampling import resample_audio  # noqa: F401 (as above)
from .repository import save_repository

TASK = "audio-captioning"


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
    `{"text": caption}`; with a list or a dataset column, a list of such; with a generator or a `datasets.Dataset`
    column wrapped in `KeyDataset`, they come one by one. With `num_return_sequences=n` every recording gives a list of
    n dicts, best first, which have a `score` too: the log probability of a caption's tokens, divided by their number to
    the power of beam search's `length_penalty`, or by their number where tokens are sampled.

    Args of a call, or of `pipeline(...)` for every call:
        sampling_rate: Hz of arrays and tensors, which do not carry it.
        batch_size: recordings captioned together; the captions are the same for any.
        errors: "raise" stops at a recording that cannot be read; "return" gives `{"text": None, "error": reason}` for
            it and goes on.
        generate_kwargs: arguments of `generate`; those of `GenerationConfig` may also be passed by themselves.

    Raises:
        AudioLoadError: a recording that cannot be read, with `errors="raise"`.
        TypeError: an argument that neither the pipeline nor `generate` knows.

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

    def _sanitize_parameters(self, sampling_rate=None, errors=None, generate_kwargs=None, **kwargs):
        if errors not in (None, "raise", "return"):
            raise ValueError(f'Got `errors`={errors!r}; expected "raise" or "return".')
        known = vars(GenerationConfig())
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"Got `{name}`, which neither the pipeline nor `generate` knows; pass arguments of "
                    "`GenerationConfig`, such as `num_beams`, or use `generate_kwargs`."
                )
        preprocess = {"sampling_rate": sampling_rate, "errors": errors}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {
                **(generate_kwargs or {}),
                **kwargs,
            },
            {},
        )

    def __call__(self, inputs, **kwargs):
        """Caption one recording or several; see the class."""
        if (
            isinstance(inputs, Sequence)
            and not isinstance(inputs, Dataset)
            and not isinstance(inputs, (str, bytes, bytearray, memoryview))
        ):
            clips, is_batch = as_audio_batch(inputs)
            if not is_batch:
                return super().__call__(torch.tensor(clips[0]), **kwargs)
            return list(super().__call__(ClipDataset(clips), **kwargs))
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs, sampling_rate: int | None = None, errors: str = "raise") -> dict:
        """Load one recording and prepare it for the two encoders."""
        try:
            return {"clip": [dict(self.processor.prepare([inputs], sampling_rate=sampling_rate))]}
        except AudioLoadError as error:
            if errors == "raise":
                raise
            return {"clip": [{"error": str(error)}]}

    def _forward(self, model_inputs: dict, **generate_kwargs) -> dict:
        """Encode and caption a batch; (B, n, S) token ids, (B, n) scores, and the reasons of unreadable clips."""
        # Batches come as a list of one-element lists, a single clip as that one element.
        clips = [clip[0] if isinstance(clip, list) else clip for clip in model_inputs["clip"]]
        readable = [i for i, clip in enumerate(clips) if "error" not in clip]
        errors = [clip.get("error") for clip in clips]
        if not readable:
            nothing = torch.full((len(clips), 1, 1), self.model.config.pad_token_id)
            return {"sequences": nothing, "scores": torch.zeros(len(clips), 1), "error": errors}
        batch = self.processor.encode_prepared(join_prepared([clips[i] for i in readable])).to(self.device)
        out = self.model.generate(**batch, **generate_kwargs, output_scores=True, return_dict_in_generate=True)
        captions_per_clip = len(out.sequences) // len(readable)
        sequences = out.sequences.new_full(
            (len(clips), captions_per_clip, out.sequences.shape[1]), self.model.config.pad_token_id
        )
        scores = torch.zeros(len(clips), captions_per_clip, device=sequences.device)
        sequences[readable] = out.sequences.unflatten(0, (len(readable), -1))
        scores[readable] = self._sequence_scores(out).float().unflatten(0, (len(readable), -1))
        return {"sequences": sequences, "scores": scores, "error": errors}

    def _sequence_scores(self, out) -> torch.Tensor:
        """Beam search's own score of each sequence, or the mean log probability of its sampled tokens."""
        if getattr(out, "sequences_scores", None) is not None:
            return out.sequences_scores
        steps = self.model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
        generated = out.sequences[:, -steps.shape[1] :] != self.model.config.pad_token_id
        return steps.masked_fill(~generated, 0).sum(1) / generated.sum(1).clamp(min=1)

    def postprocess(self, model_outputs: dict) -> dict | list[dict]:
        """Decode one recording's captions."""
        error = model_outputs["error"][0] if isinstance(model_outputs["error"], list) else model_outputs["error"]
        if error is not None:
            return {"text": None, "error": error}
        texts = self.processor.batch_decode(model_outputs["sequences"][0])
        if len(texts) == 1:
            return {"text": texts[0]}
        scores = model_outputs["scores"][0].tolist()
        captions = [{"text": text, "score": score} for text, score in zip(texts, scores, strict=True)]
        return sorted(captions, key=lambda caption: -caption["score"])  # sampled ones come in any order

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        """Write model, processor with its encoders, and their code, so that the directory is self-contained."""
        save_repository(self.model, self.processor, save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs) -> str:
        """Upload what [`save_pretrained`] writes, see [`EnClapForConditionalGeneration.push_to_hub`]."""
        return self.model.push_to_hub(repo_id, processor=self.processor, **kwargs)


def join_prepared(clips: list[dict]) -> dict:
    """What the processor prepared of each clip, as it prepares several."""
    joined = {"input_values": [clip["input_values"][0] for clip in clips]}
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
