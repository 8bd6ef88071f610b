"""Recordings as a stream: captions while the rest is read, batches that they share, and what goes wrong on the way."""

import io
import itertools
import math
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

import long_recordings
from audio_clips import Pipe
from conftest import make_clip
from enclap_hf import AudioLoadError
from long_recordings import LONG, RATE, SHORT, wav

captioner, repository = long_recordings.captioner, long_recordings.repository


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
