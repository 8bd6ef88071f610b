"""Recordings of any length through the pipeline: each window is a clip of its own, captioned while the rest is read."""

import io
import itertools
import logging
import math
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

from audio_clips import Decoder, Pipe, encoded, encoded_by_av
from conftest import build_model, build_processor, make_clip
from enclap_hf import AudioCaptioningPipeline, AudioLoadError
from enclap_hf.model.audio_sources import open_audio
from enclap_hf.model.windows import FixedWindows, plan_windows

RATE = 24_000
HEARD_S = 253 / 75  # of the tests' model
# A short file, and one that is cut into windows of 2 s: 2, 2, 2 and 1.3 s.
SHORT, LONG = make_clip(0.7, 5), np.concatenate([make_clip(2.0, 1), make_clip(3.0, 2), make_clip(2.3, 3)])


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 10
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(repository) -> AudioCaptioningPipeline:
    return pipeline("audio-captioning", model=repository, device="cpu", num_beams=1)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    return encoded(samples.T, rate)


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


# Streams


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_rows_come_in_order_with_places_and_names(captioner, tmp_path, batch_size):
    paths = [str(tmp_path / name) for name in ("a.wav", "b.flac", "c.wav")]
    for path, samples in zip(paths, (SHORT, LONG, LONG[: 3 * RATE]), strict=True):
        soundfile.write(path, samples, RATE)
    rows = {}
    for index, row in captioner.stream([*paths, "missing.wav"], chunk_length_s=2, batch_size=batch_size):
        rows.setdefault(index, []).append(row)
    assert [len(rows[index]) for index in range(4)] == [1, 4, 2, 1]
    assert [row["start_s"] for row in rows[1]] == [0.0, 2.0, 4.0, 6.0]
    assert {row["file_name"] for row in rows[1]} == {paths[1]}
    assert rows[1][3]["end_s"] == len(LONG) / RATE and rows[1][3]["duration_s"] == len(LONG) / RATE - 6.0
    assert rows[0][0]["silent"] is False and rows[0][0]["score"] < 0
    assert set(rows[3][0]) == {"file_name", "error"}
    ((_, row),) = captioner.stream(SHORT, sampling_rate=RATE, num_beams=2, num_return_sequences=2)
    assert "file_name" not in row and len(row["captions"]) == 2 and row["captions"][0]["text"] == row["caption"]


def test_windows_of_several_recordings_share_batches(captioner, monkeypatch):
    sizes, forward = [], captioner.forward

    def watch(batch, **options):
        sizes.append(len(batch["clip"]))
        return forward(batch, **options)

    monkeypatch.setattr(captioner, "forward", watch)
    clips = [LONG, SHORT, LONG[: 5 * RATE], SHORT]
    results = captioner(clips, sampling_rate=RATE, chunk_length_s=2, batch_size=4)
    assert sizes == [4, 4, 1]
    monkeypatch.undo()
    for clip, result in zip(clips, results, strict=True):
        assert result["text"] == captioner(clip, sampling_rate=RATE, chunk_length_s=2)["text"]


