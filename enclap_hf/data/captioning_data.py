"""One loader for the caption data that people have: a table with recordings, a folder, a `datasets` data set, scenes.

    read_clips(DataSource("clotho_captions_development.csv", audio_dir="development"))
    read_clips(DataSource("owner/audiocaps-mirror", split="train"))

What cannot be used is listed with its reason, and skipped up to the share that the user allows (`check_bad_share`).
Tables are read by `caption_tables.py`, and found in folders by `caption_folders.py`.
"""

import csv
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from .caption_clips import BadClip, CaptionDataError, Clip
from .caption_folders import find_table
from .caption_tables import log_excluded, read_caption_table, read_captions
from .excluded_clips import is_excluded, read_excluded

logger = logging.getLogger(__name__)

SCENE_TABLE = "captions.csv"
DEFAULT_AUDIO_COLUMN = "audio"
# Columns of a `datasets` data set by which an `exclude` list may know its clips.
_ID_COLUMNS = ("id", "file_name", "youtube_id", "ytid")
# Bad clips that a message names; all of them are in the log.
_NUM_NAMED = 3


@dataclass(frozen=True)
class DataSource:
    """Where a data set is.

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
        encoding: of a table.
        exclude: a list of clips to leave out, such as those of a test set: WavCaps' blacklist, a JSON list, or a text
            file with one id or file name a line.
        num_scenes: write so many synthesised sound scenes to `path`, in Clotho's layout, and read those.
        first_seed: of the scenes.
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

    def __post_init__(self):
        for name in ("path", "audio_dir", "exclude"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str):
                    raise CaptionDataError(f"Got the {name} {value!r} of a data set; expected a path.")
                object.__setattr__(self, name, os.path.expanduser(value))
        if self.weight is not None:
            object.__setattr__(self, "weight", _read_weight(self.weight, self.path))


def _read_weight(weight: float | str, path: str) -> float:
    """A weight as a number, also where a recipe quotes it."""
    try:
        number = float(weight)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise CaptionDataError(f"Got the weight {weight!r} of {path}; expected a positive `weight`, or none.")
    return number


def parse_source(entry: str | dict) -> DataSource:
    """Read a source as a recipe or a command line writes it.

    Args:
        entry: a path or name, a dict of the fields of [`DataSource`], or such a dict as JSON.
    Raises:
        CaptionDataError: no JSON, no `path`, unknown fields, or a weight that is not positive.
    """
    if isinstance(entry, str) and entry.lstrip().startswith("{"):
        try:
            entry = json.loads(entry)
        except ValueError as error:
            raise CaptionDataError(f"Got the data set {entry}, which is no JSON ({error}).") from None
    if isinstance(entry, str):
        return DataSource(entry)
    known = [field.name for field in fields(DataSource)]
    if not isinstance(entry, dict) or "path" not in entry or not set(entry) <= set(known):
        raise CaptionDataError(
            f"Got the data set {entry}; expected a path or Hub name, or `path` with any of {', '.join(known[1:])}."
        )
    return DataSource(**entry)


def read_weights(sources: Sequence[DataSource]) -> list[float] | None:
    """Weights of the data sets; None where none has one.

    Raises:
        CaptionDataError: some have one and some have not.
    """
    weights = [source.weight for source in sources]
    if all(weight is None for weight in weights):
        return None
    if any(weight is None for weight in weights):
        raise CaptionDataError(
            f"Got the weights {weights}; expected a positive `weight` of every data set, or of none."
        )
    return weights


def read_clips(source: DataSource, show_progress: bool = True) -> tuple[Sequence[Clip], list[BadClip]]:
    """Find the clips of a source. No recording is opened yet.

    Args:
        source: where they are.
        show_progress: whether writing scenes shows its bar.
    Returns:
        the clips, read when indexed where they come from `datasets`, and what cannot be used. What `exclude` names is
        in neither.
    Raises:
        CaptionDataError: the source does not exist, is of no known layout, or has no clip.
    """
    is_scenes = source.num_scenes is not None
    path = write_scene_table(source.path, source, show_progress) if is_scenes else source.path
    excluded = frozenset() if source.exclude is None else read_excluded(source.exclude)
    found = find_table(path, source.split)
    if found is None:
        clips, bad = read_dataset_clips(source, excluded)
    else:
        clips, bad = read_table_clips(source, *found, excluded)
    if not len(clips):
        reason = f" The first of {len(bad)} bad ones: {bad[0].name}: {bad[0].reason}." if bad else ""
        raise CaptionDataError(f"{source.path} has no usable clip.{reason}")
    return clips, bad


def read_table_clips(
    source: DataSource, table: str, folder: str | None, excluded: frozenset[str]
) -> tuple[list[Clip], list[BadClip]]:
    """Clips of a table's entries, or of those in one folder."""
    for name in ("name", "revision"):
        if getattr(source, name) is not None:
            raise CaptionDataError(
                f"Got `{name}` {getattr(source, name)!r} for the table {table}; only `datasets` data sets have one: "
                "leave it out."
            )
    return read_caption_table(
        table,
        source.audio_dir,
        source.encoding,
        audio_column=None if source.audio_column == DEFAULT_AUDIO_COLUMN else source.audio_column,
        caption_column=source.caption_column,
        only_folder=folder,
        excluded=excluded,
    )


