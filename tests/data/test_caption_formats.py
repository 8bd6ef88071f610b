"""Every caption format is read back by a parser of other people, hostile texts and all."""

import csv
import html
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas
import pysubs2
import pytest
import webvtt

from enclap_hf.data.caption_formats import FORMATS
from enclap_hf.data.table_files import read_table
from enclap_hf.data.table_formats import COLUMNS

HOSTILE = {
    "two lines": "a dog barks\n\n2\n00:00:00,000 --> 00:00:09,000\nand howls",
    "carriage return": "a dog\r\nbarks\rand howls\x0b\x0ctwice",
    "unicode line ends": "a dog\u2028barks\u2029and\x85howls",
    "tabs": "\ta dog\tbarks\t",
    "quotes": '"a ""dog" barks, \'twice\'"',
    "arrow": "left --> right -->",
    "tags": "<b>a</b> <i dog <font color=red>barks</font></i> < 3 > 2",
    "overrides": r"{\an8}a dog{\b1} barks\Ntwice\h{y:i}",
    "entities": "&lt;b&gt; a dog &amp; a cat &nbsp; & rain",
    "mark": "\ufeffa dog\ufeff barks",
    "controls": "a dog\x00\x1b[31m barks\x7f",
    "emoji": "🐕 barks, \U0001f469\u200d\U0001f4bb types; ein Hund bellt: 犬が吠える",
    "surrogate": "a dog \ud83d barks",
    "note": "NOTE this is no remark",
    "formula": "=1+1",
    "header": "WEBVTT",
    "number": "17",
    "comment": "# rain",
}
# What the formats of cues make of a text, told in another way than they do it.
SPACES = re.compile("[\t\n\x0b\x0c\r\x1c-\x1f \x85\xa0\u2028\u2029\x00\x1b\x7f]+")
LOOK_ALIKES = {"＜": "<", "＞": ">", "｛": "{", "｝": "}", "＼": "\\", "：": ":"}


def plain(text: str) -> str:
    return SPACES.sub(" ", text.replace("\ufeff", "").replace("\ud83d", "\\ud83d")).strip(" ")


def make_row(caption="a dog barks", start_s=0.0, end_s=10.0, **others) -> dict:
    row = {"file_name": "day.wav", "start_s": start_s, "end_s": end_s, "duration_s": 60.0, "caption": caption}
    return {**row, "score": -0.25, "silent": False, **others}


HOSTILE_ROWS = [make_row(text, 2.5 * i, 2.5 * i + 2.5) for i, text in enumerate(HOSTILE.values())]
EXPECTED = [(row["start_s"], row["end_s"], plain(row["caption"])) for row in HOSTILE_ROWS]
MIXED_ROWS = [
    make_row(end_s=10.0),
    make_row("a cat meows", end_s=10.0, score=-0.5),  # the second best of the same stretch
    make_row("", 10.0, 20.0, silent=True, score=None),
    {"file_name": "day.wav", "start_s": 20.0, "end_s": 30.0, "duration_s": 60.0, "error": "damaged at 20 s."},
    make_row("rain falls", 30.0, 40.5),
]
CUES = [(0.0, 10.0, "a dog barks"), (30.0, 40.5, "rain falls")]


def write_file(folder: Path, name: str, rows: list[dict]) -> Path:
    made = FORMATS[name]
    path = folder / f"captions{made.suffix}"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = made(file)
        for row in rows:
            writer.write(row)
        writer.close()
        assert not file.closed
    return path


def read_srt(path: Path) -> list[tuple]:
    """As pysubs2 reads it, which takes tags and overrides out of a text."""
    events = pysubs2.load(str(path), encoding="utf-8")
    assert all(not re.search(r"\{|<[a-zA-Z/]", event.text) for event in events)
    by_webvtt = [(c.start_in_seconds, c.end_in_seconds) for c in webvtt.from_srt(path)]
    assert by_webvtt == [(event.start // 1000, event.end // 1000) for event in events]
    return [(event.start / 1000, event.end / 1000, restore(event.plaintext)) for event in events]


def restore(text: str) -> str:
    for wide, narrow in LOOK_ALIKES.items():
        text = text.replace(wide, narrow)
    return text


def read_vtt(path: Path) -> list[tuple]:
    return [
        (cue.start_time.in_milliseconds() / 1000, cue.end_time.in_milliseconds() / 1000, html.unescape(cue.raw_text))
        for cue in webvtt.read(path, strict=True)
    ]


def read_tsv(path: Path) -> list[tuple]:
    table = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype={"text": str}, keep_default_na=False)
    assert list(table) == ["start", "end", "text"] and table["start"].dtype == table["end"].dtype == np.int64
    return [(start / 1000, end / 1000, text) for start, end, text in table.itertuples(index=False)]


def read_audacity(path: Path) -> list[tuple]:
    table = pandas.read_csv(path, sep="\t", header=None, quoting=csv.QUOTE_NONE, dtype={2: str}, keep_default_na=False)
    assert all(re.fullmatch(r"\d+\.\d{6}\t\d+\.\d{6}\t.+", line) for line in path.read_text("utf-8").splitlines())
    return list(table.itertuples(index=False, name=None))


def read_raven(path: Path) -> list[tuple]:
    table = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype={"Annotation": str}, keep_default_na=False)
    assert list(table["Selection"]) == list(range(1, len(table) + 1))
    assert set(table["View"]) == {"Spectrogram 1"} and set(table["Channel"]) == {1}
    assert (table["Low Freq (Hz)"] < table["High Freq (Hz)"]).all()
    return list(table[["Begin Time (s)", "End Time (s)", "Annotation"]].itertuples(index=False, name=None))


