"""`enclap caption --rerank`, `--min-confidence`: the pipeline's choice, in rows, and refusals of one line."""

import pytest
from transformers import pipeline

import caption_runs
from caption_runs import read_rows, run
from clap_text_models import build_processor_with_text
from conftest import build_model

load_once, recordings = caption_runs.load_once, caption_runs.recordings
CHOICE = ("--num-candidates", "6", "--rerank", "clap=0.5,consensus=0.5", "--seed", "3")


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    build_processor_with_text().save_pretrained(folder)
    return pipeline("audio-captioning", model=folder, device="cpu")


def test_rows_hold_the_choice_of_the_pipeline_and_its_confidence(capsys, captioner, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    status, _, _ = run(capsys, recordings, "--output", str(output), *CHOICE)
    rows = read_rows(output)
    assert status == 0 and len(rows) == 3
    for row in rows:
        path = str(tmp_path / row["file_name"])
        expected = captioner(path, num_candidates=6, rerank={"clap": 1, "consensus": 1}, seed=3)
        assert row["caption"] == expected["text"]
        assert float(row["confidence"]) == pytest.approx(expected["confidence"], abs=1e-5)
        assert float(row["score"]) == pytest.approx(expected["score"], abs=1e-4)


def test_captions_of_too_little_confidence_are_left_out_and_not_tried_again(capsys, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    options = (recordings, "--output", str(output), "--min-confidence", "1", "--num-return-sequences", "2")
    status, _, errors = run(capsys, *options)
    rows = read_rows(output)
    assert status == 0 and [row["caption"] for row in rows] == ["", "", ""]
    assert all(row["silent"] == "false" and -1 <= float(row["confidence"]) < 1 for row in rows)
    assert any("3 recordings got no caption, for want of one with a confidence of at least 1." in e for e in errors)
    status, _, errors = run(capsys, *options, "--resume")
    assert status == 0 and any("3 of 3 recordings are captioned already" in line for line in errors)
    status, _, errors = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 2 and "--min-confidence was 1.0 and is none" in errors[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rerank", "clip"), "--rerank 'clip'; expected 'clap', 'consensus', 'likelihood'"),
        (("--rerank", "clap=0"), "without a weight above 0"),
        (("--rerank", "clap=a"), "expected a name, or names with weights such as clap=0.6,consensus=0.4"),
        (("--num-candidates", "1"), "--num-candidates 1; expected a whole number of at least 2"),
        (("--num-candidates", "4", "--num-beams", "4"), "--num-beams beside candidates"),
        (("--min-confidence", "2"), "got '2'; expected a number from -1 to 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(capsys, recordings, arguments, message):
    status, lines, errors = run(capsys, recordings, *arguments)
    assert status == 2 and lines == []
    assert message in errors[-1]