def test_captions_come_while_the_rest_is_being_read(captioner):
    class Endless(io.RawIOBase):
        """Sound without an end, as a radio gives it."""

        num_read = 0

        def readable(self):
            return True

        def read(self, size=-1):
            self.num_read += size
            return (0.3 * np.random.default_rng(self.num_read).standard_normal(size // 4)).astype("<f4").tobytes()

    radio = Endless()
    rows = captioner.stream(radio, raw_format="f32le", raw_sampling_rate=RATE, chunk_length_s=2)
    for number, (_, row) in enumerate(itertools.islice(rows, 3), 1):
        assert row["end_s"] == 2 * number
        assert radio.num_read <= 4 * RATE * (2 * number + 2)
    rows.close()


def test_a_stream_that_is_abandoned_closes_what_it_reads(captioner, monkeypatch, tmp_path):
    opened, real_open = [], open

    def watch(*arguments, **options):
        opened.append(real_open(*arguments, **options))
        return opened[-1]

    path = tmp_path / "long.wav"
    path.write_bytes(wav(LONG[None]))
    file = io.BytesIO(wav(LONG[None]))
    file.seek(7)
    for recording in (str(path), file):
        with monkeypatch.context() as patched:
            patched.setattr("builtins.open", watch)
            rows = captioner.stream([recording], chunk_length_s=1)
            next(rows)
            rows.close()
            results = captioner(iter([recording]), chunk_length_s=1)
            next(results)
            results.close()
    assert file.tell() == 7
    files = [each for each in opened if getattr(each, "name", None) == str(path)]
    assert len(files) >= 2 and all(each.closed for each in files)


def test_lists_are_sorted_by_length_and_answered_in_order(captioner, monkeypatch):
    lengths, encode = [], captioner.processor.encode_prepared

    def listen(prepared):
        lengths.append([len(samples) for samples in prepared["input_values"]])
        return encode(prepared)

    monkeypatch.setattr(captioner.processor, "encode_prepared", listen)
    clips = [make_clip(0.2 * (1 + i * 7 % 10), seed=i) for i in range(10)]
    results = captioner(clips, sampling_rate=RATE, batch_size=3)
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    monkeypatch.undo()
    assert [result["text"] for result in results] == [captioner(c, sampling_rate=RATE)["text"] for c in clips]


def test_data_sets_are_captioned_one_by_one_with_their_number(captioner):
    class Clips(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"array": (SHORT, LONG)[index], "sampling_rate": RATE}

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from (Clips()[0], Clips()[1])

        def __len__(self):
            return 2

    expected = captioner([Clips()[0], Clips()[1]], chunk_length_s=2)
    for form in (Clips(), Stream()):
        results = captioner(form, chunk_length_s=2)
        assert len(results) == 2 and list(results) == expected
    with pytest.raises(TypeError, match="not known before its end"):
        len(captioner(iter([SHORT]), sampling_rate=RATE))


@pytest.mark.slow
def test_workers_read_ahead(captioner, tmp_path):
    paths = []
    for i, samples in enumerate((LONG, SHORT, LONG[: 5 * RATE], SHORT[:9000])):
        paths.append(str(tmp_path / f"{i}.flac"))
        soundfile.write(paths[-1], samples, RATE)
    options = {"chunk_length_s": 2, "batch_size": 2, "return_timestamps": True}
    expected = captioner(paths, **options)
    found = captioner(paths, **options, num_workers=2)
    assert [[chunk["text"] for chunk in one["chunks"]] for one in found] == [
        [chunk["text"] for chunk in one["chunks"]] for one in expected
    ]


# What goes wrong


@pytest.fixture
def damaged(tmp_path) -> str:
    """A flac of 20 s whose frames are garbage from about the middle on."""
    path = str(tmp_path / "damaged.flac")
    soundfile.write(path, np.tile(LONG, 3)[: 20 * RATE], RATE)
    content = bytearray((tmp_path / "damaged.flac").read_bytes())
    middle = len(content) // 2
    content[middle:] = np.random.default_rng(0).integers(0, 255, len(content) - middle, np.uint8).tobytes()
    (tmp_path / "damaged.flac").write_bytes(content)
    return path


def test_a_recording_damaged_in_the_middle_is_captioned_up_to_there(captioner, damaged):
    with pytest.raises(AudioLoadError, match="damaged.flac`: it is damaged"):
        captioner(damaged)
    bad, good = captioner([damaged, SHORT], sampling_rate=RATE, errors="return", return_timestamps=True)
    *chunks, end = bad["chunks"]
    assert 2 <= len(chunks) <= 4 and all(chunk["text"] for chunk in chunks)
    assert end["timestamp"] == (chunks[-1]["timestamp"][1], None) and end["text"] is None
    assert bad["error"] == end["error"] and "damaged.flac" in bad["error"]
    assert bad["text"] == " ".join(dict.fromkeys(chunk["text"] for chunk in chunks)) and good["text"]
    rows = [row for _, row in captioner.stream(damaged)]
    assert rows[-1] == {"file_name": damaged, "start_s": rows[-2]["end_s"], "error": end["error"]}


def test_a_stream_that_ends_early_is_captioned_up_to_there(captioner):
    content = wav(LONG[None])
    result = captioner(Pipe(content[: len(content) // 2]), chunk_length_s=1, return_timestamps=True)
    assert len(result["chunks"]) == 4 and math.isclose(result["chunks"][-1]["timestamp"][1], 3.65, abs_tol=0.1)
    with pytest.raises(AudioLoadError):
        captioner(Pipe(b""), chunk_length_s=1)


def test_a_window_that_fails_spares_the_others(captioner, monkeypatch):
    encode = captioner.processor.encode_prepared

    def fail(prepared):
        if any(samples.abs().max() > 2 for samples in prepared["input_values"]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(prepared)

    monkeypatch.setattr(captioner.processor, "encode_prepared", fail)
    samples = LONG.copy()
    samples[3 * RATE : 4 * RATE] *= 9
    options = {"sampling_rate": RATE, "chunk_length_s": 1, "batch_size": 4, "return_timestamps": True}
    result = captioner(samples, errors="return", **options)
    assert ["error" in chunk for chunk in result["chunks"]] == [i == 3 for i in range(8)]
    assert "OutOfMemoryError" in result["error"] and result["text"]
    with pytest.raises(torch.OutOfMemoryError):
        captioner(samples, **options)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(captioner, tmp_path, monkeypatch):
    def measure(hours: float) -> int:
        path = str(tmp_path / "long.flac")
        noise = (3000 * np.random.default_rng(0).standard_normal(60 * 48_000)).astype(np.int16)
        with soundfile.SoundFile(path, "w", 48_000, 1) as file:
            for _ in range(round(60 * hours)):
                file.write(noise)
        tracemalloc.start()
        number = sum(1 for _ in captioner.stream(path, chunk_length_s=3, batch_size=8))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert number == hours * 1200
        return peak

    caption = {"sequences": torch.zeros(1, 3, dtype=torch.long), "scores": torch.zeros(1)}
    monkeypatch.setattr(captioner, "_forward", lambda inputs, **options: {"results": [caption] * len(inputs["clip"])})
    monkeypatch.setattr(
        captioner.processor,
        "prepare",
        lambda *arguments, **options: {"input_values": [torch.zeros(9)], "peak": torch.ones(1)},
    )
    short, long = measure(0.1), measure(2)
    assert long < short + 10e6
