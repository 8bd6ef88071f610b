"""`segmentation="changes"` through the pipeline: segments are clips of their own, joined where they say the same."""

import numpy as np
import pytest
from transformers import pipeline

from conftest import build_model, build_processor, make_clip
from enclap_hf import AudioCaptioningPipeline
from enclap_hf.model import pipeline as pipeline_module

RATE = 24_000
SILENCE = np.zeros(2 * RATE, np.float32)
PARTS = (make_clip(2.5, 1), 0.05 * make_clip(3.0, 2), SILENCE, make_clip(5.0, 3), 0.02 * make_clip(2.5, 4))
CHANGES_S = (2.5, 5.5, 7.5, 12.5)
LONG = np.concatenate(PARTS)


@pytest.fixture(scope="module")
def captioner() -> AudioCaptioningPipeline:
    model = build_model()
    model.generation_config.max_length = 10
    return pipeline("audio-captioning", model=model, processor=build_processor(), device="cpu", num_beams=1)


def caption(captioner, **options) -> list[dict]:
    options = {"segmentation": "changes", "return_timestamps": True, **options}
    return captioner(LONG, sampling_rate=RATE, **options)["chunks"]


def test_segments_follow_the_sound_and_cover_the_recording(captioner):
    chunks = caption(captioner)
    starts, ends = zip(*(chunk["timestamp"] for chunk in chunks), strict=True)
    assert starts[0] == 0 and ends[-1] == len(LONG) / RATE and starts[1:] == ends[:-1]
    for change in CHANGES_S:
        assert min(abs(end - change) for end in ends) <= 0.5
    assert [chunk["timestamp"] for chunk in chunks if chunk.get("silent")] == [(5.5, 7.5)]


def test_a_segment_is_captioned_as_a_clip_of_its_own(captioner, monkeypatch):
    monkeypatch.setattr(pipeline_module, "join_equal_neighbours", lambda pieces: pieces)
    chunks = caption(captioner, batch_size=3)
    assert max(chunk["timestamp"][1] - chunk["timestamp"][0] for chunk in chunks) <= captioner.processor.window_s
    for chunk in chunks:
        first, last = (round(second * RATE) for second in chunk["timestamp"])
        alone = captioner(LONG[first:last], sampling_rate=RATE)
        assert chunk["text"] == alone["text"]
        if "score" in alone:
            assert chunk["score"] == pytest.approx(alone["score"], abs=1e-5)


def test_neighbours_that_say_the_same_are_one(captioner, monkeypatch):
    """The tests' model says nearly the same of everything: here it does."""
    monkeypatch.setattr(captioner.processor, "batch_decode", lambda ids: ["A dog barks."] * len(ids))
    chunks = caption(captioner)
    assert [chunk["timestamp"] for chunk in chunks] == [(0.0, 5.5), (5.5, 7.5), (7.5, 15.0)]
    assert [chunk["text"] for chunk in chunks] == ["A dog barks.", "", "A dog barks."]


def test_rows_are_the_chunks_and_go_on_from_any_of_them(captioner, monkeypatch):
    chunks = caption(captioner)
    rows = [row for _, row in captioner.stream([(LONG, RATE)], segmentation="changes")]
    assert [(row["start_s"], row["end_s"]) for row in rows] == [chunk["timestamp"] for chunk in chunks]
    for number in (1, len(rows) - 2):
        options = {"segmentation": "changes", "go_on_at": {0: rows[number]["start_s"]}}
        pieces = captioner.stream_pieces([(LONG, RATE)], **options)
        rest = [(piece.start_s, piece.end_s) for piece in pieces if piece.result is not None]
        assert rest == [(row["start_s"], row["end_s"]) for row in rows[number:]]


def test_a_short_recording_is_one_segment(captioner):
    clip = make_clip(1.2, 7)
    whole, cut = (captioner(clip, sampling_rate=RATE, **options) for options in ({}, {"segmentation": "changes"}))
    assert whole["text"] == cut["text"] and whole["score"] == pytest.approx(cut["score"], abs=1e-6)
