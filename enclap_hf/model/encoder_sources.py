"""Where the frozen encoders of a processor are: in its own repository, or in another one that it refers to.

    {"subfolder": "codec"}                                              inside the repository
    {"repo_id": ..., "revision": ..., "subfolder": ...}                 on the Hub, or in a folder of this machine

A checkpoint of a training refers to encoders of its machine by a fingerprint. A repository is data: nothing of such an
entry reaches a loading function but these names.
"""

import os
from collections.abc import Mapping

from huggingface_hub import snapshot_download
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from .model_files import read_index

# What an entry may say.
FIELDS = ("repo_id", "revision", "subfolder", "fingerprint")
# In a checkpoint, which does not hold its encoders: their folders on this machine. huggingface_hub never uploads what
# is in this folder, also where a Trainer pushes its checkpoints.
PLACES_FILE = os.path.join(".cache", "huggingface", "encoder_places.json")
# Arguments of `from_pretrained` that say how to reach a repository, and so apply to the encoders' files too.
ACCESS_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")


class EncoderFolder(str):
    """The folder of an encoder on this machine; one of the Hub holds only its configuration until it is completed.

    Attributes:
        source: the entry that it was found by.
        access: how its repository is reached; None for a folder that is complete.
        use_safetensors: False where the user lets weights be read that are not safetensors.
    """

    source: dict
    access: dict | None = None
    use_safetensors: bool = True

    def complete(self) -> "EncoderFolder":
        """Download the weights where they are missing, and return the folder.

        Raises:
            OSError: they are not there.
        """
        if self.access is not None:
            if not self.fetch(SAFE_WEIGHTS_NAME):
                index = self.fetch(SAFE_WEIGHTS_INDEX_NAME)
                if index:
                    for shard in sorted(set(read_index(index).values())):
                        self.fetch(shard)
                elif not self.use_safetensors:
                    self.fetch(WEIGHTS_NAME)
            self.access = None
        return self

    def complete_all(self) -> "EncoderFolder":
        """Download whatever the folder holds: what a family from outside of this package reads is not known."""
        if self.access is not None:
            folder = self.source.get("subfolder")
            place = {"repo_id": self.source["repo_id"], "revision": self.source.get("revision"), **self.access}
            snapshot_download(**place, allow_patterns=[f"{folder}/*"] if folder else None)
            self.access = None
        return self

    def fetch(self, name: str) -> str | None:
        """The path of a file, downloaded where it is not there; None where the repository has none."""
        if self.access is None:
            path = os.path.join(self, name)
            return path if os.path.exists(path) else None
        arguments = {key: self.source[key] for key in ("revision", "subfolder") if key in self.source}
        return cached_file(
            self.source["repo_id"], name, **arguments, **self.access, _raise_exceptions_for_missing_entries=False
        )


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
    revision = source.get("revision") or ""
    if ".." in revision or revision.startswith("/") or "\\" in revision:  # no name in git, and a way out of the cache
        raise ValueError(f"Got `{name}` with the revision {revision!r}; expected a branch, a tag or a commit.")
    return {field: value for field, value in source.items() if value is not None}


def find_folder(source: dict, access: dict, name: str, use_safetensors: bool = True) -> EncoderFolder:
    """The folder of an encoder on this machine, with its configuration.

    Args:
        source: with `repo_id`, a Hub repository or an absolute path.
        access: of `ACCESS_ARGUMENTS`.
        name: of the encoder, for messages.
        use_safetensors: see [`EncoderFolder`].
    Raises:
        FileNotFoundError: it is not there.
        OSError: the Hub cannot be reached and nothing is cached.
    """
    place, subfolder = source["repo_id"], source.get("subfolder", "")
    if os.path.isabs(place):
        folder = EncoderFolder(os.path.normpath(os.path.join(place, subfolder)))
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"The processor refers to its {name} in {folder}, which does not exist. Put it back, or load a "
                "processor that was saved with its encoders."
            )
    else:
        folder = fetch_folder(source, access, name)
    folder.source, folder.use_safetensors = source, use_safetensors
    return folder


def fetch_folder(source: dict, access: dict, name: str) -> EncoderFolder:
    """The folder of an encoder on the Hub, with its configuration; all of it where it has none of that name.

    Raises:
        OSError: the Hub cannot be reached and nothing is cached, or there is no such folder.
    """
    place, subfolder = source["repo_id"], source.get("subfolder", "")
    arguments = {key: source[key] for key in ("revision", "subfolder") if key in source}
    arguments |= {**access, "_raise_exceptions_for_missing_entries": False}
    configuration = cached_file(place, "config.json", **arguments)
    if configuration is not None:
        folder = EncoderFolder(os.path.dirname(configuration))
        folder.access = access
        return folder
    patterns = [f"{subfolder}/*"] if subfolder else None
    snapshot = snapshot_download(place, revision=source.get("revision"), allow_patterns=patterns, **access)
    folder = EncoderFolder(os.path.join(snapshot, subfolder))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{place} has no folder {subfolder!r}, to which the processor refers for its {name}.")
    return folder
