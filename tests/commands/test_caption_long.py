"""`enclap caption` of long recordings: windows with times on the terminal, in tables, from standard input; going on."""

import argparse
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import caption_runs
from audio_clips import Pipe
from caption_runs import RATE, assert_same_rows, read_rows, run
from conftest import make_clip
from enclap_hf.commands import caption_progress
from enclap_hf.commands.caption_targets import Target
from enclap_hf.commands.terminal_text import escape_controls as escape
from enclap_hf.model.caption_results import CaptionedPiece
from enclap_hf.model.recordings import RecordingState

captioner, load_once, recordings = caption_runs.captioner, caption_runs.load_once, caption_runs.recordings
LONG = np.concatenate([make_clip(2.0, 1), np.zeros(RATE, np.float32), make_clip(2.5, 2)])


@pytest.fixture
def day(tmp_path) -> str:
    """A long recording: a sound of 2 s, a second of silence, a sound of 2.5 s."""
    path = str(tmp_path / "day.wav")
    soundfile.write(path, LONG, RATE, subtype="FLOAT")
    return path


def chunks_of(captioner, path: str, **options) -> list[dict]:
    return captioner(path, return_timestamps=True, **options)["chunks"]


# What comes out


def test_windows_are_printed_with_their_times_and_silent_ones_not(capsys, day, captioner):
    status, out, err = run(capsys, day, "--chunk-length-s", "1")
    chunks = chunks_of(captioner, day, chunk_length_s=1)
    assert [chunk.get("silent", False) for chunk in chunks] == [False, False, True, False, False, False]
    lines = [
        f"{day}\t0:00:0{i}.0-0:00:0{i + 1 if i < 5 else '5.5'}{'.0' if i < 5 else ''}\t{escape(chunk['text'])}"
        for i, chunk in enumerate(chunks)
        if i != 2
    ]
    assert (status, out, err) == (0, lines, [])


def test_long_recordings_are_cut_unasked_and_that_is_said_once(capsys, day, recordings, captioner):
    status, out, err = run(capsys, day, day.replace("day", "./day"), recordings)
    assert status == 0 and len(out) == 2 + 3
    assert len(err) == 1 and "longer than the 3.373 s that the model hears at once are captioned in windows" in err[0]
    assert "--chunk-length-s for another length, or 0" in err[0] and "`" not in err[0]
    assert run(capsys, day, "--quiet")[2] == []


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("n_best", [1, 2])
def test_tables_have_a_row_for_each_window_with_its_times(
    capsys, day, recordings, captioner, tmp_path, extension, n_best
):
    output = tmp_path / f"captions.{extension}"
    options = ["--chunk-length-s", "1.5", "--num-beams", "2", "--num-return-sequences", str(n_best)]
    assert run(capsys, day, recordings, "--output", str(output), *options)[0] == 0
    rows = [row for row in read_rows(output) if row["file_name"].endswith("day.wav")]
    chunks = chunks_of(captioner, day, chunk_length_s=1.5, num_beams=2, num_return_sequences=n_best)
    expected = [
        (*chunk["timestamp"], caption["text"]) for chunk in chunks for caption in chunk.get("captions", [chunk])
    ]
    assert [(float(row["start_s"]), float(row["end_s"]), row["caption"]) for row in rows] == expected
    assert all(float(row["duration_s"]) == pytest.approx(float(row["end_s"]) - float(row["start_s"])) for row in rows)
    short = next(row for row in read_rows(output) if row["file_name"].endswith("clip0.wav"))
    assert (float(short["start_s"]), float(short["end_s"])) == (0.0, 0.4)
    assert list(read_rows(output)[0])[:5] == ["file_name", "start_s", "end_s", "duration_s", "caption"]


def test_strides_reach_the_windows(capsys, day, tmp_path, captioner):
    output = tmp_path / "captions.jsonl"
    arguments = ["--chunk-length-s", "2", "--stride-length-s", "0.5", "0.25"]
    assert run(capsys, day, "--output", str(output), *arguments)[0] == 0
    chunks = chunks_of(captioner, day, chunk_length_s=2, stride_length_s=(0.5, 0.25))
    assert [(row["start_s"], row["end_s"]) for row in read_rows(output)] == [chunk["timestamp"] for chunk in chunks]


