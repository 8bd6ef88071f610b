"""Tables that could be read in two ways are refused with their line, and read alike for training and for scoring."""

import json

import pytest

from caption_files import by_name, write_table, write_wav
from enclap_hf.commands.score import main
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.caption_files import read_caption_file
from enclap_hf.data.caption_tables import read_caption_table
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.data_source import DataSource

NAMES = [f"{letter}.wav" for letter in "abcd"]


@pytest.fixture
def write(tmp_path):
    """A function that writes a table beside four recordings: csv with commas, tsv with tabs in their places."""
    for name in NAMES:
        write_wav(tmp_path / name)

    def write_lines(lines, name="t.csv", encoding="utf-8", header="file_name,caption") -> str:
        text = "".join(f"{line}\n" for line in [header, *lines])
        text = text.replace(",", "\t") if name.endswith(".tsv") else text
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write_lines


def assert_refused(path: str, message: str, **arguments) -> None:
    """Neither training nor scoring reads a table, and both say the same of it."""
    for read in (read_caption_table, read_caption_file):
        with pytest.raises(CaptionDataError, match=message) as error:
            read(path, **arguments)
        assert "\n" not in str(error.value) and str(error.value).startswith(path)


def assert_read(path: str, captions: list[str], **arguments) -> None:
    """Training and scoring read these captions, of as many recordings."""
    clips, bad = read_caption_table(path, **arguments)
    assert bad == [] and [clip.captions for clip in clips] == [(caption,) for caption in captions]
    rows = read_caption_file(path, **arguments)
    assert [row.caption for row in rows] == captions and [row.file_name for row in rows] == NAMES[: len(captions)]


# Quotation marks


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["a.wav,rain", 'b.wav,"a dog barks', "c.wav,a cat", "d.wav,wind"],
            "line 3: .* opens a cell and is not closed",
        ),
        (["a.wav,rain", "b.wav,wind", 'c.wav,"a dog barks'], "line 4: .* opens a cell and is not closed"),
        (['a.wav,"a dog barks', "b.wav,rain", 'c.wav,"wind'], "lines 2 to 4: .* closed in the middle"),
        (["a.wav,rain", 'b.wav,"a dog barks', 'c.wav,a cat"', "d.wav,wind"], "line 3: .* looks like a row"),
        (['a.wav,"a dog barks', "b.wav,rain", 'c.wav,a cat"'], "line 2: .* looks like a row"),
        (['"a.wav,rain', 'b.wav",a cat', "c.wav,wind"], "line 2: .* looks like a row"),
        (['"a.wav","a dog barks', '"b.wav","rain"'], "lines 2 to 3: .* closed in the middle"),
        (['a.wav,"Help!" a man shouts'], "line 2: .* closed in the middle"),
        ([r'a.wav,"a \"dog\" barks"'], "line 2: .* closed in the middle"),
        (['a.wav,"' + "rain " * 30_000, "b.wav,wind"], "line 2: .* is not closed"),
    ],
)
def test_an_unpaired_quotation_mark_is_refused_with_its_line(write, name, lines, message):
    """It would put the rows after it into one caption, `a dog barks c.wav,a cat d.wav,wind`."""
    assert_refused(write(lines, name), message)


def test_an_unpaired_quotation_mark_in_the_header(write):
    assert_refused(write(["a.wav,rain"], header='file_name,"caption'), "line 1: .* is not closed")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize(
    ("cell", "caption"),
    [
        ('a 12" record', 'a 12" record'),
        ('a "loud" dog', 'a "loud" dog'),
        ('it ends so"', 'it ends so"'),
        ('"a ""loud"" dog"', 'a "loud" dog'),
        ('"rain, then wind"', None),
        ('"rain falls\non a roof"', "rain falls on a roof"),
        ('"rain\r\nfalls\r\non a roof"', "rain falls on a roof"),
        ('"rain falls,\nthen wind, and hail, and snow"', None),
    ],
)
def test_quotation_marks_that_say_one_thing_are_read(write, name, cell, caption):
    if caption is None:  # commas are tabs in the other format
        caption = cell.strip('"').replace("\n", " ")
        caption = caption.replace(",", "\t") if name.endswith(".tsv") else caption
    path = write([f"a.wav,{cell}", "b.wav,wind"], name)
    clips, _ = read_caption_table(path)
    assert [clip.captions for clip in clips] == [(" ".join(caption.split()),), ("wind",)]
    assert [row.caption for row in read_caption_file(path)] == [caption, "wind"]