READERS = {"srt": read_srt, "vtt": read_vtt, "tsv": read_tsv, "audacity": read_audacity, "raven": read_raven}
TABLE_READERS = {
    "csv": lambda path: pandas.read_csv(path, dtype={"caption": str}),
    "json": pandas.read_json,
    "jsonl": lambda path: pandas.read_json(path, lines=True),
}


def test_the_formats_are_those_of_the_command():
    names = ["txt", "srt", "vtt", "tsv", "json", "jsonl", "csv", "audacity", "raven"]
    assert list(FORMATS) == names and set(READERS) | set(TABLE_READERS) | {"txt"} == set(names)
    assert {name for name in names if FORMATS[name].has_file_column} == {"csv", "json", "jsonl", "raven"}
    assert all(made.name == name for name, made in FORMATS.items())
    assert len({made.suffix for made in FORMATS.values()}) == len(names), "files of all formats lie in one folder"


# Cues


@pytest.mark.parametrize("name", READERS)
def test_hostile_texts_come_back_whole_and_alone(name, tmp_path):
    assert READERS[name](write_file(tmp_path, name, HOSTILE_ROWS)) == EXPECTED


@pytest.mark.parametrize("name", READERS)
def test_cues_leave_out_silence_failures_and_all_but_the_best_caption(name, tmp_path):
    assert READERS[name](write_file(tmp_path, name, MIXED_ROWS)) == CUES


def test_plain_text_is_a_caption_a_line(tmp_path):
    captions = [text for _, _, text in EXPECTED]
    assert write_file(tmp_path, "txt", HOSTILE_ROWS).read_text("utf-8").split("\n") == [*captions, ""]
    assert write_file(tmp_path, "txt", MIXED_ROWS).read_text("utf-8") == "a dog barks\nrain falls\n"
    whole = make_row(start_s=None, end_s=None, duration_s=None)
    assert write_file(tmp_path, "txt", [whole, whole]).read_text("utf-8") == "a dog barks\n"


@pytest.mark.parametrize("name", READERS)
def test_rounded_cues_neither_invert_nor_overlap(name, tmp_path):
    """Cues of any length, down to one of a sample, at a rate that no unit of time divides."""
    rng = np.random.default_rng(0)
    bounds = np.cumsum(rng.choice([1, 2, 7, 22, 23, 44, 45, 400_001], 1000)) / 44_100
    rows = [make_row(start_s=start, end_s=end) for start, end in zip(bounds, bounds[1:], strict=False)]
    cues = READERS[name](write_file(tmp_path, name, rows))
    starts, ends = np.array([cue[0] for cue in cues]), np.array([cue[1] for cue in cues])
    assert len(cues) == 999 and (starts < ends).all() and (ends[:-1] <= starts[1:]).all()
    slack = 0.5 / FORMATS[name].ticks_per_s
    long = np.diff(bounds) > 9  # of short ones in a row, each may be a tick late
    assert (np.abs(ends - bounds[1:])[long] <= slack + 1e-9).all()


def test_cues_that_really_overlap_stay_as_they_are(tmp_path):
    rows = [make_row(start_s=0, end_s=10), make_row("rain", 5, 15), make_row("wind", 15, 20)]
    assert [cue[:2] for cue in read_vtt(write_file(tmp_path, "vtt", rows))] == [(0, 10), (5, 15), (15, 20)]


def test_hours_above_99_are_written_and_read(tmp_path):
    rows = [make_row(start_s=100 * 3600 + 62.003, end_s=1234 * 3600 + 59.9996)]
    lines = write_file(tmp_path, "srt", rows).read_text("utf-8").split("\n")
    assert lines == ["1", "100:01:02,003 --> 1234:01:00,000", "a dog barks", "", ""]
    cue = webvtt.from_srt(tmp_path / "captions.srt")[0]
    assert cue.start_time.in_milliseconds() == 360_062_003
    assert read_vtt(write_file(tmp_path, "vtt", rows)) == [(360_062.003, 4_442_460.0, "a dog barks")]


