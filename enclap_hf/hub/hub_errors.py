"""What goes wrong between this machine and the Hub, each in one line with what to do."""

import errno
from typing import cast

from .hub_addresses import HubAddress

# What the system says of a disk without room, and of a quota that is used up.
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class DownloadError(Exception):
    """Why something could not be downloaded, and what to do; one line."""


def cache_folder() -> str:
    """Folder of the Hub's cache."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def list_hub_errors() -> tuple[type[Exception], ...]:
    """What fails in a download: answers of the Hub, connections, the disk, names that cannot be."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Of httpx or httpx2, whichever this huggingface_hub uses.
    http_error = cast(type[Exception], HfHubHTTPError.__mro__[1])
    return (http_error, OSError, HFValidationError)


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub gave no answer, or none that says anything about what was asked for."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is None or status >= 500


def explain_error(error: Exception, address: HubAddress) -> str:
    """What an error of a download means, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    again = "Run the same command again: what has arrived is kept."
    if isinstance(error, GatedRepoError):
        return f"{address}: its owners want their terms accepted. Accept them at {address.url}, then `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{address}: the Hub has no {address.repository}, or it is private. Check the name; for a private one log "
            "in with `hf auth login`, or set HF_TOKEN to a token that may read it."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{address}: {address.repository} has no revision {address.revision}; see {address.url}/commits/main."
    if isinstance(error, HfHubHTTPError):
        return (
            f"{address}: the Hub answered {error.response.status_code} ({first_line(error)}). Try again later. {again}"
        )
    if isinstance(error, HFValidationError):
        return f"{address}: {first_line(error)}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{address} is not in the cache {cache_folder()}, and HF_HUB_OFFLINE is set; unset it to download."
    if isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS:
        return f"The disk of {cache_folder()} is full. Free some, or set HF_HUB_CACHE to another disk. {again}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{address} cannot be kept in {cache_folder()}: {error.strerror or error}."
    return f"{address}: the Hub cannot be reached, or broke off ({first_line(error)}). Check the connection. {again}"


def first_line(error: Exception) -> str:
    """What another library says of an error, without the advice that follows."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
