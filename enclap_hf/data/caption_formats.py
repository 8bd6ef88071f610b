"""The formats in which captions are written, by name; what they share is in `caption_writing.py`.

`writer = FORMATS["srt"](file)` begins a document, `writer.write(row)` adds a row, and `writer.close()` ends it.
"""

from .caption_writing import CaptionFormat
from .label_formats import AudacityFormat, RavenFormat, TextFormat, TsvFormat
from .subtitle_formats import SubRipFormat, WebVttFormat
from .table_formats import CsvFormat, JsonFormat, JsonLinesFormat

_CLASSES = (
    *(TextFormat, SubRipFormat, WebVttFormat, TsvFormat, JsonFormat, JsonLinesFormat, CsvFormat),
    *(AudacityFormat, RavenFormat),
)
FORMATS: dict[str, type[CaptionFormat]] = {made.name: made for made in _CLASSES}
