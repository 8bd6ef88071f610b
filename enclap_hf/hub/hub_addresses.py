"""Addresses of files and folders on the Hugging Face Hub.

hf://[spaces/|datasets/]OWNER/NAME[@REVISION][/PATH]
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from huggingface_hub import constants

SCHEME = "hf://"
# How an address and a page of the Hub begin for each kind of repository.
PREFIXES = {"model": "", "space": "spaces/", "dataset": "datasets/"}
NAME_PATTERN = r"[\w-][\w.-]*/[\w-][\w.-]*"
REPOSITORY_PATTERN = rf"(?P<prefix>spaces/|datasets/)?(?P<repo_id>(?!spaces/|datasets/){NAME_PATTERN})"
ADDRESS_PATTERN = rf"{REPOSITORY_PATTERN}(@(?P<revision>[^/@]+))?(/(?P<path>.+))?"


@dataclass(frozen=True)
class HubAddress:
    """A repository on the Hub, or a file or folder in it.

    Args:
        repo_id: OWNER/NAME.
        repo_type: "model", "space" or "dataset".
        revision: branch, tag or commit; None for the main branch.
        path: file or folder inside; "" for the whole repository.
    """

    repo_id: str
    repo_type: str = "model"
    revision: str | None = None
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """Read an address, or the plain OWNER/NAME of a model.

        Args:
            text: such as "hf://spaces/owner/name@main/folder"; a slash in a revision is written %2F.
        Raises:
            ValueError: it is not an address.
        """
        match = re.fullmatch(ADDRESS_PATTERN, text.removeprefix(SCHEME).rstrip("/"), re.ASCII)
        if match is None or ".." in (match["path"] or "").split("/"):
            raise ValueError(
                f"Got the address {text}; expected hf://OWNER/NAME, with spaces/ or datasets/ before OWNER for those, "
                "@REVISION after NAME where it matters, and /FILE or /FOLDER at the end."
            )
        repo_type = next(kind for kind, prefix in PREFIXES.items() if prefix == (match["prefix"] or ""))
        revision = unquote(match["revision"]) if match["revision"] else None
        return cls(match["repo_id"], repo_type, revision, match["path"] or "")

    @property
    def repository(self) -> str:
        """The repository as its page is named: "spaces/owner/name"."""
        return PREFIXES[self.repo_type] + self.repo_id

    @property
    def url(self) -> str:
        """The page of the repository."""
        return f"{constants.ENDPOINT}/{self.repository}"

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}{'/' if self.path else ''}{self.path}"


def is_hub_address(text: str) -> bool:
    """Whether a text begins as an address of the Hub does."""
    return text.startswith(SCHEME)


def is_repository_name(text: str) -> bool:
    """Whether a text can be the OWNER/NAME of a repository."""
    return re.fullmatch(NAME_PATTERN, text, re.ASCII) is not None
