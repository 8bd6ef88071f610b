"""`enclap score`: files in, table out, one clear line for what cannot be scored."""

import csv
import json
import math
import os
import random

import numpy as np
import pytest

from enclap_hf.commands.score import main
from enclap_hf.metrics import METRIC_SETS, AudioCaptioningMetrics
from enclap_hf.metrics.significance import bootstrap_interval, paired_permutation_test

CLIPS = [
    ('dog, "night".wav', "a dog barks at night", ["a dog barks", "a dog is barking, loudly"]),
    ("rain.wav", "rain falls on a roof", ["rain is falling", "heavy rain on a roof"]),
    ("train.wav", "a train passes by", ["a train is passing", "a train horn"]),
]


def write_csv(path, header, rows):
    with open(path, "w", encoding="utf-8-sig", newline="") as file:  # with the mark that spreadsheets write
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def predictions(tmp_path):
    return write_csv(tmp_path / "predictions.csv", ["file_name", "candidate"], [clip[:2] for clip in CLIPS])


@pytest.fixture
def references(tmp_path):
    rows = [[name, *captions, ""] for name, _, captions in reversed(CLIPS)]  # another order, and an empty cell
    return write_csv(tmp_path / "references.csv", ["file_name", "caption_1", "caption_2", "caption_3"], rows)


@pytest.fixture
def expected():
    return AudioCaptioningMetrics("fast").compute([clip[1] for clip in CLIPS], [clip[2] for clip in CLIPS])