def write_scene_table(path: str, source: DataSource, show_progress: bool) -> str:
    """Write sound scenes unless they are there; returns their table, in Clotho's layout."""
    from ..sound_scenes import write_scenes

    table = os.path.join(path, SCENE_TABLE)
    if not has_scenes(source):
        write_scenes(path, source.num_scenes, source.first_seed, show_progress=show_progress)
    return table


def has_scenes(source: DataSource) -> bool:
    """Whether the table of a source's sound scenes is there, and is that of its number and seeds."""
    table = os.path.join(source.path, SCENE_TABLE)
    if not os.path.exists(table):
        return False
    with open(table, encoding="utf-8", newline="") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    return len(names) == source.num_scenes and names[0] == f"scene_{source.first_seed:07d}.wav"


def check_bad_share(bad: Sequence[BadClip], num_clips: int, max_share: float, where: str) -> None:
    """List clips that cannot be used, and refuse a data set that has too many of them.

    Args:
        bad: clips left out.
        num_clips: clips of the data set, these included.
        max_share: share that may be left out, 0 to 1.
        where: the data set's name.
    Raises:
        CaptionDataError: more than `max_share` of the clips are bad.
    """
    if not bad:
        return
    for clip in bad:
        logger.warning("%s: %s left out: %s", where, clip.name, clip.reason)
    named = "; ".join(f"{clip.name}: {clip.reason}" for clip in bad[:_NUM_NAMED])
    more = f"; and {len(bad) - _NUM_NAMED} more in the log" if len(bad) > _NUM_NAMED else ""
    summary = f"{where}: {len(bad)} of {num_clips} clips cannot be used ({named}{more})"
    if len(bad) > max_share * num_clips:
        raise CaptionDataError(
            f"{summary}; allowed are {max_share:.1%}. Repair them, or allow more with `max_bad_share`."
        )
    logger.warning("%s; they are skipped.", summary)


# Data sets of the `datasets` library


class DatasetClips(Sequence):
    """Clips of a `datasets` data set, each read when it is asked for.

    Args:
        dataset: with an audio column that is not decoded.
        source: names of its columns.
        rows: the rows that have captions.
        captions: of those rows.
    """

    def __init__(self, dataset, source: DataSource, rows: Sequence[int], captions: Sequence[list[str]]):
        self.dataset, self.source, self.rows, self.captions = dataset, source, rows, captions

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Clip:
        row = self.rows[i]
        return convert_row(self.dataset[row], self.source, row)


def convert_row(row: dict, source: DataSource, index: int) -> Clip:
    """A clip of a row of a `datasets` data set."""
    audio = row[source.audio_column]
    path = audio.get("path") if isinstance(audio, dict) else audio
    name = f"{index:06d}-{os.path.basename(path)}" if path else f"{index:06d}"
    return Clip(name, audio, tuple(dict.fromkeys(read_captions(row, source.caption_column))))


def name_row(row: dict, source: DataSource) -> list[str]:
    """Names by which an `exclude` list may know a row."""
    audio = row.get(source.audio_column)
    path = audio.get("path") if isinstance(audio, dict) else audio
    return [str(name) for name in (path, *map(row.get, _ID_COLUMNS)) if name not in (None, "")]


