"""Every sub-command of `enclap` explains itself, and `enclap scenes` writes scenes."""

import csv
import re
import shlex

import pytest

from enclap_hf.cli import build_parser, main
from enclap_hf.sound_scenes import write_scenes


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, and what is on the terminal and on the error stream."""
    try:
        status = main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], "COMMAND"),
        (["caption"], "examples:"),
        (["score"], "--references"),
        (["scenes"], "--num-scenes"),
        (["convert"], "--encodec"),
        (["export"], "--quantize"),
        (["push"], "OWNER/NAME"),
        (["demo"], "usage: enclap demo"),
        (["info"], "--json"),
        (["completion"], "fish"),
    ],
)
def test_every_command_has_a_help(capsys, command, said):
    status, out, err = run(capsys, *command, "--help")
    assert status == 0 and err == "" and said in out and out.startswith(" ".join(["usage: enclap", *command]))
    assert "Exit status: 0 done, 1 some inputs failed, 2 " in out


@pytest.mark.parametrize("command", ["caption", "scenes", "convert", "push", "demo", "info"])
def test_every_example_of_a_help_is_a_command_that_parses(capsys, command):
    text = run(capsys, command, "--help")[1]
    examples = re.sub(r"\\\n\s*", " ", text).split("examples:")[1].splitlines()
    commands = [line.strip().split("   ")[0] for line in examples if line.strip().startswith("enclap ")]
    assert len(commands) >= 2
    for line in commands:
        if "..." not in line:
            args = build_parser().parse_args(shlex.split(line)[1:])
            assert args.run.__name__ == f"run_{command}"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["caption", "a.wav"], "nothing was written to a file."),
        (["caption", "a.wav", "--output", "no.csv"], "nothing was written to a file."),
        (["caption", "a.wav", "--output", "there.csv"], "the rows in there.csv are kept; --resume goes on with it."),
        (["scenes", "--output", "s", "--num-scenes", "1"], "the scenes in s/audio are kept"),
        (["push", "folder", "me/x"], "the Hub had confirmed no commit, so me/x is as it was"),
        (["demo"], "the page is closed."),
    ],
)
def test_an_interruption_says_what_it_has_left(capsys, tmp_path, monkeypatch, command, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").touch()

    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"enclap_hf.commands.{command[0]}.run_{command[0]}", interrupt)
    status, out, err = run(capsys, *command)
    assert (status, out) == (130, "") and err.startswith(f"\nenclap: interrupted; {said}") and err.count("\n") == 2


def test_the_version_is_told(capsys):
    assert run(capsys, "--version")[1].startswith("enclap-hf ")


def test_scenes_are_written_with_options_in_any_order(capsys, tmp_path):
    """A leading option used to be refused as unknown."""
    folder = tmp_path / "scenes"
    status, out, _ = run(
        capsys, "scenes", "--output", str(folder), "--num-scenes", "2", "--num-events", "1", "--first-seed", "5"
    )
    assert status == 0 and out == f"Wrote 2 scenes to {folder}: audio/, captions.csv and events.jsonl.\n"
    write_scenes(tmp_path / "same", 2, 5, num_events=1, show_progress=False)
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    for name in ("captions.csv", "events.jsonl", *(f"audio/{name}" for name in names)):
        assert (folder / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num-scenes", "0"], "argument --num-scenes: got '0'; expected a whole number of at least 1"),
        (["--num-scenes", "2", "--num-workers", "0"], "argument --num-workers: got '0'"),
        (["--num-scenes", "2", "--first-seed", "-1"], "argument --first-seed: got '-1'"),
        (["--num-scenes", "2", "--num-events", "4"], "--num-events"),
        (["--num-scenes", "2", "--num-events", "1", "--relation", "then"], "enclap scenes: Got `relation` 'then'"),
    ],
)
def test_scenes_that_cannot_be_made_are_refused_in_one_line(capsys, tmp_path, arguments, said):
    status, out, err = run(capsys, "scenes", "--output", str(tmp_path / "scenes"), *arguments)
    assert status == 2 and out == "" and said in err.splitlines()[-1]
    assert not (tmp_path / "scenes").exists()


def test_a_request_that_cannot_be_met_leaves_the_scenes_that_are_there(tmp_path):
    write_scenes(tmp_path, 1, show_progress=False)
    whole = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(ValueError, match="one event only"):
        write_scenes(tmp_path, 1, show_progress=False, num_events=2, relation="single")
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == whole


def test_an_output_that_is_a_file_is_said_in_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = run(capsys, "scenes", "--output", str(tmp_path / "file"), "--num-scenes", "1")
    assert status == 2 and len(err.splitlines()) == 1 and str(tmp_path / "file") in err