def test_the_table_and_the_files_hold_the_scores(predictions, references, expected, tmp_path, capsys):
    outputs = ["--output", str(tmp_path / "scores.json"), "--per-clip", str(tmp_path / "clips.csv")]
    assert main([predictions, "--references", references, "--metrics", "fast", *outputs]) == 0
    table = capsys.readouterr().out
    assert "3 clips, 6 references, metrics: fast" in table and f"{expected['cider_d']:.4f}" in table
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["scores"] == expected.corpus and report["num_clips"] == 3 and report["missing"] == {}
    with open(tmp_path / "clips.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [clip[0] for clip in CLIPS]
    assert [float(row["cider_d"]) for row in rows] == expected.per_clip["cider_d"]


def test_all_forms_of_input_give_the_same_scores(predictions, references, expected, tmp_path):
    def score(*arguments):
        output = tmp_path / "scores.json"
        assert main([*map(str, arguments), "--metrics", "cider_d", "--output", str(output)]) == 0
        return json.loads(output.read_text())["scores"]["cider_d"]

    lines = [json.dumps({"file": name, "prediction": text, "references": refs}) for name, text, refs in CLIPS]
    (tmp_path / "one.jsonl").write_text("\n".join(lines) + "\n\n")
    (tmp_path / "one.json").write_text("[" + ",".join(lines) + "]")
    rows = [[text, *refs] for _, text, refs in CLIPS]
    write_csv(tmp_path / "one.csv", ["text", "caption_1", "caption_2"], rows)
    pairs = [[name, text] for name, _, refs in CLIPS for text in refs]
    write_csv(tmp_path / "pairs.csv", ["file_name", "caption"], pairs)  # a reference a row, as AudioCaps has them
    results = [
        score(predictions, "--references", references),
        score(tmp_path / "one.jsonl"),
        score(tmp_path / "one.json"),
        score(tmp_path / "one.csv"),
        score(predictions, "--references", tmp_path / "pairs.csv"),
    ]
    assert results == [expected["cider_d"]] * 5


def test_reference_clips_without_a_prediction_are_counted(predictions, tmp_path, capsys):
    rows = [[name, *captions] for name, _, captions in CLIPS] + [["other.wav", "x", "y"]]
    path = write_csv(tmp_path / "more.csv", ["file_name", "caption_1", "caption_2"], rows)
    assert main([predictions, "--references", path, "--metrics", "fast"]) == 0
    output = capsys.readouterr()
    assert (
        "left out of the scores (--missing skip): 1 of 4 clips have no caption: other.wav (no prediction)" in output.err
    )
    assert "3 clips, 6 references" in output.out and "clips without a caption: 1, left out" in output.out


def test_what_is_left_out_is_said_on_the_error_stream(predictions, references, monkeypatch, capsys, caplog):
    monkeypatch.setenv("ENCLAP_JAVA", "no-such-java")
    assert main([predictions, "--references", references]) == 0
    output = capsys.readouterr()
    assert all(name in output.out for name in ("metrics: standard", "bleu_4", "rouge_l", "cider_d"))
    assert "meteor" not in output.out and output.err.count("left out") == 3, "meteor, spice and spider, once each"
    assert not caplog.records, "a program's log goes to the terminal, too"
    assert (
        "left out: meteor: `ENCLAP_JAVA` is 'no-such-java'" in output.err
        and "left out: spider: needs spice" in output.err
    )
    assert main([predictions, "--references", references, "--metrics", "meteor"]) == 1


def test_intervals_and_a_comparison_are_printed(predictions, references, tmp_path, capsys):
    other = write_csv(tmp_path / "other.csv", ["file", "caption"], [[clip[0], "a dog"] for clip in reversed(CLIPS)])
    arguments = [predictions, "--references", references, "--metrics", "fast", "--compare", other, "--bootstrap", "200"]
    assert main([*arguments, "--output", str(tmp_path / "scores.json")]) == 0
    first = capsys.readouterr().out
    report = json.loads((tmp_path / "scores.json").read_text())
    low, high = report["intervals"]["cider_d"]
    assert low <= report["scores"]["cider_d"] <= high and "bleu_4" not in report["intervals"]
    row = report["comparison"]["cider_d"]
    assert row["mean_difference"] == pytest.approx(row["score"] - row["other"]) and 0 < row["p"] <= 1
    assert "compared with" in first and "permutation" in first
    assert main([*arguments]) == 0
    assert capsys.readouterr().out == first, "the same command prints the same digits"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "x", "expected a file that ends in .csv, .tsv, .json, .jsonl"),
        ("p.csv", "", "has no rows"),
        ("p.csv", "file_name,candidate\n", "has no rows"),
        ("p.csv", "file_name,words\na.wav,x\n", "got the columns file_name, words; expected a caption"),
        ("p.csv", "file_name,candidate\na.wav,x, y\n", "p.csv, line 2: more cells than the header has"),
        ("p.csv", "file_name,candidate\na.wav,x\na.wav,y\n", "two predictions for 'a.wav'"),
        ("p.csv", "file_name,candidate\na.wav,x\n", "no references for a clip"),
        ("p.csv", "file_name,caption_1\na.wav,x\n", "has a caption; expected one in a column of"),
        ("p.csv", b"file_name,candidate\na.wav,\xff\xfe\n", "not utf-8 text"),
        ("p.jsonl", '{"file": 1\n', "line 1: not JSON"),
        ("p.jsonl", "[1]\n", "got a list; expected an object"),
        ("p.jsonl", '{"file": "a", "candidate": 3}\n', "got 3 where a caption should be"),
        (
            "p.jsonl",
            '{"file": "a", "candidate": null, "references": ["x"]}\n',
            "has a caption; expected one in a column of",
        ),
        ("p.json", '{"file": "a"}', "expected a list, or `data` with a list"),
    ],
)
def test_bad_files_get_one_clear_line_and_status_2(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([str(tmp_path / name), "--metrics", "fast"]) == 2
    line = capsys.readouterr().err
    assert message in line and line.startswith("enclap score: ") and line.count("\n") == 1


def test_bad_arguments_get_status_2(predictions, references, tmp_path, capsys):
    few = write_csv(tmp_path / "few.csv", ["file", "caption"], [["rain.wav", "x"]])
    for arguments, message in [
        (["--metrics", "best"], "expected a set (standard, paper, dcase2023, dcase2024, fast, all)"),
        (["--bootstrap", "-1"], "expected 0 for none"),
        (["--references", str(tmp_path / "nothing.csv")], "No such file"),
        (
            ["--missing", "error", "--compare", few],
            '2 of 3 clips have no caption: dog, "night".wav (in ' + few + ": no prediction)",
        ),
        (["--compare", write_csv(tmp_path / "bare.csv", ["caption"], [["x"]])], "Got 3 predictions and 1 lines of"),
    ]:
        assert main([predictions, "--references", references, "--metrics", "fast", *arguments]) == 2
        assert message in capsys.readouterr().err
    few = write_csv(tmp_path / "few_references.csv", ["file_name", "caption_1"], [["rain.wav", "x"]])
    assert main([predictions, "--references", few, "--metrics", "fast"]) == 2
    assert "Got no references for 'dog, \"night\".wav'" in capsys.readouterr().err


# --- outputs and the help ---


@pytest.mark.parametrize("option", ["--per-clip", "--output"])
def test_outputs_are_checked_before_anything_is_scored(predictions, references, tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr(AudioCaptioningMetrics, "compute", lambda *_: pytest.fail("scored"))
    other = {"--per-clip": "--output", "--output": "--per-clip"}[option]
    same = str(tmp_path / "same.csv")
    for arguments, message in [
        ([option, str(tmp_path / "no" / "out.csv")], f"does not exist; make it first: mkdir -p {tmp_path / 'no'}"),
        ([option, str(tmp_path)], "cannot be written"),
        ([option, predictions], "another argument names too"),
        ([option, references], "another argument names too"),
        ([option, same, other, same], "another argument names too"),
    ]:
        assert main([predictions, "--references", references, *arguments]) == 2
        line = capsys.readouterr().err
        assert message in line and line.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(predictions, references, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main([predictions, "--references", references, "--output", str(tmp_path / "locked" / "s.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_help_says_the_default_and_what_the_sets_hold(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "(default: standard)" in text and "(default: skip)" in text
    for name, metrics in METRIC_SETS.items():
        assert f"{name} {', '.join(metrics)}" in text


def test_sets_and_metrics_may_be_listed_together(predictions, references, tmp_path):
    output = tmp_path / "scores.json"
    arguments = ["--references", references, "--output", str(output)]
    assert main([predictions, *arguments, "--metrics", "cider_d, fast"]) == 0
    assert tuple(json.loads(output.read_text())["scores"]) == METRIC_SETS["fast"]


# --- the statistics ---


def test_the_bootstrap_interval_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(0.3, 0.1, 2000)
    low, high = bootstrap_interval(values, 4000)
    half_width = 1.96 * values.std() / math.sqrt(2000)
    # 4000 draws place the ends to about 5 % of the width.
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)
    assert bootstrap_interval([0.5], 10) == (0.5, 0.5)


def test_the_permutation_test_agrees_with_all_permutations():
    differences = [0.3, -0.1, 0.4, 0.2, 0.1, -0.05, 0.25, 0.15]
    sums = [sum(d if bits >> i & 1 else -d for i, d in enumerate(differences)) for bits in range(2 ** len(differences))]
    exact = sum(abs(total) >= abs(sum(differences)) - 1e-12 for total in sums) / len(sums)
    p = paired_permutation_test(differences, [0.0] * len(differences), 20_000)
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))  # four standard errors
    assert paired_permutation_test([1.0, 2.0], [1.0, 2.0], 100) == 1.0
    rng = random.Random(0)
    better = [rng.random() for _ in range(200)]
    assert paired_permutation_test(better, [value - 0.1 for value in better], 999) == pytest.approx(0.001)


@pytest.mark.parametrize(("scores", "samples"), [([], 10), ([1.0], 0)])
def test_statistics_of_nothing_are_refused(scores, samples):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(scores, samples)
    with pytest.raises(ValueError, match="expected"):
        paired_permutation_test(scores, scores, samples)