# Cells


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_half_a_caption_is_refused_with_its_line(write, name):
    """A caption of AudioCaps 2 goes on in the next line."""
    header = "audiocap_id,youtube_id,start_time,caption"
    assert_refused(write(["7,a,30,an engine with muffled", "speech behind it"], name, header=header), "line 3: fewer")
    assert_refused(write(["7,a,30,an engine, 8,b,40,rain"], name, header=header), "line 2: more cells")
    assert_refused(write(["7,a,30"], name, header=header), r"line 2: fewer cells than the header has \(3, not 4\)")


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("file_name,caption", ["a.wav,an engine with muffled", "speech behind it, and a horn", "b.wav,rain"]),
        ("youtube_id,start_time,caption", ["a,30,an engine with muffled", "speech behind it, a horn, and rain"]),
    ],
)
def test_half_a_caption_with_commas_enough_is_refused_too(write, header, lines):
    """It has as many cells as the header, and names a recording that is not there."""
    path = write(lines, header=header)
    with pytest.raises(CaptionDataError, match=r"t.csv, line 3: no recording is called 'speech behind it"):
        read_caption_table(path)


@pytest.mark.parametrize("lines", [["a.wav,an engine", "speech, birds"], ["a.wav,an engine and", "speech,birds,"]])
def test_half_a_caption_of_one_word_is_refused_too(write, lines):
    path = write([line.rstrip(",") for line in lines] + ["b.wav,rain"])
    with pytest.raises(CaptionDataError, match=r"t.csv, line 3: no recording is called 'speech'; if it is the rest"):
        read_caption_table(path)


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("file_name,caption", ["a.wav,an engine", "speech behind it, birds"]),
        ("file_name,caption", ["a.wav,an engine", "speech, birds"]),
        ("audiocap_id,youtube_id,start_time,caption", ["1,aaaaaaaaaaa,30,an engine", "speech, a dog, rain, wind"]),
    ],
)
def test_half_a_caption_is_not_scored(write, header, lines):
    with pytest.raises(CaptionDataError, match="t.csv, line 3: no recording is called '.*'; if it is the rest of"):
        read_caption_file(write(lines, header=header))


def test_names_of_both_kinds_are_scored(write):
    """`enclap caption` reads files without an ending, too, where they are named."""
    rows = read_caption_file(write(["a.wav,rain", "b,wind", "my bell.wav,a bell", "c,a dog, and a cat"[:7]]))
    assert [row.file_name for row in rows] == ["a.wav", "b", "my bell.wav", "c"]


def test_a_name_with_blanks_is_no_half_caption(write):
    _, bad = read_caption_table(write(["a,rain", "my bell,a bell", "b,wind"]))
    assert [clip.name for clip in bad] == ["my bell"]
    _, bad = read_caption_table(write(["a.wav,rain", "my bell.wav,a bell"]))
    assert [clip.name for clip in bad] == ["my bell.wav"]


def test_two_columns_of_one_name_are_refused(write):
    assert_refused(write(["a.wav,rain,wind"], header="file_name,caption,caption"), "has two columns 'caption'")
    assert_refused(write(["a.wav,rain,b.wav"], header="file_name,caption,file_name"), "has two columns 'file_name'")
    assert_read(write(["0,a.wav,rain,"], header=",file_name,caption,"), ["rain"])  # a numbering, and a comma too many


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"file_name": "a.wav", "caption": "x", "caption": "y"}\n', "line 1: .*two values of 'caption'"),
        ("t.json", '[{"file_name": "a.wav", "caption": "x", "caption": "y"}]', "two values of 'caption'"),
        ("t.jsonl", '{"file_name": "a.wav", "caption": "x"}\n{"file_name": "a\\u0000"}\n', "line 2: a NUL character"),
        ("t.jsonl", '{"file_name": "a.wav", "caption": "rain\nfalls"}\n', "line 1: not JSON"),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    assert_refused(str(tmp_path / name), message)


