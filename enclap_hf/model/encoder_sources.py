"""Where the frozen encoders of a processor are: in its own repository, or in another one that it refers to.

    {"subfolder": "codec"}                                              inside the repository
    {"repo_id": ..., "revision": ..., "subfolder": ...}                 on the Hub, or in a folder of this machine

A checkpoint of a training refers to encoders of its machine by a fingerprint. A repository is data: nothing of such an
entry reaches a loading function but these names.
"""

import os
from collections.abc import Mapping

from huggingface_hub import snapshot_download

# What an entry may say.
FIELDS = ("repo_id", "revision", "subfolder", "fingerprint")
# Arguments of `from_pretrained` that say how to reach a repository, and so apply to the encoders' files too.
ACCESS_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")
CONFIGURATION_FILES = ("*.json",)
WEIGHT_FILES = ("*.json", "*.safetensors")


class EncoderFolder(str):
    """The folder of an encoder on this machine; one of the Hub holds only configurations until it is completed.

    Attributes:
        source: the entry that it was found by.
    """

    source: dict
    _download: dict | None = None

    def complete(self) -> "EncoderFolder":
        """Download what is missing of the weights, and return the folder."""
        if self._download is not None:
            snapshot_download(**self._download, allow_patterns=list_patterns(self.source, WEIGHT_FILES))
            self._download = None
        return self


def check_source(source: Mapping, name: str) -> dict:
    """Read the entry of an encoder in processor_config.json.

    Raises:
        ValueError: it says anything but a repository, a revision and a sub-folder inside of it.
    """
    if not isinstance(source, Mapping):
        raise ValueError(f"Got `{name}` {source!r}; expected an object with any of {', '.join(FIELDS)}.")
    unknown = sorted(set(source) - set(FIELDS))
    if unknown:
        raise ValueError(
            f"Got `{name}` with {', '.join(map(repr, unknown))}; expected {', '.join(FIELDS)} alone. Remove the others "
            "from processor_config.json."
        )
    for field, value in source.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"Got `{name}` with {field!r} {value!r}; expected text.")
    folder = source.get("subfolder") or ""
    if os.path.isabs(folder) or ".." in folder.replace("\\", "/").split("/"):
        raise ValueError(f"Got `{name}` with the sub-folder {folder!r}; expected one inside of the repository.")
    return {field: value for field, value in source.items() if value is not None}


def find_folder(source: dict, access: dict, name: str) -> EncoderFolder:
    """The folder of an encoder on this machine, with its configuration.

    Args:
        source: with `repo_id`, a Hub repository or an absolute path.
        access: of `ACCESS_ARGUMENTS`.
        name: of the encoder, for messages.
    Raises:
        FileNotFoundError: it is not there.
        OSError: the Hub cannot be reached and nothing is cached.
    """
    place, subfolder = source["repo_id"], source.get("subfolder", "")
    if os.path.isabs(place):
        folder = EncoderFolder(os.path.join(place, subfolder))
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"The processor refers to its {name} in {folder}, which does not exist. Put it back, or load a "
                "processor that was saved with its encoders."
            )
        folder.source = source
        return folder
    download = {"repo_id": place, "revision": source.get("revision"), **access}
    snapshot = snapshot_download(**download, allow_patterns=list_patterns(source, CONFIGURATION_FILES))
    folder = EncoderFolder(os.path.join(snapshot, subfolder))
    folder.source, folder._download = source, download
    return folder


def list_patterns(source: dict, patterns: tuple[str, ...]) -> list[str]:
    """Patterns of files in an encoder's own folder."""
    subfolder = source.get("subfolder", "")
    return [f"{subfolder}/{pattern}" if subfolder else pattern for pattern in patterns]
