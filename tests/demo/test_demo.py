"""The demo's page: captions with scores, pictures that show the sound, errors in words, and what starts it."""

import base64
import html
import importlib.util
import io
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import metadata_load
from transformers import pipeline

from conftest import make_clip
from enclap_hf.cli import main
from enclap_hf.demo import captioning
from enclap_hf.demo.captioning import describe_recording, format_notice
from enclap_hf.demo.sound_pictures import COLOUR_STOPS, draw_frequency_ticks, draw_time_ticks, draw_waveform
from enclap_hf.sound_scenes import EXAMPLE_SCENES, SOUND_KINDS

RATE = 24_000
SPACE = Path(__file__).parents[2] / "examples/space"
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason='needs gradio: pip install "enclap-hf[demo]"'
)
needs_pillow = pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="needs pillow, which gradio brings")


@pytest.fixture(scope="module")
def captioner(repository):
    return pipeline("audio-captioning", model=repository, device="cpu")


@pytest.fixture
def recording(tmp_path) -> str:
    path = str(tmp_path / "a <gliding> tone.wav")
    soundfile.write(path, make_clip(1.2), RATE, subtype="FLOAT")
    return path


def text_of(fragment: str) -> list[str]:
    """The words of a piece of HTML, one string for each element's text."""
    return [html.unescape(text) for text in re.split(r"<[^>]*>", fragment) if text.strip()]


# Captions


@needs_pillow
def test_the_pipelines_n_best_captions_are_shown_with_their_scores(captioner, recording):
    expected = captioner(recording, num_beams=4, num_return_sequences=3)
    texts = text_of(describe_recording(captioner, recording, 4, 3).captions)
    assert texts[0] == expected[0]["text"]
    for caption in expected:
        place = texts.index(caption["text"], 1)
        assert texts[place + 1] == f"{caption['score']:.3f}"


@needs_pillow
def test_one_caption_stands_alone_and_more_captions_than_beams_widen_the_search(captioner, recording):
    assert "<table" not in describe_recording(captioner, recording, 4, 1).captions
    expected = captioner(recording, num_beams=5, num_return_sequences=5)
    texts = text_of(describe_recording(captioner, recording, 1, 5).captions)
    assert all(caption["text"] in texts for caption in expected)


@needs_pillow
def test_what_was_cut_off_is_said(captioner, recording, monkeypatch):
    assert "Only the first" not in describe_recording(captioner, recording, 1, 1).captions
    monkeypatch.setattr(captioning, "MAX_DURATION_S", 1)
    assert "Only the first" in describe_recording(captioner, recording, 1, 1).captions


@needs_pillow
@pytest.mark.parametrize(("seconds", "is_cut"), [(0.5, False), (1, False), (1.05, False), (1.15, True), (2.5, True)])
@pytest.mark.parametrize("rate", [8000, 44_100])
def test_a_recording_that_ends_where_reading_ends_is_not_called_cut(
    captioner, tmp_path, monkeypatch, seconds, is_cut, rate
):
    """One of exactly five minutes was said to be cut; one that an encoder has made a little longer is read whole."""
    monkeypatch.setattr(captioning, "MAX_DURATION_S", 1)
    soundfile.write(tmp_path / "a.wav", make_clip(seconds, sampling_rate=rate), rate)
    description = describe_recording(captioner, str(tmp_path / "a.wav"), 1, 1)
    assert ("Only the first" in description.captions) == is_cut
    read_s = 1 if is_cut else seconds
    assert f"a.wav, {read_s * 1000:.0f} ms" in description.picture or f"a.wav, {read_s:.1f} s" in description.picture


def test_scores_that_differ_look_different():
    captions = [{"text": "a", "score": -0.50001}, {"text": "b", "score": -0.50002}, {"text": "c", "score": -0.6}]
    texts = text_of(captioning.format_captions(captions, ""))
    assert [texts[texts.index(name, 1) + 1] for name in "abc"[1:]] == ["-0.50002", "-0.60000"]
    assert "-0.50001" in texts
    same = captioning.format_captions([{"text": "a", "score": -0.5}, {"text": "b", "score": -0.5}], "")
    assert text_of(same).count("-0.500") == 2


def test_a_score_alone_is_no_table_and_a_silent_recording_has_no_caption():
    assert "<table" not in captioning.format_captions([{"text": "rain falls", "score": -0.4}], "")
    shown = captioning.format_captions([{"text": "", "silent": True}], "Captioned in 1 s.")
    assert text_of(shown) == [captioning.SILENT]


@needs_pillow
def test_whatever_a_decoder_encoder_or_drawing_raises_is_shown_in_words(captioner, recording, monkeypatch):
    def fail(error):
        def raise_it(*args, **options):
            raise error

        return raise_it

    for target, error in (("load_audio", OSError("seek <i>failed</i>")), ("load_audio", MemoryError())):
        with monkeypatch.context() as patched:
            patched.setattr(captioning, target, fail(error))
            shown = describe_recording(captioner, recording, 2, 2)
        reason = "".join(text_of(shown.captions))
        assert reason.startswith("No caption. `a <gliding> tone.wav`: it cannot be captioned (")
        assert type(error).__name__ in reason and "<i>" not in shown.captions and shown.picture == ""
    with monkeypatch.context() as patched:
        patched.setattr(captioner.processor, "encode_prepared", fail(RuntimeError("out of memory")))
        assert "out of memory" in describe_recording(captioner, recording, 2, 2).captions
    with monkeypatch.context() as patched:
        patched.setattr(captioning, "draw_recording", fail(ValueError("no picture")))
        shown = describe_recording(captioner, recording, 2, 2)
    assert "enclap-caption" in shown.captions and shown.picture == ""


