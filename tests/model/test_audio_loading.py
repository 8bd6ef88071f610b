"""Every form a clip comes in reads to the same samples."""

import io
import logging
import os

import numpy as np
import pytest
import soundfile
import torch

from audio_clips import (
    CLIP,
    RATE,
    WAV,
    Decoder,
    Pipe,
    encoded,
    sine,
)
from enclap_hf.data.audio_files import find_audio_files
from enclap_hf.model import audio_loading
from enclap_hf.model.audio_loading import LoadedAudio, load_audio

# Every input form

FORMS = {
    "str": lambda folder: str(folder / "clip.wav"),
    "Path": lambda folder: folder / "clip.wav",
    "bytes": lambda folder: WAV,
    "bytearray": lambda folder: bytearray(WAV),
    "memoryview": lambda folder: memoryview(WAV),
    "BytesIO": lambda folder: io.BytesIO(WAV),
    "pipe": lambda folder: Pipe(WAV),
    "float32": lambda folder: CLIP,
    "float64": lambda folder: CLIP.astype(np.float64),
    "read-only": lambda folder: np.frombuffer(CLIP.tobytes(), np.float32),
    "strided": lambda folder: np.repeat(CLIP, 2)[::2],
    "(1, n)": lambda folder: CLIP[None],
    "(2, n)": lambda folder: np.stack([CLIP, CLIP]),
    "(n, 2)": lambda folder: np.stack([CLIP, CLIP], axis=1),
    "list": lambda folder: CLIP.tolist(),
    "tuple": lambda folder: tuple(CLIP.tolist()),
    "tensor": lambda folder: torch.from_numpy(CLIP.copy()),
    "tensor with gradient": lambda folder: torch.from_numpy(CLIP.copy()).requires_grad_(),
    "tensor (2, n)": lambda folder: torch.from_numpy(np.stack([CLIP, CLIP])),
    "float64 tensor": lambda folder: torch.from_numpy(CLIP.astype(np.float64)),
    "array dict": lambda folder: {"path": None, "array": CLIP, "sampling_rate": RATE},
    "list dict": lambda folder: {"array": CLIP.tolist(), "sampling_rate": float(RATE)},
    "raw dict": lambda folder: {"raw": CLIP, "sampling_rate": np.int64(RATE)},
    "bytes dict": lambda folder: {"path": "not/there.wav", "bytes": WAV},
    "path dict": lambda folder: {"path": str(folder / "clip.wav"), "bytes": None},
    "decoder": lambda folder: Decoder(torch.from_numpy(np.stack([CLIP, CLIP]))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_input_form_gives_the_same_samples(form, tmp_path):
    (tmp_path / "clip.wav").write_bytes(WAV)
    loaded = load_audio(FORMS[form](tmp_path), sampling_rate=RATE)
    assert isinstance(loaded, LoadedAudio) and type(loaded.sampling_rate) is int and loaded.sampling_rate == RATE
    assert loaded.samples.dtype == np.float32 and loaded.samples.flags.c_contiguous and loaded.samples.flags.writeable
    np.testing.assert_array_equal(loaded.samples, CLIP)


@pytest.mark.parametrize("form", FORMS)
def test_max_duration_gives_the_head_of_every_form(form, tmp_path):
    (tmp_path / "clip.wav").write_bytes(WAV)
    loaded = load_audio(FORMS[form](tmp_path), sampling_rate=RATE, max_duration_s=0.1)
    np.testing.assert_array_equal(loaded.samples, CLIP[: RATE // 10])


def test_half_precision_samples_keep_their_values():
    halves = CLIP.astype(np.float16)
    np.testing.assert_array_equal(load_audio(halves, RATE).samples, halves.astype(np.float32))
    np.testing.assert_array_equal(load_audio(torch.from_numpy(halves), RATE).samples, halves.astype(np.float32))
    brain = torch.from_numpy(CLIP).bfloat16()
    np.testing.assert_array_equal(load_audio(brain, RATE).samples, brain.float().numpy())


def test_what_comes_back_is_not_the_callers_own_array():
    clip = CLIP.copy()
    load_audio(clip, RATE).samples[:] = 0
    np.testing.assert_array_equal(clip, CLIP)


def test_a_clip_that_states_its_rate_is_believed_over_the_argument(tmp_path):
    (tmp_path / "clip.wav").write_bytes(WAV)
    for audio in (tmp_path / "clip.wav", WAV, {"array": CLIP, "sampling_rate": RATE}, Decoder(CLIP[None])):
        assert load_audio(audio, sampling_rate=48_000).sampling_rate == RATE


def test_a_file_object_is_read_from_its_start_and_left_where_it_was():
    file = io.BytesIO(WAV)
    file.seek(1000)
    for _ in range(2):
        np.testing.assert_array_equal(load_audio(file).samples, CLIP)
        assert file.tell() == 1000


def test_a_decoder_that_can_read_a_range_is_asked_for_the_head_only():
    class Ranged(Decoder):
        def get_samples_played_in_range(self, start_seconds, stop_seconds):
            assert (start_seconds, stop_seconds) == (0.0, 1.1)
            return self.samples

        def get_all_samples(self):
            raise AssertionError("the whole clip was decoded")

    loaded = load_audio(Ranged(torch.from_numpy(CLIP)[None]), max_duration_s=0.1)
    np.testing.assert_array_equal(loaded.samples, CLIP[: RATE // 10])


@pytest.mark.parametrize("suffix", ["", " [1]", " 'quoted'", ' "twice"', "*", " ünï", "#é?"])
def test_odd_file_names_are_read(suffix, tmp_path):
    if os.name == "nt" and set(suffix) & set('"*?'):
        pytest.skip("not a file name on Windows")
    path = tmp_path / f"clip{suffix}.wav"
    path.write_bytes(WAV)
    np.testing.assert_array_equal(load_audio(str(path)).samples, CLIP)
    np.testing.assert_array_equal(load_audio(find_audio_files([str(path)])[0]).samples, CLIP)


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "clip.wav").write_bytes(WAV)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.testing.assert_array_equal(load_audio("~/clip.wav").samples, CLIP)
    assert find_audio_files(["~/*.wav"]) == [str(tmp_path / "clip.wav")]


# Samples

INTEGERS = [
    (np.int8, [-128, -1, 0, 127], 2**7, 0),
    (np.uint8, [0, 127, 128, 255], 2**7, 128),
    (np.int16, [-(2**15), -1, 0, 2**15 - 1], 2**15, 0),
    (np.int32, [-(2**31), -(2**8), 0, 2**31 - 2**8], 2**31, 0),  # values that float32 holds exactly
]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype, values, scale, offset", INTEGERS)
def test_integers_are_scaled_by_their_full_scale(dtype, values, scale, offset, kind):
    samples = np.array(values, dtype)
    loaded = load_audio(samples if kind == "numpy" else torch.from_numpy(samples), RATE)
    expected = [(value - offset) / scale for value in values]
    assert loaded.samples.tolist() == expected and expected[0] == -1


@pytest.mark.parametrize("subtype, dtype", [("PCM_16", np.int16), ("PCM_32", np.int32)])
def test_integers_and_the_file_they_were_written_to_give_the_same_bits(subtype, dtype):
    rng = np.random.default_rng(0)
    integers = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (3001, 3), dtype)
    from_file = load_audio(encoded(integers, format="WAV", subtype=subtype))
    np.testing.assert_array_equal(load_audio(integers, RATE).samples, from_file.samples)
    np.testing.assert_array_equal(load_audio(integers.T, RATE).samples, from_file.samples)


def test_stereo_becomes_the_plain_mean():
    left, right = sine(hz=300), sine(hz=700, level=0.25)
    mean = (left + right) / 2
    for audio in (np.stack([left, right]), encoded(np.stack([left, right], axis=1), format="WAV", subtype="FLOAT")):
        np.testing.assert_array_equal(load_audio(audio, RATE).samples, mean)
    assert not load_audio(np.stack([left, -left]), RATE).samples.any()


@pytest.mark.parametrize("num_channels", [1, 2, 5])
def test_channels_are_kept_apart_where_asked(num_channels):
    channels = np.random.default_rng(5).uniform(-1, 1, (num_channels, 700)).astype(np.float32)
    for audio in (channels, channels.T.copy(), encoded(channels.T), Decoder(torch.from_numpy(channels))):
        loaded = load_audio(audio, RATE, mono=False)
        assert loaded.sampling_rate == RATE and loaded.samples.flags.c_contiguous
        np.testing.assert_array_equal(loaded.samples, channels)
        head = load_audio(audio, RATE, mono=False, max_duration_s=300 / RATE)
        np.testing.assert_array_equal(head.samples, channels[:, :300])
    assert load_audio(channels[0], RATE, mono=False).samples.shape == (1, 700)


def test_many_channels_give_the_same_bits_in_either_layout():
    channels = np.random.default_rng(1).normal(size=(11, 5000)).astype(np.float32)
    loaded = load_audio(channels, RATE).samples
    np.testing.assert_array_equal(load_audio(channels.T.copy(), RATE).samples, loaded)
    np.testing.assert_allclose(loaded, channels.astype(np.float64).mean(0), atol=1e-6)  # float32 sums


@pytest.mark.parametrize(
    "shape, num_samples", [((2, 9), 9), ((16, 9), 9), ((17, 2), 17), ((17, 16), 17), ((1, 40), 40)]
)
def test_the_first_axis_is_channels_unless_only_the_second_can_be(shape, num_samples):
    assert load_audio(np.zeros(shape, np.float32), RATE).samples.shape == (num_samples,)


def test_a_clip_longer_than_a_block_is_read_without_a_seam(monkeypatch, tmp_path):
    monkeypatch.setattr(audio_loading, "BLOCK_SAMPLES", 1000)
    monkeypatch.setattr(audio_loading, "BLOCK_SAMPLES", 1000)
    noise = np.random.default_rng(2).uniform(-1, 1, (4321, 2)).astype(np.float32)
    expected = (noise[:, 0] + noise[:, 1]) / 2
    wav = encoded(noise, format="WAV", subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(wav).samples, expected)
    np.testing.assert_array_equal(load_audio(noise, RATE).samples, expected)
    np.testing.assert_array_equal(load_audio(wav, max_duration_s=2500 / RATE).samples, expected[:2500])


def test_one_sample_is_a_clip():
    assert load_audio(np.array([0.5]), RATE).samples.tolist() == [0.5]
    assert load_audio(WAV, max_duration_s=1e-9).samples.shape == (1,)


def test_silence_is_no_error_however_long():
    silence = np.zeros((2, 600 * RATE), np.int16)
    assert load_audio(encoded(silence.T, format="FLAC")).samples.shape == (600 * RATE,)
    assert not load_audio(silence, RATE).samples.any()


def test_the_head_of_a_long_file_is_read_without_the_rest(monkeypatch):
    read = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(audio_loading, "BLOCK_SAMPLES", 4096)
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames, **kind: read.append(frames) or original(self, frames, **kind)
    )
    file = encoded(np.zeros((60 * RATE, 2), np.int16), format="FLAC")
    assert load_audio(file, max_duration_s=1).samples.shape == (RATE,)
    assert sum(read) < 2 * RATE


def test_integers_cast_to_float_unscaled_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        load_audio(sine(level=1.5), RATE)
        assert not caplog.records
        load_audio(sine(level=20_000), RATE, name="loud")
    assert "`loud`" in caplog.text and "32768" in caplog.text
