"""A long recording is prepared block by block: the very values of the whole, in memory that does not grow with it."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from audio_clips import Pipe, encoded, encoded_by_av
from conftest import build_feature_extractor
from enclap_hf import EnClapFeatureExtractor
from enclap_hf.model import feature_extraction_enclap, log_mel
from enclap_hf.model.audio_errors import AudioLoadError
from enclap_hf.model.frame_encoder import WaveformFrames

NAMES = ("input_values", "input_features", "is_longer", "peak")


class StereoFrames(WaveformFrames):
    """Hears both channels."""

    num_channels = None


def noise(duration_s, rate, channels=2, seed=3):
    """Noise whose level rises, so that no two parts of it are alike."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(duration_s * rate), channels))
    return (samples * np.linspace(0.2, 1, len(samples))[:, None]).astype(np.float32)


def prepare(extractor, audio, monkeypatch, held_s, **options):
    """What is made of a recording where no more than so many seconds are held; a block is one second."""
    monkeypatch.setattr(feature_extraction_enclap, "MAX_HELD_S", held_s)
    monkeypatch.setattr(log_mel, "MEL_BLOCK_FRAMES", 100)
    if isinstance(audio, bytes) and options.pop("as_stream", False):
        audio = Pipe(audio)
    return extractor(audio, **options)


def assert_same(ours, expected):
    for name in NAMES:
        assert all(torch.equal(*pair) for pair in zip(ours[name], expected[name], strict=True)), name


FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