def test_the_times_of_a_day_are_exact_to_a_sample(tmp_path):
    samples = np.arange(0, 24 * 3600 * 48_000, 480_001)
    rows = [make_row(start_s=s / 48_000, end_s=(s + 480_001) / 48_000) for s in samples.tolist()]
    for name in ("audacity", "raven"):
        starts = [cue[0] for cue in READERS[name](write_file(tmp_path, name, rows))]
        assert np.array_equal(np.round(np.array(starts) * 48_000), samples)


@pytest.mark.parametrize("name", READERS)
def test_times_that_no_cue_can_have_are_refused(name):
    writer = FORMATS[name](io.StringIO())
    with pytest.raises(ValueError, match=f"{name} needs the times .* `day.wav` came without; write csv"):
        writer.write(make_row(end_s=None))
    for start_s, end_s in ((5.0, 3.0), (-1.0, 3.0), (0.0, math.inf), (math.nan, 3.0)):
        with pytest.raises(ValueError, match=f"`day.wav` from {start_s} to {end_s} s; expected"):
            writer.write(make_row(start_s=start_s, end_s=end_s))


def test_raven_places_recordings_one_behind_the_other(tmp_path):
    rows = [
        make_row(file_name="x/a.wav", duration_s=12.5),
        make_row("", 10.0, 12.5, file_name="x/a.wav", duration_s=12.5, silent=True),
        make_row("", 0.0, 7.0, file_name="b.wav", duration_s=None, silent=True),
        make_row("rain\tfalls", 1.0, 2.0, file_name='"c\t\udcff.wav', duration_s=30.0),
    ]
    path = write_file(tmp_path, "raven", rows)
    table = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE)
    assert list(table["Begin Time (s)"]) == [0, 20.5] and list(table["End Time (s)"]) == [10, 21.5]
    assert list(table["File Offset (s)"]) == [0, 1]
    assert list(table["Begin File"]) == ["a.wav", '"c \\udcff.wav']
    assert list(table["Begin Path"]) == ["x/a.wav", '"c \\udcff.wav']
    with pytest.raises(ValueError, match="`x/a.wav` before and after those of another"):
        write_file(tmp_path, "raven", [*rows, rows[0]])


# Tables


@pytest.mark.parametrize("name", TABLE_READERS)
def test_tables_keep_texts_as_they_are(name, tmp_path):
    path = write_file(tmp_path, name, HOSTILE_ROWS)
    texts = [text.replace("\ud83d", "\\ud83d") for text in HOSTILE.values()]
    if name != "csv":  # pandas ends a cell of csv at NUL
        assert list(TABLE_READERS[name](path)["caption"].astype(str)) == texts
    with open(path, encoding="utf-8", newline="") as file:
        readers = {"csv": csv.DictReader, "json": json.load, "jsonl": lambda f: map(json.loads, f.read().splitlines())}
        assert [row["caption"] for row in readers[name](file)] == texts


@pytest.mark.parametrize("name", TABLE_READERS)
def test_tables_have_a_row_for_everything(name, tmp_path):
    path = write_file(tmp_path, name, MIXED_ROWS)
    table = TABLE_READERS[name](path)
    columns = [column for column in COLUMNS if name == "csv" or column != "confidence"]  # which no row here has
    assert list(table) == columns and len(table) == 5
    assert list(table["start_s"]) == [0, 0, 10, 20, 30] and list(table["end_s"]) == [10, 10, 20, 30, 40.5]
    assert list(table["error"])[3] == "damaged at 20 s." and table["error"].isna().sum() == 4
    assert list(table["silent"])[:3] == [False, False, True]
    assert table["score"].isna().sum() == 2 and list(table["caption"])[4] == "rain falls"
    assert len(read_table(path).rows) == 5, "the package reads its own tables"


@pytest.mark.parametrize("name", TABLE_READERS)
def test_tables_take_rows_without_times_and_scores_that_are_no_numbers(name, tmp_path):
    rows = [make_row(start_s=None, end_s=None, score=math.nan), {"file_name": "b\udcff\r\n\t.wav", "error": "gone"}]
    path = write_file(tmp_path, name, rows)
    table = TABLE_READERS[name](path)
    assert list(table["file_name"]) == ["day.wav", "b\\udcff\r\n\t.wav"]
    assert table["start_s"].isna().all() and table["score"].isna().all()


@pytest.mark.parametrize("name", FORMATS)
def test_a_document_without_rows_is_one(name, tmp_path):
    path = write_file(tmp_path, name, [])
    empty = {"csv": ",".join(COLUMNS) + "\n", "json": "[\n]\n", "vtt": "WEBVTT\n\n", "tsv": "start\tend\ttext\n"}
    if name != "raven":
        assert path.read_bytes().decode() == empty.get(name, "")


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_there_as_soon_as_they_are_written(name, tmp_path):
    path = tmp_path / "captions"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = FORMATS[name](file)
        for number in range(3):
            writer.write(make_row(f"caption {number}", 10.0 * number, 10.0 * number + 10))
            assert f"caption {number}" in path.read_text("utf-8")
