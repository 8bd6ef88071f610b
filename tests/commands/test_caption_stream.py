"""How recordings go through the pipeline: paired by what they are, each failure its own, silence reported."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import caption_runs
import enclap_hf.model.recordings
from caption_runs import RATE, caption_of, line_of, names_in, read_rows, run
from conftest import make_clip
from enclap_hf.model import recording_stream

captioner, load_once, recordings = caption_runs.captioner, caption_runs.load_once, caption_runs.recordings


@pytest.fixture
def many(tmp_path) -> str:
    """Recordings of 0.3 to 1.3 s, in no order."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i, duration_s in enumerate(np.random.default_rng(0).permutation(np.linspace(0.3, 1.3, 11))):
        soundfile.write(folder / f"{i:02}.wav", make_clip(duration_s, i), RATE, subtype="FLOAT")
    return str(folder)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_file_that_grows_meanwhile_puts_no_caption_on_another(
    capsys, many, tmp_path, captioner, monkeypatch, num_workers
):
    """Workers and main process each sorted by length: one that saw other lengths paired captions with other files."""
    log = tmp_path / "calls"

    def read_growing(path, sampling_rate):
        with open(log, "a") as file:
            file.write(f"{path}\n")
        return float(np.random.default_rng().uniform(0, 9))

    monkeypatch.setattr(recording_stream, "read_duration_s", read_growing)
    output = tmp_path / "captions.jsonl"
    arguments = ["--batch-size", "2", "--num-workers", str(num_workers)]
    assert run(capsys, many, "--output", str(output), *arguments)[0] == 0
    rows = read_rows(output)
    calls = log.read_text().split("\n")[:-1]
    assert len(rows) == 11 and len(calls) == len(set(calls)) == 11, "each length is read once, in one process"
    for row in rows:
        assert row["caption"] == caption_of(captioner, row["file_name"])


def test_a_file_replaced_between_planning_and_reading_has_the_caption_of_what_was_read(
    capsys, many, tmp_path, captioner, monkeypatch
):
    open_audio, victim = recording_stream.open_audio, os.path.join(many, "03.wav")

    def replace_first(recording, sampling_rate, **options):
        if recording == victim:
            soundfile.write(victim, make_clip(3.0, 77), RATE, subtype="FLOAT")
        return open_audio(recording, sampling_rate, **options)

    with monkeypatch.context() as patched:
        patched.setattr(recording_stream, "open_audio", replace_first)
        assert run(capsys, many, "--output", str(tmp_path / "captions.csv"), "--batch-size", "3")[0] == 0
    for row in read_rows(tmp_path / "captions.csv"):
        assert row["caption"] == caption_of(captioner, row["file_name"])


@pytest.mark.parametrize("error", [OSError("seek failed"), ValueError("64 bit integers"), MemoryError(), KeyError("x")])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_whatever_a_decoder_raises_is_that_recordings_error(
    capsys, recordings, tmp_path, captioner, monkeypatch, error, num_workers
):
    """Three kinds used to end the run with a traceback, and the good captions with it."""
    prepare, victim = captioner.preprocess, os.path.join(recordings, "clip1.wav")

    def fail(audio, **options):
        if audio.name == f"`{victim}`":
            raise error
        return prepare(audio, **options)

    output = tmp_path / "captions.csv"
    with monkeypatch.context() as patched:
        patched.setattr(captioner, "preprocess", fail)
        status, _, err = run(capsys, recordings, "--output", str(output), "--num-workers", str(num_workers))
    assert status == 1
    said = f"`{victim}`: it cannot be captioned ({type(error).__name__}"
    assert sum(line.startswith(f"enclap: {said}") for line in err) == 1
    rows = {os.path.basename(row["file_name"]): row for row in read_rows(output)}
    assert rows["clip1.wav"]["error"].startswith(said) and rows["clip1.wav"]["caption"] == ""
    assert all(
        rows[name]["caption"] == caption_of(captioner, rows[name]["file_name"]) for name in ("clip0.wav", "clip2.wav")
    )
    assert run(capsys, recordings, "--output", str(output), "--resume")[0] == 0


@pytest.mark.parametrize("batch_size", ["1", "8"])
def test_what_an_encoder_raises_for_one_recording_of_a_batch_spares_the_others(
    capsys, recordings, tmp_path, captioner, monkeypatch, batch_size
):
    encode = captioner.processor.encode_prepared

    def run_out_of_memory(prepared):
        if any(len(samples) > 0.8 * RATE for samples in prepared["input_values"]):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB.")
        return encode(prepared)

    output = tmp_path / "captions.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(captioner.processor, "encode_prepared", run_out_of_memory)
        status, _, err = run(capsys, recordings, "--output", str(output), "--batch-size", batch_size)
    assert status == 1 and sum("Tried to allocate 20 GiB" in line for line in err) == 1
    rows = {os.path.basename(row["file_name"]): row for row in read_rows(output)}
    assert "OutOfMemoryError" in rows["clip1.wav"]["error"] and "\n" not in rows["clip1.wav"]["error"]
    assert all(
        rows[name]["caption"] == caption_of(captioner, rows[name]["file_name"]) for name in ("clip0.wav", "clip2.wav")
    )


