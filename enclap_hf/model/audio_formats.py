"""Which audio formats are read, and what the first bytes of a file tell."""

from __future__ import annotations

import os
from typing import Any

SOUNDFILE_EXTENSIONS = (
    *(".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
)
AV_EXTENSIONS = (
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".ac3", ".amr"),
    *(".webm", ".mkv", ".mka", ".wma", ".asf", ".avi"),
)
AUDIO_EXTENSIONS = SOUNDFILE_EXTENSIONS + AV_EXTENSIONS

# Only these demuxers may open a file. ffmpeg also knows playlists (m3u8, ffconcat), and a playlist in disguise would
# make it read other files and addresses.
AV_FORMATS = "mov,matroska,aac,ac3,eac3,amr,asf,avi,flv,mpeg,mpegts,wav,w64,aiff,caf,au,mp3,ogg,flac,ape,wv,tta"
SOUNDFILE_MAGIC = (b"RIFF", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd")
AV_INSTALL = 'pip install "enclap-hf[av]"'


def is_text(head: bytes) -> bool:
    """Whether a file begins with printable characters only."""
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def is_av_container(head: bytes) -> bool:
    """Whether a file begins like a format that PyAV reads and soundfile does not."""
    return (
        head[4:8] == b"ftyp"  # mp4, m4a, mov
        or head.startswith((b"\x1aE\xdf\xa3", b"0&\xb2u", b"FLV", b"#!AMR", b"\x0bw"))  # mkv, wma, flv, amr, ac3
        or (head[:1] == b"\xff" and head[1:2] in (b"\xf0", b"\xf1", b"\xf8", b"\xf9"))  # raw aac
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )


def is_streamable(head: bytes) -> bool:
    """Whether ffmpeg decodes a format from its start to its end without looking elsewhere in the file."""
    return (
        head.startswith((b"fLaC", b"OggS", b"ID3", b".snd", b"FLV", b"#!AMR"))
        or head.startswith((b"\x1aE\xdf\xa3", b"0&\xb2u", b"\x0bw", b"G@"))  # mkv, wma, ac3, mpegts
        or (head.startswith(b"RIFF") and head[8:12] == b"WAVE")
        or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0)  # mp3, aac
    )


def find_extension(file: Any, label: str) -> str:
    """The extension in a file object's name, or else in what messages call it."""
    name = getattr(file, "name", None)
    return os.path.splitext(name if isinstance(name, str) else label.strip("`"))[1].lower()
