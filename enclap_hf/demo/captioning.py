"""From a recording to what the page shows: captions with their scores, pictures, or the reason that there are none."""

import html
import logging
import os
import time
from dataclasses import dataclass

import torch

from ..data.score_digits import count_digits
from ..hub.registration import DEFAULT_MODEL
from ..model.audio_loading import AudioLoadError, LoadedAudio, load_audio, resample_audio
from ..model.model_files import ModelFileError
from ..sound_scenes import SOUND_KINDS
from .sound_pictures import draw_recording, pad_to_one_frame

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
    """What the page shows about one recording, as HTML."""

    captions: str
    picture: str


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
        num_captions: captions shown, best first.
    """
    if not path:
        return Description(format_error(NOTHING_HEARD), "")
    name = os.path.basename(path)
    try:
        audio, is_cut = load_start(path, name)
        started = time.perf_counter()
        result = captioner(
            {"array": audio.samples, "sampling_rate": audio.sampling_rate},
            num_beams=max(num_beams, num_captions),
            num_return_sequences=num_captions,
        )
    except AudioLoadError as error:
        return Description(format_error(str(error)), "")
    except Exception as error:  # of whichever decoder or encoder: the page stays, and the visitor is told
        logger.exception("%s cannot be captioned", name)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Description(format_error(f"`{name}`: it cannot be captioned ({reason})."), "")
    note = f"Captioned in {time.perf_counter() - started:.1f} s."
    if is_cut:
        note += f" Only the first {MAX_DURATION_S // 60} minutes were read."
    captions = format_captions(result if isinstance(result, list) else [result], note)
    try:
        return Description(captions, draw(captioner.processor.feature_extractor, name, audio))
    except Exception:  # a picture that fails takes no caption with it
        logger.exception("%s cannot be drawn", name)
        return Description(captions, "")


def load_start(path: str, name: str) -> tuple[LoadedAudio, bool]:
    """The first minutes of a recording, and whether it goes on after them.

    Raises:
        AudioLoadError: it cannot be read.
    """
    audio = load_audio(path, name=name, max_duration_s=MAX_DURATION_S + MARGIN_S)
    if len(audio.samples) < round((MAX_DURATION_S + MARGIN_S) * audio.sampling_rate):
        return audio, False
    return LoadedAudio(audio.samples[: MAX_DURATION_S * audio.sampling_rate], audio.sampling_rate), True


def draw(feature_extractor, name: str, audio: LoadedAudio) -> str:
    """The pictures of a recording, from the features that CLAP is given."""
    rate = feature_extractor.clap_sampling_rate
    resampled = torch.from_numpy(resample_audio(audio.samples, audio.sampling_rate, rate))
    log_mel = feature_extractor.log_mel(pad_to_one_frame(resampled, feature_extractor.n_fft))
    frames = feature_extractor.max_codec_frames
    heard_s = frames and frames * feature_extractor.codec_hop_length / feature_extractor.codec_sampling_rate
    frequencies = {
        field: getattr(feature_extractor, field) for field in ("frequency_min", "frequency_max", "mel_scale")
    }
    window = f"the {feature_extractor.clap_window_s:g} s in the middle"
    clap_hears = "an overview of all" if feature_extractor.long_clips == "fusion" else window
    return draw_recording(name, audio.samples, audio.sampling_rate, log_mel.numpy(), frequencies, heard_s, clap_hears)


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
        f'{table}<p class="enclap-note">{note}</p></div>'
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
