"""One clip is told from several, in whatever form they come; pairs of samples and rate are one clip."""

import collections
import io
import pathlib

import numpy as np
import pytest
import torch

from audio_clips import CLIP, RATE, Decoder, assert_helpful
from enclap_hf.model.audio_loading import as_audio_batch, load_audio, open_audio


@pytest.mark.parametrize(
    "audio",
    ["a.wav", pathlib.Path("a.wav"), b"RIFF", bytearray(b"RIFF"), memoryview(b"RIFF"), io.BytesIO(b"RIFF"), CLIP]
    + [np.zeros((2, 9)), np.zeros((2, 1, 9)), torch.zeros(9), torch.zeros(2, 9), {"array": CLIP}, Decoder(None), None]
    + [[0.1, 0.2], (0.1, 0.2), [1], [np.float32(1)]],
    ids=lambda audio: type(audio).__name__,
)
def test_one_clip_is_not_a_batch(audio):
    clips, is_batch = as_audio_batch(audio)
    assert not is_batch and len(clips) == 1 and clips[0] is audio


def test_lists_and_iterators_of_clips_are_batches():
    clips = ["a.wav", b"RIFF", CLIP, {"array": CLIP}]
    for audio in (clips, tuple(clips), iter(clips), (clip for clip in clips)):
        listed, is_batch = as_audio_batch(audio)
        assert is_batch and all(one is other for one, other in zip(listed, clips, strict=True))
    assert as_audio_batch([[0.1, 0.2], [0.3]]) == ([[0.1, 0.2], [0.3]], True)
    assert as_audio_batch(["a.wav"]) == (["a.wav"], True)
    assert as_audio_batch([]) == ([], True)


def test_a_dataset_column_is_a_batch():
    datasets = pytest.importorskip("datasets")
    column = datasets.Dataset.from_dict({"audio": ["a.wav", "b.wav"]})["audio"]
    assert as_audio_batch(column) == (["a.wav", "b.wav"], True)


PAIRS = {
    "rate first": lambda: (RATE, CLIP),
    "rate last": lambda: (CLIP, RATE),
    "in a list": lambda: [RATE, CLIP],
    "a numpy rate": lambda: (CLIP, np.int64(RATE)),
    "a float rate": lambda: (float(RATE), CLIP),
    "(n, 2)": lambda: (RATE, np.stack([CLIP, CLIP], axis=1)),
    "(2, n)": lambda: (np.stack([CLIP, CLIP]), RATE),
    "a tensor": lambda: (torch.from_numpy(CLIP.copy())[None], RATE),
    "a list": lambda: (CLIP.tolist(), RATE),
}


@pytest.mark.parametrize("form", PAIRS)
def test_a_pair_of_samples_and_rate_is_one_clip(form):
    """gradio and scipy hand over (rate, samples), librosa, soundfile and torchaudio (samples, rate)."""
    pair = PAIRS[form]()
    clips, is_batch = as_audio_batch(pair)
    assert not is_batch and clips[0] is pair
    loaded = load_audio(pair)
    assert loaded.sampling_rate == RATE
    np.testing.assert_array_equal(loaded.samples, CLIP)
    with open_audio(pair, 48_000) as reader:
        assert reader.sampling_rate == RATE


def test_integers_of_a_pair_are_scaled():
    samples = (np.sin(np.arange(24_000) / 10) * 9000).astype(np.int16)
    loaded = load_audio((24_000, samples))
    np.testing.assert_array_equal(loaded.samples, samples / np.float32(32768))


def test_what_only_looks_like_a_pair_is_none():
    assert as_audio_batch([CLIP, CLIP])[1] and as_audio_batch(("a.wav", "b.wav"))[1]
    assert not as_audio_batch((0.1, 0.2))[1]
    assert load_audio((0.5, 0.25), RATE).samples.tolist() == [0.5, 0.25]
    for rate in (0, 8000.5, True, float("nan")):
        assert_helpful(lambda rate=rate: load_audio((rate, CLIP)), "ndarray", f"sampling rate {rate}", "1000 to 384000")


@pytest.mark.parametrize("dtype", [">i2", ">i4", ">f2", ">f4", ">f8", "<i2", "<f8", "=f2"])
def test_samples_of_any_byte_order_are_read(dtype):
    samples = np.array([0, 0.25, -0.5, 0.75])
    if np.dtype(dtype).kind == "i":
        samples *= 2.0 ** (8 * np.dtype(dtype).itemsize - 1)
    assert load_audio(samples.astype(dtype), RATE).samples.tolist() == [0, 0.25, -0.5, 0.75]


def test_samples_of_a_decoder_are_a_clip():
    """torchcodec's `AudioSamples` can be iterated over, but it is one clip."""

    class Samples:
        data, sample_rate = torch.from_numpy(CLIP.copy())[None], RATE

        def __iter__(self):
            yield from (self.data, self.sample_rate)

    samples = Samples()
    assert as_audio_batch(samples) == ([samples], False)
    np.testing.assert_array_equal(load_audio(samples).samples, CLIP)


ITERABLES = {
    "map": lambda names: map(str, names),
    "generator": lambda names: (name for name in names),
    "array of texts": np.array,
    "array of objects": lambda names: np.array(names, object),
    "deque": collections.deque,
    "values of a dict": lambda names: dict(enumerate(names)).values(),
}


@pytest.mark.parametrize("form", ITERABLES)
def test_anything_that_gives_clips_one_by_one_is_a_batch(form):
    clips, is_batch = as_audio_batch(ITERABLES[form](["a.wav", "b.wav"]))
    assert is_batch and clips == ["a.wav", "b.wav"] and type(clips[0]) is str


def test_columns_of_datasets_and_tables_are_batches():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"audio": ["a.wav", "b.wav"]})
    assert as_audio_batch(table.to_iterable_dataset()["audio"]) == (["a.wav", "b.wav"], True)
    pandas = pytest.importorskip("pandas")
    assert as_audio_batch(pandas.Series(["a.wav", "b.wav"])) == (["a.wav", "b.wav"], True)
    assert as_audio_batch(pandas.Series([0.1, 0.2]))[1] is False


def test_a_whole_table_is_refused_with_the_column_to_choose():
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    table = datasets.Dataset.from_dict({"audio": ["a.wav"], "caption": ["a dog"]})
    for whole in (table, table.to_iterable_dataset(), pandas.DataFrame({"audio": ["a.wav"], "caption": ["a dog"]})):
        assert_helpful(lambda whole=whole: as_audio_batch(whole), type(whole).__name__, "audio, caption", '["audio"]')
    unlabelled = pandas.DataFrame({"file": ["a.wav"]})
    assert_helpful(lambda: as_audio_batch(unlabelled), "DataFrame", "columns file", '["file"]')