def test_blank_lines_are_passed_over_and_empty_cells_are_not(write):
    path = write(["", "a.wav,rain", "   ", "b.wav,", ""])
    clips, bad = read_caption_table(path)
    assert by_name(clips) == {"a.wav": ("rain",)} and bad[0].reason == "its caption is empty"
    assert [row.caption for row in read_caption_file(path)] == ["rain", ""]
    lone = write(["rain", '""', "wind"], header="caption")
    assert [row.caption for row in read_caption_file(lone)] == ["rain", "", "wind"]


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("stated", ["utf-8", "latin-1"])
def test_a_byte_order_mark_counts_over_the_stated_encoding(write, encoding, stated):
    path = write(["a.wav,Öde Straße", "b.wav,rain"], "t.tsv", encoding)
    assert_read(path, ["Öde Straße", "rain"], encoding=stated)


def test_utf_16_without_a_mark_is_refused_until_it_is_named(write):
    path = write(["a.wav,rain", "b.wav,wind"], encoding="utf-16-le")
    assert_refused(path, "line 1: a NUL character; if the file is UTF-16, say so as `encoding`")
    assert_read(path, ["rain", "wind"], encoding="utf-16-le")


@pytest.mark.parametrize("line", ["b.wav,ra\0in", "b.wav\0,rain"])
def test_nul_characters_are_refused_with_their_line(write, line):
    assert_refused(write(["a.wav,rain", line]), "line 3: a NUL character")


def test_a_file_of_latin_1_is_scored_with_its_encoding(write, capsys):
    references = write(["a.wav,wir hören Öde", "b.wav,rain"], encoding="latin-1")
    predictions = write(["a.wav,hören", "b.wav,rain"], "p.tsv", "latin-1")
    command = [predictions, "--references", references, "--metrics", "bleu_1"]
    assert main(command) == 2 and "is not utf-8 text" in capsys.readouterr().err
    assert main([*command, "--encoding", "latin-1"]) == 0


# The same tables


@pytest.mark.parametrize("column", ["file_path", "audio", "audio_path", "path", "file", "filename", "id"])
def test_references_are_named_by_every_column_that_a_training_reads(write, capsys, column):
    references = write(["b.wav,a dog barks", "a.wav,rain falls"], header=f"{column},caption")
    predictions = write(["a.wav,rain falls", "b.wav,a dog barks"], "p.csv")
    assert main([predictions, "--references", references, "--metrics", "bleu_1"]) == 0
    assert "bleu_1     1.0000" in capsys.readouterr().out


@pytest.mark.parametrize("recording", ["Yabc_30.wav", "abc_30.flac", "out/abc_30000_40000.mp3", "abc.wav", "91.wav"])
def test_predictions_are_scored_against_a_table_of_videos(write, capsys, recording):
    """The test set of AudioCaps, and recordings under the names that downloaders give."""
    header = "audiocap_id,youtube_id,start_time,caption"
    references = write(["91,abc,30,rain falls", "92,xyz,0,a dog", "93,abc,30,it rains"], "r.csv", header=header)
    predictions = write([f"{recording},it rains", "xyz_0.wav,a dog"], "p.csv")
    assert main([predictions, "--references", references, "--metrics", "bleu_1"]) == 0
    printed = capsys.readouterr().out
    assert "2 clips, 3 references" in printed and "bleu_1     1.0000" in printed