def test_two_good_and_seven_bad_recordings(capsys, tmp_path, captioner, monkeypatch):
    folder = tmp_path / "mixed"
    folder.mkdir()
    soundfile.write(folder / "good0.wav", make_clip(0.5), RATE, subtype="FLOAT")
    soundfile.write(folder / "good1.flac", make_clip(0.7, 1), RATE)
    whole = (folder / "good1.flac").read_bytes()
    (folder / "bad0.wav").touch()
    (folder / "bad1.wav").write_text("notes, not sound\n" * 9)
    (folder / "bad2.mp3").write_bytes(bytes(range(256)) * 8)
    (folder / "bad3.flac").write_bytes(whole[:60])
    soundfile.write(folder / "bad4.wav", np.full(RATE, np.inf, np.float32), RATE, subtype="FLOAT")
    soundfile.write(folder / "bad5.wav", np.zeros(0, np.float32), RATE)
    (folder / "bad6.ogg").write_bytes(b"OggS" + bytes(200))
    output = tmp_path / "captions.csv"
    status, _, err = run(capsys, str(folder), "--output", str(output), "--batch-size", "4", "--num-workers", "1")
    assert status == 1
    rows = {os.path.basename(row["file_name"]): row for row in read_rows(output)}
    assert len(rows) == 9 and all(rows[f"good{i}.{kind}"]["caption"] for i, kind in enumerate(("wav", "flac")))
    for name in sorted(rows)[:7]:
        assert name.startswith("bad") and rows[name]["error"] and rows[name]["caption"] == ""
        assert sum(name in line for line in err) == 1


def test_lengths_that_cannot_be_read_delay_nothing(capsys, recordings, tmp_path, monkeypatch):
    def fail(file, name):
        raise UnicodeError("a header nobody foresaw")

    monkeypatch.setattr(enclap_hf.model.recordings, "read_stated_duration_s", fail)
    assert run(capsys, recordings, "--output", str(tmp_path / "captions.csv"))[0] == 0
    assert names_in(tmp_path / "captions.csv") == ["clip0.wav", "clip1.wav", "clip2.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a signal")
def test_a_worker_that_is_killed_ends_the_run_in_one_line_with_its_rows(capsys, many, tmp_path, captioner, monkeypatch):
    prepare, output = captioner.preprocess, tmp_path / "captions.csv"

    def die(audio, **options):
        if audio.name.endswith("05.wav`") and names_in(output):
            os.kill(os.getpid(), 9)
        return prepare(audio, **options)

    with monkeypatch.context() as patched:
        patched.setattr(captioner, "preprocess", die)
        status, _, err = run(capsys, many, "--output", str(output), "--batch-size", "1", "--num-workers", "1")
    if status == 0:
        pytest.skip("the recording was read before the first row was written")
    assert status == 2 and len(err) == 1 and "was killed" in err[0] and "--num-workers 0" in err[0]
    assert not any(row["error"] for row in read_rows(output)), "no recording is blamed for it"
    assert run(capsys, many, "--output", str(output), "--resume")[0] == 0 and len(read_rows(output)) == 11


# Silence


def test_the_commands_level_is_the_pipelines():
    from enclap_hf.commands.caption_arguments import SILENCE_DBFS
    from enclap_hf.model import pipeline

    assert SILENCE_DBFS == pipeline.SILENCE_DBFS


@pytest.mark.parametrize("n_best", [1, 2])
@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_a_silent_recording_is_a_row_of_its_own_kind(capsys, recordings, tmp_path, extension, n_best):
    """Ten seconds of zeros had a bike bell trilling in them."""
    for name, peak in (("zeros.wav", 0.0), ("-80.wav", 1e-4), ("-66.wav", 5e-4)):
        tone = peak * np.sin(np.arange(RATE) / 9)
        soundfile.write(os.path.join(recordings, name), tone, RATE, subtype="FLOAT")
    output = tmp_path / f"captions.{extension}"
    options = ["--num-return-sequences", str(n_best), "--num-beams", "2"]
    status, _, err = run(capsys, recordings, "--output", str(output), *options)
    assert status == 0
    assert any("2 recordings are silent (no sample above -70 dBFS)" in line for line in err)
    assert any("Captioned 4 recordings into" in line for line in err)
    rows = {os.path.basename(row["file_name"]): row for row in read_rows(output)}
    assert len(read_rows(output)) == 2 + 4 * n_best
    yes, no = ("true", "false") if extension == "csv" else (True, False)
    for name, silent in (("zeros.wav", yes), ("-80.wav", yes), ("-66.wav", no), ("clip0.wav", no)):
        assert rows[name]["silent"] == silent and bool(rows[name]["caption"]) == (silent == no)
    assert float(rows["clip0.wav"]["score"]) < 0 and not rows["zeros.wav"].get("score")
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume", *options)
    assert status == 0 and "6 of 6" in err[0], "silent ones are done"
    assert Path(f"{output}.manifest.json").read_text().count('"silent": 2') == 1


def test_silence_is_printed_as_an_empty_caption_and_can_be_turned_off(capsys, recordings, captioner):
    path = os.path.join(recordings, "zeros.wav")
    soundfile.write(path, np.zeros(RATE), RATE)
    status, out, err = run(capsys, path)
    assert (status, out) == (0, [f"{path}\t"])
    assert err == ["1 recording is silent (no sample above -70 dBFS) and got no caption."]
    assert run(capsys, path, "--silence-dbfs", "none") == (0, [line_of(captioner, path, silence_dbfs=None)], [])
    status, out, err = run(capsys, path, os.path.join(recordings, "clip0.wav"), "--silence-dbfs", "0")
    assert status == 0 and all(line.endswith("\t") for line in out) and "2 recordings are silent" in err[0]


@pytest.mark.parametrize("value", ["loud", "1", "nan", "-inf", "", "-70dB"])
def test_a_level_that_cannot_be_is_refused(capsys, recordings, value):
    status, _, err = run(capsys, recordings, f"--silence-dbfs={value}")
    assert status == 2 and f"got {value!r}; expected a level of at most 0 dBFS, such as -70, or none" in err[-1]
