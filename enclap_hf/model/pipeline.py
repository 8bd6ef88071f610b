"""`pipeline("audio-captioning")`: recordings in any form, to captions."""

import contextlib
import functools
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import Pipeline
from transformers.modeling_outputs import BaseModelOutput

from .audio_loading import AudioLoadError, as_audio_batch, check_no_table
from .audio_sources import check_raw
from .candidates import compute_clip_seed
from .caption_choice import CHOICE_ARGUMENTS, read_choice
from .caption_joining import join_equal_neighbours
from .caption_results import CaptionedPiece, Results, group_pieces, join_pieces, make_row, put_in_order
from .caption_scores import score_sequences
from .caption_stream import SORTED_BATCHES, caption_as_done
from .chosen_captions import ChosenCaptions, check_choice, choose_captions, compare
from .generate_arguments import check_generate_arguments
from .recording_stream import PieceReader
from .recordings import is_list, is_stream
from .repository import save_repository
from .sound_changes import make_embed
from .windows import WindowPlan, describe_plan, plan_windows

logger = logging.getLogger(__name__)

TASK = "audio-captioning"
# Peak below which a recording counts as silent, dB of full scale: 10 of the 16 bits of a sample are then never used.
SILENCE_DBFS = -70.0
# Arguments that say how recordings are opened and cut.
WINDOW_ARGUMENTS = ("chunk_length_s", "stride_length_s", "segmentation")
RAW_ARGUMENTS = ("raw_format", "raw_sampling_rate", "raw_channels")
_UNSET = object()