def test_a_name_that_could_be_two_videos_stretches_is_not_guessed(write, capsys):
    header = "youtube_id,start_time,caption"
    references = write(["abc,30,rain falls", "abc,70,a dog"], "r.csv", header=header)
    predictions = write(["abc.wav,rain"], "p.csv")
    assert main([predictions, "--references", references, "--metrics", "bleu_1"]) == 2
    assert "Got 'abc.wav', which could be 'abc_30' or 'abc_70' of the references" in capsys.readouterr().err
    predictions = write(["abc_30.wav,rain", "abc_30.flac,rain", "abc_70.wav,wind"], "p.csv")
    assert main([predictions, "--references", references, "--metrics", "bleu_1"]) == 2
    assert "Got 'abc_30', which could be 'abc_30.wav' or 'abc_30.flac' of the predictions" in capsys.readouterr().err


def test_lists_of_captions_are_references(tmp_path, write, capsys):
    write(["a.wav,rain falls"], "p.csv")
    for name, key in (("r.jsonl", "captions"), ("s.jsonl", "caption"), ("t.jsonl", "references")):
        (tmp_path / name).write_text(json.dumps({"file_name": "a.wav", key: ["it rains", "rain falls"]}) + "\n")
        assert main([str(tmp_path / "p.csv"), "--references", str(tmp_path / name), "--metrics", "bleu_1"]) == 0
        printed = capsys.readouterr().out
        assert "1 clip, 2 references" in printed and "bleu_1     1.0000" in printed


def test_a_wrapped_list_is_read_for_scoring_too(tmp_path):
    rows = [{"id": "a.wav", "caption": "rain", "audio": "wav_path"}]
    (tmp_path / "t.json").write_text(json.dumps({"data": rows}))
    (row,) = read_caption_file(tmp_path / "t.json")
    assert (row.file_name, row.caption) == ("a.wav", "rain")


# Escaped formulas, and other spellings of a name


@pytest.mark.parametrize("name", ["=SUM(1).wav", "+1.wav", "-0Gj8.wav", "@home.wav"])
def test_names_that_were_kept_from_being_formulas_are_the_recordings(tmp_path, capsys, name):
    """As `enclap caption --escape-formulas` writes them; a caption is written so, too."""
    write_wav(tmp_path / name)
    write_table(tmp_path / "escaped.csv", [{"file_name": f"'{name}", "caption": "'=rain"}])
    clips, bad = read_caption_table(str(tmp_path / "escaped.csv"))
    assert bad == [] and clips[0].audio == str(tmp_path / name) and clips[0].captions == ("=rain",)
    write_table(tmp_path / "references.csv", [{"file_name": name, "caption": "=rain"}])
    command = [str(tmp_path / "escaped.csv"), "--references", str(tmp_path / "references.csv"), "--metrics", "bleu_1"]
    assert main(command) == 0 and "1 clip, 1 reference" in capsys.readouterr().out
    assert read_caption_file(tmp_path / "escaped.csv")[0].caption == "=rain"


def test_a_file_that_has_the_very_name_is_meant(tmp_path):
    for name in ("'=a.wav", "=a.wav", "'b.wav"):
        write_wav(tmp_path / name)
    rows = [{"file_name": name, "caption": name} for name in ("'=a.wav", "'b.wav")]
    clips, bad = read_caption_table(str(write_table(tmp_path / "t.csv", rows)))
    assert bad == [] and [clip.audio for clip in clips] == [str(tmp_path / name) for name in ("'=a.wav", "'b.wav")]
    assert [clip.captions for clip in clips] == [("=a.wav",), ("'b.wav",)]  # captions alone


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("of_table", "of_disk"),
    [
        (f"{COMPOSED}.wav", f"{DECOMPOSED}.wav"),
        (f"{DECOMPOSED}.wav", f"{COMPOSED}.wav"),
        (f"{COMPOSED}/a.wav", f"{DECOMPOSED}/a.wav"),
        (f"{DECOMPOSED} 1.5", f"{COMPOSED} 1.5.flac"),
        ("\ud55c\uad6d.wav", "\u1112\u1161\u11ab\u1100\u116e\u11a8.wav"),  # Korean syllables and their letters
        (r"audio\x.wav", "audio/x.wav"),
        (r".\audio\sub\x.wav", "audio/sub/x.wav"),
        (r"C:\data\audio\x.wav", "audio/x.wav"),
        (r"audio\x.wav", r"audio\x.wav"),
        ("audio/x.wav", "x.wav"),
    ],
)
def test_other_spellings_of_a_name_are_found(tmp_path, capsys, of_table, of_disk):
    write_wav(tmp_path / of_disk)
    write_wav(tmp_path / "other.wav")
    path = str(write_table(tmp_path / "t.csv", [{"file_name": of_table, "caption": "rain"}]))
    clips, bad = read_caption_table(path)
    assert bad == [] and [clip.audio for clip in clips] == [str(tmp_path / of_disk)]
    (tmp_path / "l.txt").write_text(of_disk, encoding="utf-8")
    with pytest.raises(CaptionDataError, match="has no usable clip"):  # a test set must not slip in by its spelling
        open_source(DataSource(path, exclude=str(tmp_path / "l.txt"))).read_clips()
    predictions = write_table(tmp_path / "p.csv", [{"file_name": of_disk, "candidate": "rain"}])
    assert main([str(predictions), "--references", path, "--metrics", "bleu_1"]) == 0
    assert "bleu_1     1.0000" in capsys.readouterr().out


