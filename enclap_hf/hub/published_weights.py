"""Where the published weights are, and what is known of each published checkpoint.

The facts are in published_checkpoints.json: addresses, training data, reported scores. The authors keep one captioner
on the Hub, in the Space of their demo; the others are in a Google Drive folder that their README links.
"""

import json
import os
from dataclasses import dataclass

FACTS_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published_checkpoints.json")
# The names of the cards and of converted folders are those of the checkpoints with this before them.
CARD_PREFIX = "enclap-"


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A captioner that the authors of EnCLAP published.

    Args:
        name: such as "both-base".
        folder: the authors' name of it, such as "both/base".
        captioner: its address on the Hub; None where it is in the authors' Google Drive only.
        tokenizer: address of its tokenizer.
        facts: its entry in published_checkpoints.json.
    """

    name: str
    folder: str
    captioner: str | None
    tokenizer: str
    facts: dict


def read_facts() -> dict:
    """What is known of the published weights: published_checkpoints.json."""
    with open(FACTS_FILE, encoding="utf-8") as file:
        return json.load(file)


def list_published() -> list[PublishedCheckpoint]:
    """All published checkpoints."""
    facts = read_facts()
    return [
        PublishedCheckpoint(
            name.removeprefix(CARD_PREFIX),
            entry["folder"],
            entry.get("captioner"),
            facts["tokenizers"][entry["start"]],
            entry,
        )
        for name, entry in facts["checkpoints"].items()
    ]


def find_published(name: str) -> PublishedCheckpoint:
    """Find a checkpoint.

    Args:
        name: such as "both-base", or the authors' "both/base".
    Raises:
        ValueError: there is none of this name.
    """
    for checkpoint in list_published():
        if name.strip("/").removeprefix(CARD_PREFIX) in (checkpoint.name, checkpoint.folder):
            return checkpoint
    names = ", ".join(checkpoint.name for checkpoint in list_published())
    raise ValueError(f"No published checkpoint is called {name}; there are {names}.")


def find_clap_address() -> str:
    """The CLAP that all published captioners were trained with."""
    return read_facts()["clap"]


def find_encodec_address() -> str:
    """The EnCodec that all published captioners were trained with."""
    return read_facts()["encodec"]


def find_tokenizer_address(start: str) -> str:
    """The tokenizer of a BART.

    Args:
        start: "facebook/bart-base" or "facebook/bart-large"; their tokenizers are the same.
    """
    return read_facts()["tokenizers"][start]


def describe_manual_download(checkpoint: PublishedCheckpoint, output: str) -> str:
    """What to fetch by hand of a checkpoint that is not on the Hub, and what to run then.

    Args:
        checkpoint: one without an address.
        output: the folder that was to be written.
    """
    place = read_facts()["source"]
    return (
        f"{checkpoint.name} is not on the Hub; its authors keep it in the Google Drive folder that {place} links. "
        f"Download its folder {checkpoint.folder} (config.json and pytorch_model.bin) and run: enclap convert "
        f"--published {checkpoint.name} --enclap {checkpoint.folder} --output {output}. The rest comes from the Hub."
    )
