"""Pictures of a recording as HTML: its waveform and its log-mel spectrogram, over one time axis.

They stretch to any width without their letters growing or shrinking: shapes are drawn in a box of their own units, and
the labels are text of the page, placed in percent.
"""

import base64
import html
import io

import numpy as np
import torch
from transformers.audio_utils import hertz_to_mel

# Shapes are drawn in columns, so that an hour takes no more bytes than a second.
NUM_COLUMNS = 480
# Decibels below the loudest point that are drawn as silence.
DYNAMIC_RANGE_DB = 80.0
# From silence to the loudest: dark blue, teal, green, pale yellow; lightness rises evenly, also for colour-blind eyes.
COLOUR_STOPS = (
    (9, 14, 33),
    (25, 53, 95),
    (18, 99, 120),
    (38, 146, 124),
    (126, 191, 96),
    (229, 227, 108),
    (255, 252, 222),
)
FREQUENCY_TICKS_HZ = (100, 250, 500, 1000, 2000, 4000, 8000, 16000)


def draw_recording(
    name: str,
    samples: np.ndarray,
    sampling_rate: int,
    log_mel: np.ndarray,
    frequencies: dict,
    shows_waveform: bool = True,
) -> str:
    """Draw a recording as an HTML figure.

    Args:
        name: what the recording is called.
        samples: (num_samples,), full scale at -1 and 1.
        sampling_rate: Hz of `samples`.
        log_mel: (mel frames, mel bins) in dB, of the whole recording.
        frequencies: `frequency_min` and `frequency_max` in Hz and `mel_scale` of the mel bins.
        shows_waveform: whether the waveform is drawn beside the spectrogram.
    """
    duration_s = len(samples) / sampling_rate
    title = f"{name}, {format_seconds(duration_s)}, {sampling_rate / 1000:g} kHz"
    peak = float(np.abs(samples).max())
    peak_text = f"peak {round(20 * np.log10(peak))} dB" if peak > 0 else "silence"
    what, waveform = "Log-mel spectrogram", ""
    if shows_waveform:
        what = "Waveform and log-mel spectrogram"
        waveform = (
            f'<div class="enclap-picture-title"><span>Waveform</span><span>{peak_text}</span></div>'
            f'<div class="enclap-plot enclap-waveform">{draw_waveform(samples)}</div>'
        )
    return f"""<figure class="enclap-picture">
<div role="img" aria-label="{what} of {html.escape(title, quote=True)}">{waveform}
<div class="enclap-picture-title"><span>Log-mel spectrogram</span><span>{DYNAMIC_RANGE_DB:.0f} dB range</span></div>
<div class="enclap-plot enclap-mel"><img alt="" src="{draw_log_mel(log_mel)}">
{draw_frequency_ticks(**frequencies)}</div>
<div class="enclap-times">{draw_time_ticks(duration_s)}</div>
</div>
<figcaption class="enclap-note">{html.escape(title)}</figcaption>
</figure>"""


def draw_waveform(samples: np.ndarray) -> str:
    """The envelope, least to greatest sample of each column, scaled to the recording's peak, as SVG."""
    parts = np.array_split(samples, min(NUM_COLUMNS, len(samples)))
    scale = max(float(np.abs(samples).max()), 1e-4)
    # A column is never thinner than a line, or a quiet one would vanish.
    highs = [50 - 48 * max(part.max() / scale, 0.01) for part in parts]
    lows = [50 - 48 * min(part.min() / scale, -0.01) for part in parts]
    upper = [f"{i},{y:.1f}" for i, y in enumerate(highs)]
    lower = [f"{i},{y:.1f}" for i, y in reversed(list(enumerate(lows)))]
    width = max(len(parts) - 1, 1)
    return (
        f'<svg viewBox="0 0 {width} 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="{" ".join(upper + lower)}"/></svg>'
    )


def draw_log_mel(log_mel: np.ndarray) -> str:
    """The spectrogram as a PNG in a data: URL, low frequencies at the bottom."""
    from PIL import Image

    parts = np.array_split(log_mel, min(NUM_COLUMNS, len(log_mel)))
    columns = np.stack([part.max(axis=0) for part in parts])  # (columns, mel bins)
    level = np.clip(1 + (columns - columns.max()) / DYNAMIC_RANGE_DB, 0, 1)
    image = Image.fromarray((level * 255).astype(np.uint8).T[::-1].copy(), mode="L").convert("P")
    image.putpalette(colour_table().flatten().tolist())
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def colour_table() -> np.ndarray:
    """256 colours between the stops: uint8 (256, 3)."""
    places = np.linspace(0, 255, len(COLOUR_STOPS))
    channels = np.array(COLOUR_STOPS).T
    return np.stack([np.interp(np.arange(256), places, channel) for channel in channels], axis=1).astype(np.uint8)


def draw_frequency_ticks(frequency_min: float, frequency_max: float, mel_scale: str) -> str:
    """Labels of round frequencies at the height of their mel bin."""
    low, high = (hertz_to_mel(value, mel_scale=mel_scale) for value in (frequency_min, frequency_max))
    ticks = []
    for hz in FREQUENCY_TICKS_HZ:
        place = 100 * (hertz_to_mel(float(hz), mel_scale=mel_scale) - low) / (high - low)
        if 8 <= place <= 94:
            label = f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"
            ticks.append((place, f'<span class="enclap-tick" style="bottom:{place:.1f}%">{label}</span>'))
    # Low frequencies crowd on a mel axis: keep those that stand clear of the one above.
    kept, above = [], 200.0
    for place, tick in reversed(ticks):
        if above - place >= 14:
            kept.append(tick)
            above = place
    return "".join(kept)


def draw_time_ticks(duration_s: float) -> str:
    """Labels of round times, at most seven: seconds of a short recording, minutes and seconds of a longer one."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
    step_s = next((step for step in steps if duration_s / step <= 6), duration_s / 6)
    times = np.round(np.arange(0, duration_s * 0.96, step_s), 1)
    labels = [f"{time_s:g}" for time_s in times]
    labels[0] += " s"
    if duration_s >= 60:
        labels = [format_clock(time_s) for time_s in times]
    return "".join(
        f'<span style="left:{100 * time_s / duration_s:.2f}%">{label}</span>'
        for time_s, label in zip(times, labels, strict=True)
    )


def format_clock(time_s: float) -> str:
    """A time as players show it: 1:05, or 1:00:05 from an hour on."""
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def format_seconds(duration_s: float) -> str:
    """A duration as people say it."""
    if duration_s < 60:
        return f"{duration_s:.1f} s" if duration_s >= 1 else f"{duration_s * 1000:.0f} ms"
    minutes, seconds = divmod(int(duration_s), 60)
    return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"


def pad_to_one_frame(samples: torch.Tensor, n_fft: int) -> torch.Tensor:
    """Silence behind a recording that is too short for one spectrum."""
    return torch.nn.functional.pad(samples, (0, max(0, n_fft - len(samples))))
