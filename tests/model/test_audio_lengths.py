"""A recording is read to its true end, whatever a header or a decoder's guess says; what is missing is said."""

import io
import logging
import struct
import sys

import numpy as np
import pytest
import soundfile

from audio_clips import RATE, encoded, encoded_by_av, sine
from enclap_hf.model.audio_loading import AudioLoadError, load_audio, open_audio

NOISE = np.random.default_rng(6).uniform(-0.5, 0.5, (50_123, 2)).astype(np.float32)
INTEGERS = (NOISE * 32767).astype(np.int16)


@pytest.fixture(autouse=True)
def without_av(monkeypatch):
    """libsndfile alone must get there: PyAV is optional."""
    monkeypatch.setitem(sys.modules, "av", None)


def mean_of(integers):
    scaled = integers.astype(np.float32) / 32768
    return (scaled[:, 0] + scaled[:, 1]) / 2


# Containers of plain samples: where the header states the size, how it is written, and what it counts beside the sound


def find_size_field(kind, content):
    """(offset, struct format, bytes counted beside the sound)"""
    return {
        "WAV": lambda: (content.index(b"data") + 4, "<I", 0),
        "WAVEX": lambda: (content.index(b"data") + 4, "<I", 0),
        "RF64": lambda: (content.index(b"ds64") + 16, "<Q", 0),
        "W64": lambda: (content.index(b"data\xf3\xac") + 16, "<Q", 24),
        "AIFF": lambda: (content.index(b"SSND") + 4, ">I", 8),
        "CAF": lambda: (content.index(b"data") + 4, ">Q", 4),
        "AU": lambda: (8, ">I", 0),
    }[kind]()


KINDS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU")
STATED = {
    "none": lambda size, width: 0,
    "all ones": lambda size, width: (1 << 8 * width) - 1,
    "half": lambda size, width: size // 2,
    "a quarter less one sample": lambda size, width: size // 4 * 3 - 4,
    "three times": lambda size, width: 3 * size,
}


def restate(kind, content, stated):
    content = bytearray(content)
    offset, form, extra = find_size_field(kind, content)
    width = struct.calcsize(form)
    size = struct.unpack_from(form, content, offset)[0] - extra
    assert size == INTEGERS.nbytes
    struct.pack_into(form, content, offset, min(STATED[stated](size, width) + extra, (1 << 8 * width) - 1))
    return bytes(content)