def test_two_files_that_differ_in_their_spelling_alone_are_told_apart(tmp_path):
    for name in (COMPOSED, DECOMPOSED):
        write_wav(tmp_path / f"{name}.wav")
    for name in (COMPOSED, DECOMPOSED):
        table = write_table(tmp_path / "t.csv", [{"file_name": f"{name}.wav", "caption": "rain"}])
        clips, _ = read_caption_table(str(table))
        assert clips[0].audio == str(tmp_path / f"{name}.wav")
    rows = [{"file_name": f"{name}.wav", "caption": name} for name in (COMPOSED, DECOMPOSED, COMPOSED)]
    clips, bad = read_caption_table(str(write_table(tmp_path / "t.csv", rows)))
    assert bad == [] and {clip.audio: clip.captions for clip in clips} == {
        str(tmp_path / f"{name}.wav"): (name,) for name in (COMPOSED, DECOMPOSED)
    }


@pytest.mark.parametrize("of_disk", [COMPOSED, DECOMPOSED])
def test_two_spellings_of_one_file_share_its_captions(tmp_path, of_disk):
    write_wav(tmp_path / f"{of_disk}.wav")
    rows = [{"file_name": f"{name}.wav", "caption": f"rain {i}"} for i, name in enumerate((COMPOSED, DECOMPOSED))]
    (clip,), bad = read_caption_table(str(write_table(tmp_path / "t.csv", rows)))
    assert bad == [] and clip.captions == ("rain 0", "rain 1")


@pytest.mark.parametrize("of_table", ["test/1.wav", "/data/test/1.wav", r"test\1.wav", "test/1"])
def test_a_recording_of_another_folder_is_not_meant(tmp_path, of_table):
    """The caption of a clip that was not downloaded would be learnt for another of its name."""
    write_wav(tmp_path / "train" / "1.wav")
    table = write_table(tmp_path / "t.csv", [{"file_name": of_table, "caption": "rain"}])
    _, (bad,) = read_caption_table(str(table))
    assert bad.reason == f"no such recording in {tmp_path}; {tmp_path}/train/1.wav is in another folder"


# Fields that a kind of source does not read


def test_fields_that_would_be_passed_over_are_refused(write, tmp_path):
    """An `exclude` list beside prepared features would leave the test set in the training."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "features.json").write_text("{}")
    for path, fields in (
        (write(["a.wav,rain"]), {"revision": "main"}),
        (str(tmp_path / "f"), {"exclude": "l.txt"}),
        (str(tmp_path / "f"), {"caption_column": "text"}),
        ("owner/mirror", {"audio_dir": "audio"}),
        (str(tmp_path / "s"), {"num_scenes": 2, "split": "train"}),
    ):
        *_, (name, value) = fields.items()
        with pytest.raises(CaptionDataError, match=f"Got `{name}` '{value}' for the .*, which does not read it; leave"):
            open_source(DataSource(path, **fields))
