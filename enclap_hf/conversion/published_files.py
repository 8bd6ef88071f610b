"""Reads checkpoint files of other packages: whole, unharmed, and without running any code that they bring.

A file is read in three steps, each of which can refuse it: the checksums of a zip archive, the names that its pickle
asks for, and `torch.load(weights_only=True)` with the short list of names below. Pickles of protocol 4, which that
reader does not know, are first rewritten in protocol 2; nothing of them is run for it.
"""

import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import tempfile
import textwrap
import zipfile
from typing import IO, Any

import numpy as np
import torch

# What a training checkpoint holds beside tensors: numpy numbers, such as a learning rate. Names of numpy 1 and 2.
NUMPY_SCALAR_NAMES = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
ALLOWED_NAMES = {
    *("collections.OrderedDict", "_codecs.encode", "numpy.dtype", *NUMPY_SCALAR_NAMES),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"),
    *("torch.Size", "torch.device", "torch.nn.parameter.Parameter", "torch.storage.UntypedStorage"),
    *("torch.BFloat16Storage", "torch.BoolStorage", "torch.ByteStorage", "torch.CharStorage", "torch.DoubleStorage"),
    *("torch.FloatStorage", "torch.HalfStorage", "torch.IntStorage", "torch.LongStorage", "torch.ShortStorage"),
}
# A damaged file can fail anywhere inside of the readers of zip archives and pickles; these are what they raise.
READING_ERRORS = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, MemoryError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ArithmeticError, AssertionError),
)
# Files before the zip format hold five pickles in a row; the first four come before any tensor's bytes.
NUM_LEGACY_PICKLES = 4
# Before this release of torch, a crafted file could run code in spite of `weights_only=True` (CVE-2025-32434).
SAFE_TORCH_VERSION = (2, 6)


class ConversionError(ValueError):
    """A source that cannot be converted; one line with the file, the reason and what to do."""


def shorten_error(error: object) -> str:
    """What another library says of an error, in one line of bounded length."""
    return textwrap.shorten(str(error), 240, placeholder=" ...") or type(error).__name__


def read_json(path: str) -> dict:
    """Read a JSON object.

    Raises:
        ConversionError: no such file, not JSON, or not an object.
    """
    if not os.path.isfile(path):
        raise ConversionError(f"{path} does not exist.")
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{path} is not readable JSON ({error}). Fetch the file again.") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds {type(content).__name__}; expected a JSON object.")
    return content


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint file without running code from it.

    Args:
        path: what `torch.save` wrote (a state dict, or a training checkpoint with one as its `state_dict`), or a
            .safetensors file. Memory-mapped where the format allows.
    Returns:
        tensors by name, on the CPU, in the file's order.
    Raises:
        ConversionError: no such file, a damaged one, or one that asks for code; the message names what it asks for.
    """
    if not os.path.isfile(path):
        raise ConversionError(f"{path} does not exist.")
    if path.endswith(".safetensors"):
        return read_safetensors(path)
    with open(path, "rb") as file:
        start = file.read(4)
    content = read_zip_checkpoint(path) if start == b"PK\x03\x04" else read_legacy_checkpoint(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise ConversionError(f"{path} holds {type(content).__name__}; expected tensors by name.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise ConversionError(
                f"{path}: the entry {name!r} is a {type(value).__name__}; expected dense tensors by name."
            )
    return {name: value.detach().contiguous() for name, value in content.items()}


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Read a .safetensors file.

    Raises:
        ConversionError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, *READING_ERRORS) as error:
        raise damaged(path, error) from error


def damaged(path: str, reason: object) -> ConversionError:
    """The error for a file that is not what its writer wrote."""
    return ConversionError(f"{path} is damaged, or not a checkpoint: {shorten_error(reason)}. Fetch the file again.")


def read_zip_checkpoint(path: str) -> Any:
    """Read the zip format of `torch.save`, every member checked against its checksum first.

    Raises:
        ConversionError: it is damaged, or asks for code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = check_archive(path, archive)
            protocol, wanted = list_wanted_names(io.BytesIO(pickled))
            refuse_code(path, wanted)
            if protocol <= 2:
                return load_weights(path, mmap=True)
            # The tensors stay mapped when the copy's name is gone; where that cannot be, the copy stays until the end.
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                copy = os.path.join(folder, "checkpoint.pt")
                copy_archive(archive, copy, rewrite_in_protocol_2(pickled))
                return load_weights(copy, mmap=True)
    except ConversionError:
        raise
    except READING_ERRORS as error:
        raise damaged(path, error) from error


def check_archive(path: str, archive: zipfile.ZipFile) -> bytes:
    """Check names, storage and checksums of an archive's members, and return its pickle.

    Raises:
        ConversionError: it is damaged, or not as `torch.save` writes it.
    """
    members = archive.infolist()
    names = [member.filename for member in members]
    pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(pickles) != 1 or len(set(names)) != len(names):
        raise damaged(path, "the archive does not hold one data.pkl")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise damaged(path, "the archive is compressed, which torch.save never does")
    broken = archive.testzip()
    if broken is not None:
        raise damaged(path, f"the checksum of its member {broken} is wrong")
    return archive.read(pickles[0])


