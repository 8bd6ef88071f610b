"""Where compressed streams truly end: flac totals, mp3 lengths that are guesses, and the links of chained files.

`cat a.ogg b.ogg` is a valid Ogg file, and radio recorders write such files in flac and mp3 too; the decoders stop at
the end of the first link. mpg123 guesses the length of an mp3 without a Xing header from its first frame, and then
stops there, which is far too early where the bit rate changes.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, NamedTuple

from .audio_bytes import Edit

_SCANNED_BYTES = 1 << 20
# More frames than this behind the end of an mp3 are sound: the last ones of a gapless file may be padding only.
_MIN_LINK_FRAMES = 4
# kbit/s by bit rate index, for MPEG 1 layers I, II, III and MPEG 2 layers I, II and III.
_BITRATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Flac's block sizes by code; codes 6 and 7 stand for sizes written behind the frame's number.
_FLAC_BLOCKS = {1: 192, **{2 + i: 576 << i for i in range(4)}, **{8 + i: 256 << i for i in range(8)}}


class StreamFacts(NamedTuple):
    """How a compressed stream is to be read.

    Args:
        kind: "flac", "ogg", "mpeg", or "" for all else.
        edits: of its header, so that the decoder reads to its end.
        end: of its sound, bytes; None is the end of the file.
        is_open: True where it does not state its length.
        is_certain: True where its length was found in its last frame.
    """

    kind: str = ""
    edits: tuple[Edit, ...] = ()
    end: int | None = None
    is_open: bool = False
    is_certain: bool = False


def inspect_stream(file: BinaryIO, start: int = 0) -> StreamFacts:
    """Find what kind of stream begins at an offset, and mend its header.

    Args:
        file: seekable; its position changes.
        start: bytes.
    """
    offset = skip_id3(file, start)
    head = _read(file, offset, 4)
    if head == b"fLaC":
        return _inspect_flac(file, offset)
    if head == b"OggS":
        return StreamFacts("ogg")
    frame = _parse_mpeg_header(head)
    if frame is None or _parse_mpeg_header(_read(file, offset + frame.size, 4)) is None:
        return StreamFacts()
    return _inspect_mpeg(file, offset, frame)


def find_next_link(kind: str, file: BinaryIO, start: int, position: int) -> int | None:
    """Offset of the stream that follows one, or None.

    Args:
        kind: of the stream that has ended, as `inspect_stream` says.
        file: seekable; its position changes.
        start: where that stream began, bytes.
        position: how far its decoder has read, bytes.
    """
    if kind == "ogg":
        return _find_ogg_link(file, start)
    if kind == "flac":
        # Its decoder reads ahead, so the next stream may begin before the position. "\x22": the size of STREAMINFO.
        return _find_bytes(file, skip_id3(file, start) + 4, re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"))
    return _find_mpeg_link(file, position) if kind == "mpeg" else None


def skip_id3(file: BinaryIO, offset: int) -> int:
    """The offset behind the ID3v2 tags that begin at one."""
    while (head := _read(file, offset, 10))[:3] == b"ID3" and len(head) == 10 and max(head[6:]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        offset += 10 + size + (10 if head[5] & 0x10 else 0)
    return offset


# Flac


def _inspect_flac(file: BinaryIO, offset: int) -> StreamFacts:
    """Put the true number of samples into STREAMINFO where it states another."""
    info = _read(file, offset + 8, 34)
    if len(info) < 34:
        return StreamFacts("flac")
    stated = int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    found = _find_flac_end(file, int.from_bytes(info[2:4], "big"), stated)
    if found == stated:
        return StreamFacts("flac", is_certain=True)
    if found is None or find_next_link("flac", file, offset, offset) is not None:
        return StreamFacts("flac", is_open=stated == 0)
    shown = bytes([info[13] & 0xF0 | found >> 32]) + (found & 0xFFFFFFFF).to_bytes(4, "big")
    return StreamFacts("flac", (Edit(offset + 8 + 13, 5, shown),), is_certain=True)


def _find_flac_end(file: BinaryIO, max_block: int, stated: int) -> int | None:
    """Samples up to the end of the last frame; where they are not as stated, its checksum must fit its bytes."""
    size = file.seek(0, 2)
    tail_start = max(0, size - _SCANNED_BYTES)
    tail = _read(file, tail_start, _SCANNED_BYTES)
    if tail[-128:-125] == b"TAG":
        tail = tail[:-128]
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        if tail[position + 1 : position + 2] in (b"\xf8", b"\xf9"):
            parsed = _parse_flac_header(tail[position : position + 16], max_block)
            if parsed is not None:
                return parsed if parsed == stated or _crc(tail[position:], 0x8005, 16) == 0 else None
    return None


def _parse_flac_header(head: bytes, max_block: int) -> int | None:
    """Samples up to the end of the frame that begins with these bytes, if one does."""
    if len(head) < 6:
        return None
    block_code = head[2] >> 4
    number_bytes = max(1, 8 - (head[4] ^ 0xFF).bit_length()) if head[4] & 0x80 else 1
    if head[4] & 0x80 and not 2 <= number_bytes <= 7:
        return None
    number = head[4] & (0x7F >> (number_bytes - (number_bytes == 1)) if number_bytes > 1 else 0x7F)
    for byte in head[5 : 4 + number_bytes]:
        number = number << 6 | byte & 0x3F
    end = 4 + number_bytes
    if block_code in (6, 7):
        width = block_code - 5
        block = int.from_bytes(head[end : end + width], "big") + 1
        end += width
    else:
        block = _FLAC_BLOCKS.get(block_code, 0)
    end += {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    if not block or len(head) <= end or _crc(head[: end + 1], 0x07, 8):
        return None
    return number + block if head[1] & 1 else number * max_block + block


def _crc(content: bytes, polynomial: int, width: int) -> int:
    """Cyclic redundancy check with the highest bit first, starting at 0; 0 over bytes that end with their own."""
    top, mask, crc = 1 << (width - 1), (1 << width) - 1, 0
    for byte in content:
        crc ^= byte << (width - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & mask
    return crc


# Ogg


def _find_ogg_link(file: BinaryIO, start: int) -> int | None:
    """The first page behind a stream's own that begins a stream."""
    offset, is_inside = start, False
    while len(head := _read(file, offset, 27)) == 27:
        if head[:4] != b"OggS":
            offset = _find_bytes(file, offset + 1, re.compile(rb"OggS\x00"))
            if offset is None:
                return None
            continue
        is_beginning = bool(head[5] & 2)
        if is_beginning and is_inside:
            return offset
        is_inside = is_inside or not is_beginning
        offset += 27 + head[26] + sum(_read(file, offset + 27, head[26]))
    return None


