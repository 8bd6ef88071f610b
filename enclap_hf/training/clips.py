"""Clips as `EnClapTrainer` reads them: codes, CLAP vector and caption tokens, from prepared features or from a stream.

Ablations are choices of what a clip shows (`ShownAudio`), so they concern training and evaluation alike.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.caption_clips import BadClip, CaptionDataError, Clip, check_bad_share
from ..data.data_source import DataSource
from ..data.prepared_features import PreparedClips
from ..data.recording_features import FeatureSettings, encode_batch, keep_whole_clips, read_recording

logger = logging.getLogger(__name__)

CAPTION_CHOICES = ("all", "one")
# Captions tokenised together when their lengths are checked.
_CAPTIONS_CHECKED_TOGETHER = 10_000
# Clips of a stream that are read before its share of bad ones is judged.
_NUM_JUDGED = 100


@dataclass(frozen=True)
class ShownAudio:
    """What the captioner is shown of a clip.

    Args:
        codec_vocab_size: codes in a codebook; this id itself stands for no code.
        num_codebooks: K, the first codebooks; None shows all that are there.
        use_codes: False shows one empty frame instead: without a code, or of zeros.
        use_clap: False leaves the CLAP vector out.
    """

    codec_vocab_size: int
    num_codebooks: int | None = None
    use_codes: bool = True
    use_clap: bool = True

    def apply(self, clip: dict) -> dict:
        """The model's inputs of a clip: of `audio_codes` (T, K) or `audio_features` (T, F), and `clap_embedding`."""
        if "audio_codes" in clip:
            frames = {"audio_codes": clip["audio_codes"][:, : self.num_codebooks]}
            empty = self.codec_vocab_size
        else:
            frames, empty = {"audio_features": clip["audio_features"].astype(np.float32)}, 0.0
        if not self.use_codes:
            frames = {name: np.full((1, array.shape[1]), empty) for name, array in frames.items()}
        return {**frames, **({"clap_embedding": clip["clap_embedding"]} if self.use_clap else {})}


