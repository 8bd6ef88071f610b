"""Data sets of the `datasets` library, in a folder or on the Hub."""

import os
from collections.abc import Iterator, Sequence

from .caption_clips import BadClip, CaptionDataError, Clip, check_not_empty
from .caption_folders import SAVED_BY_DATASETS
from .caption_tables import log_excluded, read_captions
from .data_source import DataSource
from .excluded_clips import is_excluded, read_excluded

# Columns by which an `exclude` list may know its clips.
_ID_COLUMNS = ("id", "file_name", "youtube_id", "ytid")


class DatasetSource(DataSource):
    """A `datasets` data set, whose rows hold recordings or their paths."""

    kind = "data set of `datasets`"
    unread_fields = ("audio_dir", "encoding")

    def read_clips(self, show_progress: bool = True) -> tuple["DatasetClips", list[BadClip]]:
        dataset = self.load_rows()
        excluded = frozenset() if self.exclude is None else read_excluded(self.exclude)
        rows, captions, bad, num_excluded = [], [], [], 0
        # The recordings may lie in the rows: they are read only where nothing else names them.
        needs_audio = excluded and not set(_ID_COLUMNS) & set(dataset.column_names)
        for index, row in enumerate(dataset if needs_audio else dataset.remove_columns(self.audio_column)):
            found = read_captions(row, self.caption_column)
            if excluded and is_excluded(name_row(row, self.audio_column), excluded):
                num_excluded += 1
            elif found:
                rows.append(index)
                captions.append(found)
            else:
                bad.append(BadClip(f"row {index}", "its caption is empty"))
        if excluded:
            log_excluded(self.path, num_excluded)
        clips = DatasetClips(dataset, rows, captions, self.audio_column)
        check_not_empty(clips, bad, self.path)
        return clips, bad

    def stream_clips(self, shuffle_seed: int | None = None, shard: tuple[int, int] = (0, 1)) -> Iterator[Clip]:
        from datasets.distributed import split_dataset_by_node

        excluded = frozenset() if self.exclude is None else read_excluded(self.exclude)
        rows, num_excluded = self.load_rows(streaming=True), 0
        if shuffle_seed is not None:
            rows = rows.shuffle(seed=shuffle_seed, buffer_size=1000)
        rows = split_dataset_by_node(rows, rank=shard[0], world_size=shard[1])
        for index, row in enumerate(rows):
            captions = read_captions(row, self.caption_column)
            if excluded and is_excluded(name_row(row, self.audio_column), excluded):
                num_excluded += 1
            elif captions:
                yield make_clip(row[self.audio_column], index, captions)
        if excluded:
            log_excluded(self.path, num_excluded)

    def load_rows(self, streaming: bool = False):
        """The split, with its audio column left undecoded.

        Raises:
            CaptionDataError: it is not there, has several splits of which none is named, or other columns.
        """
        import datasets

        path = self.path
        try:
            if any(os.path.isfile(os.path.join(path, name)) for name in SAVED_BY_DATASETS):
                loaded = datasets.load_from_disk(path)
                if isinstance(loaded, datasets.DatasetDict):
                    loaded = loaded.get(self.split, loaded)
                if streaming and isinstance(loaded, datasets.Dataset):
                    loaded = loaded.to_iterable_dataset()
            else:
                loaded = datasets.load_dataset(
                    path, self.name, split=self.split, revision=self.revision, streaming=streaming
                )
        except (OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError) as error:
            reason = str(error) if error.__cause__ is None else f"{error} {error.__cause__}"
            where = "" if os.path.exists(path) else f" ({os.getcwd()} has no such folder)"
            raise CaptionDataError(f"{path} cannot be loaded{where}: {' '.join(reason.split())}") from error
        if isinstance(loaded, dict):
            raise CaptionDataError(f"{path} has the splits {', '.join(loaded)}; name one as `split`.")
        self.check_columns(loaded)
        if isinstance((loaded.features or {}).get(self.audio_column), datasets.Audio):
            return loaded.cast_column(self.audio_column, datasets.Audio(decode=False))
        return loaded

    def check_columns(self, dataset) -> None:
        """Raise CaptionDataError where the audio or caption column is missing.

        Raises:
            CaptionDataError: a column is missing.
        """
        # Some streams know their columns only once they are read.
        columns = list(next(iter(dataset), {}) if dataset.column_names is None else dataset.column_names)
        if self.audio_column in columns and read_captions(dict.fromkeys(columns, "x"), self.caption_column):
            return
        wanted = f"`{self.caption_column}`" if self.caption_column else "`caption`, `captions`, `text` or `caption_1`"
        raise CaptionDataError(
            f"{self.path} has the columns {', '.join(columns)}; expected audio in `{self.audio_column}` "
            f"(`audio_column`) and {wanted} (`caption_column`)."
        )


class DatasetClips(Sequence):
    """Clips of a `datasets` data set, each read when it is asked for.

    Args:
        dataset: with an audio column that is not decoded.
        rows: the rows that have captions.
        captions: of those rows.
        audio_column: name of that column.
    """

    def __init__(self, dataset, rows: Sequence[int], captions: Sequence[list[str]], audio_column: str):
        self.dataset, self.rows, self.captions, self.audio_column = dataset, rows, captions, audio_column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Clip:
        row = self.rows[i]
        return make_clip(self.dataset[row][self.audio_column], row, self.captions[i])


def make_clip(audio: str | dict, index: int, captions: Sequence[str]) -> Clip:
    """A clip of a row, named by the row's number and its file."""
    path = audio.get("path") if isinstance(audio, dict) else audio
    name = f"{index:06d}-{os.path.basename(path)}" if path else f"{index:06d}"
    return Clip(name, audio, tuple(dict.fromkeys(captions)))


def name_row(row: dict, audio_column: str) -> list[str]:
    """Names by which an `exclude` list may know a row."""
    audio = row.get(audio_column)
    path = audio.get("path") if isinstance(audio, dict) else audio
    return [str(name) for name in (path, *map(row.get, _ID_COLUMNS)) if name not in (None, "")]
