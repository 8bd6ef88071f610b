"""What names a data set of recordings with captions, and what all kinds of data sets can do.

`captioning_data.py` finds out of which kind one is; each kind reads itself.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from .caption_clips import BadClip, CaptionDataError, Clip, check_bad_share
from .feature_shards import FeatureSettings, prepare_features
from .prepared_features import PreparedClips, is_prepared

DEFAULT_AUDIO_COLUMN = "audio"
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class DataSource:
    """Where a data set is. [`~enclap_hf.data.captioning_data.open_source`] makes it one that can be read.

    Args:
        path: a table (.csv, .tsv, .json, .jsonl), an audiofolder with its metadata, a folder of prepared features, a
            folder written by `datasets`, or the name of a data set on the Hub.
        audio_dir: folder of a table's recordings; None is the table's own.
        split: split of a `datasets` data set, or sub-folder of an audiofolder.
        name: configuration of a `datasets` data set.
        revision: of a Hub data set.
        weight: share of the training clips, in any scale; either every source has one or none.
        audio_column: with the recordings; `audio` also stands for the columns that tables of known layouts have.
        caption_column: None takes `caption` and `caption_1`, ..., else `captions`, else `text`.
        encoding: of a table; a byte order mark counts over it.
        exclude: a list of clips to leave out, such as those of a test set: WavCaps' blacklist, a JSON list, or a text
            file with one id or file name a line.
        num_scenes: write so many synthesised sound scenes to `path`, in Clotho's layout, and read those.
        first_seed: of the scenes.

    Raises:
        CaptionDataError: a path that is none, a weight that is not positive, or a field that this kind does not read.
    """

    path: str
    audio_dir: str | None = None
    split: str | None = None
    name: str | None = None
    revision: str | None = None
    weight: float | None = None
    audio_column: str = DEFAULT_AUDIO_COLUMN
    caption_column: str | None = None
    encoding: str = "utf-8"
    exclude: str | None = None
    num_scenes: int | None = None
    first_seed: int = 0

    # What messages call this kind, and the fields that would be passed over in silence.
    kind: ClassVar[str] = "data set"
    unread_fields: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for name in ("path", "audio_dir", "exclude"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str):
                    raise CaptionDataError(f"Got the {name} {value!r} of a data set; expected a path.")
                object.__setattr__(self, name, os.path.expanduser(value))
        if self.weight is not None:
            object.__setattr__(self, "weight", _read_weight(self.weight, self.path))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in self.unread_fields and value != field.default:
                raise CaptionDataError(
                    f"Got `{field.name}` {value!r} for the {self.kind} {self.path}, which does not read it; leave it "
                    "out."
                )

    def read_clips(self, show_progress: bool = True) -> tuple[Sequence[Clip], list[BadClip]]:
        """Find the clips. No recording is opened yet.

        Args:
            show_progress: whether work that takes long draws a bar.
        Returns:
            the clips, and what cannot be used. What `exclude` names is in neither.
        Raises:
            CaptionDataError: the data set is not there, is of no known layout, or has no clip.
        """
        raise CaptionDataError(f"{self.path} is a {self.kind}, which has no clips to read.")

    def stream_clips(self, shuffle_seed: int | None = None, shard: tuple[int, int] = (0, 1)) -> Iterator[Clip]:
        """Yield the clips as they come; rows without captions are passed over.

        Args:
            shuffle_seed: shuffles within a buffer of 1,000 rows.
            shard: (i, n), read every n-th part of the rows, the i-th.
        Raises:
            CaptionDataError: this kind cannot be streamed, or cannot be loaded.
        """
        raise CaptionDataError(
            f"{self.path} is a {self.kind}, which cannot be streamed; leave `streaming` out, or name a data set on the "
            "Hub or one that `datasets` saved."
        )

    def open_features(self, folder: str, processor, settings: FeatureSettings) -> PreparedClips:
        """Open the features of the data set, prepared first as far as they are missing.

        Args:
            folder: where they are or will be; those of the first clips alone have a folder of their own beside it,
                `<folder>-first<max_clips>`.
            processor: [`EnClapProcessor`], with the encoders.
            settings: what decides them and how they are made; every process calls this, does its part and waits for
                the others.
        Raises:
            CaptionDataError: as [`read_clips`]; too many clips are bad; or the folder holds other features.
        """
        folder = os.path.expanduser(folder)
        clips, bad = self.read_clips(settings.shows_progress)
        if settings.max_clips is not None and settings.max_clips < len(clips):
            check_bad_share(bad, len(clips) + len(bad), settings.max_bad_share, self.path)  # of the whole data set
            clips, bad = [clips[i] for i in range(settings.max_clips)], []
            folder = f"{folder}-first{settings.max_clips}"
        prepare_features(clips, folder, processor, settings, source=self.path, bad=bad)
        while not is_prepared(folder):  # not a barrier, which would time out
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return PreparedClips(folder, processor)


def _read_weight(weight: float | str, path: str) -> float:
    """A weight as a number, also where a recipe quotes it."""
    try:
        number = float(weight)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise CaptionDataError(f"Got the weight {weight!r} of {path}; expected a positive `weight`, or none.")
    return number