def test_a_damaged_recording_is_captioned_up_to_there(capsys, day, recordings, tmp_path):
    damaged, output = Path(recordings, "damaged.flac"), tmp_path / "captions.csv"
    soundfile.write(damaged, np.tile(make_clip(2.5, 3), 4), RATE)
    content = bytearray(damaged.read_bytes())
    middle = len(content) // 2
    content[middle:] = np.random.default_rng(0).integers(0, 255, len(content) - middle, np.uint8).tobytes()
    damaged.write_bytes(content)
    for words in ([], ["--resume"]):
        status, _, err = run(capsys, recordings, "--output", str(output), "--chunk-length-s", "1", *words)
        assert status == 1 and sum("damaged.flac" in line and "is damaged" in line for line in err) == 1
        assert any("1 failed" in line for line in err)
        rows = [row for row in read_rows(output) if row["file_name"].endswith("damaged.flac")]
        assert 3 <= len(rows) <= 7 and all(row["caption"] for row in rows[:-1])
        assert rows[-1]["error"] and rows[-1]["start_s"] == rows[-2]["end_s"] and not rows[-1]["end_s"]
    soundfile.write(damaged, np.tile(make_clip(2.5, 3), 4), RATE)
    assert run(capsys, recordings, "--output", str(output), "--chunk-length-s", "1", "--resume")[0] == 0
    assert len(read_rows(output)) == 3 + 10


# Standard input


