"""Every format reads to what was recorded, at the rate it was recorded with."""

import io
import sys

import numpy as np
import pytest
import soundfile

from audio_clips import (
    RATE,
    WAV,
    encoded,
    encoded_by_av,
    rms,
    sine,
    strongest_hz,
)
from enclap_hf.model.audio_errors import AudioLoadError
from enclap_hf.model.audio_loading import load_audio


@pytest.fixture
def without_av(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # makes `import av` raise ImportError


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


@pytest.mark.parametrize("rate", [1_000, 4_000, 8_000, 11_025, 22_050, 44_100, 96_000, 192_000, 384_000])
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_rates_from_1_to_384_khz_are_read(rate, kind):
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
            with pytest.raises(AudioLoadError, match="not audio that can be read"):
                load_audio(audio)


def make_video(container, codec, flags):
    """A file with silent audio tracks and one with sound, which alone is flagged as default where `flags` say so."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        tracks = [output.add_stream(codec, rate=RATE) for _ in flags]
        for track, flag in zip(tracks, flags, strict=True):
            track.layout = "mono"
            if not hasattr(track, "disposition"):
                pytest.skip("this PyAV sets no flags")
            track.disposition = av.stream.Disposition.default if flag else 0
        for index, track in enumerate(tracks):
            sound = sine(duration_s=1.0, hz=300.0 + 100 * index)
            frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate = RATE
            for packet in (*track.encode(frame), *track.encode(None)):
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(
    "flags, chosen",
    [((0, 1), 1), ((1, 0), 0), ((0, 0, 1), 2), ((0, 0), 0), ((1, 1), 0)],
)
@pytest.mark.parametrize("container", ["matroska", "mov"])
def test_the_default_track_of_a_video_is_the_one_that_is_read(container, flags, chosen):
    """Films have a track for each language; the first one may be a commentary."""
    if container == "mov" and flags != (1, 0):
        pytest.skip("ffmpeg flags the first track of a mov itself")
    loaded = load_audio(make_video(container, "pcm_s16le", flags))
    assert strongest_hz(loaded.samples, RATE) == pytest.approx(300 + 100 * chosen, abs=0.5)
