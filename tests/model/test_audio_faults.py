"""Whatever goes wrong while one recording is read is an error of that recording, in one line that names it."""

import io
import logging
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from audio_clips import CLIP, RATE, WAV, Decoder, assert_helpful, encoded, sine
from enclap_hf.model import audio_decoding, audio_resampling
from enclap_hf.model.audio_chatter import silence_c_libraries
from enclap_hf.model.audio_loading import load_audio, open_audio

NOISE = np.random.default_rng(9).uniform(-0.5, 0.5, 200_000)
FLAC = encoded(NOISE, format="FLAC")
ANYTHING = [
    *(OSError(22, "Invalid argument"), ValueError("odd"), MemoryError(), struct.error("unpack"), RuntimeError("odd")),
    *(OverflowError("too large"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), EOFError(), IndexError("odd")),
    *(AssertionError(), ZeroDivisionError("odd"), TypeError("odd"), KeyError("odd")),
]


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_a_decoder_raises_is_an_error_of_its_recording(error, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(audio_decoding.SoundfileDecoder, "read", fail)
    problem = "memory does not suffice" if isinstance(error, MemoryError) else type(error).__name__
    assert_helpful(lambda: load_audio(WAV, name="clip"), "`clip`", problem, "")
    with open_audio(WAV, name="clip") as reader:
        assert_helpful(lambda: reader.read(0, 5), "`clip`", "", "")
        assert_helpful(lambda: next(reader.blocks()), "`clip`", "", "")


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_the_second_decoder_raises_is_an_error_of_its_recording(error, monkeypatch):
    av = pytest.importorskip("av")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(av, "open", fail)
    assert_helpful(lambda: load_audio(b"\x1aE\xdf\xa3" + bytes(99), name="clip"), "`clip`", "", "")
    monkeypatch.setattr(soundfile, "SoundFile", fail)
    assert_helpful(lambda: load_audio(WAV, name="clip"), "`clip`", "", "")


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), ValueError("odd")], ids=repr)
def test_what_the_resampler_raises_is_an_error_of_its_recording(error, monkeypatch):
    soxr = pytest.importorskip("soxr")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(soxr, "resample", fail)
    assert_helpful(lambda: audio_resampling.resample_audio(CLIP, RATE, 8_000, name="clip"), "`clip`", "resample", "")
    assert_helpful(lambda: audio_resampling.resample_audio(CLIP, RATE, 8_000), "clip of", "resample", "")


class Failing(io.BytesIO):
    """A file on a disk or connection that fails from some place on."""

    def read(self, size=-1):
        if self.tell() > 30_000:
            raise OSError(5, "Input/output error")
        return super().read(size)

    def readinto(self, buffer):
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@pytest.mark.parametrize("content", [FLAC, encoded(np.zeros(99_000)), encoded(NOISE, format="OGG")])
def test_a_file_that_cannot_be_read_further_is_not_taken_for_its_end(content, capfd):
    """An exception in a C library's callback is printed by cffi, and the file then seems to end there."""
    assert_helpful(lambda: load_audio(Failing(content), name="clip"), "`clip`", "Input/output error", "Check the disk")
    assert capfd.readouterr() == ("", "")


def test_integers_of_64_bits_are_refused():
    """A header can claim them; no decoder has numpy samples of that kind."""
    wav = bytearray(encoded(np.zeros(4000, np.int16), format="WAV", subtype="PCM_16"))
    struct.pack_into("<HHIIHH", wav, 20, 1, 1, RATE, 8 * RATE, 8, 64)
    assert_helpful(lambda: load_audio(bytes(wav), name="clip"), "`clip`", "", "")


@pytest.mark.parametrize("tag", [0x7A7A, 0x1234, 0xABCD])
def test_a_codec_that_nothing_knows_is_said(tag):
    """Both decoders open the wav; the second finds a track without a decoder, on which older ones end the process."""
    pytest.importorskip("av")
    content = bytearray(encoded(sine(), format="WAV", subtype="PCM_16"))
    content[20:22] = tag.to_bytes(2, "little")
    assert_helpful(lambda: load_audio(bytes(content), name="clip"), "`clip`", "codec that no decoder here knows", "wav")


