"""Prepared features as a data set: nothing is left to read but the features."""

from .data_source import DataSource
from .feature_shards import FeatureSettings
from .prepared_features import PreparedClips


class FeatureSource(DataSource):
    """A folder of prepared features."""

    kind = "folder of prepared features"
    unread_fields = (
        *("audio_dir", "split", "name", "revision", "audio_column", "caption_column", "encoding", "exclude"),
        *("num_scenes", "first_seed"),
    )

    def open_features(self, folder: str, processor, settings: FeatureSettings) -> PreparedClips:
        """Open them as they are, those of the first `max_clips` clips; `folder` stays unused."""
        return PreparedClips(self.path, processor, settings.max_clips)