def refuse_code(path: str, wanted: set[str]) -> None:
    """Refuse a pickle that asks for anything but tensors and numbers.

    Raises:
        ConversionError: it does; the message names what it asks for.
    """
    refused = sorted(wanted - ALLOWED_NAMES)
    if refused:
        raise ConversionError(
            f"{path} asks to run `{refused[0]}`, which no checkpoint of weights needs; it is refused, and nothing of "
            "it was run. Do not open the file with other tools; fetch it from its publisher."
        )


def list_wanted_names(file: IO[bytes]) -> tuple[int, set[str]]:
    """Protocol of one pickle, and every name that it would import: "module.name"."""
    protocol, wanted = 0, set()
    texts: list[Any] = []
    memo: list[Any] = []
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "PROTO":
            protocol = argument
        elif opcode.name in ("GLOBAL", "INST"):
            wanted.add(".".join(argument.split(" ")))
        elif opcode.name == "STACK_GLOBAL":
            # The two texts before it, whichever way they came onto the stack.
            wanted.add(".".join(str(text) for text in texts[-2:]))
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            wanted.add(f"copyreg.extension_{argument}")
        track_texts(opcode.name, argument, texts, memo)
    return protocol, wanted


def track_texts(name: str, argument: Any, texts: list, memo: list) -> None:
    """Follow which texts were pushed last, also from the memo."""
    if "UNICODE" in name or name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
        texts.append(argument)
    elif name == "MEMOIZE":
        memo.append(texts[-1] if texts else None)
    elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo.extend([None] * (int(argument) + 1 - len(memo)))
        memo[int(argument)] = texts[-1] if texts else None
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        texts.append(memo[int(argument)])
    elif name != "FRAME":  # an operation that left something else, or nothing, on the stack
        texts.append(None)


def load_weights(path: str, mmap: bool) -> Any:
    """`torch.load` with nothing allowed beyond tensors and numpy numbers.

    Raises:
        ConversionError: this torch is too old to read files safely.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < SAFE_TORCH_VERSION:
        raise ConversionError(
            f"Reading {path} safely needs torch {'.'.join(map(str, SAFE_TORCH_VERSION))} or newer, this is "
            f"{torch.__version__}; upgrade with: pip install -U torch"
        )
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [np.dtype, type(np.dtype(np.float64)), *((scalar, name) for name in NUMPY_SCALAR_NAMES)]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_legacy_checkpoint(path: str) -> Any:
    """Read the format of `torch.save` before the zip format, which carries no checksums.

    Raises:
        ConversionError: it is damaged, asks for code, or cannot be read safely.
    """
    try:
        with open(path, "rb") as file:
            pickles = [list_wanted_names(file) for _ in range(NUM_LEGACY_PICKLES)]
        refuse_code(path, {name for _, wanted in pickles for name in wanted})
        if max(protocol for protocol, _ in pickles) > 2:
            raise ConversionError(
                f"{path} is in the format before torch 1.6 with a pickle protocol above 2, which cannot be read "
                "safely; save it again with a current torch."
            )
        return load_weights(path, mmap=False)
    except ConversionError:
        raise
    except READING_ERRORS as error:
        raise damaged(path, error) from error


def copy_archive(archive: zipfile.ZipFile, path: str, pickled: bytes) -> None:
    """Copy an archive with another data.pkl."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as copy:
        for member in archive.infolist():
            with archive.open(member) as source, copy.open(member.filename, "w", force_zip64=True) as target:
                shutil.copyfileobj(io.BytesIO(pickled) if member.filename.endswith("data.pkl") else source, target)


def rewrite_in_protocol_2(pickled: bytes) -> bytes:
    """Rewrite a pickle of protocol 3 or 4 in the operations of protocol 2.

    Texts are written out wherever they stand, so that a name taken from two texts can become one `GLOBAL`; bytes become
    a call of `_codecs.encode`, as protocol 2 has it. All other operations are the same in both.
    """
    out = [b"\x80\x02"]
    texts: list[Any] = []
    memo: list[Any] = []
    operations: list[tuple[pickletools.OpcodeInfo, Any, Any]] = list(pickletools.genops(pickled))
    ends = [position for _, _, position in operations[1:]] + [len(pickled)]
    for (opcode, argument, position), end in zip(operations, ends, strict=True):
        name = opcode.name
        if "UNICODE" in name:
            texts.append(argument)
            continue
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STACK_GLOBAL":
            out += [write_text(text) for text in texts[:-2]]
            out.append(f"c{texts[-2]}\n{texts[-1]}\n".encode())
            texts.clear()
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            index = len(memo) if name == "MEMOIZE" else argument
            memo.extend([None] * (index + 1 - len(memo)))
            memo[index] = texts[-1] if texts else None
            if not texts:
                out.append(b"r" + struct.pack("<I", index))
        elif name in ("BINGET", "LONG_BINGET") and memo[argument] is not None:
            texts.append(memo[argument])
        else:
            out += [write_text(text) for text in texts]
            texts.clear()
            is_bytes = name in ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
            out.append(write_bytes(argument) if is_bytes else pickled[position:end])
    return b"".join(out)


def write_text(text: str) -> bytes:
    """Push a text in protocol 2."""
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def write_bytes(content: bytes) -> bytes:
    """Push bytes in protocol 2: a call of `_codecs.encode` on a text of the same length."""
    return b"c_codecs\nencode\n" + write_text(content.decode("latin-1")) + write_text("latin1") + b"\x86R"