# Samples that are not sound


def test_a_file_of_integers_cast_to_float_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        load_audio(encoded(sine(level=15)), name="quiet")
        assert not caplog.records
        load_audio(encoded(sine(level=20_000)), name="loud")
        assert len(caplog.records) == 1 and "`loud`" in caplog.text and "32768" in caplog.text


@pytest.mark.parametrize("level", [1e16, 1e20, 3e38])
@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "array", "decoder"])
def test_samples_beyond_what_a_spectrum_can_hold_are_refused(kind, level):
    """A float wav of peak 1e20 overflowed the mel spectrogram, and its caption was empty."""
    samples = np.full(2000, level)
    samples[0] = 0
    audio = {
        "array": lambda: samples.astype(np.float32),
        "decoder": lambda: Decoder(samples.astype(np.float32)),
    }.get(kind, lambda: encoded(samples, format="WAV", subtype=kind))()
    assert_helpful(lambda: load_audio(audio, RATE, name="clip"), "`clip`", f"reach {level:g}", "between -1 and 1")


def test_the_largest_samples_that_are_allowed_have_a_finite_spectrum():
    import torch

    from enclap_hf import EnClapFeatureExtractor
    from enclap_hf.model.audio_reader import MAX_PEAK

    extractor = EnClapFeatureExtractor(int16_round_trip=False)
    loudest = torch.sin(torch.arange(48_000) * 0.13).sign() * MAX_PEAK
    assert extractor.log_mel(loudest).isfinite().all()


# What C libraries print


def run_python(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )


READ = "import sys; from enclap_hf.model.audio_loading import load_audio; load_audio(sys.argv[1])"


@pytest.mark.parametrize("kind", ["MP3", "SDS"])
def test_decoders_print_nothing(kind, tmp_path):
    """mpg123 prints odd frames on standard error, the reader of MIDI dumps checksums on standard output."""
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {kind}")
    content = bytearray(encoded(np.random.default_rng(1).uniform(-0.5, 0.5, 30_000), format=kind))
    content[len(content) // 2] ^= 0x55
    del content[len(content) // 2 + 500 : len(content) // 2 + 520]
    path = tmp_path / "clip"
    path.write_bytes(content)
    loud = run_python("import sys, soundfile; soundfile.read(sys.argv[1])", str(path))
    if not (loud.stdout or "libmpg123" in loud.stderr or "Note:" in loud.stderr):
        pytest.skip("this libsndfile prints nothing by itself")
    done = run_python(READ, str(path))
    assert done.stdout == "" and "libmpg123" not in done.stderr and "Note:" not in done.stderr


def test_what_python_and_others_print_appears_while_decoders_are_silent():
    code = (
        "import ctypes, os, sys\nfrom enclap_hf.model.audio_chatter import silence_c_libraries\n"
        "library = ctypes.CDLL(None)\n"
        "with silence_c_libraries():\n"
        "    library.puts(b'hidden'); print('shown'); print('also', file=sys.stderr); os.write(2, b'raw')\n"
        "    with silence_c_libraries():\n        library.puts(b'hidden')\n    library.puts(b'hidden')\n"
        "library.puts(b'later'); library.fflush(None)\n"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("streams are redirected on glibc and macOS; this names glibc's")
    done = run_python(code)
    assert sorted(done.stdout.split()) == ["later", "shown"] and "also" in done.stderr and "raw" in done.stderr


def test_many_threads_can_be_silent_at_once(tmp_path):
    path = tmp_path / "clip.flac"
    path.write_bytes(FLAC)
    expected, found = load_audio(path).samples, []
    threads = [threading.Thread(target=lambda: found.append(load_audio(path).samples)) for _ in range(8)]
    with silence_c_libraries():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8 and all(np.array_equal(samples, expected) for samples in found)
