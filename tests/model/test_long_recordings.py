"""Recordings of any length through the pipeline: each window is a clip of its own, and what comes of them all."""

import io
import logging

import numpy as np
import pytest
import torch
from transformers import pipeline

import long_recordings
from audio_clips import Decoder, Pipe, encoded, encoded_by_av
from conftest import make_clip
from enclap_hf.model.audio_sources import open_audio
from enclap_hf.model.windows import FixedWindows, plan_windows
from long_recordings import HEARD_S, LONG, RATE, SHORT, wav

captioner, repository = long_recordings.captioner, long_recordings.repository


def list_windows(num_samples: int, rate: int, chunk_s: float, strides=(0, 0)):
    segmenter = FixedWindows(plan_windows(None, chunk_s, strides), rate)
    return segmenter.feed(np.empty((1, num_samples), np.int8)) + segmenter.finish()


# A window is a clip


def encode_as(kind: str) -> bytes:
    """Six seconds of stereo."""
    samples = np.stack([make_clip(6.1, seed, 32_000) for seed in (1, 2)])
    if kind == "m4a":
        return encoded_by_av(samples, 32_000, "ipod", "aac")
    forms = {"wav": {"format": "WAV", "subtype": "PCM_16"}, "flac": {"format": "FLAC"}, "ogg": {"format": "OGG"}}
    return encoded(samples.T, 32_000, **forms.get(kind, {"format": "MP3"}))


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "m4a"])
@pytest.mark.parametrize("strides", [(0, 0), (0.317, 0.113)])
def test_a_window_is_heard_like_a_float_wav_of_its_samples(captioner, monkeypatch, kind, strides):
    content, heard = encode_as(kind), []
    encode = captioner.processor.encode_prepared

    def listen(prepared):
        heard.append(encode(prepared))
        return heard[-1]

    with monkeypatch.context() as patched:
        patched.setattr(captioner.processor, "encode_prepared", listen)
        result = captioner(content, chunk_length_s=1.7, stride_length_s=strides, return_timestamps=True)
    with open_audio(content) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        windows = list_windows(samples.shape[1], reader.sampling_rate, 1.7, strides)
    assert len(windows) == len(heard) == len(result["chunks"]) > 3
    for window, inputs, chunk in zip(windows, heard, result["chunks"], strict=True):
        alone = captioner.processor(audio=wav(samples[:, window.start : window.end], 32_000))
        assert torch.equal(inputs["audio_codes"], alone["audio_codes"])
        torch.testing.assert_close(inputs["clap_embedding"], alone["clap_embedding"], rtol=0, atol=1e-5)
        assert chunk["text"] == captioner(wav(samples[:, window.start : window.end], 32_000))["text"]
        assert chunk["timestamp"] == (window.first / 32_000, window.last / 32_000)


@pytest.mark.parametrize("num_channels", [1, 2, 20])
def test_a_clip_that_is_not_cut_is_heard_as_ever(captioner, num_channels):
    samples = np.stack([make_clip(1.1, seed) for seed in range(num_channels)])
    whole = captioner(wav(samples), return_timestamps=True)
    inputs = captioner.processor(audio=wav(samples))
    (text,) = captioner.processor.batch_decode(captioner.model.generate(**inputs, num_beams=1))
    assert whole["text"] == text and [chunk["timestamp"] for chunk in whole["chunks"]] == [(0.0, 1.1)]


def test_loud_floats_are_warned_of_once_for_a_recording(captioner, caplog):
    captioner(wav(1000 * LONG[None]), chunk_length_s=1)
    assert sum("float samples reach" in line for line in caplog.messages) == 1


# Results


def test_a_long_recording_is_cut_unasked_with_a_word(captioner, repository, caplog):
    captioner = pipeline("audio-captioning", model=repository, device="cpu", num_beams=1)
    with caplog.at_level(logging.WARNING):
        result = captioner([wav(LONG[None]), wav(SHORT[None])] * 2, return_timestamps=True)
        captioner(LONG, sampling_rate=RATE)
    said = [line for line in caplog.messages if "are captioned in windows of 3.373 s" in line]
    assert len(said) == 1 and "longer than the 3.373 s" in said[0]
    long, short = result[:2]
    ends = [window.last / RATE for window in list_windows(len(LONG), RATE, HEARD_S)]
    assert [chunk["timestamp"] for chunk in long["chunks"]] == list(zip([0.0, *ends], ends, strict=False))
    assert short["chunks"] == [{"timestamp": (0.0, 0.7), "text": short["text"], "score": short["score"]}]


