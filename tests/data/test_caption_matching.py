"""Predictions, references and a second system meet clip by clip, and a clip without a caption is never a silent one."""

import csv
import json

import pytest

from enclap_hf.commands.caption_output import COLUMNS, WholeRecordsFile, format_header, format_rows
from enclap_hf.commands.caption_rows import escape_formulas, make_rows, name_in_output
from enclap_hf.commands.score import main
from enclap_hf.data.caption_matching import match_names
from enclap_hf.metrics import AudioCaptioningMetrics
from enclap_hf.model.caption_results import CaptionedPiece
from enclap_hf.model.recordings import RecordingState

CLIPS = {
    "rain.wav": ("rain falls on a roof", "heavy rain on a roof"),
    "dog.wav": ("a dog barks", "a dog is barking"),
    "train.wav": ("a train passes by", "a train is passing"),
}


@pytest.fixture(autouse=True)
def in_the_folder_of_the_files(tmp_path, monkeypatch):
    """Captions files name recordings relative to their own folder."""
    monkeypatch.chdir(tmp_path)


def write_captions(path, captions, folder="", escapes=False):
    """A file as `enclap caption --output` writes it; a caption of None is a recording that failed."""
    file = WholeRecordsFile(str(path))
    columns = COLUMNS if str(path).endswith(".csv") else None
    if file.size == 0:
        file.append(format_header(columns))
    for name, caption in captions.items():
        result = {"text": caption} if caption is not None else {"text": None, "error": "no audio"}
        piece = CaptionedPiece(0, None, result, 0.0, 1.5, False, True, RecordingState(), 1.5)
        rows = make_rows(name_in_output(folder + name, str(path)), piece)
        file.append(format_rows([escape_formulas(row, str(path)) if escapes else row for row in rows], columns))
    file.close()
    return str(path)


@pytest.fixture
def references(tmp_path):
    with open(tmp_path / "references.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "caption_1"], *([name, pair[1]] for name, pair in CLIPS.items())])
    return str(tmp_path / "references.csv")


@pytest.fixture
def score(references, tmp_path):
    """Score a file; returns the status and the report."""

    def score_file(*arguments):
        output = tmp_path / "scores.json"
        output.unlink(missing_ok=True)
        command = [*map(str, arguments), "--references", references, "--metrics", "cider_d", "--output", str(output)]
        status = main(command)
        return status, json.loads(output.read_text()) if output.exists() else None

    return score_file


def compute_cider_d(names, captions):
    return AudioCaptioningMetrics("cider_d").compute([captions[n] for n in names], [[CLIPS[n][1]] for n in names])


# --- names ---


@pytest.mark.parametrize("folder", ["", "./", "sc/audio/", "/data/sc/", "../sc/./audio/", "C:\\sc\\audio\\"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_caption_writes_is_scored_against_bare_names(score, tmp_path, capsys, folder, suffix):
    """`enclap caption sc --output cap.csv` names `sc/audio/rain.wav` what `sc/captions.csv` names `rain.wav`."""
    captions = {name: pair[0] for name, pair in CLIPS.items()}
    status, report = score(write_captions(tmp_path / f"captions.{suffix}", captions, folder))
    assert status == 0 and report["scores"]["cider_d"] == compute_cider_d(CLIPS, captions)["cider_d"]
    note = capsys.readouterr().err
    assert ("3 clips are matched without the folders" in note) == (folder not in ("", "./"))


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["a.wav", "b.wav"], ["b.wav", "a.wav"], [1, 0]),
        (["x/a.wav", "y/a.wav"], ["y/a.wav", "./x/a.wav"], [1, 0]),
        (["d/x/a.wav", "d/y/a.wav"], ["y/a.wav", "x/a.wav"], [1, 0]),  # the base name alone would not tell
        (["a.wav"], ["x/a.wav", "a.wav"], [1]),  # the full name comes first
        (["a.wav"], ["x/y/a.wav"], [0]),
        (["audio/a.wav"], ["ba.wav", "xaudio/a.wav", "a.wav.wav"], [None]),  # tails are whole parts of a path
        (["train/1.wav"], ["test/1.wav"], [None]),  # both name a folder, and not the same
        (["a.wav", "b.wav"], [None, None], [0, 1]),
    ],
)
def test_names_that_mean_one_clip_are_matched(names, others, expected):
    assert match_names(names, others, ("predictions", "references")) == expected


