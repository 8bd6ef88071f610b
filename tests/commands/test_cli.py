"""`enclap caption`: one line for each recording, one line for each failure, and no recording's failure is another's."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import caption_runs
from caption_runs import RATE, assert_same_rows, caption_of, line_of, names_in, read_rows, run
from conftest import make_clip
from enclap_hf.commands import caption as caption_command

captioner, load_once, recordings = caption_runs.captioner, caption_runs.load_once, caption_runs.recordings


# What comes out


def test_a_folder_prints_one_line_for_each_recording(capsys, recordings, captioner):
    status, out, err = run(capsys, recordings)
    paths = [os.path.join(recordings, f"clip{i}.wav") for i in range(3)]
    assert status == 0 and err == []
    assert out == [line_of(captioner, path) for path in paths]


def test_a_recording_named_twice_is_captioned_once(capsys, recordings, monkeypatch):
    monkeypatch.chdir(recordings)
    status, out, _ = run(capsys, "clip0.wav", "./clip0.wav", os.path.join(recordings, "clip0.wav"), "*0.wav")
    assert status == 0 and len([line for line in out if ".wav\t" in line]) == 1


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("batch_size", ["1", "2", "8"])
def test_output_holds_one_row_for_each_recording(capsys, recordings, captioner, tmp_path, extension, batch_size):
    output = tmp_path / f"captions.{extension}"
    status, out, err = run(capsys, recordings, "--output", str(output), "--batch-size", batch_size)
    assert status == 0 and out == []
    assert "Captioned 3 recordings" in err[-1] and str(output) in err[-1]
    rows = read_rows(output)
    longest_first = {"1": (1, 2, 0), "2": (1, 2, 0), "8": (0, 1, 2)}[batch_size]
    assert [row["file_name"] for row in rows] == [os.path.join(recordings, f"clip{i}.wav") for i in longest_first]
    assert [row["caption"] for row in rows] == [caption_of(captioner, row["file_name"]) for row in rows]


def test_batches_hold_recordings_of_like_length_and_rows_come_when_done(capsys, tmp_path, captioner, monkeypatch):
    folder = tmp_path / "mixed"
    folder.mkdir()
    durations_s = [0.3, 2.1, 0.4, 1.9, 0.2, 2.0, 0.5]
    for i, duration_s in enumerate(durations_s):
        soundfile.write(folder / f"{i}.wav", make_clip(duration_s, i), RATE)
    (folder / "3b.wav").touch()  # unreadable
    batches, forward = [], captioner.processor.encode_prepared

    def listen(prepared):
        batches.append([len(waveform) / RATE for waveform in prepared["input_values"]])
        return forward(prepared)

    monkeypatch.setattr(captioner.processor, "encode_prepared", listen)
    output = tmp_path / "captions.jsonl"
    assert run(capsys, str(folder), "--output", str(output), "--batch-size", "3")[0] == 1
    assert batches == [[2.1, 2.0, 1.9], [0.5, 0.4, 0.3], [0.2]]
    monkeypatch.undo()
    rows = read_rows(output)
    assert names_in(output) == [f"{i}.wav" for i in (1, 3, 5, 0, 2, 6, "3b", 4)]
    for row in rows:
        assert "error" in row or row["caption"] == caption_of(captioner, row["file_name"])


def test_sorting_goes_window_by_window(capsys, recordings, captioner, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_command, "SORTED_BATCHES", 1)
    status, _, _ = run(capsys, recordings, "--output", str(tmp_path / "captions.csv"), "--batch-size", "2")
    rows = read_rows(tmp_path / "captions.csv")
    assert status == 0 and [row["caption"] for row in rows] == [caption_of(captioner, row["file_name"]) for row in rows]


def test_n_best_rows_carry_their_scores(capsys, recordings, tmp_path, captioner):
    output = tmp_path / "captions.jsonl"
    status, _, _ = run(capsys, recordings, "--output", str(output), "--num-return-sequences", "3", "--num-beams", "2")
    rows = read_rows(output)
    assert status == 0 and len(rows) == 9
    assert [row["file_name"][-5] for row in rows] == list("000111222")
    best = captioner(rows[0]["file_name"], num_beams=3, num_return_sequences=3)
    assert [row["caption"] for row in rows[:3]] == [caption["text"] for caption in best]
    assert [row["score"] for row in rows[:3]] == pytest.approx([caption["score"] for caption in best], abs=1e-5)


def test_n_best_works_with_a_repository_that_sets_no_beams(capsys, recordings, captioner, monkeypatch):
    monkeypatch.setattr(captioner.model.generation_config, "num_beams", None)
    status, out, _ = run(capsys, os.path.join(recordings, "clip0.wav"), "--num-return-sequences", "2")
    assert status == 0 and len([line for line in out if ".wav\t" in line]) == 2


def test_decoding_options_reach_the_model(capsys, recordings, captioner):
    path = os.path.join(recordings, "clip1.wav")
    _, out, _ = run(capsys, path, "--num-beams", "1", "--max-new-tokens", "4")
    assert out == [line_of(captioner, path, num_beams=1, max_new_tokens=4)]


# Going on, and not losing what is there


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", [1, 9, 30])
def test_resume_goes_on_after_a_row_that_was_cut_off(capsys, recordings, tmp_path, extension, cut):
    output = tmp_path / f"captions.{extension}"
    run(capsys, recordings, "--output", str(output))
    whole, rows = output.read_bytes(), read_rows(output)
    output.write_bytes(whole[:-cut])
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 0 and output.read_bytes().count(b"\n") == whole.count(b"\n")
    assert_same_rows(read_rows(output), rows)
    assert "2 of 3 recordings are captioned already." in err[0]


@pytest.mark.parametrize("kept", [0, 5])
def test_resume_starts_over_where_not_even_the_header_was_whole(capsys, recordings, tmp_path, kept):
    output = tmp_path / "captions.csv"
    run(capsys, recordings, "--output", str(output))
    whole = output.read_bytes()
    output.write_bytes(whole[:kept])
    run(capsys, recordings, "--output", str(output), "--resume")
    assert output.read_bytes() == whole


def test_resume_with_nothing_left_changes_nothing(capsys, recordings, tmp_path):
    output = tmp_path / "captions.jsonl"
    run(capsys, recordings, "--output", str(output))
    whole = output.read_bytes()
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 0 and output.read_bytes() == whole and "3 of 3" in err[0]


def test_resume_without_an_output_yet_starts_it(capsys, recordings, tmp_path):
    status, _, _ = run(capsys, recordings, "--output", str(tmp_path / "new.csv"), "--resume")
    assert status == 0 and len(read_rows(tmp_path / "new.csv")) == 3


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_resume_replaces_the_row_of_a_recording_that_failed(capsys, recordings, tmp_path, extension):
    """Its old row used to stay beside the new one, and scoring refused the file for naming a recording twice."""
    output, broken = tmp_path / f"captions.{extension}", os.path.join(recordings, "clip1.wav")
    content = Path(broken).read_bytes()
    Path(broken).write_bytes(b"")
    for arguments in ([], ["--resume"], ["--resume"]):
        assert run(capsys, recordings, "--output", str(output), *arguments)[0] == 1
        rows = read_rows(output)
        assert sorted(row["file_name"][-5] for row in rows) == ["0", "1", "2"]
        assert [row["file_name"] for row in rows if row.get("error")] == [broken]
    Path(broken).write_bytes(content)
    assert run(capsys, recordings, "--output", str(output), "--resume")[0] == 0
    rows = read_rows(output)
    assert [row["file_name"][-5] for row in rows] == ["0", "2", "1"] and all(row["caption"] for row in rows)
    assert sorted(os.listdir(tmp_path)) == [output.name, f"{output.name}.manifest.json", "recordings"]


def test_resume_that_cannot_load_its_model_leaves_the_output(capsys, recordings, tmp_path, monkeypatch):
    def fail(args, model):
        raise OSError("no such model")

    output = tmp_path / "captions.csv"
    Path(recordings, "clip1.wav").write_bytes(b"")
    run(capsys, recordings, "--output", str(output))
    whole = output.read_bytes()
    monkeypatch.setattr(caption_command, "load_pipeline", fail)
    assert run(capsys, recordings, "--output", str(output), "--resume")[0] == 2
    assert output.read_bytes() == whole


def test_resume_through_a_link_writes_what_it_points_to(capsys, recordings, tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real/captions.csv", tmp_path / "link.csv"
    Path(recordings, "clip1.wav").write_bytes(b"")
    run(capsys, recordings, "--output", str(target))
    link.symlink_to(target)
    target.chmod(0o640)
    run(capsys, recordings, "--output", str(link), "--resume")
    assert link.is_symlink() and len(read_rows(target)) == 3 and target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("folder", [".", "results"])
def test_resume_knows_a_recording_from_any_folder(capsys, recordings, tmp_path, monkeypatch, folder):
    """Relative paths count from the output's folder; `a.wav` of another folder is another recording."""
    output = tmp_path / folder / "captions.csv"
    output.parent.mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "recordings", "--output", os.path.join(folder, "captions.csv"))[0] == 0
    whole, rows = output.read_bytes(), read_rows(output)
    assert [(output.parent / row["file_name"]).resolve().name for row in rows] == [f"clip{i}.wav" for i in range(3)]
    assert all((output.parent / row["file_name"]).is_file() for row in rows)
    monkeypatch.chdir(recordings)
    for arguments in (["clip0.wav", "clip1.wav", "./clip2.wav"], [recordings]):
        relative = os.path.relpath(output)
        status, _, err = run(capsys, *arguments, "--output", relative, "--resume")
        assert status == 0 and "3 of 3" in err[0] and output.read_bytes() == whole
    (tmp_path / "other").mkdir()
    soundfile.write(tmp_path / "other/clip0.wav", make_clip(0.4, 9), RATE)
    monkeypatch.chdir(tmp_path / "other")
    _, _, err = run(capsys, "clip0.wav", "--output", os.path.relpath(output), "--resume")
    assert "0 of 1" in err[0] and len(read_rows(output)) == 4


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("name", ['a,b "c".wav', "line\u2028separator\u0085.wav", "übung 1.wav"])
def test_any_file_name_can_be_resumed(capsys, tmp_path, extension, name):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/z.wav", make_clip(0.3), RATE)
    os.rename(tmp_path / "in/z.wav", tmp_path / "in" / name)
    output = tmp_path / f"captions.{extension}"
    assert run(capsys, str(tmp_path / "in"), "--output", str(output))[0] == 0
    whole = output.read_bytes()
    status, _, err = run(capsys, str(tmp_path / "in"), "--output", str(output), "--resume")
    assert status == 0 and "1 of 1" in err[0] and output.read_bytes() == whole
    assert read_rows(output)[0]["file_name"] == str(tmp_path / "in" / name)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_a_file_name_that_is_no_utf8_stops_nothing(capsys, tmp_path, captioner, monkeypatch, extension):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    soundfile.write("z.wav", make_clip(0.3), RATE)
    os.rename("z.wav", b"z\xff.wav")
    Path("empty\udcff.wav").touch()
    output = tmp_path / f"captions.{extension}"
    assert run(capsys, ".", "--output", str(output))[0] == 1
    rows = read_rows(output)
    assert [row["file_name"] for row in rows] == [r"in/empty\udcff.wav", r"in/z\udcff.wav"]
    status, _, err = run(capsys, "z\udcff.wav", "--output", str(output), "--resume")
    assert status == 0 and "1 of 1" in err[0] and read_rows(output) == rows, "the other one is not of this run"
    assert run(capsys, "z\udcff.wav")[1] == [line_of(captioner, "z\udcff.wav").replace("\udcff", "\\udcff")]


