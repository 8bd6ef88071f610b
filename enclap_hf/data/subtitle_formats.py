"""Captions as subtitles: SubRip and WebVTT."""

import html
import re

from .caption_writing import CueFormat, format_clock

# SubRip has no escapes: players show `&lt;` as it stands, and take `<`, `{` and `\` for mark-up. Their full-width forms
# look alike and mean nothing to a player; that of `>` keeps an arrow from being one.
_FULL_WIDTH = {ord(character): ord(character) + 0xFEE0 for character in "<>{}\\"}
# Some readers take any line with two such times for the beginning of a cue.
_TIME = re.compile(r"\d:\d+:\d+[.,]\d")


class SubRipFormat(CueFormat):
    """SubRip, `.srt`: numbered from 1, `HH:MM:SS,mmm`, one line of text a cue."""

    name, suffix = "srt", ".srt"

    def __init__(self, file):
        self._num_cues = 0
        super().__init__(file)

    def format_cue(self, start: int, end: int, text: str) -> str:
        """Number, times and text, each on a line, and an empty line."""
        self._num_cues += 1
        times = f"{format_clock(start, ',')} --> {format_clock(end, ',')}"
        text = _TIME.sub(lambda time: time[0].replace(":", "："), text.translate(_FULL_WIDTH))
        return f"{self._num_cues}\n{times}\n{text}\n\n"


class WebVttFormat(CueFormat):
    """WebVTT, `.vtt`, as browsers read it.

    Source: https://www.w3.org/TR/webvtt1/, section 4, syntax.
    """

    name, suffix = "vtt", ".vtt"

    def format_beginning(self) -> str:
        """The signature of the format."""
        return "WEBVTT\n\n"

    def format_cue(self, start: int, end: int, text: str) -> str:
        """Times and escaped text, each on a line, and an empty line; `-->` has lost its `>` to `&gt;`."""
        times = f"{format_clock(start, '.')} --> {format_clock(end, '.')}"
        return f"{times}\n{html.escape(text, quote=False)}\n\n"