@pytest.fixture
def feed(monkeypatch):
    """Gives the command a standard input."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", argparse.Namespace(buffer=Pipe(content)))

    return give


def test_standard_input_is_captioned_as_it_comes(capsys, feed, day, captioner):
    feed(Path(day).read_bytes())
    status, out, _ = run(capsys, "-", "--chunk-length-s", "2")
    assert status == 0 and [line.split("\t")[:2] for line in out] == [
        ["-", "0:00:00.0-0:00:02.0"],
        ["-", "0:00:02.0-0:00:04.0"],
        ["-", "0:00:04.0-0:00:05.5"],
    ]
    assert [line.split("\t")[2] for line in out] == [
        escape(chunk["text"]) for chunk in chunks_of(captioner, day, chunk_length_s=2)
    ]


@pytest.mark.parametrize(
    ("name", "scale", "dtype"),
    [("s16le", 2**15, "<i2"), ("u8", 2**7, "u1"), ("s32be", 2**31, ">i4"), ("f32le", 1, "<f4"), ("s24le", 2**23, "")],
)
def test_samples_without_a_header(capsys, feed, captioner, name, scale, dtype):
    if dtype:
        whole = LONG * (scale - 1) + (128 if name == "u8" else 0)
        content = (np.round(whole) if scale > 1 else LONG).astype(dtype).tobytes()
    else:
        content = np.round(LONG * (scale - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    raw = {"raw_format": name, "raw_sampling_rate": RATE}
    expected = chunks_of(captioner, io.BytesIO(content), **raw, chunk_length_s=2)
    feed(content)
    options = ["--raw-format", name, "--raw-sampling-rate", str(RATE), "--chunk-length-s", "2"]
    status, out, _ = run(capsys, "-", *options)
    assert status == 0 and [line.split("\t")[2] for line in out] == [escape(chunk["text"]) for chunk in expected]


def test_standard_input_that_ends_early_or_holds_nothing(capsys, feed, day, tmp_path):
    content = Path(day).read_bytes()
    feed(content[: len(content) // 2])
    status, out, err = run(capsys, "-", "--chunk-length-s", "1", "--output", str(tmp_path / "a.srt"))
    assert status == 0 and (tmp_path / "a.srt").read_text().count("-->") == 3
    for nothing in (b"", b"no sound at all"):
        feed(nothing)
        status, out, err = run(capsys, "-")
        assert status == 1 and out == [] and len(err) == 1 and "enclap: " in err[0]


# Going on


@pytest.mark.parametrize("extension", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("stop", range(1, 7))
def test_a_run_that_is_interrupted_goes_on_within_a_recording(
    capsys, day, recordings, tmp_path, captioner, monkeypatch, extension, stop
):
    """The rows that were there stay, the others come, and together they are those of an unbroken run."""
    unbroken, output = tmp_path / f"unbroken.{extension}", tmp_path / f"captions.{extension}"
    arguments = ["--chunk-length-s", "1", "--batch-size", "2", "--num-beams", "2", "--num-return-sequences", "2"]
    assert run(capsys, day, recordings, "--output", str(unbroken), *arguments)[0] == 0
    forward, count = captioner.forward, []

    def interrupt(batch, **options):
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt
        return forward(batch, **options)

    with monkeypatch.context() as patched:
        patched.setattr(captioner, "forward", interrupt)
        status = run(capsys, day, recordings, "--output", str(output), *arguments)[0]
    assert status == (130 if len(count) == stop else 0)
    rows_file = Path(f"{output}.rows.jsonl") if extension == "json" else output
    before = read_rows(rows_file) if rows_file.exists() else []
    assert extension != "json" or output.exists() == (status == 0)
    count.clear()
    with monkeypatch.context() as patched:
        patched.setattr(captioner, "forward", lambda batch, **options: count.append(1) or forward(batch, **options))
        status, _, err = run(capsys, day, recordings, "--output", str(output), *arguments, "--resume")
    assert status == 0, err
    assert len(count) <= 4 + 1 - len(before) // 4, "what was captioned is not captioned again"
    order = lambda row: (row["file_name"], float(row["start_s"]), -float(row.get("score") or 0))  # noqa: E731
    assert_same_rows(sorted(read_all(output), key=order), sorted(read_all(unbroken), key=order))
    names = {path.name for path in tmp_path.iterdir() if path.name.startswith("captions")}
    assert names == {output.name, f"{output.name}.manifest.json"}
    status, _, err = run(capsys, day, recordings, "--output", str(output), *arguments, "--resume")
    assert status == 0 and "4 of 4 recordings are captioned already" in err[0]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_segments_between_changes_go_on_too(capsys, day, tmp_path, captioner, monkeypatch, stop):
    unbroken, output = tmp_path / "unbroken.csv", tmp_path / "captions.csv"
    arguments = [day, "--segmentation", "changes", "--chunk-length-s", "3", "--batch-size", "1"]
    assert run(capsys, *arguments, "--output", str(unbroken))[0] == 0
    rows = read_rows(unbroken)
    assert len(rows) >= 3
    assert [row["end_s"] for row in rows[:-1]] == [row["start_s"] for row in rows[1:]]
    forward, count = captioner.forward, []

    def interrupt(batch, **options):
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt
        return forward(batch, **options)

    with monkeypatch.context() as patched:
        patched.setattr(captioner, "forward", interrupt)
        assert run(capsys, *arguments, "--output", str(output))[0] == 130
    before = read_rows(output)
    assert len(before) < len(rows)
    assert run(capsys, *arguments, "--output", str(output), "--resume")[0] == 0
    assert_same_rows(read_rows(output), rows)
    status, _, err = run(capsys, *arguments[:2], "fixed", "--output", str(output), "--resume")
    assert status == 2 and "--segmentation was changes and is fixed" in err[-1]


def read_all(path: Path) -> list[dict]:
    """Rows of any kind of table."""
    return json.loads(path.read_text()) if path.suffix == ".json" else read_rows(path)


def test_other_windows_are_not_mixed(capsys, day, tmp_path):
    output = tmp_path / "captions.csv"
    assert run(capsys, day, "--output", str(output), "--chunk-length-s", "2")[0] == 0
    for arguments, said in (
        (["--chunk-length-s", "1"], "--chunk-length-s was 2.0 and is 1.0"),
        ([], "--chunk-length-s was 2.0 and is left to the model"),
        (["--chunk-length-s", "2", "--stride-length-s", "0.1"], "--stride-length-s was none and is [0.1]"),
    ):
        status, _, err = run(capsys, day, "--output", str(output), *arguments, "--resume")
        assert status == 2 and said in err[-1]


def test_a_table_from_before_recordings_were_cut_is_not_mixed_with_windows(capsys, day, tmp_path):
    output = tmp_path / "captions.csv"
    assert run(capsys, day, "--output", str(output), "--chunk-length-s", "0")[0] == 0
    place = Path(f"{output}.manifest.json")
    manifest = json.loads(place.read_text())
    for name in ("chunk_length_s", "stride_length_s", "segmentation", "raw_format", "raw_sampling_rate"):
        del manifest["settings"][name]
    place.write_text(json.dumps(manifest))
    status, _, err = run(capsys, day, "--output", str(output), "--resume")
    assert status == 2 and "--chunk-length-s was 0.0 and is left to the model" in err[-1]
    assert run(capsys, day, "--output", str(output), "--resume", "--chunk-length-s", "0")[0] == 0
    assert list(read_rows(output)[0]) == ["file_name", "caption", "score", "confidence", "silent", "error"]


# Usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chunk-length-s", "-1"], "expected a number of seconds"),
        (["--chunk-length-s", "nan"], "expected a number of seconds"),
        (["--chunk-length-s", "4"], "--chunk-length-s 4, and this model hears 3.373 s at a time"),
        (["--chunk-length-s", "2", "--stride-length-s", "1"], "--stride-length-s 1 and 1 with windows of 2 s"),
        (["--chunk-length-s", "2", "--stride-length-s", "1", "1", "1"], "a pair of them"),
        (["--chunk-length-s", "0", "--stride-length-s", "1"], "cuts no windows"),
        (["--segmentation", "words"], "invalid choice"),
        (["--raw-format", "s16"], "invalid choice"),
        (["--raw-format", "s16le"], "need a rate in Hz"),
        (["--raw-sampling-rate", "16000"], "--raw-format"),
        (["--raw-format", "s16le", "--raw-sampling-rate", "12"], "1000 to 384000 Hz"),
        (["--format", "doc"], "invalid choice"),
        (["--format", "all"], "--output-dir DIR"),
        (["--format", "srt", "--chunk-length-s", "0"], "without times"),
        (["--output-dir", "out"], "--output-dir needs --format"),
        (["--output-dir", "out", "--output", "a.csv", "--format", "csv"], "pass one of them"),
        (["--output", "a.csv", "--format", "jsonl"], "ends in .jsonl"),
    ],
)
def test_usage_that_cannot_work_is_explained(capsys, day, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    status, out, err = run(capsys, day, *arguments)
    assert status == 2 and out == [] and said in err[-1] and "`" not in err[-1], err
    assert sorted(os.listdir(tmp_path)) == before, "nothing is left behind"


def test_standard_input_cannot_be_gone_on_with(capsys, tmp_path):
    status, out, err = run(capsys, "-", "--output", str(tmp_path / "a.csv"), "--resume")
    assert status == 2 and out == [] and "cannot be read a second time" in err[0] and os.listdir(tmp_path) == []


# Progress


class Bar:
    """What the progress asks of tqdm."""

    def __init__(self, **options):
        self.options, self.updates = options, []

    def update(self, number):
        self.updates.append(number)

    def close(self):
        pass


def test_progress_counts_seconds_of_sound_where_some_is_long(day, recordings, monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    args, target = argparse.Namespace(quiet=False), Target("table", ("csv",), "captions.csv")
    paths = [day, os.path.join(recordings, "clip0.wav")]

    def piece(index: int, end_s: float | None, is_end: bool) -> CaptionedPiece:
        return CaptionedPiece(index, "", None, 0.0, end_s, index == 0, is_end, RecordingState(), 5.5)

    with caption_progress.Progress(args, target, paths, 3.4, {0: 1.0}) as progress:
        for one in (piece(0, 2.0, False), piece(0, 4.2, False), piece(0, None, True)):
            progress.update(one)
    assert progress.bar.options == {"disable": False, "initial": 1, "unit": "s of sound", "total": 6}
    assert progress.bar.updates == [1, 2, 2]
    with caption_progress.Progress(args, target, paths[1:], 3.4, {}) as progress:
        progress.update(piece(0, 0.4, True))
    assert progress.bar.options == {"disable": False, "unit": "clip", "total": 1} and progress.bar.updates == [1]
    for quiet in (argparse.Namespace(quiet=True),):
        assert caption_progress.Progress(quiet, target, paths, 3.4, {}).bar.options["disable"]
