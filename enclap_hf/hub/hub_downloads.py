"""Downloads of named files from the Hub into its cache: sizes known before, resumed after a break, checked by hash.

`huggingface_hub` from version 2 starts a large file over that was broken off. So a large file is fetched into the place
of the cache where it belongs, by that library's own transfer, and the library then finds it there:

    blobs/SHA256.incomplete  --more bytes-->  hash is right?  -->  blobs/SHA256  -->  snapshots/COMMIT/NAME
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field

from .hub_addresses import HubAddress
from .hub_errors import DownloadError, cache_folder, explain_error, is_unreachable, list_hub_errors


@dataclass(frozen=True)
class WantedFiles:
    """What is needed of a folder.

    Args:
        required: groups of names; of each group the first that is there is taken, and one has to be.
        optional: names that are taken where they are there.
    """

    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*(name for group in self.required for name in group), *self.optional]

    def choose(self, present: Sequence[str]) -> list[str] | None:
        """Those to take of the names that are there; None where a required one is missing."""
        chosen = []
        for group in self.required:
            found = [name for name in group if name in present]
            if not found:
                return None
            chosen.append(found[0])
        return chosen + [name for name in self.optional if name in present and name not in chosen]


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub.

    Args:
        path: in its repository.
        num_bytes: its size.
        sha256: of its content; None for small ones, of which the Hub does not say it.
        num_cached_bytes: how much of it is in the cache.
    """

    path: str
    num_bytes: int
    sha256: str | None
    num_cached_bytes: int


@dataclass
class Download:
    """What is fetched for an address.

    Args:
        address: of a file or a folder.
        files: those of it; none where `path` is known already.
        path: the file or folder on this machine, once it is there.
        names: of the files in the folder.
    """

    address: HubAddress
    files: list[RemoteFile] = field(default_factory=list)
    path: str | None = None
    names: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)

    @property
    def num_missing_bytes(self) -> int:
        """What is not in the cache yet."""
        return sum(file.num_bytes - file.num_cached_bytes for file in self.files)


