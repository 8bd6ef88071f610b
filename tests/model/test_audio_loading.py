"""Every form a clip comes in reads to the same samples; every bad clip gives one line that names it and its remedy."""

import io
import logging
import os
import pathlib
import sys

import numpy as np
import pytest
import soundfile
import torch

from enclap_hf.data.audio_files import find_audio_files
from enclap_hf.model import audio_loading
from enclap_hf.model.audio_loading import (
    AudioLoadError,
    LoadedAudio,
    as_audio_batch,
    load_audio,
    resample_audio,
)

RATE = 16_000
AV_INSTALL = 'pip install "enclap-hf[av]"'


def sine(rate=RATE, duration_s=0.5, hz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(rate * duration_s)) / rate)).astype(np.float32)


def encoded(samples, rate=RATE, **kind):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **(kind or {"format": "WAV", "subtype": "FLOAT"}))
    return file.getvalue()


def encoded_by_av(samples, rate, container, codec, **tags):
    """One stereo clip (2, num_samples) as an mp4, webm, ... file; skips the test where this ffmpeg cannot write it."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container) as output:
            output.metadata.update(tags)
            stream = output.add_stream(codec, rate=rate)
            stream.layout = "stereo"
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            frame.sample_rate = rate
            for packet in (*stream.encode(frame), *stream.encode(None)):
                output.mux(packet)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        pytest.skip(f"this ffmpeg writes no {codec}: {error}")
    return file.getvalue()


def strongest_hz(samples, rate):
    """Frequency of the highest spectral peak, to a small part of a bin."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * len(samples)))
    return np.argmax(spectrum) * rate / (16 * len(samples))


def rms(samples):
    return np.sqrt(np.mean(np.square(samples, dtype=np.float64)))