def test_an_existing_output_is_refused_unless_it_may_be_replaced(capsys, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    output.write_text("precious\n")
    status, _, err = run(capsys, recordings, "--output", str(output))
    assert status == 2 and len(err) == 1 and "--resume" in err[0] and "--overwrite" in err[0]
    assert output.read_text() == "precious\n"
    assert run(capsys, recordings, "--output", str(output), "--overwrite")[0] == 0
    assert len(read_rows(output)) == 3


@pytest.mark.parametrize(
    ("name", "content"), [("x.csv", "a,b\n1,2\n"), ("x.jsonl", "[1]\n"), ("x.jsonl", "no json"), ("x.csv", "notes")]
)
def test_resuming_another_commands_file_is_refused_and_leaves_it(capsys, recordings, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    status, _, err = run(capsys, recordings, "--output", str(tmp_path / name), "--resume")
    assert status == 2 and len(err) == 1 and name in err[0]
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume"], "--output"),
        (["--overwrite"], "--output"),
        (["--output", "captions.docx"], ".jsonl, .csv"),
        (["--output", "captions.txt"], "--output-dir DIR"),
        (["--output", "no/such/folder/captions.csv"], "mkdir -p"),
        (["--batch-size", "0"], "at least 1"),
        (["--num-beams", "two"], "at least 1"),
        (["--num-workers", "-1"], "at least 0"),
    ],
)
def test_usage_that_cannot_work_is_explained(capsys, recordings, arguments, said):
    status, out, err = run(capsys, recordings, *arguments)
    assert status == 2 and out == [] and said in err[-1]


