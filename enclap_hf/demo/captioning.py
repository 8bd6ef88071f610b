"""From a recording to what the page shows: captions with their scores, pictures, or the reason that there are none."""

import html
import logging
import os
import time
from dataclasses import dataclass

import numpy as np
import torch

from ..data.score_digits import count_digits
from ..hub.registration import DEFAULT_MODEL
from ..model.audio_loading import AudioLoadError, LoadedAudio, load_audio, resample_audio
from ..model.model_files import ModelFileError
from ..sound_scenes import SOUND_KINDS
from .sound_pictures import draw_recording, pad_to_one_frame
from .timeline import format_timeline

logger = logging.getLogger(__name__)

# Read of a recording; what comes later is cut off, and the page says so.
MAX_DURATION_S = 300
# A recording that ends within this margin after it is read whole: encoders add some silence at the end.
MARGIN_S = 0.1
FEWEST_SCORE_DIGITS = 3
SILENT = "This recording is silent: no sound in it is loud enough to describe."
NOTHING_HEARD = "No sound yet: upload a file, record one, or pick an example, then press the button again."


@dataclass(frozen=True)
class Description:
    """What the page shows about one recording.

    Args:
        captions: HTML.
        picture: HTML.
        heard: sampling rate and samples (int16) of a long recording, for its captions to be heard.
    """

    captions: str
    picture: str
    heard: tuple[int, np.ndarray] | None = None


def load_captioner(model: str | None, backend: str = "torch"):
    """The captioning pipeline of a directory or Hub repository, or of the package's own model.

    Args:
        model: None for the package's own.
        backend: what computes: "torch", "onnx" or "onnx-int8".

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    from transformers import pipeline

    try:
        options = {"dtype": "auto", "model_kwargs": {"backend": backend}}
        return pipeline("audio-captioning", model=model or DEFAULT_MODEL, **options)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, ModelFileError) as error:
        reason = " ".join(str(error).split())
        expected = "expected a folder or Hub repository of an EnCLAP captioner"
        raise ValueError(f"The model `{model}` cannot be loaded; {expected}. {reason}") from error


def describe_recording(captioner, path: str | None, num_beams: int, num_captions: int) -> Description:
    """Caption a recording and draw it; whatever goes wrong is shown as the reason that there is no caption.

    Args:
        captioner: the pipeline.
        path: an audio file; None where the visitor gave none.
        num_beams: beams of the search; raised to `num_captions` where it is lower.
        num_captions: captions shown, best first; of a long recording, the best of each stretch is.
    """
    if not path:
        return Description(format_error(NOTHING_HEARD), "")
    name = os.path.basename(path)
    try:
        audio, is_cut = load_start(path, name)
        is_long = len(audio.samples) > captioner.plan_windows({}).limit_s * audio.sampling_rate
        options = {"num_beams": max(num_beams, num_captions), "num_return_sequences": num_captions}
        if is_long:
            options = {"num_beams": num_beams, "return_timestamps": True}
        started = time.perf_counter()
        result = captioner({"array": audio.samples, "sampling_rate": audio.sampling_rate}, **options)
    except AudioLoadError as error:
        return Description(format_error(str(error)), "")
    except Exception as error:  # of whichever decoder or encoder: the page stays, and the visitor is told
        logger.exception("%s cannot be captioned", name)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Description(format_error(f"`{name}`: it cannot be captioned ({reason})."), "")
    note = f"Captioned in {time.perf_counter() - started:.1f} s."
    if is_cut:
        note += f" Only the first {MAX_DURATION_S // 60} minutes were read."
    if is_long:
        captions = format_timeline(name, audio.samples, audio.sampling_rate, result["chunks"], note)
    else:
        captions = format_captions(result if isinstance(result, list) else [result], note)
    try:
        picture = draw(captioner.processor.feature_extractor, name, audio, is_long)
    except Exception:  # a picture that fails takes no caption with it
        logger.exception("%s cannot be drawn", name)
        picture = ""
    return Description(captions, picture, make_playable(audio) if is_long else None)


def make_playable(audio: LoadedAudio) -> tuple[int, np.ndarray]:
    """Sampling rate and 16-bit samples: what every browser plays, and finds its place in."""
    return audio.sampling_rate, (np.clip(audio.samples, -1, 1) * 32767).astype(np.int16)


def load_start(path: str, name: str) -> tuple[LoadedAudio, bool]:
    """The first minutes of a recording, and whether it goes on after them.

    Raises:
        AudioLoadError: it cannot be read.
    """
    audio = load_audio(path, name=name, max_duration_s=MAX_DURATION_S + MARGIN_S)
    if len(audio.samples) < round((MAX_DURATION_S + MARGIN_S) * audio.sampling_rate):
        return audio, False
    return LoadedAudio(audio.samples[: MAX_DURATION_S * audio.sampling_rate], audio.sampling_rate), True


def draw(feature_extractor, name: str, audio: LoadedAudio, is_long: bool) -> str:
    """The pictures of a recording, from the features that CLAP is given; the time line has a waveform of its own."""
    rate = feature_extractor.clap_sampling_rate
    resampled = torch.from_numpy(resample_audio(audio.samples, audio.sampling_rate, rate))
    log_mel = feature_extractor.log_mel(pad_to_one_frame(resampled, feature_extractor.n_fft))
    frequencies = {
        field: getattr(feature_extractor, field) for field in ("frequency_min", "frequency_max", "mel_scale")
    }
    return draw_recording(name, audio.samples, audio.sampling_rate, log_mel.numpy(), frequencies, not is_long)


def describe_confidence(caption: dict) -> str:
    """What the model's CLAP says of a caption; empty where it has no text tower."""
    if "confidence" not in caption:
        return ""
    return f" Similarity of caption and sound by CLAP: {caption['confidence']:.2f} (-1 to 1)."


