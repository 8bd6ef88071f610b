"""What the headers of uncompressed files state of their length, held against what is there.

A header is written before the sound, so its length is a guess, a placeholder or out of date wherever a recorder was
stopped, a program wrote into a pipe or a copy was cut off. The decoders believe it; `inspect_header` finds what is true
and mends the header in the decoder's view of the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .audio_bytes import Edit

# Sizes that programs write for "not known yet": all ones, the largest positive number, and a little less of either.
_OPEN_SIZES = (range(0x7FFFFF00, 0x80000101), range(0xFFFFFF00, 1 << 32), range((1 << 63) - 256, 1 << 64))
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_COMPARED_BYTES = 1 << 20
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


# Formats of libsndfile whose headers it corrects by itself, and says so in its log alone.
_LOGGED_FORMATS = ("AVR", "MAT4", "MAT5", "MPC2K", "NIST", "PAF", "SVX", "VOC", "WVE")
_LOGGED_FRAMES = re.compile(r"\b(?:Frames|OneShotHiSamples|Cols) *: (\d+)")
_LOGGED_SIZES = re.compile(r"(\d+) \(?should be (\d+)|truncated\. (?P<found>\d+) <--> (?P<stated>\d+)")


class HeaderFacts(NamedTuple):
    """What a header says, corrected.

    Args:
        edits: of the header, so that a decoder reads all that is there.
        promised_share: length that the header promises over the length that is there; above 1 where a file is cut off.
        goes_on: True where the sound goes on behind the end that the header states.
        is_open: True where the header does not state how long the sound is.
    """

    edits: tuple[Edit, ...] = ()
    promised_share: float = 1.0
    goes_on: bool = False
    is_open: bool = False


class _SizeField(NamedTuple):
    """Where a header states the size of its sound, and what it counts beside the sound (bytes)."""

    offset: int
    format: str
    stated: int  # bytes of sound
    extra: int  # bytes that the field counts beyond them
    data_start: int


def inspect_header(file: BinaryIO) -> HeaderFacts:
    """Find what a wav, rf64, w64, aiff, caf or au file holds of what it states; of other files, nothing.

    Args:
        file: seekable; its position changes.
    """
    size = file.seek(0, 2)
    head = _read(file, 0, 16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _inspect_riff(file, size, head)
    if head == _W64_RIFF:
        return _judge(file, size, _find_w64_data(file, size), _always)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        chunk = _find_chunk(file, size, b"SSND", 12, ">4sI")
        field = chunk and _SizeField(chunk[0] + 4, ">I", chunk[1] - 8, 8, chunk[0] + 16)
        return _judge(file, size, field, lambda end: _is_chunk_list(file, size, end, ">4sI"))
    if head[:4] == b"caff":
        chunk = _find_chunk(file, size, b"data", 8, ">4sQ", alignment=1)
        field = chunk and _SizeField(chunk[0] + 4, ">Q", chunk[1] - 4, 4, chunk[0] + 16)
        return _judge(file, size, field, lambda end: _is_chunk_list(file, size, end, ">4sQ"))
    if head[:4] in (b".snd", b"dns."):
        order = ">" if head[:1] == b"." else "<"
        start, stated = struct.unpack(f"{order}2I", head[4:12])
        return _judge(file, size, _SizeField(8, f"{order}I", stated, 0, start), lambda end: False)
    return HeaderFacts()


def read_promised_share(sound: Any, file: BinaryIO) -> float:
    """Length that the header of a rarer format promises, over the length that libsndfile found; at least 1.

    Args:
        sound: an open `soundfile.SoundFile`.
        file: seekable; its position changes.
    """
    if sound.format not in _LOGGED_FORMATS or not sound.frames:
        return 1.0
    log = sound.extra_info
    stated = [int(count) for count in _LOGGED_FRAMES.findall(log)]
    if sound.format == "NIST":
        count = re.search(rb"\bsample_count -i (\d+)", _read(file, 0, 1024))
        stated += [int(count[1])] if count else []
    if sound.format == "VOC" and (found := re.search(r"Extended II : (\d+)", log)):
        width = re.search(r"bit width *: (\d+)", log)
        frame = sound.channels * int(width[1] if width else 8) // 8
        stated.append((int(found[1]) - 12) // max(1, frame))
    shares = [count / sound.frames for count in stated]
    for sizes in _LOGGED_SIZES.finditer(log):
        size, truth = sizes["stated"] or sizes[1], sizes["found"] or sizes[2]
        shares.append(int(size) / max(1, int(truth)))
    return max([1.0, *shares])


def _inspect_riff(file: BinaryIO, size: int, head: bytes) -> HeaderFacts:
    """The same for wav, big-endian wav and rf64, whose 64 bit size stands in a chunk of its own."""
    order = ">" if head[:4] == b"RIFX" else "<"
    chunk_format = f"{order}4sI"
    data = _find_chunk(file, size, b"data", 12, chunk_format)
    if data is None:
        return HeaderFacts()
    long_sizes = _find_chunk(file, size, b"ds64", 12, chunk_format) if head[:4] == b"RF64" else None
    if long_sizes and data[1] == 0xFFFFFFFF:
        offset = long_sizes[0] + 16
        stated = int.from_bytes(_read(file, offset, 8), "little")
        field = _SizeField(offset, "<Q", stated, 0, data[0] + 8)
    else:
        field = _SizeField(data[0] + 4, f"{order}I", data[1], 0, data[0] + 8)
    sample_format = _find_chunk(file, size, b"fmt ", 12, chunk_format)

    def is_end(end: int) -> bool:
        is_list = any(_is_chunk_list(file, size, place, chunk_format) for place in (end + end % 2, end))
        return is_list or bool(sample_format and not _can_be_samples(file, sample_format[0], end, order))

    facts = _judge(file, size, field, is_end)
    if facts.edits and head[:4] != b"RF64":
        riff_size = struct.pack(f"{order}I", min(size - 8, 0xFFFFFFFF))
        facts = facts._replace(edits=(Edit(4, 4, riff_size), *facts.edits))
    return facts


def _judge(file: BinaryIO, size: int, field: _SizeField | None, is_end: Callable[[int], bool]) -> HeaderFacts:
    """Hold the size that a header states against the file; `is_end(offset)` says whether sound may end there."""
    if field is None or field.data_start >= size:
        return HeaderFacts()
    available = size - field.data_start
    # `extra` is below the smallest open size, and a size below it is not a size.
    is_open = field.stated < 0 or any(field.stated + field.extra in sizes for sizes in _OPEN_SIZES)
    if field.stated > available or is_open:
        share = 1.0 if is_open else field.stated / available
        return HeaderFacts((_write_size(field, available),), share, is_open=is_open)
    end = field.data_start + field.stated
    if size - end < 8 or _is_padding_or_tag(file, end) or is_end(end):
        return HeaderFacts()
    return HeaderFacts((_write_size(field, available),), goes_on=field.stated > 0, is_open=field.stated == 0)


def _write_size(field: _SizeField, num_bytes: int) -> Edit:
    """The header's field with another size; one that is too small for it stands for "to the end"."""
    width = struct.calcsize(field.format)
    return Edit(field.offset, width, struct.pack(field.format, min(num_bytes + field.extra, (1 << 8 * width) - 1)))