def read_dataset_clips(source: DataSource, excluded: frozenset[str]) -> tuple[DatasetClips, list[BadClip]]:
    """Clips of a `datasets` data set in a folder or on the Hub, and its rows without captions."""
    dataset = load_dataset_rows(source)
    rows, captions, bad, num_excluded = [], [], [], 0
    # The recordings may lie in the rows: they are read only where nothing else names them.
    needs_audio = excluded and not set(_ID_COLUMNS) & set(dataset.column_names)
    for index, row in enumerate(dataset if needs_audio else dataset.remove_columns(source.audio_column)):
        found = read_captions(row, source.caption_column)
        if excluded and is_excluded(name_row(row, source), excluded):
            num_excluded += 1
        elif found:
            rows.append(index)
            captions.append(found)
        else:
            bad.append(BadClip(f"row {index}", "its caption is empty"))
    if excluded:
        log_excluded(source.path, num_excluded)
    return DatasetClips(dataset, source, rows, captions), bad


def stream_clips(
    source: DataSource, shuffle_seed: int | None = None, shard: tuple[int, int] = (0, 1)
) -> Iterator[Clip]:
    """Yield the clips of a `datasets` data set as they come; rows without captions are passed over.

    Args:
        source: where it is.
        shuffle_seed: shuffles within a buffer of 1,000 rows.
        shard: (i, n), read every n-th part of the rows, the i-th.
    Raises:
        CaptionDataError: it is a table, or cannot be loaded.
    """
    from datasets.distributed import split_dataset_by_node

    if source.num_scenes is not None or find_table(source.path, source.split) is not None:
        raise CaptionDataError(
            f"{source.path} is a table of recordings, which cannot be streamed; leave `streaming` out, or name a data "
            "set on the Hub or one that `datasets` saved."
        )
    excluded = frozenset() if source.exclude is None else read_excluded(source.exclude)
    rows, num_excluded = load_dataset_rows(source, streaming=True), 0
    if shuffle_seed is not None:
        rows = rows.shuffle(seed=shuffle_seed, buffer_size=1000)
    rows = split_dataset_by_node(rows, rank=shard[0], world_size=shard[1])
    for index, row in enumerate(rows):
        if excluded and is_excluded(name_row(row, source), excluded):
            num_excluded += 1
        elif read_captions(row, source.caption_column):
            yield convert_row(row, source, index)
    if excluded:
        log_excluded(source.path, num_excluded)


def load_dataset_rows(source: DataSource, streaming: bool = False):
    """A split of a `datasets` data set, with its audio column left undecoded.

    Raises:
        CaptionDataError: it is not there, has several splits of which none is named, or other columns.
    """
    import datasets

    path = source.path
    try:
        if os.path.isfile(os.path.join(path, "state.json")) or os.path.isfile(os.path.join(path, "dataset_dict.json")):
            loaded = datasets.load_from_disk(path)
            if isinstance(loaded, datasets.DatasetDict):
                loaded = loaded.get(source.split, loaded)
            loaded = loaded.to_iterable_dataset() if streaming and isinstance(loaded, datasets.Dataset) else loaded
        else:
            loaded = datasets.load_dataset(
                path, source.name, split=source.split, revision=source.revision, streaming=streaming
            )
    except (OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError) as error:
        reason = str(error) if error.__cause__ is None else f"{error} {error.__cause__}"
        where = "" if os.path.exists(path) else f" ({os.getcwd()} has no such folder)"
        raise CaptionDataError(f"{source.path} cannot be loaded{where}: {' '.join(reason.split())}") from error
    if isinstance(loaded, dict):
        raise CaptionDataError(f"{source.path} has the splits {', '.join(loaded)}; name one as `split`.")
    return leave_audio_undecoded(loaded, source)


def leave_audio_undecoded(dataset, source: DataSource):
    """The data set with its columns checked and its audio column as {"bytes", "path"}, or as paths where it has those.

    Raises:
        CaptionDataError: the audio or caption column is missing.
    """
    import datasets

    # Some streams know their columns only once they are read.
    columns = list(next(iter(dataset), {}) if dataset.column_names is None else dataset.column_names)
    row = dict.fromkeys(columns, "x")
    if source.audio_column not in columns or not read_captions(row, source.caption_column):
        wanted = (
            f"`{source.caption_column}`" if source.caption_column else "`caption`, `captions`, `text` or `caption_1`"
        )
        raise CaptionDataError(
            f"{source.path} has the columns {', '.join(columns)}; expected audio in `{source.audio_column}` "
            f"(`audio_column`) and {wanted} (`caption_column`)."
        )
    if isinstance((dataset.features or {}).get(source.audio_column), datasets.Audio):
        return dataset.cast_column(source.audio_column, datasets.Audio(decode=False))
    return dataset