class AudioCaptioningPipeline(Pipeline):
    """Captions recordings.

    Calling it with one recording (path, bytes, file object, array or tensor, `datasets` audio dict) returns
    `{"text": caption, "score": score}`; with a list or a dataset column, a list of such; with an iterator, a streamed
    column or a `KeyDataset`, they come one by one. With `num_return_sequences=n` every recording gives a list of n such
    dicts: beams in the order of the search, samples best first. The score is the mean log probability of the caption's
    tokens, see `caption_scores.py`. Where the repository has the text tower of its CLAP, `confidence` says how well the
    caption fits the recording, see [`EnClapProcessor.score_captions`]. A recording without sound gives
    `{"text": "", "silent": True}`.

    A recording longer than what the model hears at once is captioned window by window (see `windows.py`), while it is
    read: memory does not grow with its length. Its text is that of its windows, each sentence once; `return_timestamps`
    gives them apart, and [`stream`] each of them as soon as it is captioned.

    Args of a call, or of `pipeline(...)` for every call:
        sampling_rate: Hz of arrays and tensors, which do not carry it.
        batch_size: recordings and windows captioned together; the captions are the same for any.
        num_workers: processes that read ahead.
        chunk_length_s: seconds of a window; every recording longer than it is cut. Unless given, only recordings longer
            than the model hears, into windows of 10 s; 0 cuts none, so that of such a recording the start alone counts.
        stride_length_s: seconds of a window shared with its neighbours: one number, or [left, right]; 0 unless given.
        segmentation: "fixed" unless given, or "changes": segments begin and end where the sound changes, and neighbours
            whose captions say the same are one. `chunk_length_s` is then the longest, 20 s unless given.
        return_timestamps: True adds `chunks`: a list of `{"timestamp": (start, end), "text", "score"}` in seconds of
            the recording, for n-best with all `captions`; a recording that is not cut has one.
        errors: "raise" stops at a recording that cannot be read; "return" gives `{"text": None, "error": reason}` for
            it and goes on. One that is damaged further on has the text of the windows before that, and the reason.
        silence_dbfs: peak below which a recording or a window is silent, dB of full scale, -70 unless given; None
            captions all.
        raw_format, raw_sampling_rate, raw_channels: of files that hold samples without a header, see
            [`~enclap_hf.model.audio_sources.open_audio`].
        num_candidates: captions that are written of each recording, of which the best is chosen; 30 where one of the
            next two is given.
        candidates: "beam", "nucleus" or "both", see `candidates.py`.
        rerank: "clap", "consensus", "likelihood", or a mixture such as `{"clap": 0.6, "consensus": 0.4}`, see
            `reranking.py`.
        seed: of the samples, with `do_sample` or candidates; a recording has the same ones in any batch.
        min_confidence: captions of less confidence are left out; where none is left, the text is empty, and the
            confidence that of the best.
        is_fluent: a function from captions to booleans; those that are not fluent come last.
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
    _has_said_windows = False
    _pipeline_calls_generate = False  # the model's own generation_config holds the decoding, not the pipeline's

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.processor.check_captioner(self.model.config)
        self.processor.to(self.device)
        if getattr(self.model, "front_end", None) is not None:
            self.processor.use_front_end(self.model.front_end)
        self.plan_windows(self._preprocess_params)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_has_said_windows": False}  # whether it was used decides no hash

    def _sanitize_parameters(
        self,
        sampling_rate=None,
        errors=None,
        silence_dbfs=_UNSET,
        return_timestamps=None,
        min_confidence=None,
        generate_kwargs=None,
        **kwargs,
    ):
        choosing = {name: kwargs.pop(name) for name in CHOICE_ARGUMENTS if name in kwargs}
        if errors not in (None, "raise", "return"):
            raise ValueError(f'Got `errors`={errors!r}; expected "raise" or "return".')
        is_number = isinstance(silence_dbfs, (int, float)) and not isinstance(silence_dbfs, bool)
        if silence_dbfs is not _UNSET and silence_dbfs is not None and not (is_number and silence_dbfs <= 0):
            raise ValueError(
                f"Got `silence_dbfs`={silence_dbfs!r}; expected dB of full scale, 0 or below, or None to caption all."
            )
        if return_timestamps not in (None, True, False):
            raise ValueError(f"Got `return_timestamps`={return_timestamps!r}; expected True or False.")
        preprocess = {"sampling_rate": sampling_rate, "errors": errors}
        preprocess |= {name: kwargs.pop(name, None) for name in (*WINDOW_ARGUMENTS, *RAW_ARGUMENTS)}
        preprocess = {name: value for name, value in preprocess.items() if value is not None}
        if silence_dbfs is not _UNSET:
            preprocess["silence_dbfs"] = silence_dbfs
        if not isinstance(generate_kwargs, (dict, type(None))):
            raise TypeError(f"Got `generate_kwargs` of type {type(generate_kwargs).__name__}; expected a dict.")
        for name in kwargs.keys() & (generate_kwargs or {}).keys():
            raise ValueError(f"Got `{name}` twice, by itself and in `generate_kwargs`; pass it once.")
        postprocess = {} if return_timestamps is None else {"return_timestamps": return_timestamps}
        forward = {**check_generate_arguments({**(generate_kwargs or {}), **kwargs}), **choosing}
        choice, _ = read_choice({**getattr(self, "_forward_params", {}), **forward})
        check_choice(choice, min_confidence, self.processor)
        if min_confidence is not None:
            forward["min_confidence"] = min_confidence
        return preprocess, forward, postprocess

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs):
        """Caption one recording or several; see the class."""
        check_no_table(inputs)
        with_chunks = {**self._postprocess_params, **self._sanitize_parameters(**kwargs)[2]}.get("return_timestamps")
        recordings, is_batch, comes_one_by_one = sort_inputs(inputs)
        pieces = self.stream_pieces(recordings, batch_size=batch_size, num_workers=num_workers, **kwargs)
        results = put_in_order((index, join_pieces(parts, bool(with_chunks))) for index, parts in group_pieces(pieces))
        if comes_one_by_one:
            return Results(results, len(inputs) if hasattr(inputs, "__len__") else None)
        results = list(results)
        return results if is_batch else results[0]

    def stream(
        self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs
    ) -> Iterator[tuple[int, dict]]:
        """Caption one recording or several, of any length, and give each caption as soon as there is one.

        Args:
            inputs: what a call takes.
            kwargs: of a call; `errors` is "return" unless given.
        Yields:
            the place of a recording among `inputs`, and a row: a dict of `file_name`, where the recording is a file,
            `start_s`, `end_s` and `duration_s` in seconds of the recording, `caption`, `score` and `silent`, for n-best
            with all `captions`; or `error` in the place of the last ones. Rows of one recording come in order, of
            several as they are done. Closing the generator closes what it reads.
        """
        recordings, _, _ = sort_inputs(inputs)
        options = {"batch_size": batch_size, "num_workers": num_workers, "errors": "return", **kwargs}
        with contextlib.closing(self.stream_pieces(recordings, **options)) as pieces:
            for piece in pieces:
                if piece.result is not None:
                    yield piece.index, make_row(piece)

    def stream_pieces(
        self,
        recordings: Iterable,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        group_size: int | None = None,
        go_on_at: dict[int, float] | None = None,
        notify: Any = None,
        **kwargs,
    ) -> Iterator[CaptionedPiece]:
        """What a call and [`stream`] are made of: each piece of each recording as soon as it is captioned.

        Args:
            recordings: a list or an iterable of them.
            batch_size, num_workers, kwargs: of a call.
            group_size: recordings sorted by length together; unless given, some batches of a list, and none of an
                iterable.
            go_on_at: by the place of a recording, the second at which to go on within it.
            notify: called with the plan at each piece of a recording that is cut unasked or heard in part; None logs a
                warning once.
        """
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        preprocess = {**self._preprocess_params, **preprocess}
        plan = self.plan_windows(preprocess)
        batch_size = batch_size or self._batch_size or 1
        num_workers = self._num_workers or 0 if num_workers is None else num_workers
        if group_size is None:
            group_size = batch_size * (SORTED_BATCHES if batch_size > 1 and is_list(recordings) else 1)
        raw = {name: preprocess[name] for name in RAW_ARGUMENTS if name in preprocess}
        check_raw(**raw)
        reader = PieceReader(
            self.preprocess,
            plan,
            reads_directly=not raw and preprocess.get("chunk_length_s") == 0,
            raises=preprocess.get("errors", "raise") == "raise",
            silence_dbfs=preprocess.get("silence_dbfs", SILENCE_DBFS),
            sampling_rate=preprocess.get("sampling_rate"),
            raw=raw,
            go_on_at=go_on_at or {},
            make_embed=functools.partial(make_embed, self.processor),
        )
        pieces = caption_as_done(
            self,
            recordings,
            reader,
            {**self._forward_params, **forward},
            {},
            batch_size=batch_size,
            num_workers=num_workers,
            group_size=group_size,
        )
        with contextlib.closing(pieces):
            for piece in join_equal_neighbours(pieces) if plan.segmentation == "changes" else pieces:
                if is_worth_saying(plan, piece):
                    (notify or self._say_once)(plan)
                yield piece

    def plan_windows(self, parameters: dict) -> WindowPlan:
        """How recordings are cut with the arguments of a call.

        Raises:
            ValueError: they do not fit each other, or the model.
        """
        chosen = {name: parameters[name] for name in WINDOW_ARGUMENTS if name in parameters}
        return plan_windows(self.processor.window_s, **chosen)

    def _say_once(self, plan: WindowPlan) -> None:
        """Warn that a recording is cut, or heard in part."""
        if not self._has_said_windows:
            self._has_said_windows = True
            logger.warning("%s", describe_plan(plan))

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

    def _forward(self, model_inputs: dict, min_confidence: float | None = None, **generate_kwargs) -> dict:
        """Encode and caption a batch: of each recording the captions' ids (n, S) and scores (n,), or its fate."""
        # Batches come as a list of one-element lists, a single clip as that one element.
        clips = [clip[0] if isinstance(clip, list) else clip for clip in model_inputs["clip"]]
        results = [{name: clip[name] for name in ("error", "silent") if name in clip} for clip in clips]
        captioned = [i for i, result in enumerate(results) if not result]
        if captioned:
            captions = self._caption([clips[i] for i in captioned], generate_kwargs)
            for i, chosen in zip(captioned, captions, strict=True):
                results[i] = {**chosen._asdict(), "min_confidence": min_confidence}
        return {"results": results}

    def _caption(self, clips: list[dict], arguments: dict) -> list[ChosenCaptions]:
        """The captions of prepared clips, each clip's in the order to show them."""
        choice, generate_kwargs = read_choice(arguments)
        batch = self.processor.encode_prepared(join_prepared(clips)).to(self.device)
        mask = batch.pop("attention_mask")
        states = self.model.get_encoder()(**batch, attention_mask=mask)[0]
        prompt = generate_kwargs.get("decoder_input_ids")
        if prompt is not None and len(prompt) == 1:  # one for all
            prompt = prompt.expand(len(clips), -1)
            generate_kwargs = {**generate_kwargs, "decoder_input_ids": prompt}
        clap = batch.get("clap_embedding")
        if choice is not None:
            seeds = [compute_clip_seed(clip["input_values"][0]) for clip in clips]
            return choose_captions(self.model, self.processor, states, mask, clap, seeds, choice, **generate_kwargs)
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
        confidences = compare(self.processor, clap, [self.processor.batch_decode(ids) for ids in sequences])
        return list(map(ChosenCaptions, sequences, scores, confidences or [None] * len(clips)))

    def postprocess(self, model_outputs: dict, return_timestamps: bool = False) -> dict | list[dict]:
        """Decode the captions of one recording or window, whose time stamps are added later."""
        result = model_outputs["results"][0] if isinstance(model_outputs["results"], list) else model_outputs["results"]
        if "error" in result:
            return {"text": None, "error": result["error"]}
        if "silent" in result:
            return {"text": "", "silent": True}
        texts, scores = self.processor.batch_decode(result["sequences"]), result["scores"].tolist()
        captions = [{"text": text, "score": score} for text, score in zip(texts, scores, strict=True)]
        for caption, confidence in zip(captions, result["confidences"] or [], strict=False):
            caption["confidence"] = confidence
        if result["min_confidence"] is not None:
            best = max(caption["confidence"] for caption in captions)
            captions = [caption for caption in captions if caption["confidence"] >= result["min_confidence"]]
            captions = captions or [{"text": "", "confidence": best}]
        return captions[0] if len(captions) == 1 else captions

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        """Write model, processor with its encoders, and their code, so that the directory is self-contained."""
        save_repository(self.model, self.processor, save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs) -> str:
        """Upload what [`save_pretrained`] writes, see [`EnClapForConditionalGeneration.push_to_hub`]."""
        return self.model.push_to_hub(repo_id, processor=self.processor, **kwargs)


def sort_inputs(inputs: Any) -> tuple[Iterable, bool, bool]:
    """Recordings, whether there may be several, and whether their results are to come one by one."""
    if isinstance(inputs, IterableDataset):  # which has the methods of a list, and refuses them
        return iter(inputs), True, True
    if isinstance(inputs, Dataset) or is_stream(inputs):
        return inputs, True, True
    return *as_audio_batch(inputs), False


def is_worth_saying(plan: WindowPlan, piece: CaptionedPiece) -> bool:
    """Whether a piece shows that a recording was cut without being asked, or that of a long one a part was heard."""
    if plan.heard_s is None:
        return False
    return not plan.is_asked if piece.is_windowed else plan.limit_s == math.inf and piece.stated_s > plan.heard_s


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
