"""Reads the files of a saved model so far that their faults are known: JSON objects, and the headers of safetensors.

Nothing of a tensor is read, and no size that a file states is believed before the file itself bears it out.

    safetensors:  length of the header (8 bytes) | header, JSON: name -> dtype, shape, data_offsets | tensors' bytes
"""

import json
import math
import os
import stat
import struct
from typing import NamedTuple

# The format itself allows no longer header.
MAX_HEADER_BYTES = 100_000_000
# The longest JSON file that a model has is its tokenizer's, of a few megabytes.
MAX_JSON_BYTES = 64 << 20
DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
AGAIN = "Download it or save it again."
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# Patterns of the names of a model's files.
MODEL_FILES = ("config.json", WEIGHTS, "model-*-of-*.safetensors", WEIGHTS_INDEX)


class ModelFileError(Exception):
    """A file of a model cannot be used. The message is one line: which file, what is wrong with it, what to do.

    Not a `ValueError`: `pipeline` takes one for a reason to try again, and folds the tracebacks of all tries into one.
    """


class TensorEntry(NamedTuple):
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def file_error(path: str, problem: str, remedy: str = AGAIN) -> ModelFileError:
    """An error of one line, whatever the file's name and content are."""
    return ModelFileError(make_line(f"{path}: {problem} {remedy}"))


def make_line(text: object, limit: int = 600) -> str:
    """A text on one line of bounded length, in characters that a terminal can show."""
    text = str(text)
    words = " ".join(text[: 4 * limit].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return line if len(line) <= limit else f"{line[: limit - 4]} ..."


def shorten(value: object) -> str:
    """A value in a few words, however large it is."""
    return make_line(repr(value) if isinstance(value, (str, bytes, int, float)) else value, 60)


def describe_cause(error: BaseException) -> str:
    """What another library says of an error, in one short line."""
    return make_line(str(error) or type(error).__name__, 240)


def find_size(path: str) -> int:
    """Bytes of a regular file.

    Raises:
        ModelFileError: there is none, or it is a folder, a pipe or a device.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise file_error(path, f"it cannot be opened ({reason}).") from None
    if not stat.S_ISREG(status.st_mode):
        raise file_error(path, "it is a folder." if stat.S_ISDIR(status.st_mode) else "it is not a regular file.")
    return status.st_size


def read_json_object(path: str) -> dict:
    """Read a JSON object.

    Raises:
        ModelFileError: no such file, too large a one, not JSON, not an object, or a name that stands there twice.
    """
    if find_size(path) > MAX_JSON_BYTES:
        raise file_error(path, f"it has more than {MAX_JSON_BYTES >> 20} MB; no model has such a file.")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise file_error(path, f"it cannot be read ({error.strerror}).", "Check its permissions.") from None
    return parse_json_object(content, path)


def parse_json_object(content: bytes, path: str) -> dict:
    """A JSON object from its bytes; see [`read_json_object`]."""
    if content.startswith(b"version https://git-lfs"):
        raise file_error(path, "it is a Git LFS pointer, not the file itself.", "Run: git lfs pull")
    try:
        parsed = json.loads(content, object_pairs_hook=_refuse_repeated, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise file_error(path, f"it is damaged, not JSON that can be read ({describe_cause(error)}).") from None
    if not isinstance(parsed, dict):
        raise file_error(path, f"it holds {shorten(parsed)}; expected a JSON object.")
    return parsed


def _refuse_repeated(pairs: list[tuple]) -> dict:
    """An object of which every name stands there once."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shorten(next(name for name in names if names.count(name) > 1))} stands there twice")
    return entries


def _refuse_constant(text: str) -> float:
    """JSON has neither NaN nor infinity."""
    raise ValueError(f"{text} is not a JSON number")


def read_header(path: str) -> dict[str, TensorEntry]:
    """What a safetensors file holds, once its header is known to fit the file.

    Raises:
        ModelFileError: the file is cut off, longer than its header says, or its header is damaged.
    """
    size = find_size(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise file_error(path, "it is a Git LFS pointer, not the file itself.", "Run: git lfs pull")
        if len(start) < 8:
            raise file_error(path, f"it is cut off after {size} bytes.")
        (length,) = struct.unpack("<Q", start)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise file_error(path, f"it is cut off or damaged: of {size} bytes its header would take {length}.")
        header = parse_json_object(file.read(length), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise file_error(path, f"it is damaged: its header's metadata are {shorten(metadata)}.")
    entries, ranges = {}, []
    for name, entry in header.items():
        entries[name], span = read_entry(name, entry, path)
        ranges.append((*span, name))
    check_ranges(ranges, size - 8 - length, path)
    return entries


def read_entry(name: str, entry: object, path: str) -> tuple[TensorEntry, tuple[int, int]]:
    """A tensor's entry and the range of its bytes, once they fit each other."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not (isinstance(dtype, str) and dtype in DTYPE_BYTES and _is_counts(shape) and _is_counts(span)):
        raise file_error(path, f"it is damaged: its header describes tensor {shorten(name)} as {shorten(entry)}.")
    num_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if len(span) != 2 or span[1] - span[0] != num_bytes:
        raise file_error(path, f"it is damaged: tensor {shorten(name)} needs {num_bytes} bytes, not those at {span}.")
    return TensorEntry(dtype, tuple(shape)), (span[0], span[1])


def _is_counts(value: object) -> bool:
    """Whether it is a short list of whole numbers from 0 on."""
    return isinstance(value, list) and len(value) <= 16 and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def check_ranges(ranges: list[tuple[int, int, str]], num_bytes: int, path: str) -> None:
    """Refuse tensors whose bytes overlap, leave gaps, or do not end where the file does."""
    end = 0
    for first, after, name in sorted(ranges):
        if first != end:
            raise file_error(path, f"it is damaged: the bytes of tensor {shorten(name)} begin at {first}, not {end}.")
        end = after
    if end > num_bytes:
        raise file_error(path, f"it is cut off: {end - num_bytes} of {end} bytes of its tensors are missing.")
    if end < num_bytes:
        raise file_error(path, f"it is damaged: {num_bytes - end} bytes follow its last tensor.")


def read_index(path: str) -> dict[str, str]:
    """Names of tensors and the files that they are in, from the index of a model in several files.

    Raises:
        ModelFileError: the index is damaged, or names a file outside of its folder.
    """
    shards = read_json_object(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise file_error(path, "it has no `weight_map` of tensors and their files.")
    for file in shards.values():
        if not isinstance(file, str) or not is_plain_name(file) or not file.endswith(".safetensors"):
            raise file_error(path, f"it names the file {shorten(file)}; expected .safetensors files beside it.")
    return shards


def is_plain_name(name: str) -> bool:
    """Whether a name is that of a file in the same folder, on every system."""
    return bool(name) and not any(c in name for c in "/\\:\0") and name not in (".", "..")
