"""Documents of `enclap caption`, such as subtitles: of one recording, or one for each; whole or not there."""

import csv
import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import caption_runs
from caption_runs import RATE, run
from conftest import make_clip
from enclap_hf.commands import caption_documents
from enclap_hf.commands.caption_documents import place_documents
from enclap_hf.commands.caption_targets import Target, find_format
from enclap_hf.data.caption_formats import FORMATS

captioner, load_once, recordings = caption_runs.captioner, caption_runs.load_once, caption_runs.recordings
LONG = np.concatenate([make_clip(2.0, 1), np.zeros(RATE, np.float32), make_clip(1.5, 2)])
OPTIONS = ["--chunk-length-s", "1", "--batch-size", "2"]


@pytest.fixture
def day(tmp_path) -> str:
    path = str(tmp_path / "day.wav")
    soundfile.write(path, LONG, RATE, subtype="FLOAT")
    return path


@pytest.fixture
def tree(tmp_path) -> str:
    """Recordings in sub-folders, some of one name."""
    for i, name in enumerate(("a/one.wav", "b/one.wav", "b/deep/two.flac", "three.wav")):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, LONG[: (i + 2) * RATE // 2], RATE)
    return str(tmp_path / "tree")


def list_files(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def write_by_hand(name: str, rows: list[dict]) -> str:
    file = io.StringIO(newline="")
    writer = FORMATS[name](file)
    for row in rows:
        writer.write(row)
    writer.close()
    return file.getvalue()


def rows_of(captioner, path: str, output_folder) -> list[dict]:
    """Rows as the pipeline streams them, named and rounded as an output has them."""
    rows = [row for _, row in captioner.stream(path, chunk_length_s=1, batch_size=2)]
    name = os.path.relpath(path, output_folder) if not os.path.isabs(path) else path
    return [{**row, "file_name": name, **({"score": round(row["score"], 6)} if "score" in row else {})} for row in rows]


# One document


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_each_format_is_written_to_a_file_and_to_the_terminal(capsys, day, tmp_path, captioner, name):
    output = tmp_path / f"day{FORMATS[name].suffix}"
    assert run(capsys, day, "--output", str(output), *OPTIONS)[0] == 0
    expected = write_by_hand(name, rows_of(captioner, day, tmp_path))
    assert output.read_bytes().decode() == expected and len(expected.splitlines()) >= 4
    assert list_files(tmp_path) == sorted(["day.wav", output.name, f"{output.name}.manifest.json"])
    status, out, err = run(capsys, day, "--format", name, *OPTIONS)
    assert (status, "\n".join([*out, ""]), err) == (0, expected, [])
    status, out, _ = run(capsys, day, "--format", name, "--output", "-", *OPTIONS)
    assert status == 0 and "\n".join([*out, ""]) == expected


def test_names_tell_the_format():
    found = {name: find_format(f"a{made.suffix}") for name, made in FORMATS.items()}
    assert found == {name: name for name in FORMATS} and find_format("A.LABELS.TXT") == "audacity"
    with pytest.raises(ValueError, match=r"expected a name that ends in \.txt, \.srt"):
        find_format("a.docx")


def test_a_document_of_any_name_with_its_format(capsys, day, tmp_path):
    output = tmp_path / "subtitles"
    assert run(capsys, day, "--output", str(output), "--format", "vtt", *OPTIONS)[0] == 0
    assert output.read_text().startswith("WEBVTT\n")
    status, _, err = run(capsys, day, "--output", str(output), "--format", "vtt", *OPTIONS)
    assert status == 2 and "subtitles exists; pass --resume" in err[0]
    assert run(capsys, day, "--output", str(output), "--format", "vtt", "--overwrite")[0] == 0


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_several_recordings_need_a_format_that_says_which_is_which(capsys, recordings, tmp_path, name):
    output = tmp_path / f"all{FORMATS[name].suffix}"
    status, _, err = run(capsys, recordings, "--output", str(output))
    if FORMATS[name].has_file_column:
        assert status == 0 and output.exists()
        assert all(f"clip{i}.wav" in output.read_text() for i in range(3))
        return
    assert status == 2 and f"--format {name} does not say which recording" in err[0] and "--output-dir DIR" in err[0]
    assert list_files(tmp_path) == [f"recordings/clip{i}.wav" for i in range(3)]
    assert run(capsys, recordings, "--format", name)[0] == 2


def test_json_has_the_recordings_in_their_order(capsys, recordings, day, tmp_path):
    """Though they are captioned from the longest to the shortest."""
    output = tmp_path / "all.json"
    assert run(capsys, recordings, day, "--output", str(output), *OPTIONS)[0] == 0
    rows = json.loads(output.read_text())
    assert [os.path.basename(row["file_name"]) for row in rows] == [
        *("clip0.wav", "clip1.wav", "clip2.wav"),
        *["day.wav"] * 5,
    ]
    assert [row["start_s"] for row in rows[3:]] == [0, 1, 2, 3, 4]


def test_a_complete_document_is_left_alone_or_made_anew(capsys, recordings, tmp_path):
    output = tmp_path / "all.json"
    arguments = ["--output", str(output), "--num-beams", "1"]
    assert run(capsys, recordings, *arguments)[0] == 0
    whole = output.read_bytes()
    status, _, err = run(capsys, recordings, *arguments, "--resume")
    assert status == 0 and "3 of 3" in err[0] and output.read_bytes() == whole
    status, _, err = run(capsys, recordings, "--output", str(output), "--num-beams", "2", "--resume")
    assert status == 2 and "--num-beams was 1 and is 2" in err[-1] and output.read_bytes() == whole
    soundfile.write(os.path.join(recordings, "new.wav"), make_clip(0.5, 9), RATE)
    status, _, err = run(capsys, recordings, *arguments, "--resume")
    assert status == 0 and "is complete and cannot be added to; all is captioned again" in err[0]
    assert len(json.loads(output.read_text())) == 4


@pytest.mark.parametrize("fails", ["open", "replace"])
def test_a_document_that_cannot_be_written_keeps_its_rows(capsys, day, tmp_path, captioner, monkeypatch, fails):
    output, real_open, real_replace = tmp_path / "day.srt", open, os.replace

    def fail_open(path, mode="r", *arguments, **options):
        if str(path).endswith("day.srt.part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, mode, *arguments, **options)

    def fail_replace(source, target):
        if str(target).endswith("day.srt"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_replace(source, target)

    with monkeypatch.context() as patched:
        if fails == "open":
            patched.setattr("builtins.open", fail_open)
        else:
            patched.setattr(caption_documents.os, "replace", fail_replace)
        status, _, err = run(capsys, day, "--output", str(output), *OPTIONS)
    assert status == 2 and len(err) == 1 and "day.srt cannot be written" in err[0] and "--resume" in err[0]
    assert not output.exists() and not list(tmp_path.glob("*.part"))
    with monkeypatch.context() as patched:
        patched.setattr(captioner, "forward", lambda *arguments, **options: pytest.fail("captioned again"))
        assert run(capsys, day, "--output", str(output), *OPTIONS, "--resume")[0] == 0
    assert output.read_text().count("-->") == 4 and not Path(f"{output}.rows.jsonl").exists()


# A folder of documents


def test_a_folder_has_a_file_for_each_recording_and_keeps_sub_folders_apart(capsys, tree, tmp_path, captioner):
    out = tmp_path / "out"
    assert run(capsys, tree, "--output-dir", str(out), "--format", "srt", *OPTIONS)[0] == 0
    assert list_files(out) == ["a/one.srt", "b/deep/two.srt", "b/one.srt", "captions.manifest.json", "three.srt"]
    for name in ("a/one.wav", "b/one.wav", "b/deep/two.flac"):
        expected = write_by_hand("srt", rows_of(captioner, os.path.join(tree, name), out))
        assert (out / name).with_suffix(".srt").read_bytes().decode() == expected
    status, _, err = run(capsys, tree, "--output-dir", str(out), "--format", "srt", *OPTIONS)
    assert status == 2 and "holds captions of an earlier run; pass --resume" in err[0]
    status, _, err = run(capsys, tree, "--output-dir", str(out), "--format", "srt", *OPTIONS, "--resume")
    assert status == 0 and "4 of 4 recordings are captioned already" in err[0]
    assert run(capsys, tree, "--output-dir", str(out), "--format", "srt", *OPTIONS, "--overwrite")[0] == 0


def test_all_formats_at_once(capsys, day, tmp_path, captioner):
    out = tmp_path / "out" / "deep"
    assert run(capsys, day, "--output-dir", str(out), "--format", "all", "--escape-formulas", *OPTIONS)[0] == 0
    assert list_files(out) == sorted([*(f"day{made.suffix}" for made in FORMATS.values()), "captions.manifest.json"])
    rows = rows_of(captioner, day, out)
    for name, made in FORMATS.items():
        if name != "csv":
            assert (out / f"day{made.suffix}").read_bytes().decode() == write_by_hand(name, rows)
    with open(out / "day.csv", encoding="utf-8", newline="") as file:
        found = [row["caption"] for row in csv.DictReader(file)]
    assert [caption.removeprefix("'") for caption in found] == [row["caption"].removeprefix("'") for row in rows]


def test_recordings_of_one_name_get_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def place(*found: tuple[str, str]) -> list[str]:
        documents = place_documents(list(found), Target("folder", ("srt",), "out"))
        return [document.files["srt"] for document in documents.values()]

    assert place(("x", "x/a.wav"), ("y", "y/b.wav")) == ["out/a.srt", "out/b.srt"]
    assert place(("x", "x/a.wav"), ("x", "x/a.flac"), ("x", "x/b.wav")) == [
        "out/a.wav.srt",
        "out/a.flac.srt",
        "out/b.srt",
    ]
    assert place(("x", "x/a.wav"), ("y", "y/a.wav")) == ["out/x/a.wav.srt", "out/y/a.wav.srt"]
    assert place(("x", "x/A.wav"), ("x", "x/a.mp3")) == ["out/A.wav.srt", "out/a.mp3.srt"]
    assert place(("x", "x/deep/a.wav"), ("", "-")) == ["out/deep/a.srt", "out/stdin.srt"]


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_folder_goes_on_where_it_was_interrupted(capsys, tree, tmp_path, captioner, monkeypatch, stop):
    whole, out = tmp_path / "whole", tmp_path / "out"
    arguments = ["--format", "all", *OPTIONS]
    assert run(capsys, tree, "--output-dir", str(whole), *arguments)[0] == 0
    forward, count = captioner.forward, []

    def interrupt(batch, **options):
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt
        return forward(batch, **options)

    with monkeypatch.context() as patched:
        patched.setattr(captioner, "forward", interrupt)
        status, _, err = run(capsys, tree, "--output-dir", str(out), *arguments)
    assert status == (130 if len(count) == stop else 0)
    if status:
        assert f"the rows in {out} are kept; --resume goes on with it." in err[-1]
        assert run(capsys, tree, "--output-dir", str(out), *arguments, "--resume")[0] == 0
    assert list_files(out) == list_files(whole)
    for name in list_files(out):
        if name.endswith((".srt", ".vtt", ".tsv", ".txt")):
            assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_one_bad_recording_has_no_document_and_a_changed_one_a_new_one(capsys, tree, tmp_path):
    out, bad = tmp_path / "out", Path(tree, "b", "bad.wav")
    bad.write_bytes(b"RIFF")
    arguments = ["--output-dir", str(out), "--format", "vtt", *OPTIONS]
    status, _, err = run(capsys, tree, *arguments)
    assert status == 1 and any("bad.wav" in line for line in err)
    assert "b/bad.vtt" not in list_files(out) and len(list_files(out)) == 5
    soundfile.write(bad, LONG[:RATE], RATE)
    before = (out / "three.vtt").read_bytes()
    soundfile.write(Path(tree, "three.wav"), make_clip(2.2, 8), RATE)
    status, _, err = run(capsys, tree, *arguments, "--resume")
    assert status == 0 and "3 of 5" in err[0] and "2 recordings have changed since" in err[1]
    assert (out / "b/bad.vtt").exists() and (out / "three.vtt").read_bytes() != before


def test_a_folder_that_cannot_be_is_refused(capsys, day, tmp_path):
    (tmp_path / "file").touch()
    for place, said in (("file", "is a file; name a folder"), ("file/out", "cannot be written")):
        status, _, err = run(capsys, day, "--output-dir", str(tmp_path / place), "--format", "srt")
        assert status == 2 and len(err) == 1 and said in err[0]
