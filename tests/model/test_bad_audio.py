"""Every bad clip gives one line that names it, what is wrong with it and what to do."""

import io
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import enclap_hf
from audio_clips import (
    AV_INSTALL,
    CLIP,
    RATE,
    WAV,
    Decoder,
    assert_helpful,
    encoded,
    encoded_by_av,
    sine,
)
from enclap_hf.model.audio_errors import AudioLoadError
from enclap_hf.model.audio_loading import load_audio
from enclap_hf.model.audio_resampling import resample_audio
from enclap_hf.model.repository import list_code_files


@pytest.fixture
def without_av(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # makes `import av` raise ImportError


@pytest.mark.parametrize("name", ["clip.m4a", "clip.dat"])
def test_a_missing_pyav_is_named_with_its_install_line(name, tmp_path, without_av):
    path = tmp_path / name
    path.write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(100))
    with pytest.raises(AudioLoadError) as caught:
        load_audio(path)
    assert str(path) in str(caught.value) and AV_INSTALL in str(caught.value)


def test_only_numpy_is_needed_to_import_the_modules():
    """`trust_remote_code` refuses a file whose imports are missing; optional ones are those inside try."""
    from transformers.dynamic_module_utils import get_imports

    files = [
        Path(enclap_hf.__file__).parent / "model" / name for name in list_code_files() if name.startswith("audio_")
    ]
    needed = {file.name: set(get_imports(file)) - set(sys.stdlib_module_names) for file in files}
    assert "audio_decoding.py" in needed and set().union(*needed.values()) == {"numpy"}


@pytest.mark.parametrize(
    "module, use", [("soundfile", lambda: load_audio(WAV)), ("soxr", lambda: resample_audio(CLIP, RATE, 8_000))]
)
def test_a_missing_reader_is_named_with_its_install_line(module, use, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AudioLoadError, match=f"pip install {module}"):
        use()


# Bad clips: input, what the message must call it, what it must say


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
    "text.wav": (b"hello world, this is not sound\n" * 9, "text, not audio", "Pass a wav, flac, mp3"),
    "page.mp3": (b"<!DOCTYPE html>\n<html></html>", "text, not audio", "Pass a wav, flac, mp3"),
    "lfs.flac": (b"version https://git-lfs.github.com/spec/v1\noid 1", "Git LFS pointer", "git lfs pull"),
    "picture.ogg": (b"\x89PNG\r\n\x1a\n" + bytes(200), "not audio that can be read", "Pass a wav, flac, mp3"),
    "cut off.flac": (noise_flac()[:20_000], "damaged or cut off", "download or convert it again"),
    "cut early.flac": (noise_flac()[:20], "damaged or cut off", "download or convert it again"),
    "cut early.wav": (WAV[:20], "damaged or cut off", "download or convert it again"),
    "nan.wav": (encoded(NAN, format="WAV", subtype="FLOAT"), "NaN or infinite", "nan_to_num"),
    "slow.wav": (encoded(FINITE, 999), "sampling rate 999", "1000 to 384000 Hz"),
    "fast.wav": (encoded(FINITE, 384_001), "sampling rate 384001", "1000 to 384000 Hz"),
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
    "rate too low": (FINITE, 999, "(100,)", "sampling rate 999", "1000 to 384000 Hz"),
    "rate too high": (FINITE, 384_001, "(100,)", "sampling rate 384001", "1000 to 384000 Hz"),
    "half a Hz": (FINITE, 16_000.5, "(100,)", "sampling rate 16000.5", "1000 to 384000 Hz"),
    "rate as text": (FINITE, "16000", "(100,)", "sampling rate '16000'", "1000 to 384000 Hz"),
    "rate in a dict": ({"array": FINITE, "sampling_rate": 0}, RATE, "(100,)", "sampling rate 0", "1000 to 384000"),
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
    "mixed list": ([0.1, [0.2, 0.3]], RATE, "list", "sampling rate 0.1", "1000 to 384000"),
    "sparse tensor": (torch.zeros(9).to_sparse(), RATE, "(9,)", "no plain samples", "dense"),
    "None": (None, RATE, "NoneType", "not a kind of audio", "Pass a path, bytes"),
    "an int": (5, RATE, "int", "not a kind of audio", "Pass a path, bytes"),
    "empty dict": ({}, RATE, "keys []", "holds no audio", '{"path": file}'),
    "other dict": ({"text": "a"}, RATE, "keys ['text']", "holds no audio", '{"path": file}'),
    "text file": (text_file(), RATE, "`notes.txt`", "open as text", 'mode "rb"'),
    "closed file": (closed_file(), RATE, "BytesIO", "cannot be read", 'mode "rb"'),
    "decoder rate": (Decoder(FINITE, 400), RATE, "Decoder", "sampling rate 400", "1000 to 384000 Hz"),
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
