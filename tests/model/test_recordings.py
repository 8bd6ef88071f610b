"""What is known of a recording before it is read: its length by its header, its name, the state of its file."""

import io
import os

import numpy as np
import pytest
import soundfile
import torch

from enclap_hf.model.recordings import RecordingState, name_recording, read_duration_s, read_state


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_a_header_tells_the_seconds(tmp_path, extension):
    path = tmp_path / f"clip.{extension}"
    soundfile.write(path, np.zeros((12_000, 2)), 8000)
    assert read_duration_s(str(path)) == 1.5


def test_a_header_that_soundfile_cannot_read_is_left_to_pyav(tmp_path):
    av = pytest.importorskip("av")
    path = str(tmp_path / "clip.m4a")
    with av.open(path, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 120_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    assert read_duration_s(path) == pytest.approx(2.5, abs=0.05)  # two AAC frames


@pytest.mark.parametrize("content", [b"", b"some notes about a recording", b"RIFF\x00\x00"])
def test_what_has_no_header_tells_no_seconds(tmp_path, content):
    (tmp_path / "clip.wav").write_bytes(content)
    assert read_duration_s(str(tmp_path / "clip.wav")) == 0.0
    assert read_duration_s(str(tmp_path / "missing.wav")) == read_duration_s(str(tmp_path)) == 0.0


def test_samples_tell_their_seconds():
    samples = np.zeros((2, 8000), np.float32)
    assert read_duration_s(samples, 16_000) == read_duration_s(torch.from_numpy(samples), 16_000) == 0.5
    assert read_duration_s({"array": samples, "sampling_rate": 8000}, 16_000) == 1.0
    assert read_duration_s([0.0] * 8000, 16_000) == 0.5
    for unknown in (samples, b"RIFF", io.BytesIO(b"RIFF"), (16_000, samples), object(), {"array": samples}):
        assert read_duration_s(unknown) == 0.0


def test_a_file_is_known_by_name_size_and_time_however_it_is_given(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(100), 8000)
    os.utime(path, ns=(3, 7))
    state = RecordingState(path.stat().st_size, 7)
    for form in (path, str(path), os.fsencode(path), {"path": str(path)}, {"path": str(path), "bytes": None}):
        if not isinstance(form, bytes):
            assert read_state(form) == state and name_recording(form) == str(path)
    with open(path, "rb") as file:
        assert name_recording(file) == str(path)
    for form in (path.read_bytes(), np.zeros(9), {"path": str(path), "array": np.zeros(9)}, str(tmp_path / "none")):
        assert read_state(form) == RecordingState()
    assert RecordingState(1, 2, is_whole=False) == RecordingState(1, 2)
