"""The card of a long recording: blocks and list say the same, downloads hold the captions, texts are never markup."""

import base64
import html
import io
import re

import numpy as np
import pandas
import pytest
import soundfile
import webvtt
from transformers import pipeline

from conftest import make_clip
from enclap_hf.demo.captioning import describe_recording
from enclap_hf.demo.timeline import SILENCE, choose_hues, format_timeline

RATE = 24_000
CHUNKS = [
    {"timestamp": (0.0, 10.0), "text": 'a "dog" <b>barks</b> & howls', "score": -0.5},
    {"timestamp": (10.0, 20.0), "text": "", "silent": True},
    {"timestamp": (20.0, 65.0), "text": "rain falls", "score": -0.25},
    {"timestamp": (65.0, 70.5), "text": 'a "dog" <b>barks</b> & howls', "score": -0.75},
]


@pytest.fixture(scope="module")
def card() -> str:
    samples = np.zeros(round(70.5 * RATE), np.float32)
    return format_timeline("my <day>.m4a", samples, RATE, CHUNKS, "Captioned in 3.0 s.")


def read_download(card: str, name: str) -> tuple[str, str]:
    """File name and text of a link."""
    link = re.search(rf'<a [^>]*download="([^"]*\.{name})"[^>]*href="data:[^;]+;charset=utf-8;base64,([^"]*)"', card)
    return html.unescape(link.group(1)), base64.b64decode(link.group(2)).decode()


def test_blocks_and_list_say_when_and_what(card):
    assert 'data-duration="70.500000"' in card
    spans = re.findall(
        r'class="enclap-(block|cue)[^"]*" style="([^"]*)"[^>]* data-start="([^"]*)" data-end="([^"]*)"', card
    )
    for kind in ("block", "cue"):
        found = [(float(start), float(end)) for name, _, start, end in spans if name == kind]
        assert found == [chunk["timestamp"] for chunk in CHUNKS]
    places = [re.findall(r"(?:left|width):([\d.]+)%", style) for name, style, _, _ in spans if name == "block"]
    for (left, width), chunk in zip(places, CHUNKS, strict=True):
        start_s, end_s = chunk["timestamp"]
        assert float(left) == pytest.approx(100 * start_s / 70.5, abs=1e-3)
        assert float(width) == pytest.approx(100 * (end_s - start_s) / 70.5, abs=1e-3)
    cues = re.findall(r'enclap-cue-time">([^<]*)</span><span class="enclap-cue-text">([^<]*)<', card)
    texts = ['a "dog" <b>barks</b> & howls', SILENCE, "rain falls", 'a "dog" <b>barks</b> & howls']
    assert [time for time, _ in cues] == ["0:00", "0:10", "0:20", "1:05"]
    assert [html.unescape(text) for _, text in cues] == texts
    assert "3 captions in 1 min 10 s. Captioned in 3.0 s." in card and "/ 1:10" in card


def test_what_a_visitor_or_a_model_writes_is_never_markup(card):
    assert "<b>" not in card and "<day>" not in card and 'title="a &quot;dog&quot; &lt;b&gt;' in card


def test_the_same_caption_has_the_same_colour():
    assert choose_hues(CHUNKS)[0] == choose_hues(CHUNKS)[3] != choose_hues(CHUNKS)[2]
    many = [{"timestamp": (i, i + 1), "text": f"caption {i}"} for i in range(40)]
    assert len(set(choose_hues(many))) == 8, "more captions than colours share them"


def test_downloads_are_the_caption_formats(card, tmp_path):
    names = {name: read_download(card, name) for name in ("srt", "vtt", "csv")}
    assert [file_name for file_name, _ in names.values()] == ["my <day>.srt", "my <day>.vtt", "my <day>.csv"]
    vtt = webvtt.from_string(names["vtt"][1])
    assert [html.unescape(cue.raw_text) for cue in vtt] == [CHUNKS[i]["text"] for i in (0, 2, 3)]
    assert names["srt"][1].startswith("1\n00:00:00,000 --> 00:00:10,000\n")
    table = pandas.read_csv(io.StringIO(names["csv"][1]), keep_default_na=False)
    assert list(table["start_s"]) == [0, 10, 20, 65] and list(table["duration_s"]) == [10, 10, 45, 5.5]
    assert list(table["file_name"]) == ["my <day>.m4a"] * 4
    assert list(table["caption"]) == [chunk["text"] for chunk in CHUNKS]


def test_a_recording_of_silence_alone_is_shown():
    silent = [{"timestamp": (0.0, 30.0), "text": "", "silent": True}]
    card = format_timeline("night.wav", np.zeros(30 * RATE, np.float32), RATE, silent, "")
    assert "0 captions in 30.0 s." in card and SILENCE in card and read_download(card, "vtt")[1] == "WEBVTT\n\n"


def test_a_long_recording_is_described_by_its_time_line(repository, tmp_path):
    captioner = pipeline("audio-captioning", model=repository, device="cpu")
    long, short = make_clip(7.5), make_clip(1.2)
    soundfile.write(tmp_path / "long.wav", long, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", short, RATE, subtype="FLOAT")
    expected = captioner(str(tmp_path / "long.wav"), num_beams=2, return_timestamps=True)
    description = describe_recording(captioner, str(tmp_path / "long.wav"), 2, 3)
    texts = re.findall(r'enclap-cue-text">([^<]*)<', description.captions)
    assert [html.unescape(text) for text in texts] == [chunk["text"] for chunk in expected["chunks"]]
    assert len(texts) > 1 and "enclap-candidates" not in description.captions
    assert "enclap-mel" in description.picture and "enclap-waveform" not in description.picture
    rate, samples = description.heard
    assert rate == RATE and samples.dtype == np.int16
    assert np.abs(samples / 32767 - long).max() < 1e-4
    description = describe_recording(captioner, str(tmp_path / "short.wav"), 2, 3)
    assert description.heard is None and "enclap-timeline" not in description.captions
