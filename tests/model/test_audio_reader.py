"""Block by block and in part, a recording gives the samples that reading it whole gives."""

import io
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from audio_clips import RATE, Pipe, encoded, encoded_by_av, sine
from enclap_hf.model import audio_loading
from enclap_hf.model.audio_loading import AudioLoadError, load_audio, open_audio

NOISE = np.random.default_rng(8).uniform(-0.5, 0.5, (3 * RATE + 7, 2)).astype(np.float32)
EXACT = [
    *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("AIFF", "PCM_24"), ("CAF", "PCM_16"), ("W64", "PCM_16")),
    *(("RF64", "PCM_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16")),
]
SEQUENTIAL = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "IMA_ADPCM"), ("CAF", "ALAC_16")]


def make(container, subtype):
    if subtype not in soundfile.available_subtypes(container):
        pytest.skip(f"this libsndfile has no {subtype}")
    return encoded(NOISE, format=container, subtype=subtype)


@pytest.mark.parametrize("container, subtype", EXACT + SEQUENTIAL)
def test_blocks_and_parts_are_those_of_the_whole(container, subtype):
    content = make(container, subtype)
    whole = load_audio(content, mono=False).samples
    with open_audio(content) as reader:
        assert (reader.sampling_rate, reader.num_channels) == (RATE, 2)
        assert reader.num_samples == whole.shape[1]
        blocks = list(reader.blocks(block_s=0.7))
        assert {block.shape[1] for block in blocks[:-1]} == {11_200} and blocks[0].dtype == np.float32
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
        assert not reader.is_partial
        # Forward, back, over a block's edge, and across the end.
        for start, count in ((5, 3), (20_000, 40_000), (0, 1), (32_760, 20), (whole.shape[1] - 10, 50), (60_000, 9)):
            np.testing.assert_array_equal(reader.read(start, count), whole[:, start : start + count])
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks(1.3)), axis=1), whole)


@pytest.mark.parametrize("container, codec", [("mp4", "aac"), ("matroska", "pcm_s16le")])
def test_parts_of_what_pyav_reads_are_those_of_the_whole(container, codec):
    content = encoded_by_av(NOISE.T, RATE, container, codec)
    whole = load_audio(content, mono=False).samples
    with open_audio(content) as reader:
        for start, count in ((30_000, 100), (10, 100), (whole.shape[1] - 5, 9)):
            np.testing.assert_array_equal(reader.read(start, count), whole[:, start : start + count])
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks(0.3)), axis=1), whole)


@pytest.mark.parametrize("container, subtype", EXACT)
def test_a_late_part_of_a_long_file_is_read_without_what_stands_before(container, subtype, monkeypatch):
    read = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames, **kind: read.append(frames) or original(self, frames, **kind)
    )
    with open_audio(make(container, subtype)) as reader:
        reader.read(40_000, 1000)
    assert sum(read) == 1000


def test_samples_in_memory_are_read_in_part():
    with open_audio(NOISE.T.copy(), RATE) as reader:
        assert reader.num_samples == len(NOISE)
        np.testing.assert_array_equal(reader.read(1000, 5), NOISE[1000:1005].T)
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks(1)), axis=1), NOISE.T)


def test_a_callers_file_goes_back_to_where_it_was(tmp_path):
    file = io.BytesIO(make("WAV", "PCM_16"))
    file.seek(17)
    with open_audio(file) as reader:
        reader.read(5, 5)
    assert file.tell() == 17 and not file.closed
    path = tmp_path / "clip.wav"
    path.write_bytes(file.getvalue())
    reader = open_audio(path)
    reader.read(5, 5)
    reader.close()
    reader.close()
    os.remove(path)


@pytest.mark.parametrize("block_s", [0, -1, 1e-9])
def test_a_block_holds_at_least_a_sample(block_s):
    with open_audio(NOISE, RATE) as reader, pytest.raises(ValueError, match="block_s"):
        next(reader.blocks(block_s))
    with open_audio(NOISE, RATE) as reader, pytest.raises(ValueError, match="negative"):
        reader.read(-1, 5)


# Damage