def format_captions(captions: list[dict], note: str) -> str:
    """The best caption large, all of several below it with their scores, and a remark."""
    best = captions[0]
    if best.get("silent"):
        return f'<div class="enclap-result" role="status"><p class="enclap-silent">{SILENT}</p></div>'
    digits = count_digits([caption["score"] for caption in captions if "score" in caption], FEWEST_SCORE_DIGITS)
    rows = "".join(
        format_row(rank, caption, best, digits)
        for rank, caption in enumerate(captions, 1)
        if "score" in caption and len(captions) > 1
    )
    table = rows and (
        '<table class="enclap-candidates"><caption>The best captions of the search. Scores nearer to 0 are surer.'
        '</caption><thead><tr><th scope="col">#</th><th scope="col">Caption</th>'
        f'<th scope="col">Score</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    return (
        f'<div class="enclap-result" role="status"><p class="enclap-caption">{html.escape(best["text"])}</p>'
        f'{table}<p class="enclap-note">{note}{describe_confidence(best)}</p></div>'
    )


def format_row(rank: int, caption: dict, best: dict, digits: int = FEWEST_SCORE_DIGITS) -> str:
    """One candidate; its bar is full for the best and shrinks as the score falls."""
    share = 100 if caption["score"] >= best["score"] else 100 * best["score"] / caption["score"]
    return (
        f"<tr><td>{rank}</td><td>{html.escape(caption['text'])}"
        f'<div class="enclap-bar" aria-hidden="true"><div style="width:{max(share, 2):.0f}%"></div></div></td>'
        f"<td>{caption['score']:.{digits}f}</td></tr>"
    )


def format_error(reason: str) -> str:
    """Why there is no caption."""
    return f'<div class="enclap-error" role="alert"><strong>No caption.</strong> {html.escape(reason)}</div>'


def format_notice(model: str | None, on_space: bool) -> str:
    """Which model writes the captions, and what it knows."""
    if model:
        return f'<p class="enclap-notice" role="note">Model: <code>{html.escape(model)}</code></p>'
    how = (
        "set the variable <code>ENCLAP_MODEL</code> of this Space to a Hub repository"
        if on_space
        else "start <code>enclap demo --model OWNER/NAME</code>"
    )
    return (
        '<p class="enclap-notice" role="note"><strong>This is the bundled small model.</strong> '
        f"It knows {len(SOUND_KINDS)} kinds of synthesised sounds and nothing else; for a real recording it names "
        f"whichever of these sounds most like it. For real recordings, {how}.</p>"
    )