def plan_download(address: HubAddress, wanted: WantedFiles) -> Download:
    """Ask the Hub which of the wanted files an address has, and how large they are.

    Args:
        address: of a file, which is then all that is wanted, or of a folder.
        wanted: names in the folder.
    Returns:
        what there is to fetch; where the Hub cannot be reached and the cache has all, what is in the cache.
    Raises:
        DownloadError: it is not there, may not be read, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    candidates = list_candidates(address, wanted)
    try:
        entries = HfApi().get_paths_info(
            address.repo_id, list(candidates), revision=address.revision, repo_type=address.repo_type
        )
    except list_hub_errors() as error:
        cached = find_in_cache(address, wanted) if is_unreachable(error) else None
        if cached is None:
            raise DownloadError(explain_error(error, address)) from error
        return cached
    found = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    if address.path in found:
        names, paths = [os.path.basename(address.path)], [address.path]
    else:
        chosen = wanted.choose([candidates[path] for path in found])
        if chosen is None:
            needed = " and ".join(" or ".join(group) for group in wanted.required)
            raise DownloadError(f"{address} has no such file or folder with {needed}; see {address.url}/tree/main.")
        names, paths = chosen, [join_path(address.path, name) for name in chosen]
    files = []
    for path in paths:
        size, large = found[path].size, found[path].lfs
        sha256 = large.sha256 if large else None
        files.append(RemoteFile(path, size, sha256, count_cached_bytes(address, path, size, sha256)))
    return Download(address, files, names=names)


def list_candidates(address: HubAddress, wanted: WantedFiles) -> dict[str, str]:
    """Paths in the repository that are asked for -> names in the folder; the address itself may be a file."""
    candidates = {join_path(address.path, name): name for name in wanted.names}
    return {**({address.path: os.path.basename(address.path)} if address.path else {}), **candidates}


def join_path(folder: str, name: str) -> str:
    """Path in a repository."""
    return f"{folder}/{name}" if folder else name


def find_in_cache(address: HubAddress, wanted: WantedFiles) -> Download | None:
    """What the cache has of an address, if it is all that is needed."""
    found = {name: path for path, name in list_candidates(address, wanted).items() if look_up(address, path)}
    file_name = os.path.basename(address.path)
    if address.path and file_name in found and found[file_name] == address.path:
        return Download(address, path=look_up(address, address.path), names=[file_name])
    names = wanted.choose(list(found))
    if names is None:
        return None
    folder = os.path.dirname(str(look_up(address, found[names[0]])))
    return Download(address, path=folder, names=names)


def look_up(address: HubAddress, path: str) -> str | None:
    """The place of a file in the cache, where it is there."""
    from huggingface_hub import try_to_load_from_cache

    place = try_to_load_from_cache(address.repo_id, path, revision=address.revision, repo_type=address.repo_type)
    return place if isinstance(place, str) else None


def find_blob(address: HubAddress, sha256: str) -> str:
    """Where the cache keeps a content."""
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=address.repo_id, repo_type=address.repo_type)
    return os.path.join(cache_folder(), folder, "blobs", sha256)


def name_incomplete(blob: str) -> str:
    """The first part of a content that was broken off; `huggingface_hub` 1 names it so, too."""
    return f"{blob}.incomplete"


def count_cached_bytes(address: HubAddress, path: str, num_bytes: int, sha256: str | None) -> int:
    """How much of a file is in the cache."""
    if look_up(address, path):
        return num_bytes
    if sha256 is None:
        return 0
    blob = find_blob(address, sha256)
    if os.path.exists(blob):
        return num_bytes
    return min(num_bytes, os.path.getsize(name_incomplete(blob))) if os.path.exists(name_incomplete(blob)) else 0


def check_disk_space(downloads: Sequence[Download]) -> None:
    """Refuse downloads that the cache's disk has no room for.

    Raises:
        DownloadError: it has not.
    """
    needed, folder = sum(download.num_missing_bytes for download in downloads), cache_folder()
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{describe_size(needed)} have to be downloaded into {cache_folder()}, whose disk has "
            f"{describe_size(free)} left. Free some, or set HF_HUB_CACHE to a folder on another disk."
        )


def fetch_download(download: Download) -> str:
    """Fetch what is not in the cache.

    Returns:
        the file or folder on this machine.
    Raises:
        DownloadError: the transfer broke off or its content is wrong; what is right of it is kept for the next time.
    """
    from huggingface_hub import hf_hub_download

    if download.path is not None:
        return download.path
    address, places = download.address, []
    try:
        for file in download.files:
            if file.sha256 is not None and look_up(address, file.path) is None:
                fetch_large_file(address, file)
            places.append(
                hf_hub_download(address.repo_id, file.path, revision=address.revision, repo_type=address.repo_type)
            )
    except list_hub_errors() as error:
        raise DownloadError(explain_error(error, address)) from error
    folders = {os.path.dirname(place) for place in places}
    if len(folders) != 1:
        raise DownloadError(f"{address} changed while it was downloaded; run the same command again.")
    download.path = places[0] if download.files[0].path == address.path else folders.pop()
    return download.path


def fetch_large_file(address: HubAddress, file: RemoteFile) -> None:
    """Fetch the rest of a file into the cache, and let it in when its hash is right.

    Raises:
        DownloadError: its hash is wrong; it is deleted.
        OSError: the transfer broke off.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = find_blob(address, str(file.sha256))
    incomplete, repository = name_incomplete(blob), os.path.dirname(os.path.dirname(blob))
    lock = os.path.join(cache_folder(), ".locks", os.path.basename(repository), f"{file.sha256}.lock")
    for folder in (os.path.dirname(blob), os.path.dirname(lock)):
        os.makedirs(folder, exist_ok=True)
    with WeakFileLock(lock):
        if os.path.exists(blob):
            return
        url = hf_hub_url(address.repo_id, file.path, revision=address.revision, repo_type=address.repo_type)
        with open(incomplete, "ab") as target:
            if target.tell() > file.num_bytes:
                target.truncate(0)
            http_get(
                url,
                target,
                resume_size=target.tell(),
                headers=build_hf_headers(),
                expected_size=file.num_bytes,
                displayed_filename=os.path.basename(file.path),
            )
        found = hash_file(incomplete)
        if found != file.sha256:
            os.remove(incomplete)
            raise DownloadError(
                f"{os.path.basename(file.path)} of {address.repository} arrived damaged: its sha256 is {found}, the "
                f"Hub says {file.sha256}. It was deleted; run the same command again."
            )
        os.replace(incomplete, blob)


def hash_file(path: str) -> str:
    """SHA-256 of a file's content."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            content.update(block)
    return content.hexdigest()


def describe_size(num_bytes: int) -> str:
    """A size for people, in decimal units as the Hub's pages have it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes} bytes"