def _find_chunk(
    file: BinaryIO, size: int, name: bytes, offset: int, chunk_format: str, alignment: int = 2
) -> tuple[int, int] | None:
    """(offset, stated size) of the first chunk of a name, looked for from `offset` on."""
    width = struct.calcsize(chunk_format)
    for _ in range(10_000):  # damaged files hold chunks of no size without end
        head = _read(file, offset, width)
        if len(head) < width:
            return None
        found, stated = struct.unpack(chunk_format, head)
        if found == name:
            return offset, stated
        offset += width + stated + -stated % alignment
        if offset >= size:
            return None
    return None


def _find_w64_data(file: BinaryIO, size: int) -> _SizeField | None:
    """The size field of Sony Wave64, whose chunks are named by 16 bytes and count their own heads."""
    offset = 40
    for _ in range(10_000):
        head = _read(file, offset, 24)
        if len(head) < 24:
            return None
        stated = int.from_bytes(head[16:], "little")
        if head[:4] == b"data":
            return _SizeField(offset + 16, "<Q", stated - 24, 24, offset + 24)
        if stated < 24:
            return None
        offset += stated + -stated % 8
    return None


def _is_chunk_list(file: BinaryIO, size: int, offset: int, chunk_format: str) -> bool:
    """Whether a chunk begins at an offset: a name in ASCII, and a size that the file has."""
    width = struct.calcsize(chunk_format)
    head = _read(file, offset, width)
    if len(head) < width:
        return True
    name, stated = struct.unpack(chunk_format, head)
    return all(32 <= byte < 127 for byte in name) and stated <= size - offset - width + 1


def _is_padding_or_tag(file: BinaryIO, offset: int) -> bool:
    """Whether what follows is a tag of another format, or zeros to the end."""
    if _read(file, offset, 16).startswith(_TAGS):
        return True
    file.seek(offset)
    while block := file.read(_COMPARED_BYTES):
        if any(block):
            return False
    return True


def _can_be_samples(file: BinaryIO, format_chunk: int, offset: int, order: str) -> bool:
    """Whether what follows in a wav could be sound: float samples must be of a size that sound has."""
    tag, _, _, _, _, bits = struct.unpack(f"{order}HHIIHH", _read(file, format_chunk + 8, 16).ljust(16, b"\0"))
    if tag == 0xFFFE:  # extensible: the true format stands further on
        tag = int.from_bytes(_read(file, format_chunk + 32, 2), "little" if order == "<" else "big")
    if tag != 3 or bits not in (32, 64):
        return True
    content = _read(file, offset, 1 << 16)
    samples = np.frombuffer(content[: len(content) // (bits // 8) * (bits // 8)], f"{order}f{bits // 8}")
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.abs(samples) < 1e3))


def _always(end: int) -> bool:
    """For formats whose decoder reads to the end of the file by itself."""
    return True


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    """Bytes at an offset, fewer at the end."""
    file.seek(offset)
    return file.read(count)
