"""One line for whatever is wrong with a clip: which clip, what is wrong with it, what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .audio_formats import AV_EXTENSIONS, AV_INSTALL, SOUNDFILE_MAGIC, is_av_container, is_text


class AudioLoadError(ValueError):
    """A clip cannot be read. The message is one line: which clip, what is wrong with it, what to do."""


def make_label(audio: Any, name: str | None) -> str:
    """What messages call a clip."""
    if name is None and isinstance(audio, (str, os.PathLike)):
        name = os.fsdecode(audio)
    elif name is None and isinstance(audio, Mapping):
        return f"audio dict with keys {sorted(map(str, audio))}"
    elif name is None and isinstance(audio, (bytes, bytearray, memoryview)):
        return f"audio of {memoryview(audio).nbytes} bytes"
    elif name is None and isinstance(getattr(audio, "name", None), str):
        name = audio.name
    if name is not None:
        # A whole encoded file passed as a string must not fill the screen.
        return f"`{name}`" if len(name) <= 4096 else f"`{name[:100]}...`"
    shape = getattr(audio, "shape", None)
    return f"{type(audio).__name__}" + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def audio_error(label: str, problem: str, remedy: str) -> AudioLoadError:
    """An error of one line, whatever characters the clip's name holds."""
    text = f"{label}: {problem} {remedy}"
    return AudioLoadError("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def no_samples_error(label: str) -> AudioLoadError:
    """The clip is well formed and holds nothing."""
    return audio_error(label, "it holds no samples.", "Leave it out, or record it again.")


def damaged_error(label: str, reason: str | None) -> AudioLoadError:
    """The clip starts as audio and cannot be decoded to its end."""
    problem = f"it is damaged or cut off ({shorten_reason(reason)})."
    return audio_error(label, problem, "Record, download or convert it again.")


def unreadable_error(label: str, error: BaseException) -> AudioLoadError:
    """The disk, the connection or the file object fails."""
    problem = f"it cannot be read ({shorten_reason(str(error) or type(error).__name__)})."
    return audio_error(label, problem, "Check the disk or the connection it is on.")


def undecodable_error(label: str, head: bytes, extension: str, reason: str, has_av: bool) -> AudioLoadError:
    """No decoder can open the file; say the likeliest cause, judged by its first bytes."""
    formats = "Pass a wav, flac, mp3, ogg, opus or aiff file"
    formats += ", m4a, mp4 or webm." if has_av else f"; m4a, mp4, webm and others need {AV_INSTALL}"
    if head.startswith(b"version https://git-lfs"):
        return audio_error(label, "it is a Git LFS pointer, not the file itself.", "Run: git lfs pull")
    if is_text(head):
        return audio_error(label, f"it is text, not audio (it begins {head[:24].decode('ascii')!r}).", formats)
    if not has_av and (is_av_container(head) or extension in AV_EXTENSIONS):
        return audio_error(label, "this format needs PyAV, which is not installed.", f"Run: {AV_INSTALL}")
    if is_av_container(head) or head.startswith(SOUNDFILE_MAGIC):
        remedy = "Record, download or convert it again."
        remedy += "" if has_av else f" If it plays elsewhere, its codec may need {AV_INSTALL}"
        return audio_error(label, f"it is damaged or cut off ({shorten_reason(reason)}).", remedy)
    return audio_error(label, f"its content is not audio that can be read ({shorten_reason(reason)}).", formats)


def shorten_reason(reason: str | None) -> str:
    """A decoder library's message, without its frame."""
    reason = " ".join((reason or "no reason given").split()).removeprefix("Error : ").rstrip(".")
    return reason if len(reason) <= 200 else f"{reason[:200]}..."
