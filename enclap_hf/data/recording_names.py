"""The ways in which one recording's name is written, so that tables, disks and programs mean the same file.

* `audio\\x.wav` of a table from Windows is `audio/x.wav`.
* An accented letter is one character (NFC, most programs) or a letter and its accent (NFD, disks of macOS).
* `'=x.wav` in a csv file is `=x.wav` behind an apostrophe, which keeps spreadsheets from computing it.

Wherever a file has the very name that is written, that file is meant.
"""

import os
import posixpath
import re
import unicodedata

from ..model.audio_loading import AUDIO_EXTENSIONS

# What spreadsheets take for the beginning of a formula, behind the apostrophe of `enclap caption --escape-formulas`.
_ESCAPED_FORMULA = re.compile(r"'(?=[=+\-@\t\r])")


def normalise_name(name: str) -> str:
    """Write a file name in one way, by which recordings are told apart.

    Args:
        name: as a table or a disk has it.
    Returns:
        the name in NFC, with forward slashes, without `.` and `..` where they say nothing, and without the apostrophe
        of an escaped formula.
    """
    name = unescape_formula(name)
    return unicodedata.normalize("NFC", posixpath.normpath(name.replace("\\", "/")))


def spell_name(name: str) -> list[str]:
    """The ways in which a disk may have a name, the one that is written first."""
    spellings = [name]
    for other in (name.replace("\\", "/"), unescape_formula(name), unescape_formula(name).replace("\\", "/")):
        spellings.append(os.path.normpath(other))
    return list(dict.fromkeys(spellings))


def unescape_formula(text: str) -> str:
    """A cell without the apostrophe that stands before `=`, `+`, `-`, `@`, a tab or a carriage return."""
    return text[1:] if _ESCAPED_FORMULA.match(text) else text


def strip_audio_extension(name: str) -> str:
    """A name without the ending of a recording; `1.5 m` stays as it is."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in AUDIO_EXTENSIONS else name


def list_tails(name: str) -> list[str]:
    """A normalised name, and what is left of it without its first folder, its first two, and so on."""
    parts = [part for part in name.split("/") if part not in ("", "..")]
    return ["/".join(parts[first:]) for first in range(len(parts))]


def is_tail(name: str, other: str) -> bool:
    """Whether one of two normalised names is the other's end, in whole parts: `x/a.wav` is that of `/data/x/a.wav`."""
    shorter, longer = sorted((name.strip("/").split("/"), other.strip("/").split("/")), key=len)
    return longer[len(longer) - len(shorter) :] == shorter