def test_what_stands_before_a_damage_is_given_out_first():
    flac = bytearray(encoded((NOISE * 32767).astype(np.int16), format="FLAC"))
    whole = load_audio(bytes(flac), mono=False).samples
    middle = len(flac) // 2
    flac[middle : middle + 400] = bytes(400)
    found = []
    with open_audio(bytes(flac), name="clip") as reader, pytest.raises(AudioLoadError, match=r"`clip`: it is damaged"):
        found.extend(reader.blocks(0.5))
    found = np.concatenate(found, axis=1)
    assert found.shape[1] > 0.4 * len(NOISE)
    np.testing.assert_array_equal(found, whole[:, : found.shape[1]])


# Streams


@pytest.mark.parametrize(
    "container, subtype", [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AU", "PCM_16")]
)
def test_a_stream_is_decoded_as_it_comes(container, subtype):
    """The first block is there before the sender has sent the rest; the samples are those of the file."""
    pytest.importorskip("av")
    content = encoded(np.tile(NOISE, (8, 1)), format=container, subtype=subtype)
    sent = []

    class Sender(Pipe):
        def readinto(self, buffer):
            sent.append(super().readinto(buffer))
            return sent[-1]

    whole = load_audio(content, mono=False).samples
    with open_audio(Sender(content)) as reader:
        blocks = reader.blocks(0.5)
        first = next(blocks)
        assert sum(sent) < 0.7 * len(content)
        np.testing.assert_array_equal(np.concatenate([first, *blocks], axis=1), whole)
        with pytest.raises(AudioLoadError, match="a stream, of which that part has passed"):
            reader.read(0, 5)


@pytest.mark.parametrize("container, codec", [("mp4", "aac"), ("ipod", "alac")])
def test_a_stream_whose_parts_must_be_looked_up_is_copied_first(container, codec):
    content = encoded_by_av(NOISE.T, RATE, container, codec)
    with open_audio(Pipe(content)) as reader:
        blocks = np.concatenate(list(reader.blocks(0.5)), axis=1)
        np.testing.assert_array_equal(reader.read(0, 9), blocks[:, :9])
    np.testing.assert_array_equal(blocks, load_audio(content, mono=False).samples)


def test_a_long_stream_is_copied_to_a_file(monkeypatch):
    from enclap_hf.model import audio_bytes

    monkeypatch.setattr(audio_bytes, "MAX_BUFFERED_BYTES", 1000)
    monkeypatch.setattr(audio_bytes, "_COPIED_BYTES", 700)
    monkeypatch.setitem(sys.modules, "av", None)
    content = make("WAV", "PCM_16")
    with open_audio(Pipe(content)) as reader:
        blocks = np.concatenate(list(reader.blocks(0.5)), axis=1)
    np.testing.assert_array_equal(blocks, load_audio(content, mono=False).samples)


def test_a_process_can_be_piped_in(tmp_path):
    (tmp_path / "clip.wav").write_bytes(make("WAV", "PCM_16"))
    whole = load_audio(tmp_path / "clip.wav", mono=False).samples
    code = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"
    command = [sys.executable, "-c", code, str(tmp_path / "clip.wav")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, open_audio(process.stdout) as reader:
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks(0.5)), axis=1), whole)


# Samples without a header

RAW = {
    "s8": (np.int8, 7),
    "u8": (np.uint8, 7),
    "s16le": ("<i2", 15),
    "s16be": (">i2", 15),
    "s32le": ("<i4", 31),
    "s32be": (">i4", 31),
    "f32le": ("<f4", None),
    "f32be": (">f4", None),
    "f64le": ("<f8", None),
    "f64be": (">f8", None),
}


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("raw_format", RAW)
def test_samples_without_a_header_are_read(raw_format, is_stream, tmp_path):
    dtype, bits = RAW[raw_format]
    values = NOISE.astype(dtype) if bits is None else np.round(NOISE * 2.0**bits + (128 if dtype == np.uint8 else 0))
    content = values.astype(dtype).tobytes()
    expected = NOISE if bits is None else (values - (128 if dtype == np.uint8 else 0)) / 2.0**bits
    path = tmp_path / "clip.raw"
    path.write_bytes(content)
    options = {"raw_format": raw_format, "raw_sampling_rate": RATE, "raw_channels": 2}
    with open_audio(Pipe(content) if is_stream else path, **options) as reader:
        assert (reader.sampling_rate, reader.num_channels) == (RATE, 2)
        blocks = np.concatenate(list(reader.blocks(0.7)), axis=1)
        np.testing.assert_allclose(blocks, expected.T, atol=1e-7)  # float32 of 32 bit integers
        if not is_stream:
            assert reader.num_samples == len(NOISE)
            np.testing.assert_array_equal(reader.read(100, 7), blocks[:, 100:107])