@pytest.mark.parametrize(
    ("names", "others", "message"),
    [
        (["a.wav"], ["x/a.wav", "y/a.wav"], "Got 'a.wav', which could be 'x/a.wav' or 'y/a.wav' of the references"),
        (["x/a.wav", "y/a.wav"], ["a.wav"], "Got 'a.wav', which could be 'x/a.wav' or 'y/a.wav' of the predictions"),
        (["a.wav", "x/a.wav"], ["a.wav"], "Got 'a.wav', which could be 'a.wav' or 'x/a.wav' of the predictions"),
        (["x/y/a.wav"], ["y/a.wav", "a.wav"], "Got 'x/y/a.wav', which could be 'y/a.wav' or 'a.wav'"),
        (["a.wav"], [None, None], "Got 1 predictions and 2 references without names"),
    ],
)
def test_names_that_could_mean_two_clips_are_refused(names, others, message):
    with pytest.raises(ValueError) as caught:
        match_names(names, others, ("predictions", "references"))
    assert message in str(caught.value)


def test_other_folders_are_no_match(score, tmp_path, capsys, references):
    with open(references, "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "caption_1"], ["test/rain.wav", "rain"]])
    status, _ = score(write_captions(tmp_path / "captions.csv", {"rain.wav": "rain"}, "train/"))
    assert status == 2 and "Got no references for 'train/rain.wav'" in capsys.readouterr().err


def test_one_file_under_two_spellings_is_two_predictions(score, tmp_path, capsys):
    (tmp_path / "captions.csv").write_text("file_name,caption\nrain.wav,rain\n./rain.wav,wind\n")
    status, _ = score(tmp_path / "captions.csv")
    assert status == 2 and "two predictions for './rain.wav'" in capsys.readouterr().err


# --- clips without a caption ---


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("failed", [True, False])
def test_a_clip_without_a_caption_is_left_out_and_said(score, tmp_path, capsys, suffix, failed):
    """A failed recording's row in csv was an empty caption, which cut the scores; in jsonl the file was refused."""
    captions = {"rain.wav": CLIPS["rain.wav"][0], "dog.wav": CLIPS["dog.wav"][0]}
    path = write_captions(tmp_path / f"captions.{suffix}", captions | ({"train.wav": None} if failed else {}))
    reason = "no audio" if failed else "no prediction"
    status, report = score(path)
    output = capsys.readouterr()
    assert status == 0 and report["num_clips"] == 2
    assert report["scores"]["cider_d"] == compute_cider_d(captions, captions)["cider_d"]
    assert report["missing_captions"] == {"left_out": ["train.wav"], "counted_as_empty": []}
    assert f"left out of the scores (--missing skip): 1 of 3 clips have no caption: train.wav ({reason})" in output.err
    assert "clips without a caption: 1, left out" in output.out

    status, report = score(path, "--missing", "empty")
    output = capsys.readouterr()
    assert status == 0 and report["num_clips"] == 3
    assert report["missing_captions"] == {"left_out": [], "counted_as_empty": ["train.wav"]}
    expected = compute_cider_d(["rain.wav", "dog.wav", "train.wav"], captions | {"train.wav": ""})
    assert report["scores"]["cider_d"] == expected["cider_d"]
    assert (
        f"counted as empty captions (--missing empty): 1 of 3 clips have no caption: train.wav ({reason})" in output.err
    )
    assert "clips without a caption: 1, counted as empty\n" in output.out

    assert score(path, "--missing", "error") == (2, None)
    assert f"1 of 3 clips have no caption: train.wav ({reason}); expected one" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_recording_that_succeeded_at_last_has_its_caption(score, tmp_path, capsys, suffix):
    """`enclap caption --resume` adds a row for a recording whose failure is in the file."""
    path = write_captions(tmp_path / f"captions.{suffix}", {"rain.wav": None, "dog.wav": None})
    write_captions(path, {"rain.wav": CLIPS["rain.wav"][0], "dog.wav": None, "train.wav": CLIPS["train.wav"][0]})
    status, report = score(path)
    assert status == 0 and report["num_clips"] == 2 and report["missing_captions"]["left_out"] == ["dog.wav"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_empty_caption_that_the_model_gave_counts(score, tmp_path, capsys, suffix):
    captions = {name: pair[0] for name, pair in CLIPS.items()} | {"dog.wav": ""}
    path = write_captions(tmp_path / f"captions.{suffix}", captions)
    status, report = score(path, "--missing", "error")
    assert status == 0 and report["scores"]["cider_d"] == compute_cider_d(CLIPS, captions)["cider_d"]
    assert f"1 captions of {path} are empty, and are scored as empty captions" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_of_failures_is_refused(score, tmp_path, capsys, suffix):
    assert score(write_captions(tmp_path / f"captions.{suffix}", {"rain.wav": None}), "--missing", "empty")[0] == 2
    assert "has a caption; expected one at least. The first failed with: no audio" in capsys.readouterr().err


def test_a_failed_recording_that_has_no_references_is_in_nobodys_way(score, tmp_path, capsys):
    captions = {name: pair[0] for name, pair in CLIPS.items()}
    path = write_captions(tmp_path / "captions.csv", captions | {"notes.wav": None})
    for rule, reason in (("skip", "--missing skip"), ("empty", "they have no references either")):
        status, report = score(path, "--missing", rule)
        assert status == 0 and report["num_clips"] == 3
        assert report["missing_captions"] == {"left_out": ["notes.wav"], "counted_as_empty": []}
        output = capsys.readouterr()
        assert (
            f"left out of the scores ({reason})" in output.err and "clips without a caption: 1, left out" in output.out
        )


def test_a_json_null_is_no_caption(score, tmp_path, capsys):
    rows = [{"file_name": "rain.wav", "caption": "rain"}, {"file_name": "dog.wav", "caption": None}]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    status, report = score(tmp_path / "captions.json")
    assert status == 0 and report["missing_captions"]["left_out"] == ["dog.wav", "train.wav"]
    assert "dog.wav (no caption), train.wav (no prediction)" in capsys.readouterr().err


def test_systems_are_compared_on_the_clips_that_both_have(score, tmp_path, capsys):
    captions = {name: pair[0] for name, pair in CLIPS.items()}
    first = write_captions(tmp_path / "first.csv", captions | {"dog.wav": None})
    second = write_captions(tmp_path / "second.jsonl", {"train.wav": None, "dog.wav": "x", "rain.wav": "rain"}, "sc/")
    status, report = score(first, "--compare", second)
    assert status == 0 and report["num_clips"] == 1
    assert report["missing_captions"]["left_out"] == ["dog.wav", "train.wav"]
    assert f"train.wav (in {second}: no audio)" in capsys.readouterr().err
    unknown = write_captions(tmp_path / "unknown.csv", captions | {"wind.wav": "wind"})
    assert score(first, "--compare", unknown)[0] == 2
    assert "has a prediction for 'wind.wav', which is not among the clips" in capsys.readouterr().err


def test_a_comparison_by_order_has_no_place_for_references_alone(score, tmp_path):
    captions = {name: CLIPS[name][0] for name in ("rain.wav", "dog.wav")}
    (tmp_path / "bare.csv").write_text("caption\nx\na dog is barking\n")
    status, report = score(write_captions(tmp_path / "first.csv", captions), "--compare", tmp_path / "bare.csv")
    assert status == 0 and report["num_clips"] == 2
    assert report["comparison"]["cider_d"]["other"] > 0