class TrainingClips(torch.utils.data.Dataset):
    """Prepared data sets, one behind the other, as a training or evaluation set.

    Args:
        parts: features of each data set.
        tokenizer: of the captions.
        shown: what the captioner is shown.
        max_caption_tokens: longer captions are cut to it, <s> and </s> included.
        captions: "all" makes an example of each caption, so an epoch sees a clip of five captions five times; "one"
            makes an example of each clip, with a caption drawn anew in every epoch, and its first in evaluation.
        weights: share of each part in an epoch; None takes every example once.

    Attributes:
        sizes: examples of each part.
        lengths: codec frames T of every example.
        names, references: of every clip, in order.
        gives_references: whether examples come with the `references` of their clip, as a reward needs them; False.

    Raises:
        CaptionDataError: an unknown choice of captions, or features of too few codebooks.
    """

    def __init__(
        self,
        parts: Sequence[PreparedClips],
        tokenizer,
        shown: ShownAudio,
        max_caption_tokens: int,
        captions: str = "all",
        weights: Sequence[float] | None = None,
    ):
        if captions not in CAPTION_CHOICES:
            raise CaptionDataError(f"Got the choice of captions {captions!r}; expected {' or '.join(CAPTION_CHOICES)}.")
        for part in parts:
            if shown.use_clap and not part.has_clap:
                raise CaptionDataError(
                    f"The model reads CLAP vectors and {part.folder} holds none; prepare the features again in another "
                    "folder, or train without them: `use_clap` False."
                )
            if part.num_codebooks is not None and part.num_codebooks < (shown.num_codebooks or 0):
                raise CaptionDataError(
                    f"The model reads {shown.num_codebooks} codebooks and {part.folder} holds {part.num_codebooks}; "
                    "prepare the features again with more, or lower `num_codebooks`."
                )
        self.parts, self.tokenizer, self.shown, self.weights = list(parts), tokenizer, shown, weights
        self.max_caption_tokens, self.gives_references = max_caption_tokens, False
        self.names = [name for part in parts for name in part.names]
        self.references = [list(captions) for part in parts for captions in part.captions]
        self._clip_starts = np.cumsum([0, *map(len, parts)])
        counts = np.array([len(clip) if captions == "all" else 1 for clip in self.references])
        self._clip_of = np.repeat(np.arange(len(counts)), counts)
        self._caption_of = np.arange(len(self._clip_of)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._draws_captions = captions == "one"
        self.sizes = [int(counts[a:b].sum()) for a, b in itertools.pairwise(self._clip_starts)]
        frames = np.concatenate([np.asarray(part.lengths) for part in parts])
        self.lengths = frames[self._clip_of] if shown.use_codes else np.ones(len(self._clip_of), dtype=int)

    def __len__(self) -> int:
        return len(self._clip_of)

    def __getitem__(self, index: int) -> dict:
        """Frames (T, K) or (T, F), `clap_embedding` (C,) and `labels` of an example."""
        return self._make(index, int(self._caption_of[index]))

    def draw(self, index: int, rng: np.random.Generator) -> dict:
        """The same with a caption of the clip drawn, where that was chosen."""
        if not self._draws_captions:
            return self[index]
        return self._make(index, int(rng.integers(len(self.references[self._clip_of[index]]))))

    def _make(self, index: int, caption: int) -> dict:
        clip = int(self._clip_of[index])
        part = int(np.searchsorted(self._clip_starts, clip, side="right")) - 1
        features = self.parts[part][clip - int(self._clip_starts[part])]
        inputs = self.shown.apply(features)
        if self.gives_references:
            inputs["references"] = self.references[clip]
        return {**inputs, "labels": tokenize(self.tokenizer, self.references[clip][caption], self.max_caption_tokens)}

    def warn_of_long_captions(self) -> int:
        """Count captions that are cut, and say so."""
        captions = [caption for clip in self.references for caption in clip]
        num_cut = 0
        for start in range(0, len(captions), _CAPTIONS_CHECKED_TOGETHER):
            ids = self.tokenizer(captions[start : start + _CAPTIONS_CHECKED_TOGETHER])["input_ids"]
            num_cut += sum(len(tokens) > self.max_caption_tokens for tokens in ids)
        if num_cut:
            logger.warning(
                "%d of %d captions are longer than %d tokens and are cut; see `max_caption_tokens`.",
                num_cut,
                len(captions),
                self.max_caption_tokens,
            )
        return num_cut


class StreamedClips(torch.utils.data.IterableDataset):
    """Clips of `datasets` streams without an end, encoded as they come; each clip has the key of its own randomness.

    Nothing is stored, so every pass encodes again, and a run that is taken up reads what it had read before. Prepare
    features instead where the disk allows it.

    Args:
        sources: data sets that `datasets` can stream.
        processor: its encoders run in the process that reads, so `dataloader_num_workers` must be 0.
        settings: what decides the features, and how they are made.
        shown: what the captioner is shown.
        max_caption_tokens: longer captions are cut.
        seed: the run's seed.

    Raises:
        CaptionDataError: read by a worker; or a stream has no usable clip, or more broken ones than allowed.
    """

    def __init__(
        self,
        sources: Sequence[DataSource],
        processor,
        settings: FeatureSettings,
        shown: ShownAudio,
        max_caption_tokens: int,
        seed: int,
    ):
        self.sources, self.processor, self.settings, self.shown = list(sources), processor, settings, shown
        self.max_caption_tokens, self.seed = max_caption_tokens, seed

    def __iter__(self) -> Iterator[dict]:
        if torch.utils.data.get_worker_info() is not None:
            # `datasets` would share its part of the stream among the workers once more, and forks cannot use a GPU.
            raise CaptionDataError("Got a stream with `dataloader_num_workers` above 0; expected 0: set it to 0.")
        whole, settings = keep_whole_clips(self.processor), self.settings
        rng = np.random.default_rng((self.seed, settings.process_index))
        weights = np.array([source.weight or 1.0 for source in self.sources])
        streams = [_SourceStream(source, whole, settings, self.seed) for source in self.sources]
        while True:
            chosen = rng.choice(len(streams), size=settings.batch_size, p=weights / weights.sum())
            drawn = [next(streams[i].clips) for i in chosen]
            rows = encode_batch([item for item, _ in drawn], whole, settings)
            for i, row, (_, key) in zip(chosen, rows, drawn, strict=True):
                streams[i].judge(row)
                if not isinstance(row, BadClip):
                    yield self._make(row, key)

    def _make(self, row: dict, key: tuple[int, ...]) -> dict:
        """A row of features as the collator takes it."""
        name = "audio_codes" if "audio_codes" in row else "audio_features"
        frames = {**row, name: row[name].reshape(row["num_frames"], -1)}
        caption = row["captions"][int(np.random.default_rng((*key, 1)).integers(len(row["captions"])))]
        labels = tokenize(self.tokenizer, caption, self.max_caption_tokens)
        return {**self.shown.apply(frames), "labels": labels, "rng_key": key}

    @property
    def tokenizer(self):
        """The processor's."""
        return self.processor.tokenizer


class _SourceStream:
    """Readable clips of one source, pass after pass, and how many of its clips cannot be used.

    Attributes:
        clips: what [`encode_batch`] takes of each clip, with the key of its randomness.
    """

    def __init__(self, source: DataSource, processor, settings: FeatureSettings, seed: int):
        self.path, self.settings = source.path, settings
        self.num_judged, self.bad = 0, []
        self.clips = self._repeat(source, processor, seed)

    def _repeat(self, source: DataSource, processor, seed: int) -> Iterator[tuple[tuple[Clip, dict], tuple[int, ...]]]:
        process, num_processes = self.settings.process_index, self.settings.num_processes
        for epoch in itertools.count():
            is_empty = True
            for i, clip in enumerate(source.stream_clips(seed + epoch, (process, num_processes))):
                item = read_recording(clip, processor, self.settings)
                if isinstance(item, BadClip):
                    self.judge(item)
                else:
                    is_empty = False
                    yield item, (seed, epoch + 1, process, i)
            if is_empty:
                raise CaptionDataError(f"{self.path} has no usable clip for process {process} of {num_processes}.")

    def judge(self, outcome: dict | BadClip) -> None:
        """Count a clip that was encoded or cannot be used; raise CaptionDataError where too many cannot."""
        self.num_judged += 1
        self.bad += [outcome] if isinstance(outcome, BadClip) else []
        if self.num_judged < _NUM_JUDGED:
            return
        if len(self.bad) == self.num_judged:
            raise CaptionDataError(f"{self.path} has no usable clip; the last: {self.bad[-1].reason}.")
        if len(self.bad) > self.settings.max_bad_share * self.num_judged:
            check_bad_share(self.bad, self.num_judged, self.settings.max_bad_share, self.path)


def tokenize(tokenizer, caption: str, max_tokens: int) -> list[int]:
    """Caption ids <s> tokens </s>, cut to `max_tokens`."""
    return tokenizer(caption, truncation=True, max_length=max_tokens)["input_ids"]