@pytest.mark.parametrize("long_clips", ["fusion", "middle"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_a_recording_in_blocks_gives_the_values_of_the_whole(rate, long_clips, monkeypatch):
    extractor = EnClapFeatureExtractor(long_clips=long_clips)
    content = encoded(noise(31.7, rate), rate, format="FLAC", subtype="PCM_16")
    whole = prepare(extractor, content, monkeypatch, 100.0)
    assert_same(prepare(extractor, content, monkeypatch, 3.0), whole)
    assert whole["is_longer"].item() == (long_clips == "fusion")


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_formats_whose_length_is_a_guess_are_read_twice(kind, as_stream, monkeypatch):
    extractor = EnClapFeatureExtractor()
    container, subtype = FORMATS[kind]
    content = encoded(noise(33.3, 24_000), 24_000, format=container, subtype=subtype)
    whole = prepare(extractor, content, monkeypatch, 100.0, as_stream=as_stream)
    assert_same(prepare(extractor, content, monkeypatch, 3.0, as_stream=as_stream), whole)


def test_what_the_second_decoder_reads_is_the_same_in_blocks(monkeypatch):
    extractor = EnClapFeatureExtractor()
    content = encoded_by_av(noise(30.0, 16_000).T, 16_000, "mp4", "aac")
    assert_same(prepare(extractor, content, monkeypatch, 3.0), prepare(extractor, content, monkeypatch, 100.0))


@pytest.mark.parametrize("form", ["array", "tensor", "dict", "chain"])
def test_other_forms_of_a_recording(form, monkeypatch):
    extractor, samples = EnClapFeatureExtractor(), noise(35.1, 16_000, channels=1)[:, 0]
    half = encoded(samples[:300_000], 16_000, format="OGG", subtype="VORBIS")
    audio = {
        "array": samples,
        "tensor": torch.from_numpy(samples),
        "dict": {"array": samples, "sampling_rate": 16_000},
        "chain": half + encoded(samples[300_000:], 16_000, format="OGG", subtype="VORBIS"),
    }[form]
    options = {} if form in ("dict", "chain") else {"sampling_rate": 16_000}
    whole = prepare(extractor, audio, monkeypatch, 100.0, **options)
    assert_same(prepare(extractor, audio, monkeypatch, 3.0, **options), whole)


def test_the_windows_of_training_are_drawn_alike(monkeypatch):
    extractor, samples = EnClapFeatureExtractor(), noise(40.0, 16_000)
    ours, whole = np.random.default_rng(5), np.random.default_rng(5)
    content = encoded(samples, 16_000, format="MP3", subtype="MPEG_LAYER_III")
    assert_same(
        prepare(extractor, content, monkeypatch, 3.0, rng=ours),
        prepare(extractor, content, monkeypatch, 100.0, rng=whole),
    )
    assert ours.bit_generator.state == whole.bit_generator.state


def test_an_encoder_of_several_channels_hears_them(monkeypatch):
    extractor, encoder = EnClapFeatureExtractor(), StereoFrames(24_000, 320)
    content = encoded(noise(33.0, 44_100), 44_100, format="FLAC", subtype="PCM_16")
    whole = prepare(extractor, content, monkeypatch, 100.0, frame_encoder=encoder)
    assert_same(prepare(extractor, content, monkeypatch, 3.0, frame_encoder=encoder), whole)


# Damage


def test_damage_far_behind_is_still_an_error_of_its_recording(monkeypatch, tmp_path):
    content = bytearray(encoded(noise(60.0, 16_000), 16_000, format="FLAC", subtype="PCM_16"))
    content[-40_000:-38_000] = bytes(2000)
    (tmp_path / "clip.flac").write_bytes(content)
    for held_s in (3.0, 100.0):
        with pytest.raises(AudioLoadError, match=r"clip.flac`: it is damaged"):
            prepare(EnClapFeatureExtractor(), tmp_path / "clip.flac", monkeypatch, held_s)


def test_a_file_that_is_cut_off_is_said_to_be_one_once(monkeypatch, caplog):
    content = encoded(noise(60.0, 16_000), 16_000, format="WAV", subtype="PCM_16")
    prepare(EnClapFeatureExtractor(), content[: len(content) // 2], monkeypatch, 3.0)
    assert caplog.text.count("though its header promises 60.00 s") == 1


def test_a_length_that_changes_while_it_is_read_is_refused(monkeypatch):
    grown = iter(range(1, 99))
    monkeypatch.setattr("enclap_hf.model.long_recording.LongRecording._count_samples", lambda self: 48_000 * 20)
    monkeypatch.setattr(
        "enclap_hf.model.clap_windows.keep_rows", lambda blocks, kept: (None, len(kept) + 100 * next(grown))
    )
    with pytest.raises(AudioLoadError, match="its length changes while it is read"):
        prepare(EnClapFeatureExtractor(), noise(30.0, 16_000), monkeypatch, 3.0, sampling_rate=16_000)


# What is heard


@pytest.mark.parametrize("held_s", [3.0, 100.0])
@pytest.mark.parametrize(
    ("long_clips", "with_clap", "sound_s", "is_heard"),
    [
        ("fusion", True, 45.0, True),  # the picture of the whole
        ("fusion", False, 45.0, False),
        ("fusion", False, 2.0, True),
        ("middle", True, 30.0, True),
        ("middle", True, 2.0, True),
        ("middle", True, 45.0, False),
    ],
)
def test_the_peak_is_that_of_the_samples_used(long_clips, with_clap, sound_s, is_heard, held_s, monkeypatch):
    samples = np.zeros(60 * 16_000, np.float32)
    samples[round(sound_s * 16_000) :][:100] = 0.25
    extractor = EnClapFeatureExtractor(long_clips=long_clips)
    made = prepare(extractor, samples, monkeypatch, held_s, sampling_rate=16_000, with_clap=with_clap)
    assert made["peak"].item() == (0.25 if is_heard else 0.0)


def test_without_clap_no_more_is_decoded_than_the_frames_show(monkeypatch):
    read = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames, **kind: read.append(frames) or original(self, frames, **kind)
    )
    extractor = build_feature_extractor()
    content = encoded(noise(60.0, 16_000), 16_000, format="WAV", subtype="PCM_16")
    extractor(content, with_clap=False)
    assert sum(read) / 16_000 < extractor.max_codec_frames / 75 + 1


# Memory

MEASURE = """
import resource, sys
import torch
from enclap_hf import EnClapFeatureExtractor
extractor = EnClapFeatureExtractor()
extractor(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
extractor(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KB on Linux alone")
@pytest.mark.parametrize("kind", ["silence", "noise"])
def test_two_hours_take_no_more_memory_than_seven_minutes(kind, tmp_path):
    """Two hours at 48 kHz are 1.4 GB of samples; blocks of 5 minutes are held."""
    minute = noise(60.0, 48_000, channels=1) * (kind == "noise")
    for name, minutes in (("short.flac", 7), ("long.flac", 120)):
        with soundfile.SoundFile(tmp_path / name, "w", 48_000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "short.flac", tmp_path / "long.flac"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 100, "MB more than for the short one"