def test_a_text_file_with_an_audio_name_gives_the_reason_and_nothing_else(captioner, tmp_path):
    (tmp_path / "notes.wav").write_text("These are notes, not a recording.\n" * 20)
    description = describe_recording(captioner, str(tmp_path / "notes.wav"), 4, 3)
    reason = "".join(text_of(description.captions))
    assert reason.startswith("No caption. `notes.wav`: it is text, not audio (it begins 'These are notes")
    assert str(tmp_path) not in reason and description.picture == "" and 'role="alert"' in description.captions


def test_the_button_without_a_sound_says_what_to_do(captioner):
    for nothing in (None, ""):
        assert captioning.NOTHING_HEARD in "".join(text_of(describe_recording(captioner, nothing, 4, 3).captions))


def test_what_a_visitor_or_a_model_writes_is_never_markup():
    captions = [{"text": "<b>bold</b>", "score": -0.5}, {"text": "<img src=x>", "score": -1.0}]
    shown = captioning.format_captions(captions, "")
    assert "<b>" not in shown and "<img" not in shown and "&lt;b&gt;bold" in shown
    assert "<i>" not in captioning.format_error("<i>x</i>") and "<i>" not in format_notice("<i>", on_space=True)


def test_a_bar_is_full_for_the_best_and_shrinks_with_the_score():
    captions = [{"text": str(score), "score": score} for score in (-0.5, -1.0, -50.0)]
    assert re.findall(r"width:(\d+)%", captioning.format_captions(captions, "")) == ["100", "50", "2"]
    assert "width:100%" in captioning.format_row(1, {"text": "sure", "score": 0.0}, {"text": "sure", "score": 0.0})


def test_the_notice_says_what_the_default_model_knows_or_which_other_model_speaks():
    assert f"{len(SOUND_KINDS)} kinds of synthesised sounds" in format_notice(None, on_space=False)
    assert "enclap demo --model" in format_notice(None, on_space=False)
    assert "ENCLAP_MODEL" in format_notice(None, on_space=True)
    assert "".join(text_of(format_notice("owner/name", on_space=False))) == "Model: owner/name"


# Pictures


def decode_picture(fragment: str) -> np.ndarray:
    """Brightness of the spectrogram in a page: (mel bins, columns), the highest frequency first."""
    from PIL import Image

    data = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", fragment).group(1))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int).sum(axis=2)