# Bad inputs


@pytest.fixture
def bad_inputs(tmp_path) -> dict[str, str]:
    """Ten inputs that go wrong for people, and a part of what is said about each; "" where a caption is right."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "empty.wav").touch()
    soundfile.write(folder / "no_samples.wav", np.zeros(0, dtype=np.float32), RATE)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    (folder / "text.wav").write_text("These are my notes on the recording.\n" * 40)
    soundfile.write(folder / "truncated.flac", make_clip(2.0), RATE)
    content = (folder / "truncated.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(content[: len(content) // 2])
    np.save(folder / "three_axes.npy", np.zeros((2, 2, 100)))
    soundfile.write(folder / "low_rate.wav", make_clip(1.0), 100)
    (folder / "no_audio").mkdir()
    (folder / "no_audio/readme.txt").write_text("nothing to hear")
    soundfile.write(folder / "silence.flac", np.zeros(30 * 8000, dtype=np.int16), 8000)
    said = {
        "empty.wav": "empty",
        "no_samples.wav": "no samples",
        "nan.wav": "finite",
        "text.wav": "text",
        "truncated.flac": "",
        "three_axes.npy": "",
        "missing.wav": "no such file",
        "low_rate.wav": "sampling rate",
        "no_audio": "no audio file",
        "silence.flac": "",
    }
    return {str(folder / name): part for name, part in said.items()}


def test_each_bad_input_gives_one_line_that_names_it_and_the_others_their_captions(
    capsys, recordings, bad_inputs, captioner, tmp_path
):
    output = tmp_path / "captions.jsonl"
    paths = list(bad_inputs)
    order = [paths[0], recordings, *paths[1:]]  # among good ones, so that they share batches
    status, _, err = run(capsys, *order, "--output", str(output), "--batch-size", "4")
    assert status == 1
    rows = {row["file_name"]: row for row in read_rows(output)}
    for i in range(3):
        path = os.path.join(recordings, f"clip{i}.wav")
        assert rows[path]["caption"] == caption_of(captioner, path)
    for path, said in bad_inputs.items():
        lines = [line for line in err if path in line]
        if path in rows and "caption" in rows[path]:
            assert not said, f"{path} must not be captioned"
            assert lines == []
        else:
            assert len(lines) == 1 and lines[0].startswith("enclap: "), (path, err)
            assert said in lines[0]
            if path in rows:
                assert rows[path]["error"] in lines[0]
    assert any("caption" in rows.get(path, {}) for path in bad_inputs if path.endswith("silence.flac"))
    assert sum(line.endswith(" failed.") for line in err) == 1


def test_a_bad_input_alone_leaves_nothing_to_print(capsys, bad_inputs):
    for path, said in bad_inputs.items():
        if said:
            status, out, err = run(capsys, path)
            assert status in (1, 2) and out == [] and len(err) == 1 and path in err[0]


def test_recordings_of_which_only_the_beginning_is_asked_for_are_counted_once_at_the_end(capsys, recordings, tmp_path):
    """The tests' model reads 253 frames of 320 samples at 24 kHz: 3.37 s."""
    for name, duration_s in (("long0.wav", 3.5), ("exact.flac", 253 * 320 / RATE)):
        soundfile.write(os.path.join(recordings, name), make_clip(duration_s), RATE)
    said = "longer than the 3.4 s that the model hears at once: only the beginning is captioned"
    status, out, err = run(capsys, recordings, "--chunk-length-s", "0")
    assert status == 0 and len(out) == 5 and len(err) == 1 and f"1 recording is {said}" in err[0]
    soundfile.write(os.path.join(recordings, "long1.flac"), make_clip(4.0), RATE)
    soundfile.write(os.path.join(recordings, "nan.wav"), np.full(4 * RATE, np.nan), RATE, subtype="FLOAT")
    output = str(tmp_path / "captions.csv")
    status, _, err = run(capsys, recordings, "--output", output, "--batch-size", "2", "--chunk-length-s", "0")
    assert status == 1 and [line for line in err if f"2 recordings are {said}" in line]
    assert "start_s" not in read_rows(output)[0], "their length is not known"


