"""What is printed cannot command a terminal or break a line, and what is written keeps exact names unless asked."""

import csv
import os
import sys
from pathlib import Path

import pytest
import soundfile

import caption_runs
from caption_runs import RATE, read_rows, run
from conftest import make_clip
from enclap_hf.commands.caption_rows import remove_escape
from enclap_hf.commands.terminal_text import escape_controls
from enclap_hf.data.score_digits import count_digits

captioner, load_once = caption_runs.captioner, caption_runs.load_once


@pytest.fixture
def name_recording(tmp_path, monkeypatch):
    """A function that makes a recording of some name in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, seed: int = 0) -> str:
        soundfile.write("z.tmp", make_clip(0.3, seed), RATE, format="WAV", subtype="FLOAT")
        os.rename("z.tmp", name)
        return name

    return make


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rain on a roof.wav", "rain on a roof.wav"),
        ("Käuzchen 東京\u3000\u00a0é e\u0301 👩\u200d🎤.wav", "Käuzchen 東京\u3000\u00a0é e\u0301 👩\u200d🎤.wav"),
        ("\x1b]0;owned\x07\x1b[31mred", r"\x1b]0;owned\x07\x1b[31mred"),
        ("a\nb\rc\td\x00\x7f\x9b", r"a\nb\rc\td\x00\x7f\x9b"),
        ("line\u2028page\u2029next\u0085", r"line\u2028page\u2029next\x85"),
        ("photo\u202egnp.wav", r"photo\u202egnp.wav"),
        ("lone \udcff\ud800", r"lone \udcff\ud800"),
        (r"C:\music\new.wav", r"C:\music\new.wav"),
    ],
)
def test_controls_are_shown_and_letters_of_any_script_stay(text, shown):
    assert escape_controls(text) == shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("name", ["\x1b[2Jgone.wav", "two\nlines.wav", "a\rb.wav", "tab\tbed.wav", "\u202evaw.a"])
def test_a_name_that_would_command_the_terminal_is_printed_escaped_and_written_exactly(
    capsys, name_recording, captioner, extension, name
):
    """Names went to the terminal as they are, escape sequences and all."""
    name_recording(name)
    Path(f"{name}.wav").touch()  # one that fails
    status, out, err = run(capsys, name, f"{name}.wav")
    assert status == 1 and len(out) == 1 and out[0].startswith(escape_controls(name) + "\t")
    assert len(err) == 1 and escape_controls(name) in err[0]
    assert not set("\x1b\n\r\u202e") & set("".join(out + err))
    output = f"captions.{extension}"
    assert run(capsys, name, f"{name}.wav", "--output", output)[0] == 1
    rows = read_rows(output)
    assert [row["file_name"] for row in rows] == [name, f"{name}.wav"]
    assert rows[0]["caption"] == captioner(name)["text"]
    whole = Path(output).read_bytes()
    assert "1 of 1" in run(capsys, name, "--output", output, "--resume")[2][0]
    assert Path(output).read_bytes() == whole


def test_a_message_about_a_model_is_one_line_without_controls(capsys, name_recording, monkeypatch):
    from enclap_hf.commands import caption, captioner_loading

    monkeypatch.setattr(caption, "find_model", captioner_loading.find_model)
    os.mkdir("model")
    Path("model/config.json").write_text('{"model_type": "\\u001b[31mred\\nline"}')
    status, out, err = run(capsys, name_recording("a.wav"), "--model", "model")
    assert status == 2 and out == [] and len(err) == 1 and r"\x1b[31mred line" in err[0]


def test_spaces_in_a_name_survive_its_message(capsys, name_recording):
    for name in ("two  spaces.wav", "東\u3000京.wav", "no\u00a0break.wav"):
        Path(name).touch()
        assert f"`{name}`" in run(capsys, name)[2][0].replace("\\xa0", "\u00a0").replace("\\u3000", "\u3000")


# Formulas


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_formulas_are_kept_from_spreadsheets_where_asked(capsys, name_recording, captioner, monkeypatch):
    names = ["=1+1.wav", "+a.wav", "-b.wav", "@c.wav", "\td.wav", "plain.wav", "'quoted.wav"]
    for i, name in enumerate(names):
        name_recording(name, i)
    folder = os.getcwd()
    assert run(capsys, folder, "--output", "plain.csv")[0] == 0
    assert {row["file_name"] for row in read_rows("plain.csv")} == {os.path.join(folder, name) for name in names}
    monkeypatch.setattr(captioner, "postprocess", lambda outputs: {"text": "=HYPERLINK()"})
    assert run(capsys, ".", "--output", "safe.csv", "--escape-formulas")[0] == 0
    rows = read_rows("safe.csv")
    assert {row["file_name"] for row in rows} == {
        *("'=1+1.wav", "'+a.wav", "'-b.wav", "'@c.wav", "'\td.wav"),
        *("plain.wav", "'quoted.wav"),
    }
    assert {row["caption"] for row in rows} == {"'=HYPERLINK()"}
    assert {remove_escape(row["file_name"], folder) for row in rows} == set(names)
    whole = Path("safe.csv").read_bytes()
    status, _, err = run(capsys, ".", "--output", "safe.csv", "--escape-formulas", "--resume")
    assert status == 0 and "7 of 7" in err[0] and Path("safe.csv").read_bytes() == whole
    status, _, err = run(capsys, ".", "--output", "safe.csv", "--resume")
    assert status == 2 and "--escape-formulas was true and is false" in err[0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_a_file_whose_name_is_another_ones_escaped_name_stays_apart(capsys, name_recording, captioner):
    captions = {name: captioner(name_recording(name, i))["text"] for i, name in enumerate(("=x.wav", "'=x.wav"))}
    assert captions["=x.wav"] != captions["'=x.wav"]
    for _ in range(2):
        assert run(capsys, *captions, "--output", "safe.csv", "--escape-formulas", "--resume")[0] == 0
    rows = read_rows("safe.csv")
    assert {row["file_name"] for row in rows} == {"./=x.wav", "'=x.wav"} and len(rows) == 2
    assert all(row["caption"].removeprefix("'") == captions[row["file_name"].removeprefix("./")] for row in rows)


@pytest.mark.parametrize("arguments", [["--escape-formulas"], ["--escape-formulas", "--output", "a.jsonl"]])
def test_escaping_is_for_csv_alone(capsys, name_recording, arguments):
    status, _, err = run(capsys, name_recording("a.wav"), *arguments)
    assert status == 2 and len(err) == 1 and "--escape-formulas" in err[0]


# Scores


@pytest.mark.parametrize(
    ("scores", "fewest", "digits"),
    [
        ([-0.5, -0.6], 3, 3),
        ([-0.50001, -0.50002], 3, 5),
        ([-0.5, -0.5], 3, 3),
        ([], 6, 6),
        ([-1.2345678, -1.2345679], 6, 7),
        ([-1.0, -1.00000000001], 3, 9),
    ],
)
def test_as_many_digits_as_keep_scores_apart(scores, fewest, digits):
    assert count_digits(scores, fewest) == digits


def test_n_best_scores_are_printed_so_that_their_order_shows(capsys, name_recording, captioner, monkeypatch):
    """With three decimals, captions of unlike scores looked equal."""
    results = [{"text": "a", "score": -0.50001}, {"text": "b", "score": -0.50002}]
    monkeypatch.setattr(captioner, "postprocess", lambda outputs: results)
    name = name_recording("a.wav")
    assert run(capsys, name, "--num-return-sequences", "2")[1] == ["a.wav\t-0.50001\ta", "a.wav\t-0.50002\tb"]
    close = [{"text": "a", "score": -0.50000012}, {"text": "b", "score": -0.50000018}]
    monkeypatch.setattr(captioner, "postprocess", lambda outputs: close)
    run(capsys, name, "--num-return-sequences", "2", "--output", "scores.csv")
    with open("scores.csv", newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [-0.5000001, -0.5000002]
    one = {"text": "a", "score": -0.25}
    monkeypatch.setattr(captioner, "postprocess", lambda outputs: one)
    assert run(capsys, name)[1] == ["a.wav\ta"]
    run(capsys, name, "--output", "one.jsonl")
    assert read_rows("one.jsonl") == [
        {"file_name": "a.wav", "start_s": 0.0, "end_s": 0.3, "duration_s": 0.3, "caption": "a", "score": -0.25}
        | {"silent": False}
    ]


# Quiet


def test_quiet_says_nothing_but_errors(capsys, name_recording):
    good, bad = name_recording("a.wav"), "bad.wav"
    Path(bad).touch()
    assert run(capsys, good, "--quiet", "--output", "a.csv") == (0, [], [])
    assert run(capsys, good, "-q", "--output", "a.csv", "--resume") == (0, [], [])
    status, out, err = run(capsys, good, bad, "-q", "--output", "a.csv", "--resume")
    assert status == 1 and len(err) == 1 and bad in err[0]