@pytest.fixture
def without_av(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # makes `import av` raise ImportError


class Decoder:
    """The part of torchcodec's AudioDecoder that is used."""

    class Samples:
        def __init__(self, data, sample_rate):
            self.data, self.sample_rate = data, sample_rate

    def __init__(self, data, sample_rate=RATE):
        self.samples = self.Samples(data, sample_rate)

    def get_all_samples(self):
        return self.samples


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.content.readinto(buffer)


# Every input form

CLIP = sine()
WAV = encoded(CLIP)
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
    monkeypatch.setattr(audio_loading, "_BLOCK_SAMPLES", 1000)
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
    monkeypatch.setattr(audio_loading, "_BLOCK_SAMPLES", 4096)
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


# Formats

SOUNDFILE_KINDS = [
    ({"format": "WAV", "subtype": "FLOAT"}, 0.0),
    ({"format": "WAV", "subtype": "DOUBLE"}, 0.0),
    ({"format": "WAV", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "WAV", "subtype": "PCM_24"}, 1 / 2**23),
    ({"format": "WAV", "subtype": "PCM_32"}, 1 / 2**24),  # float32 cannot hold more
    ({"format": "WAV", "subtype": "PCM_U8"}, 1 / 2**7),
    ({"format": "AIFF", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "FLAC", "subtype": "PCM_16"}, 1 / 2**15),
    ({"format": "FLAC", "subtype": "PCM_24"}, 1 / 2**23),
    ({"format": "OGG", "subtype": "VORBIS"}, None),
    ({"format": "OGG", "subtype": "OPUS"}, None),
    ({"format": "MP3", "subtype": "MPEG_LAYER_III"}, None),
]


@pytest.mark.parametrize("kind, step", SOUNDFILE_KINDS, ids=lambda kind: str(kind))
def test_soundfiles_formats_are_read(kind, step, tmp_path, without_av):
    if kind["format"] not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {kind['format']}")
    clip = sine(48_000)
    # The extension is wrong on purpose: the content decides.
    path = tmp_path / "clip.bin"
    path.write_bytes(encoded(np.stack([clip, clip], axis=1), 48_000, **kind))
    loaded = load_audio(path)
    assert loaded.sampling_rate == 48_000 and loaded.samples.shape == clip.shape
    if step is not None:
        np.testing.assert_allclose(loaded.samples, clip, rtol=0, atol=step)  # one step of the stored integers
    assert strongest_hz(loaded.samples, 48_000) == pytest.approx(440, abs=0.5)
    assert rms(loaded.samples) == pytest.approx(rms(clip), rel=0.02)  # lossy codecs soften the two ends


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_rates_from_8_to_192_khz_are_read(rate, kind):
    loaded = load_audio(encoded(sine(rate), rate, format=kind))
    assert loaded.sampling_rate == rate and strongest_hz(loaded.samples, rate) == pytest.approx(440, abs=0.5)


AV_KINDS = [("ipod", "aac", 44_100), ("mp4", "aac", 48_000), ("webm", "libopus", 48_000), ("adts", "aac", 16_000)]


@pytest.mark.parametrize("container, codec, rate", AV_KINDS)
def test_pyav_reads_what_soundfile_does_not(container, codec, rate, tmp_path):
    left, right = sine(rate, 1.0, 440, 0.5), sine(rate, 1.0, 440, 0.1)
    content = encoded_by_av(np.stack([left, right]), rate, container, codec)
    (tmp_path / "clip").write_bytes(content)
    for audio in (content, tmp_path / "clip", io.BytesIO(content)):
        loaded = load_audio(audio)
        assert loaded.sampling_rate == rate and loaded.samples.dtype == np.float32
        assert len(loaded.samples) == pytest.approx(rate, abs=4096)  # encoders pad to whole frames
        assert strongest_hz(loaded.samples, rate) == pytest.approx(440, abs=0.5)
        middle = slice(rate // 4, rate // 2)
        assert rms(loaded.samples[middle]) == pytest.approx(rms((left + right)[middle] / 2), rel=0.02)  # lossy
    head = load_audio(content, max_duration_s=0.25)
    np.testing.assert_array_equal(head.samples, load_audio(content).samples[: rate // 4])


def test_a_title_in_an_old_encoding_does_not_stop_the_sound():
    """PyAV decodes titles strictly as UTF-8 unless told otherwise; a Latin-1 title raised UnicodeDecodeError."""
    content = encoded_by_av(np.stack([sine(), sine()]), RATE, "webm", "libopus", title="motorcycle")
    assert b"motorcycle" in content
    assert load_audio(content.replace(b"motorcycle", b"motorcycl\xe9")).samples.any()


def test_pyav_reads_interleaved_integers():
    """PCM in a Matroska file shows the scale and the channel order exactly."""
    av = pytest.importorskip("av")
    integers = np.array([[-32768, 0, 100, 200], [-32768, 2, 300, -200]], np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=RATE)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(integers.T.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    assert load_audio(file).samples.tolist() == [-1.0, 1 / 32768, 200 / 32768, 0.0]


def test_a_playlist_in_disguise_opens_no_other_file(tmp_path, monkeypatch):
    """ffmpeg follows playlists, so an uploaded text could name any file of the machine that reads it."""
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.wav").write_bytes(WAV)
    # The accent keeps these from being refused as plain text before ffmpeg is asked.
    for text in (
        "ffconcat version 1.0\nfile secret.wav\n# é\n",
        "#EXTM3U\n#é\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / "list.wav").write_text(text, encoding="utf-8")
        for audio in ("list.wav", text.encode()):
            with pytest.raises(AudioLoadError, match="no audio that can be read"):
                load_audio(audio)


@pytest.mark.parametrize("name", ["clip.m4a", "clip.dat"])
def test_a_missing_pyav_is_named_with_its_install_line(name, tmp_path, without_av):
    path = tmp_path / name
    path.write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(100))
    with pytest.raises(AudioLoadError) as caught:
        load_audio(path)
    assert str(path) in str(caught.value) and AV_INSTALL in str(caught.value)


def test_only_numpy_is_needed_to_import_the_module():
    """`trust_remote_code` refuses a file whose imports are missing; optional ones are those inside try."""
    from transformers.dynamic_module_utils import get_imports

    needed = set(get_imports(audio_loading.__file__)) - set(sys.stdlib_module_names)
    assert needed == {"numpy"}


@pytest.mark.parametrize("module, use", [("soundfile", lambda: load_audio(WAV)), ("soxr", lambda: resample(3))])
def test_a_missing_reader_is_named_with_its_install_line(module, use, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AudioLoadError, match=f"pip install {module}"):
        use()


# Bad clips: input, what the message must call it, what it must say


def resample(num_samples):
    return resample_audio(np.ones(num_samples, np.float32), 48_000, 8_000)


def noise_flac():
    return encoded(np.random.default_rng(3).uniform(-0.5, 0.5, 50_000), format="FLAC")


def mp4_without_sound():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


FINITE = np.zeros(100, np.float32)
NAN = np.where(np.arange(100) == 50, np.nan, FINITE)
BAD_FILES = {
    "empty.wav": (b"", "empty (0 bytes)", "download it again"),
    "header only.wav": (encoded(FINITE[:0]), "no samples", "Leave it out"),
    "text.wav": (b"hello world, this is no sound\n" * 9, "text, not audio", "Pass a wav, flac, mp3"),
    "page.mp3": (b"<!DOCTYPE html>\n<html></html>", "text, not audio", "Pass a wav, flac, mp3"),
    "lfs.flac": (b"version https://git-lfs.github.com/spec/v1\noid 1", "Git LFS pointer", "git lfs pull"),
    "picture.ogg": (b"\x89PNG\r\n\x1a\n" + bytes(200), "no audio that can be read", "Pass a wav, flac, mp3"),
    "cut off.flac": (noise_flac()[:20_000], "damaged or cut off", "download or convert it again"),
    "cut early.flac": (noise_flac()[:20], "damaged or cut off", "download or convert it again"),
    "cut early.wav": (WAV[:20], "damaged or cut off", "download or convert it again"),
    "nan.wav": (encoded(NAN, format="WAV", subtype="FLOAT"), "NaN or infinite", "nan_to_num"),
    "slow.wav": (encoded(FINITE, 4_000), "sampling rate 4000", "8000 to 192000 Hz"),
    "fast.wav": (encoded(FINITE, 384_000), "sampling rate 384000", "8000 to 192000 Hz"),
    "headerless.raw": (bytes(100), "without a header", "`sampling_rate=`"),
}


@pytest.mark.parametrize("has_av", [True, False])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_give_one_line_that_helps(name, has_av, tmp_path, monkeypatch):
    if not has_av:
        monkeypatch.setitem(sys.modules, "av", None)
    content, problem, remedy = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with open(path, "rb") as file:
        for audio in (
            str(path),
            path,
            file,
            {"path": str(path), "bytes": None},
            {"path": str(path), "bytes": content},
        ):
            assert_helpful(lambda audio=audio: load_audio(audio), f"`{path}`", problem, remedy)
    assert_helpful(lambda: load_audio(path, name="clip 3"), "`clip 3`", problem, remedy)
    if name != "headerless.raw":  # bytes have no extension to tell this by
        assert_helpful(lambda: load_audio(content), f"audio of {len(content)} bytes", problem, remedy)


def test_a_video_without_sound_is_named():
    assert_helpful(lambda: load_audio(mp4_without_sound(), name="v"), "`v`", "no audio track", "a file with sound")


def test_a_cut_off_m4a_is_named():
    content = encoded_by_av(np.stack([sine(), sine()]), RATE, "ipod", "aac")
    assert_helpful(lambda: load_audio(content[:800], name="c"), "`c`", "damaged or cut off", "convert it again")


BAD_PATHS = {
    "missing": ("not there.wav", "no such file", "current folder"),
    "line break": ("not\nthere.wav", "no such file", "current folder"),
    "empty": ("", "no such file", "current folder"),
    "folder": (os.curdir, "it is a folder", "find_audio_files"),
    "URL": ("https://example.com/a.wav?b=c", "it is an address", "Download it"),
    "hub": ("hf://datasets/a/b.wav", "it is an address", "Download it"),
    "data URL": ("data:audio/wav;base64," + "A" * 10_000, "it is an address", "Download it"),
    "null": ("a\0.wav", "cannot be opened", "Check its name"),
    "too long": ("a" * 3000 + ".wav", "cannot be opened", "Check its name"),
}


@pytest.mark.parametrize("case", BAD_PATHS)
def test_bad_paths_give_one_line_that_helps(case):
    path, problem, remedy = BAD_PATHS[case]
    named = path[:100].encode("unicode_escape").decode()
    assert_helpful(lambda: load_audio(path), named, problem, remedy)
    assert_helpful(lambda: load_audio({"path": path, "bytes": None}), "", problem if path else "no audio", "")


def text_file():
    file = io.StringIO("text")
    file.name = "notes.txt"
    return file


def closed_file():
    file = io.BytesIO(WAV)
    file.close()
    return file


BAD_SAMPLES = {
    "no rate": (FINITE, None, "(100,)", "do not tell their sampling rate", "Pass `sampling_rate=` in Hz"),
    "no rate in a dict": ({"array": FINITE}, None, "(100,)", "do not tell", "Pass `sampling_rate=` in Hz"),
    "rate too low": (FINITE, 7_999, "(100,)", "sampling rate 7999", "8000 to 192000 Hz"),
    "rate too high": (FINITE, 192_001, "(100,)", "sampling rate 192001", "8000 to 192000 Hz"),
    "half a Hz": (FINITE, 16_000.5, "(100,)", "sampling rate 16000.5", "8000 to 192000 Hz"),
    "rate as text": (FINITE, "16000", "(100,)", "sampling rate '16000'", "8000 to 192000 Hz"),
    "rate in a dict": ({"array": FINITE, "sampling_rate": 0}, RATE, "(100,)", "sampling rate 0", "8000 to 192000"),
    "no samples": (FINITE[:0], RATE, "(0,)", "no samples", "Leave it out"),
    "no samples in two channels": (np.zeros((2, 0)), RATE, "(2, 0)", "no samples", "Leave it out"),
    "empty list": ([], RATE, "list", "no samples", "Leave it out"),
    "NaN": (NAN, RATE, "(100,)", "first at 0.003 s", "nan_to_num"),
    "infinite": (np.where(np.isnan(NAN), -np.inf, NAN), RATE, "(100,)", "NaN or infinite", "nan_to_num"),
    "infinite once float32": (np.full(9, 1e300), RATE, "(9,)", "NaN or infinite", "nan_to_num"),
    "NaN in one channel": (np.stack([FINITE, NAN]), RATE, "(2, 100)", "NaN or infinite", "nan_to_num"),
    "NaN tensor": (torch.full((9,), torch.nan), RATE, "(9,)", "NaN or infinite", "nan_to_num"),
    "a batch array": (np.zeros((2, 1, 9)), RATE, "(2, 1, 9)", "expected one clip", "Pass a list to caption several"),
    "a batch tensor": (torch.zeros(2, 1, 9), RATE, "(2, 1, 9)", "expected one clip", "Pass a list to caption several"),
    "a stack of 17": (np.zeros((17, 99)), RATE, "(17, 99)", "expected one clip", "Pass a list to caption several"),
    "a number": (np.float32(1), RATE, "()", "expected one clip", ""),
    "a batch list": (["a.wav", "b.wav"], RATE, "list", "batch of 2", "each clip on its own"),
    "nested lists": ([[0.0], [0.0]], RATE, "list", "batch of 2", "(channels, num_samples)"),
    "int64": (np.zeros(9, np.int64), RATE, "(9,)", "full scale of int64", "scale them to [-1, 1]"),
    "list of ints": ([1, 2, 3], RATE, "list", "full scale of int64", "scale them to [-1, 1]"),
    "uint16": (np.zeros(9, np.uint16), RATE, "(9,)", "full scale of uint16", "scale them to [-1, 1]"),
    "bool": (np.zeros(9, bool), RATE, "(9,)", "type bool", "float32 or int16"),
    "complex": (np.zeros(9, complex), RATE, "(9,)", "type complex128", "float32 or int16"),
    "complex tensor": (torch.zeros(9, dtype=torch.complex64), RATE, "(9,)", "type complex64", "float32 or int16"),
    "object": (np.array([None, 1.0]), RATE, "(2,)", "type object", "float32 or int16"),
    "mixed list": ([0.1, [0.2, 0.3]], RATE, "list", "no array of numbers", "float or int16"),
    "sparse tensor": (torch.zeros(9).to_sparse(), RATE, "(9,)", "no plain samples", "dense"),
    "None": (None, RATE, "NoneType", "no kind of audio", "Pass a path, bytes"),
    "an int": (5, RATE, "int", "no kind of audio", "Pass a path, bytes"),
    "empty dict": ({}, RATE, "keys []", "holds no audio", '{"path": file}'),
    "other dict": ({"text": "a"}, RATE, "keys ['text']", "holds no audio", '{"path": file}'),
    "text file": (text_file(), RATE, "`notes.txt`", "open as text", 'mode "rb"'),
    "closed file": (closed_file(), RATE, "BytesIO", "cannot be read", 'mode "rb"'),
    "decoder rate": (Decoder(FINITE, 4_000), RATE, "Decoder", "sampling rate 4000", "8000 to 192000 Hz"),
    "decoder without samples": (Decoder(torch.zeros(1, 0)), RATE, "Decoder", "no samples", "Leave it out"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_bad_samples_give_one_line_that_helps(case):
    audio, rate, named, problem, remedy = BAD_SAMPLES[case]
    assert_helpful(lambda: load_audio(audio, rate), named, problem, remedy)
    if not (isinstance(audio, dict) and "array" not in audio):
        assert_helpful(lambda: load_audio(audio, rate, name="clip 3"), "`clip 3`", problem, remedy)


def test_a_failing_decoder_is_named():
    class Failing(Decoder):
        def get_all_samples(self):
            raise RuntimeError("no frames\nfound")

    assert_helpful(
        lambda: load_audio(Failing(None), name="x"), "`x`", "its decoder failed", "Check that the file plays"
    )


@pytest.mark.parametrize("duration", [0, -1, np.nan, np.inf])
def test_max_duration_must_be_positive(duration):
    with pytest.raises(ValueError, match="max_duration_s"):
        load_audio(WAV, max_duration_s=duration)


def test_an_mp3_that_ends_early_is_read_with_a_warning(caplog, capfd):
    mp3 = encoded(np.random.default_rng(4).uniform(-0.5, 0.5, 2 * RATE), format="MP3")
    with caplog.at_level(logging.WARNING):
        loaded = load_audio(mp3[: len(mp3) // 2], name="cut.mp3")
        assert 0 < len(loaded.samples) < 1.5 * RATE
        assert "`cut.mp3`" in caplog.text and "cut off" in caplog.text
        caplog.clear()
        load_audio(mp3)
        load_audio(mp3, max_duration_s=0.5)
        assert not caplog.records


def assert_helpful(load, named, problem, remedy):
    with pytest.raises(AudioLoadError) as caught:
        load()
    message = str(caught.value)
    assert message.isprintable()  # one line
    for part in (named, problem, remedy):
        assert part in message
    assert len(message) < 4000


# One clip or several


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


# Resampling


@pytest.mark.parametrize("from_rate", [8_000, 16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("to_rate", [24_000, 48_000])
def test_resampling_keeps_a_sines_frequency_and_level(from_rate, to_rate):
    clip = sine(from_rate, 1.0, 1000.0)
    resampled = resample_audio(clip, from_rate, to_rate)
    assert resampled.dtype == np.float32 and abs(len(resampled) - to_rate) <= 1
    expected = sine(to_rate, 1.0, 1000.0)
    middle = slice(to_rate // 10, -to_rate // 10)  # the filter rings at the two ends
    np.testing.assert_allclose(resampled[: len(expected)][middle], expected[middle], atol=1e-4)  # HQ: about 100 dB


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    assert rms(resample_audio(sine(48_000, 1.0, 15_000.0), 48_000, 24_000)[2400:-2400]) < 1e-4


def test_resampling_to_the_same_rate_changes_nothing():
    assert resample_audio(CLIP, RATE, RATE) is CLIP
    assert resample_audio(CLIP.astype(np.float64), RATE, RATE).dtype == np.float32


def test_resampling_keeps_at_least_one_sample():
    for num_samples in range(1, 9):
        resampled = resample(num_samples)
        assert len(resampled) >= 1 and resampled.dtype == np.float32
    assert resample(1).tolist() == [1.0]


@pytest.mark.parametrize(
    "samples, rates",
    [(np.zeros((2, 9)), (1, 2)), (np.zeros(9, np.int16), (1, 2)), (np.zeros(0), (1, 2)), (np.zeros(9), (0, 2))]
    + [(np.zeros(9), (16_000, -1)), (np.zeros(9), (16_000, 0.5)), (np.zeros(9), (None, 2))],
)
def test_resampling_refuses_what_it_cannot_resample(samples, rates):
    with pytest.raises(ValueError, match="expected"):
        resample_audio(samples, *rates)
