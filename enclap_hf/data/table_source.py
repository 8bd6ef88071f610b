"""Data sets in a table beside recordings, and those that are synthesised first."""

import os
import time

from ..sound_scenes import write_scenes
from .caption_clips import BadClip, Clip, check_not_empty
from .caption_folders import find_table
from .caption_tables import read_caption_table
from .data_source import DEFAULT_AUDIO_COLUMN, SECONDS_BETWEEN_LOOKS, DataSource
from .excluded_clips import read_excluded
from .feature_shards import FeatureSettings
from .prepared_features import PreparedClips
from .table_files import read_table

SCENE_TABLE = "captions.csv"


class TableSource(DataSource):
    """A table of captions, or a folder of recordings with one."""

    kind = "table"
    unread_fields = ("name", "revision")

    def read_clips(self, show_progress: bool = True) -> tuple[list[Clip], list[BadClip]]:
        table, folder = find_table(self.path, self.split)
        clips, bad = read_caption_table(
            table,
            self.audio_dir,
            self.encoding,
            audio_column=None if self.audio_column == DEFAULT_AUDIO_COLUMN else self.audio_column,
            caption_column=self.caption_column,
            only_folder=folder,
            excluded=frozenset() if self.exclude is None else read_excluded(self.exclude),
        )
        check_not_empty(clips, bad, self.path)
        return clips, bad


class SceneSource(TableSource):
    """Synthesised sound scenes, written when they are missing."""

    kind = "folder of sound scenes"
    unread_fields = (*TableSource.unread_fields, "split")

    def read_clips(self, show_progress: bool = True) -> tuple[list[Clip], list[BadClip]]:
        if not self.is_written():
            write_scenes(self.path, self.num_scenes, self.first_seed, show_progress=show_progress)
        return super().read_clips()

    def is_written(self) -> bool:
        """Whether the table is there, and is that of this number and these seeds."""
        table = os.path.join(self.path, SCENE_TABLE)
        if not os.path.exists(table):
            return False
        names = [row["file_name"] for row in read_table(table).rows]
        return len(names) == self.num_scenes and names[0] == f"scene_{self.first_seed:07d}.wav"

    def open_features(self, folder: str, processor, settings: FeatureSettings) -> PreparedClips:
        while settings.process_index > 0 and not self.is_written():
            time.sleep(SECONDS_BETWEEN_LOOKS)  # the main process is writing them
        return super().open_features(folder, processor, settings)