@needs_pillow
def test_the_spectrogram_shows_when_and_how_high_a_tone_is(captioner, tmp_path):
    time_s = np.arange(2 * RATE) / RATE
    bright_rows = {}
    for hz in (500, 4000):
        tone = np.where(time_s < 1, 0.5 * np.sin(2 * np.pi * hz * time_s), 0).astype(np.float32)
        soundfile.write(tmp_path / "tone.wav", tone, RATE)
        picture = decode_picture(describe_recording(captioner, str(tmp_path / "tone.wav"), 1, 1).picture)
        columns = picture.shape[1]
        assert picture[:, : columns // 2 - 2].max() == sum(COLOUR_STOPS[-1])
        assert picture[:, columns // 2 + 3 :].max() == sum(COLOUR_STOPS[0])
        bright_rows[hz] = int(picture[:, columns // 4].argmax())
    assert bright_rows[4000] < bright_rows[500], "higher tones belong further up"


@needs_pillow
@pytest.mark.parametrize("samples", [make_clip(0.001), np.zeros(RATE, np.float32), make_clip(9.0)])
def test_very_short_silent_and_long_recordings_are_drawn(captioner, tmp_path, samples):
    soundfile.write(tmp_path / "clip.wav", samples, RATE)
    picture = describe_recording(captioner, str(tmp_path / "clip.wav"), 1, 1).picture
    assert "nan" not in picture and decode_picture(picture).size
    heard_s = 253 / 75  # codec frames of the tiny model, at 75 a second
    is_long = len(samples) / RATE > heard_s  # the waveform is then above the time line
    assert ("enclap-waveform" in picture) != is_long
    if not samples.any():
        assert "silence" in text_of(picture)


def test_the_waveform_follows_the_samples():
    samples = np.zeros(4800, np.float32)
    samples[2400:2410] = 0.25
    points = re.search(r'points="([^"]+)"', draw_waveform(samples)).group(1).split()
    heights = [float(point.split(",")[1]) for point in points[: len(points) // 2]]
    assert heights.index(min(heights)) == 240 and min(heights) == 2.0
    assert len(heights) == 480 and heights.count(min(heights)) == 1


@pytest.mark.parametrize("duration_s", [0.02, 0.9, 4.2, 10, 61, 300, 7000])
def test_time_labels_are_few_and_stay_inside(duration_s):
    ticks = draw_time_ticks(duration_s)
    places = [float(place) for place in re.findall(r"left:([\d.]+)%", ticks)]
    assert 1 <= len(places) <= 7 and places == sorted(set(places)) and max(places) <= 96
    for place, label in zip(places, text_of(ticks), strict=True):
        assert (":" in label) == (duration_s >= 60)
        parts = [float(part) for part in label.removesuffix(" s").split(":")]
        shown_s = sum(part * 60**power for power, part in enumerate(reversed(parts)))
        assert shown_s == pytest.approx(place * duration_s / 100, abs=0.01 * duration_s)


def test_frequency_labels_rise_and_keep_apart():
    ticks = draw_frequency_ticks(50.0, 14_000.0, "htk")
    places = [float(place) for place in re.findall(r"bottom:([\d.]+)%", ticks)]
    assert text_of(ticks)[0] == "8 kHz" and len(places) >= 4
    assert all(above - below >= 14 for above, below in zip(places, places[1:], strict=False))


# What starts it


def test_without_gradio_the_command_names_its_install_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "enclap_hf.demo.app", raising=False)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        'enclap demo: the demo needs gradio, which is not installed. Run: pip install "enclap-hf[demo]"\n'
    )


@pytest.mark.parametrize("port", ["0", "65536", "web", "-1"])
def test_a_port_that_cannot_be_is_refused(capsys, port):
    with pytest.raises(SystemExit) as stop:
        main(["demo", f"--port={port}"])
    assert stop.value.code == 2 and "expected a port from 1 to 65535" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_before_a_model_loads(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["demo", "--port", str(port)]) == 2
    assert f"port {port} is taken; pass another --port" in capsys.readouterr().err


@needs_gradio
def test_a_model_that_is_not_there_is_said_in_one_line(capsys):
    assert main(["demo", "--model", "nobody/nothing"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("enclap demo: ") and "nobody/nothing" in error and error.count("\n") == 1


@needs_gradio
def test_visitors_of_a_shared_page_cannot_load_models(repository, recording, monkeypatch):
    from enclap_hf.demo.app import DemoPage

    page = DemoPage(repository)
    loaded = []
    monkeypatch.setattr("enclap_hf.demo.app.load_captioner", lambda model, backend: loaded.append(model))
    assert repository in page.caption(recording, 1, 1, "owner/other")[2] and loaded == []
    fields = {block.get("props", {}).get("label"): block["props"] for block in page.build().config["components"]}
    assert fields["Model"]["visible"] is False and fields["Beams"]["visible"] is True


@needs_gradio
@pytest.mark.parametrize("num_beams", [None, 4, 12, 30])
def test_the_sliders_reach_the_models_own_number_of_beams(repository, recording, num_beams):
    """The page of a model with more than eight beams began outside of its slider, and could not be used."""
    from enclap_hf.demo.app import DemoPage

    page = DemoPage(repository)
    page.captioner.model.generation_config.num_beams = num_beams
    components = page.build().config["components"]
    beams = next(block["props"] for block in components if block.get("props", {}).get("label") == "Beams")
    assert beams["value"] == (num_beams or 1) and beams["maximum"] == max(8, num_beams or 1)
    assert "enclap-caption" in page.caption(recording, beams["value"], 8)[0]


@needs_gradio
def test_the_owner_of_a_page_may_name_another_model(repository, recording):
    from enclap_hf.demo.app import DemoPage

    page = DemoPage(choose_model=True)
    captions, picture, notice, _ = page.caption(recording, 2, 2, f" {repository} ")
    assert repository in notice and "enclap-caption" in captions and "enclap-picture" in picture
    captions, picture, notice, _ = page.caption(recording, 2, 2, "nobody/nothing")
    assert "nobody/nothing" in captions and "\n" not in captions and picture == ""
    assert repository in notice, "the page keeps the model it has"
    assert "synthesised" in page.caption(recording, 1, 1, "")[2]


@needs_gradio
def test_the_page_offers_the_example_scenes_and_takes_no_font_from_elsewhere(repository):
    from enclap_hf.demo.app import DemoPage, make_theme

    components = DemoPage(repository).build().config["components"]
    labels = next(block["props"]["sample_labels"] for block in components if block["type"] == "dataset")
    assert labels == [name.replace("_", " ") for name in EXAMPLE_SCENES]
    assert make_theme()._stylesheets == [] and "@import" not in make_theme()._get_theme_css()


def test_the_space_is_described_as_the_hub_expects():
    card = metadata_load(SPACE / "README.md")
    assert card["sdk"] == "gradio" and (SPACE / card["app_file"]).is_file()
    assert card["license"] == "apache-2.0" and len(card["short_description"]) <= 60
    assert (SPACE / "requirements.txt").read_text() == "enclap-hf[demo]\n"
    pins = (SPACE.parent.parent / "constraints.txt").read_text()
    assert f"gradio=={card['sdk_version']}\n" in pins, "the Space runs the version that was tested"
