"""A long recording's captions as HTML: the waveform, a time line under it, a list to click, and files to take along.

`page.js` plays what is clicked; this file says in `data-start` and `data-end` which seconds that are.
"""

import base64
import html
import io
import os

import numpy as np

from ..data.caption_formats import FORMATS
from .sound_pictures import draw_time_ticks, draw_waveform, format_clock, format_seconds

DOWNLOADS = {"srt": "application/x-subrip", "vtt": "text/vtt", "csv": "text/csv"}
SILENCE = "Silence"
# Hues of the blocks, in degrees: captions that are the same look the same. More captions than hues share them.
HUES = (190, 75, 310, 140, 25, 255, 105, 350)


def format_timeline(name: str, samples: np.ndarray, sampling_rate: int, chunks: list[dict], note: str) -> str:
    """The card of a long recording.

    Args:
        name: what the recording is called.
        samples: (num_samples,), full scale at -1 and 1.
        sampling_rate: Hz of `samples`.
        chunks: of the pipeline, with `timestamp` in seconds and `text`; `silent` where there is nothing to describe.
        note: a remark.
    """
    duration_s = len(samples) / sampling_rate
    hues = choose_hues(chunks)
    blocks = "".join(format_block(chunk, hue, duration_s) for chunk, hue in zip(chunks, hues, strict=True))
    num_captions = sum(not chunk.get("silent") for chunk in chunks)
    summary = f"{num_captions} caption{'' if num_captions == 1 else 's'} in {format_seconds(duration_s)}. {note}"
    return f"""<section class="enclap-result enclap-timeline" data-duration="{duration_s:.6f}">
<div class="enclap-timeline-head">
<button type="button" class="enclap-play" aria-label="Play"></button>
<div><h2>What is heard when</h2>
<p class="enclap-clock"><span class="enclap-now">0:00</span> / {format_clock(duration_s)}</p></div>
<div class="enclap-downloads">{format_downloads([make_row(name, chunk) for chunk in chunks])}</div>
</div>
<div class="enclap-strip">
<div class="enclap-plot enclap-waveform">{draw_waveform(samples)}</div>
<div class="enclap-track" aria-hidden="true">{blocks}</div>
<div class="enclap-playhead"></div>
</div>
<div class="enclap-times" aria-hidden="true">{draw_time_ticks(duration_s)}</div>
<ol class="enclap-cues">{"".join(map(format_cue, chunks, hues))}</ol>
<p class="enclap-note" role="status">{html.escape(summary)}</p>
<p class="enclap-error enclap-unplayable" role="alert" hidden>This browser cannot play the recording.</p>
</section>"""


def choose_hues(chunks: list[dict]) -> list[int]:
    """A hue for each chunk, the same for the same caption."""
    texts = list(dict.fromkeys(chunk["text"] for chunk in chunks if not chunk.get("silent")))
    return [0 if chunk.get("silent") else HUES[texts.index(chunk["text"]) % len(HUES)] for chunk in chunks]


def format_block(chunk: dict, hue: int, duration_s: float) -> str:
    """A stretch on the time line; it shows its caption where it is pointed at."""
    start_s, end_s = chunk["timestamp"]
    place = f"left:{100 * start_s / duration_s:.3f}%;width:{100 * (end_s - start_s) / duration_s:.3f}%"
    text = html.escape(SILENCE if chunk.get("silent") else chunk["text"], quote=True)
    kind = " enclap-silence" if chunk.get("silent") else ""
    return f'<div class="enclap-block{kind}" style="{place};--hue:{hue}" title="{text}" {format_span(chunk)}></div>'


def format_cue(chunk: dict, hue: int) -> str:
    """A line of the list: when, and what."""
    text = html.escape(SILENCE if chunk.get("silent") else chunk["text"])
    kind = " enclap-silence" if chunk.get("silent") else ""
    start_s, _ = chunk["timestamp"]
    return (
        f'<li><button type="button" class="enclap-cue{kind}" style="--hue:{hue}" {format_span(chunk)}>'
        f'<span class="enclap-cue-time">{format_clock(start_s)}</span><span class="enclap-cue-text">{text}</span>'
        "</button></li>"
    )


def format_span(chunk: dict) -> str:
    """What `page.js` plays of a chunk."""
    return 'data-start="{:.6f}" data-end="{:.6f}"'.format(*chunk["timestamp"])


def make_row(name: str, chunk: dict) -> dict:
    """A row of the caption formats."""
    start_s, end_s = chunk["timestamp"]
    return {
        **{"file_name": name, "start_s": start_s, "end_s": end_s, "duration_s": end_s - start_s},
        **{"caption": chunk["text"], "score": chunk.get("score"), "silent": bool(chunk.get("silent"))},
    }


def format_downloads(rows: list[dict]) -> str:
    """Links to the captions as files, which are in the page itself."""
    links = []
    for name, media_type in DOWNLOADS.items():
        made, file = FORMATS[name], io.StringIO(newline="")
        writer = made(file)
        for row in rows:
            writer.write(row)
        writer.close()
        content = base64.b64encode(file.getvalue().encode()).decode()
        file_name = html.escape(os.path.splitext(rows[0]["file_name"])[0] + made.suffix, quote=True)
        links.append(
            f'<a class="enclap-download" download="{file_name}" aria-label="Download as {name}" '
            f'href="data:{media_type};charset=utf-8;base64,{content}">{name}</a>'
        )
    return "".join(links)