@pytest.mark.parametrize("order", ["little", "big"])
def test_24_bit_samples_without_a_header_are_read(order):
    values = [-(2**23), -1, 0, 1, 2**23 - 1]
    content = b"".join(value.to_bytes(3, order, signed=True) for value in values)
    options = {"raw_format": f"s24{order[0]}e", "raw_sampling_rate": RATE}
    with open_audio(content, **options) as reader:
        assert (reader.read(0, 9)[0] * 2**23).tolist() == values


def test_raw_samples_that_end_in_a_part_of_one_are_said_to():
    with open_audio(Pipe(bytes(4001)), raw_format="s16le", raw_sampling_rate=RATE, raw_channels=2) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 1000
        assert reader.is_partial and "within a sample" in reader.partial_reason


@pytest.mark.parametrize(
    "options, message",
    [
        ({"raw_format": "s17le", "raw_sampling_rate": RATE}, "s16le"),
        ({"raw_format": "s16le"}, "rate in Hz"),
        ({"raw_format": "s16le", "raw_sampling_rate": RATE, "raw_channels": 0}, "at least one channel"),
        ({"raw_format": "s16le", "raw_sampling_rate": 5}, "1000 to 384000 Hz"),
    ],
)
def test_what_raw_samples_need_is_asked_for(options, message):
    with pytest.raises(ValueError, match=message):
        open_audio(b"\0" * 100, **options)


# Memory


def test_a_recording_that_memory_cannot_hold_is_refused_before_it_is_read(monkeypatch):
    """A flac of 12 hours of silence takes half a megabyte, and its samples gigabytes."""
    from enclap_hf.model import audio_memory

    flac = encoded(np.zeros(100 * RATE, np.int16), format="FLAC")
    monkeypatch.setattr(audio_memory, "_SMALL_BYTES", 0)
    monkeypatch.setattr(audio_memory, "find_available_bytes", lambda: 5_000_000)
    with pytest.raises(AudioLoadError, match=r"`long`: its samples would take 0\.0 GB of memory.*max_duration_s"):
        load_audio(flac, name="long")
    assert len(load_audio(flac, max_duration_s=20).samples) == 20 * RATE
    with pytest.raises(AudioLoadError, match="`long`: resampling it to 48000 Hz would take"):
        audio_loading.resample_audio(np.zeros(10**6, np.float32), RATE, 48_000, name="long")


def test_memory_that_ends_while_a_stream_is_read_is_an_error_of_the_recording(monkeypatch):
    monkeypatch.setattr(audio_loading, "_CHECKED_BYTES", 1000)
    monkeypatch.setattr(audio_loading, "find_available_bytes", lambda: 0)
    with pytest.raises(AudioLoadError, match="`long`: memory ends after"):
        load_audio(make("OGG", "VORBIS"), name="long")


def test_free_memory_is_known_on_linux():
    from enclap_hf.model.audio_memory import find_available_bytes

    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux is asked")
    assert 1 << 20 < find_available_bytes() < 1 << 50


def test_a_long_recording_is_read_in_little_memory(tmp_path):
    """Ten minutes of stereo are 230 MB of samples; blocks of 10 s of them 4 MB."""
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros((600 * 48_000, 2), np.int16), 48_000)
    tracemalloc.start()
    try:
        with open_audio(path) as reader:
            num_samples = sum(block.shape[1] for block in reader.blocks(10))
            middle = reader.read(num_samples // 2, 480_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_samples == 600 * 48_000 and middle.shape == (2, 480_000)
    assert peak < 20e6


def test_a_sine_read_through_the_reader_is_a_sine():
    with open_audio(encoded(sine(), format="FLAC")) as reader:
        np.testing.assert_allclose(reader.read(100, 200)[0], sine()[100:300], atol=1 / 2**15)
