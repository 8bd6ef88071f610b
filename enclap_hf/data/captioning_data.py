"""One loader for the caption data that people have: a table with recordings, a folder, a `datasets` data set, scenes.

    clips, bad = open_source({"path": "clotho_captions_development.csv", "audio_dir": "development"}).read_clips()
    features = open_source("recordings/captions.csv").open_features("features", processor, FeatureSettings(16))

What cannot be used is listed with its reason, and skipped up to the share that the user allows. Each kind of source is
a class that reads itself; here is which it is.
"""

import json
from collections.abc import Sequence
from dataclasses import fields

from .caption_clips import CaptionDataError
from .caption_folders import find_table
from .data_source import DataSource
from .dataset_source import DatasetSource
from .feature_source import FeatureSource
from .prepared_features import read_manifest
from .table_source import SceneSource, TableSource


def open_source(entry: str | dict | DataSource) -> DataSource:
    """Find out what kind of data set a path or name stands for.

    Args:
        entry: see [`parse_source`], or a [`DataSource`].
    Returns:
        the same as the kind that it is, which reads itself.
    Raises:
        CaptionDataError: as [`parse_source`]; a table that is not there, a folder in which it is not clear which
            table is meant, or a field that this kind does not read.
    """
    source = entry if isinstance(entry, DataSource) else parse_source(entry)
    if read_manifest(source.path) is not None:
        kind = FeatureSource
    elif source.num_scenes is not None:
        kind = SceneSource
    else:
        kind = DatasetSource if find_table(source.path, source.split) is None else TableSource
    return kind(**vars(source))


def parse_source(entry: str | dict) -> DataSource:
    """Read a source as a recipe or a command line writes it; the disk is not looked at.

    Args:
        entry: a path or name, a dict of the fields of [`DataSource`], or such a dict as JSON.
    Raises:
        CaptionDataError: not JSON, no `path`, unknown fields, or a weight that is not positive.
    """
    if isinstance(entry, str) and entry.lstrip().startswith("{"):
        try:
            entry = json.loads(entry)
        except ValueError as error:
            raise CaptionDataError(f"Got the data set {entry}, which is not JSON ({error}).") from None
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