@pytest.mark.parametrize("stated", STATED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_size_in_the_header_hides_nothing(kind, stated, caplog):
    content = restate(kind, encoded(INTEGERS, format=kind, subtype="PCM_16"), stated)
    with caplog.at_level(logging.WARNING):
        loaded = load_audio(content, name="clip")
    np.testing.assert_array_equal(loaded.samples, mean_of(INTEGERS))
    assert loaded.is_partial == (stated == "three times")
    if loaded.is_partial:
        assert loaded.partial_reason == "it ends after 3.13 s, though its header promises 9.40 s"
        assert "`clip`" in caplog.text and "cut off" in caplog.text
    elif stated in ("half", "a quarter less one sample") and kind != "W64":  # libsndfile reads that one by itself
        assert "goes on behind the end" in caplog.text
    else:
        assert not caplog.records


def test_a_wav_from_a_pipe_is_whole(caplog):
    """Programs that write into a pipe leave 0, all ones or the largest positive number in both size fields."""
    content = bytearray(encoded(INTEGERS, format="WAV", subtype="PCM_16"))
    for riff, data in ((0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF + 36, 0x7FFFFFFF), (36, 0), (0x80000024, 1 << 31)):
        struct.pack_into("<I", content, 4, riff)
        struct.pack_into("<I", content, content.index(b"data") + 4, data)
        loaded = load_audio(bytes(content))
        np.testing.assert_array_equal(loaded.samples, mean_of(INTEGERS))
        assert not loaded.is_partial
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_off_file_is_said_to_be_one(kind, caplog):
    content = encoded(INTEGERS, format=kind, subtype="PCM_16")
    with caplog.at_level(logging.WARNING):
        loaded = load_audio(content[: len(content) // 24], name="clip")
    assert 0 < len(loaded.samples) < 0.05 * len(INTEGERS)
    np.testing.assert_array_equal(loaded.samples, mean_of(INTEGERS)[: len(loaded.samples)])
    assert (
        loaded.partial_reason == f"it ends after {len(loaded.samples) / RATE:.2f} s, though its header promises 3.13 s"
    )
    assert loaded.partial_reason in caplog.text


@pytest.mark.parametrize(
    "behind",
    [
        b"LIST" + struct.pack("<I", 20) + b"INFOISFT" + bytes(12),
        b"id3 " + struct.pack("<I", 3000) + b"\x01\xff" * 1500,
        b"TAG" + b"\x31" * 125,
        b"APETAGEX" + b"\x81" * 900,
        bytes(5000),
    ],
    ids=["LIST", "id3 chunk", "ID3v1", "APE", "zeros"],
)
def test_what_follows_the_sound_of_a_wav_is_not_read_as_sound(behind, caplog):
    wav = encoded(INTEGERS, format="WAV", subtype="PCM_16")
    np.testing.assert_array_equal(load_audio(wav + behind).samples, mean_of(INTEGERS))
    assert not caplog.records


def test_junk_behind_float_samples_is_not_read_as_sound():
    """Random bytes are not float samples: among them are NaN and numbers far beyond what sound has."""
    wav = encoded(NOISE, format="WAV", subtype="FLOAT")
    junk = np.random.default_rng(0).integers(0, 256, 9000, np.uint8).tobytes()
    assert len(load_audio(wav + junk).samples) == len(NOISE)
    size = wav.index(b"data") + 4
    stale = wav[:size] + struct.pack("<I", NOISE.nbytes // 2) + wav[size + 4 :]
    assert len(load_audio(stale).samples) == len(NOISE)  # as float samples are


# flac


def restate_flac(content, total):
    content = bytearray(content)
    field = int.from_bytes(content[21:26], "big") >> 36 << 36 | total
    content[21:26] = field.to_bytes(5, "big")
    return bytes(content)


@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125)], ids=["plain", "tagged"])
@pytest.mark.parametrize("share", [0, 0.5, 0.999, 1.001, 3])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_wrong_total_in_a_flac_hides_nothing(subtype, share, behind):
    flac = restate_flac(encoded(INTEGERS, format="FLAC", subtype=subtype), round(share * len(INTEGERS)))
    loaded = load_audio(flac + behind)
    np.testing.assert_array_equal(loaded.samples, mean_of(INTEGERS))
    with open_audio(flac) as reader:
        assert reader.num_samples == len(INTEGERS)
        np.testing.assert_array_equal(reader.read(40_000, 50), INTEGERS[40_000:40_050].T / np.float32(32768))


@pytest.mark.parametrize("total", [0, 50_123])
def test_a_cut_off_flac_is_still_refused(total):
    flac = restate_flac(encoded(INTEGERS, format="FLAC"), total)
    with pytest.raises(AudioLoadError, match="damaged or cut off"):
        load_audio(flac[: len(flac) // 2])


# Chained streams


@pytest.mark.parametrize(
    "kind",
    [
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "OGG", "subtype": "OPUS"},
        {"format": "FLAC", "subtype": "PCM_16"},
        {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    ],
    ids=lambda kind: kind["subtype"],
)
def test_every_link_of_a_chained_stream_is_read(kind):
    if kind["format"] not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {kind['format']}")
    links = [encoded(part, **kind) for part in (NOISE[:20_000], NOISE[20_000:27_000], NOISE[27_000:])]
    expected = np.concatenate([load_audio(link).samples for link in links])
    loaded = load_audio(b"".join(links))
    np.testing.assert_array_equal(loaded.samples, expected)
    assert len(expected) == pytest.approx(len(NOISE), abs=3) and not loaded.is_partial


def test_a_link_of_another_rate_is_refused():
    with pytest.raises(AudioLoadError, match="sampling rate changes midway"):
        load_audio(encoded(NOISE, format="FLAC") + encoded(NOISE, 8_000, format="FLAC"))


# mp3


def make_mp3(samples):
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no mp3")
    return encoded(samples, format="MP3", subtype="MPEG_LAYER_III")


def frame_starts(mp3):
    """Offsets of the frames of an mp3 of MPEG 2 layer III at 16 kHz, with their end."""
    kbits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    starts = [0]
    while starts[-1] + 4 < len(mp3):
        head = mp3[starts[-1] : starts[-1] + 4]
        assert head[0] == 0xFF and head[1] & 0xFE == 0xF2
        starts.append(starts[-1] + 72 * kbits[head[2] >> 4] * 1000 // RATE + (head[2] >> 1 & 1))
    return starts


@pytest.fixture
def variable_mp3():
    """Loud, quiet, loud: the first frames are large, and a guess by them far too short. No Xing header."""
    samples = np.random.default_rng(7).uniform(-0.7, 0.7, 8 * RATE)
    samples[RATE : 6 * RATE] = 0
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no mp3")
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    except TypeError:
        pytest.skip("this soundfile writes no variable bit rate")
    mp3 = file.getvalue()
    start = frame_starts(mp3)[1]
    assert b"Xing" in mp3[:start] or b"Info" in mp3[:start]
    return mp3[start:]


TAGS = {
    "none": (b"", b""),
    "ID3v2": (b"ID3\x04\0\0\x00\x12\x4f\x00" + b"\xff\xfb\x90\x00" * 76_256, b""),
    "ID3v1": (b"", b"TAG" + bytes(125)),
    "APE": (b"", b"\xff\xfb\x90\x00" * 1000 + b"APETAGEX" + struct.pack("<4I", 2000, 4032, 1, 0) + bytes(8)),
    "zeros": (b"", bytes(3000)),
}


@pytest.mark.parametrize("tag", TAGS)
def test_an_mp3_without_a_xing_header_is_read_to_its_end(variable_mp3, tag, caplog, capfd):
    """libsndfile takes mpg123's guess from the first frame for the end, and counts tags as sound."""
    before, behind = TAGS[tag]
    num_samples = 576 * (len(frame_starts(variable_mp3)) - 1)
    with caplog.at_level(logging.WARNING):
        loaded = load_audio(before + variable_mp3 + behind)
    assert len(loaded.samples) == num_samples and num_samples > 7.9 * RATE
    assert np.abs(loaded.samples[-RATE:]).max() > 0.3  # the loud end
    if tag != "zeros":  # behind which the decoder begins anew, with samples that differ in the last bit
        np.testing.assert_array_equal(loaded.samples, load_audio(variable_mp3).samples)
    assert not caplog.records and not loaded.is_partial
    assert capfd.readouterr() == ("", "")  # mpg123 prints on standard error
    with open_audio(before + variable_mp3 + behind) as reader:
        assert reader.num_samples is None
    head = load_audio(before + variable_mp3 + behind, max_duration_s=0.5)
    np.testing.assert_array_equal(head.samples, loaded.samples[: RATE // 2])


def test_a_cut_off_mp3_without_a_xing_header_is_read_as_far_as_it_goes(variable_mp3):
    starts = frame_starts(variable_mp3)
    loaded = load_audio(variable_mp3[: starts[100] + 11])
    assert 99 * 576 <= len(loaded.samples) <= 101 * 576


def test_a_large_tag_is_not_counted_as_sound(caplog):
    """A tag of 300 kB made mpg123 promise 28 s of a 6 s mp3, which then was called cut off."""
    mp3 = make_mp3(NOISE)
    with caplog.at_level(logging.WARNING):
        loaded = load_audio(TAGS["ID3v2"][0] + mp3)
    assert len(loaded.samples) == len(NOISE) and not loaded.is_partial and not caplog.records


# Containers that PyAV reads


def test_a_cut_off_webm_is_said_to_be_one(monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "av")
    left = sine(48_000, 6.0)
    content = encoded_by_av(np.stack([left, left]), 48_000, "webm", "libopus")
    assert not load_audio(content).is_partial and not caplog.records
    with caplog.at_level(logging.WARNING):
        loaded = load_audio(content[: len(content) // 2], name="clip")
    assert loaded.is_partial and "though its header promises 6.0" in loaded.partial_reason and "`clip`" in caplog.text