def test_a_model_that_hears_all_of_a_recording_calls_none_long(capsys, recordings, captioner, monkeypatch):
    soundfile.write(os.path.join(recordings, "long.wav"), make_clip(3.3), RATE)
    monkeypatch.setattr(captioner.processor.feature_extractor, "max_codec_frames", 240)  # 3.2 s
    assert len(run(capsys, recordings)[2]) == 1
    monkeypatch.setattr(captioner.processor.feature_extractor, "max_codec_frames", None)
    assert run(capsys, recordings)[2] == []


@pytest.mark.slow
def test_two_hours_of_silence_are_silent(capsys, tmp_path):
    path = str(tmp_path / "silence.flac")
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(120):
            file.write(np.zeros(60 * 8000, dtype=np.int16))
    assert run(capsys, path)[:2] == (0, [f"{path}\t"])
    status, out, err = run(capsys, path, "--silence-dbfs", "none", "--chunk-length-s", "0")
    assert status == 0 and len(err) == 1 and "1 recording is longer" in err[0] and len(out[0]) > len(f"{path}\t")


# The command as a program


def test_the_program_captions_with_a_saved_model(repository, recordings, captioner):
    path = os.path.join(recordings, "clip0.wav")
    done = subprocess.run(
        [sys.executable, "-m", "enclap_hf", "caption", path, "missing.wav", "--model", repository, "--device", "cpu"],
        capture_output=True,
        timeout=600,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 1
    assert done.stdout.decode() == line_of(captioner, path) + "\n"
    assert done.stderr.decode().count("missing.wav") == 1 and "Traceback" not in done.stderr.decode()