def test_text_and_score_are_those_of_the_windows(captioner):
    whole = captioner(LONG, sampling_rate=RATE, chunk_length_s=2)
    with_chunks = captioner(LONG, sampling_rate=RATE, chunk_length_s=2, return_timestamps=True)
    chunks = with_chunks.pop("chunks")
    assert whole == with_chunks and set(whole) == {"text", "score"}
    clips = [captioner(LONG[start : start + 2 * RATE], sampling_rate=RATE) for start in range(0, len(LONG), 2 * RATE)]
    assert [chunk["text"] for chunk in chunks] == [clip["text"] for clip in clips]
    assert whole["text"] == " ".join(dict.fromkeys(clip["text"] for clip in clips))
    lengths = [2.0, 2.0, 2.0, len(LONG) / RATE - 6.0]
    expected = sum(clip["score"] * length for clip, length in zip(clips, lengths, strict=True)) / sum(lengths)
    assert whole["score"] == pytest.approx(expected, abs=1e-5)
    repeated = captioner(np.tile(LONG[:RATE], 4), sampling_rate=RATE, chunk_length_s=1)
    assert repeated["text"] == captioner(LONG[:RATE], sampling_rate=RATE)["text"]


def test_n_best_of_windows(captioner):
    options = {"sampling_rate": RATE, "num_beams": 3, "num_return_sequences": 3}
    ranks = captioner(LONG, chunk_length_s=2, **options)
    chunks = captioner(LONG, chunk_length_s=2, return_timestamps=True, **options)["chunks"]
    first = captioner(LONG[: 2 * RATE], **options)
    assert [caption["text"] for caption in chunks[0]["captions"]] == [caption["text"] for caption in first]
    assert chunks[0]["text"] == first[0]["text"]
    assert len(ranks) == 3
    for rank, result in enumerate(ranks):
        texts = dict.fromkeys(chunk["captions"][rank]["text"] for chunk in chunks)
        assert result["text"] == " ".join(texts)


def test_zero_hears_the_beginning_alone(captioner, caplog):
    result = captioner(LONG, sampling_rate=RATE, chunk_length_s=0)
    assert "the beginning alone is captioned" in caplog.text
    inputs = captioner.processor(audio=LONG, sampling_rate=RATE)
    (text,) = captioner.processor.batch_decode(captioner.model.generate(**inputs, num_beams=1))
    assert result["text"] == text


def test_windows_of_construction_hold_for_every_call(repository):
    captioner = pipeline("audio-captioning", model=repository, chunk_length_s=1, return_timestamps=True, device="cpu")
    assert len(captioner(LONG, sampling_rate=RATE)["chunks"]) == 8
    assert len(captioner(LONG, sampling_rate=RATE, chunk_length_s=3)["chunks"]) == 3
    with pytest.raises(ValueError, match="hears 3.373 s at a time"):
        pipeline("audio-captioning", model=repository, chunk_length_s=10, device="cpu")
    for arguments in ({"chunk_length_s": -1}, {"stride_length_s": 2}, {"return_timestamps": "word"}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            captioner(SHORT, sampling_rate=RATE, **arguments)


def test_silent_windows_get_no_caption(captioner):
    samples = np.concatenate([SHORT[:12_000], np.zeros(2 * RATE), SHORT[:12_000]]).astype(np.float32)
    chunks = captioner(samples, sampling_rate=RATE, chunk_length_s=0.5, return_timestamps=True)["chunks"]
    assert [chunk.get("silent", False) for chunk in chunks] == [False, True, True, True, True, False]
    assert chunks[1] == {"timestamp": (0.5, 1.0), "text": "", "silent": True}
    silence = captioner(np.zeros(9 * RATE), sampling_rate=RATE, return_timestamps=True)
    assert (silence["text"], silence["silent"]) == ("", True) and len(silence["chunks"]) == 3
    faint = np.full(4 * RATE, 10 ** (-71 / 20), np.float32)
    assert captioner(faint, sampling_rate=RATE)["silent"]
    assert captioner(faint, sampling_rate=RATE, silence_dbfs=-72)["text"]


# Every form


def test_every_form_of_a_recording_is_cut_alike(captioner, tmp_path):
    (tmp_path / "long.wav").write_bytes(wav(LONG[None]))
    (tmp_path / "long.pcm").write_bytes(LONG.astype("<f4").tobytes())
    raw = {"raw_format": "f32le", "raw_sampling_rate": RATE}
    rate = {"sampling_rate": RATE}
    forms = [
        (str(tmp_path / "long.wav"), {}),
        (wav(LONG[None]), {}),
        (io.BytesIO(wav(LONG[None])), {}),
        (Pipe(wav(LONG[None])), {}),
        (LONG, rate),
        (torch.from_numpy(LONG), rate),
        ({"array": LONG, "sampling_rate": RATE}, {}),
        ((RATE, LONG), {}),
        (Decoder(torch.from_numpy(LONG[None]), RATE), {}),
        (Decoder.Samples(torch.from_numpy(LONG[None]), RATE), {}),
        (str(tmp_path / "long.pcm"), raw),
        (Pipe(LONG.astype("<f4").tobytes()), raw),
    ]
    expected = captioner(LONG, **rate, chunk_length_s=2, return_timestamps=True)
    for form, options in forms:
        assert captioner(form, **options, chunk_length_s=2, return_timestamps=True) == expected, type(form)
    with pytest.raises(ValueError, match="without `raw_format`"):
        captioner(str(tmp_path / "long.pcm"), raw_sampling_rate=RATE)