def is_ogg_cut(file: BinaryIO, start: int) -> bool:
    """Whether the file ends within a page of the stream that begins at `start`."""
    size, offset = file.seek(0, 2), start
    while len(head := _read(file, offset, 27)) == 27 and head[:4] == b"OggS":
        offset += 27 + head[26] + sum(_read(file, offset + 27, head[26]))
    return offset > size or (0 < len(head) < 27 and head[:4] == b"OggS"[: len(head)])


# MPEG audio


class _MpegFrame(NamedTuple):
    """What a frame's header says: bytes of the frame, its layer, and what all frames of a stream share."""

    size: int
    layer: int
    shared: tuple
    side_info: int


def _parse_mpeg_header(head: bytes) -> _MpegFrame | None:
    """The frame that begins with these 4 bytes, if one does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version_code, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate_code, rate_code = head[2] >> 4, head[2] >> 2 & 3
    if version_code == 1 or layer == 4 or rate_code == 3 or not 0 < bitrate_code < 15:
        return None
    version = 1 if version_code == 3 else 2
    rate = (44_100, 48_000, 32_000)[rate_code] // {3: 1, 2: 2, 0: 4}[version_code]
    bits = 1000 * _BITRATES[version, layer][bitrate_code - 1]
    padding = head[2] >> 1 & 1
    if layer == 1:
        size = (12 * bits // rate + padding) * 4
    else:
        size = (144 if version == 1 or layer == 2 else 72) * bits // rate + padding
    is_mono = head[3] >> 6 == 3
    side_info = {(1, False): 32, (1, True): 17, (2, False): 17, (2, True): 9}[version, is_mono]
    return _MpegFrame(size, layer, (version_code, layer, rate), side_info)


def _inspect_mpeg(file: BinaryIO, offset: int, frame: _MpegFrame) -> StreamFacts:
    """See whether an mp3 states its number of frames, as a Xing header does; mpg123 knows no other header."""
    head, content = _read(file, offset, 4), _read(file, offset, frame.size)
    checksum = 0 if head[1] & 1 else 2
    marker = content[4 + checksum + frame.side_info :][:8]
    if marker[:4] in (b"Xing", b"Info") and len(marker) == 8 and marker[7] & 1:
        return StreamFacts("mpeg")
    return StreamFacts("mpeg", end=_skip_tags_at_end(file), is_open=True)


def _skip_tags_at_end(file: BinaryIO) -> int:
    """The end of the sound in front of ID3v1, Lyrics3 and APE tags; mpg123 would look for frames in them and fail."""
    end = file.seek(0, 2)
    for _ in range(8):  # each may come once or twice, in any order
        tail = _read(file, max(0, end - 128), 128)
        if tail[:3] == b"TAG" and len(tail) == 128:
            end -= 128
        elif tail[-32:-24] == b"APETAGEX":
            size, _, flags = struct.unpack("<3I", tail[-20:-8])
            end -= min(end, size + (32 if flags >> 31 else 0))
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            end -= min(end, int(tail[-15:-9]) + 15)
        else:
            break
    return end


def _find_mpeg_link(file: BinaryIO, position: int) -> int | None:
    """The first of several frames in a row behind a position."""
    pattern = re.compile(rb"\xff[\xe2-\xff]")
    while (position := _find_bytes(file, position, pattern)) is not None:
        offset, shared = position, None
        for _ in range(_MIN_LINK_FRAMES):
            frame = _parse_mpeg_header(_read(file, offset, 4))
            if frame is None or shared not in (None, frame.shared):
                break
            offset, shared = offset + frame.size, frame.shared
        else:
            return position
        position += 1
    return None


# Bytes


def _find_bytes(file: BinaryIO, start: int, pattern: re.Pattern) -> int | None:
    """Offset of the first match, of at most 16 bytes, from `start` on."""
    while len(block := _read(file, start, _SCANNED_BYTES)) > 1:
        match = pattern.search(block)
        if match:
            return start + match.start()
        start += max(1, len(block) - 16) if len(block) == _SCANNED_BYTES else len(block)
    return None


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    """Bytes at an offset, fewer at the end."""
    file.seek(offset)
    return file.read(count)
