"""Where the four sources of a conversion are: on this machine, or on the Hub, from which they are fetched.

    option        default                                    files of a folder
    --enclap      -                                          config.json, pytorch_model.bin, perhaps a tokenizer
    --clap        LAION-CLAP's .pt                           config.json, model.safetensors
    --encodec     facebook/encodec_24khz                     config.json, model.safetensors
    --tokenizer   that of --enclap, or BART's                tokenizer.json, or vocab.json and merges.txt

All that is missing is planned before anything is downloaded, so that sizes and mistakes are known first.
"""

import hashlib
import logging
import os
from dataclasses import dataclass

from ..hub.hub_addresses import HubAddress, is_hub_address, is_repository_name
from ..hub.hub_downloads import (
    Download,
    WantedFiles,
    check_disk_space,
    describe_size,
    fetch_download,
    plan_download,
)
from ..hub.hub_errors import DownloadError, cache_folder
from ..hub.published_weights import find_clap_address, find_encodec_address, find_tokenizer_address
from .published_captioner import WEIGHT_FILES, find_weights
from .published_files import ConversionError

logger = logging.getLogger(__name__)

# The published inference names this tokenizer in its code. BART-base has the same one.
DEFAULT_TOKENIZER = "facebook/bart-large"
# Either of these makes a tokenizer.
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
ALSO_OF_TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
WANTED = {
    "enclap": WantedFiles((("config.json",), WEIGHT_FILES), ("tokenizer.json", *ALSO_OF_TOKENIZER)),
    "clap": WantedFiles((("config.json",), ("model.safetensors", "pytorch_model.bin"))),
    "encodec": WantedFiles((("config.json",), ("model.safetensors", "pytorch_model.bin"))),
    "tokenizer": WantedFiles((("tokenizer.json", "vocab.json"),), (*ALSO_OF_TOKENIZER, "config.json")),
}


@dataclass
class Source:
    """One source.

    Args:
        option: its name: "enclap", "clap", "encodec" or "tokenizer".
        place: file or folder on this machine; once it is fetched, where it comes from the Hub.
        download: what is fetched for it; None where it was on this machine.
    """

    option: str
    place: str
    download: Download | None = None

    def __str__(self) -> str:
        return str(self.download.address) if self.download else self.place

    def describe(self) -> str:
        """A line for the card: checksums of files, and which repository; of a local folder its name alone."""
        is_file = self.option == "enclap" or os.path.isfile(self.place)
        texts = [describe_file(find_weights(self.place) if self.option == "enclap" else self.place)] if is_file else []
        if self.download:
            address = self.download.address
            revision = f", revision `{address.revision}`" if address.revision else ""
            texts.append(f"[{address.repository}](https://hf.co/{address.repository}){revision}")
        return " of ".join(texts) or f"`{os.path.basename(os.path.abspath(self.place))}`"


def find_sources(enclap: str, clap: str | None, encodec: str | None, tokenizer: str | None) -> dict[str, Source]:
    """Find all four sources, and fetch those on the Hub.

    Args:
        enclap: folder, or hf:// address of one.
        clap, encodec, tokenizer: files, folders, hf:// addresses or Hub repositories; None for the published ones.
    Returns:
        the sources by their options, all on this machine.
    Raises:
        ConversionError: one is not there or cannot be fetched; nothing was fetched where that could be known before.
    """
    given = {"enclap": enclap, "clap": clap, "encodec": encodec, "tokenizer": tokenizer}
    sources = {option: find_source(option, value) for option, value in sorted(given.items(), key=is_remote) if value}
    if tokenizer is None and not holds_tokenizer(sources["enclap"]):
        sources["tokenizer"] = find_source("tokenizer", find_tokenizer_address(DEFAULT_TOKENIZER))
    for option, address in (("encodec", find_encodec_address()), ("clap", find_clap_address())):
        if option not in sources:
            sources[option] = find_source(option, address)
    fetch_sources(list(sources.values()))
    return {"tokenizer": sources["enclap"], **sources}


def is_remote(given: tuple[str, str | None]) -> bool:
    """Whether an option's value is not on this machine; mistakes in those that are can be told without the Hub."""
    return not os.path.exists(given[1] or "")


def find_source(option: str, value: str) -> Source:
    """Find one source here, or ask the Hub what it is.

    Raises:
        ConversionError: it is not there, or the Hub cannot be reached.
    """
    if os.path.exists(value) or not (is_hub_address(value) or (option != "enclap" and is_repository_name(value))):
        if option == "enclap":
            find_weights(value)
        elif not os.path.exists(value):
            raise ConversionError(f"--{option}: there is no file or folder {value}.")
        return Source(option, value)
    try:
        return Source(option, value, plan_download(HubAddress.parse(value), WANTED[option]))
    except (ValueError, DownloadError) as error:
        here = "" if is_hub_address(value) else f"there is no file or folder {value} here. On the Hub: "
        raise ConversionError(f"--{option}: {here}{error}") from error


def holds_tokenizer(source: Source) -> bool:
    """Whether a source brings a tokenizer."""
    if source.download is None:
        return has_tokenizer(source.place)
    return any(set(names) <= set(source.download.names) for names in TOKENIZER_FILES)


def has_tokenizer(folder: str) -> bool:
    """Whether a folder holds a tokenizer, in any of its formats."""
    return any(all(os.path.isfile(os.path.join(folder, name)) for name in names) for names in TOKENIZER_FILES)


def fetch_sources(sources: list[Source]) -> None:
    """Fetch what is on the Hub, and say before how much that is.

    Raises:
        ConversionError: the disk has no room for it, or a transfer failed.
    """
    downloads = [source.download for source in sources if source.download]
    missing = sum(download.num_missing_bytes for download in downloads)
    if missing:
        logger.info("Downloading %s into %s:", describe_size(missing), cache_folder())
        for source in sources:
            if source.download and source.download.num_bytes:
                logger.info("  %s", describe_download(source))
    try:
        check_disk_space(downloads)
        for source in sources:
            if source.download:
                source.place = fetch_download(source.download)
    except DownloadError as error:
        raise ConversionError(str(error)) from error


def describe_download(source: Source) -> str:
    """Which source it is, from where, and how large."""
    assert source.download is not None
    total, missing = source.download.num_bytes, source.download.num_missing_bytes
    there = f", {describe_size(total - missing)} of it are there already" if total > missing else ""
    return f"{source.option:<9} {source.download.address}  {describe_size(total)}{there}"


def describe_file(path: str) -> str:
    """A file's name and checksum, for the card."""
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return f"`{os.path.basename(path)}`, sha256 `{checksum.hexdigest()}`"


def find_clap_file(clap: str | None) -> str:
    """LAION-CLAP's .pt on this machine, fetched where it is on the Hub.

    Args:
        clap: a file, or an hf:// address; None for the published one.
    Raises:
        ConversionError: it cannot be fetched.
    """
    source = find_source("clap", clap or find_clap_address())
    fetch_sources([source])
    return source.place
