"""Every layout that caption data comes in is read, and bad data has a clear outcome instead of a traceback later."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

from caption_files import by_name, read_clips, write_table, write_wav
from enclap_hf import load_audio
from enclap_hf.data.caption_clips import BadClip, CaptionDataError, check_bad_share
from enclap_hf.data.captioning_data import open_source, parse_source, read_weights
from enclap_hf.data.data_source import DataSource

# As in Clotho: blanks, quotes, brackets, commas, other alphabets.
ODD_NAMES = ['Rain "loud" (1), take [2].wav', "Öde Straße's 50% #3.wav", "plain.wav"]


# Layouts


def test_clotho_with_odd_file_names(tmp_path):
    for name in ODD_NAMES:
        write_wav(tmp_path / "development" / name)
    rows = [{"file_name": n, **{f"caption_{j}": f"{n} {j}" for j in range(1, 6)}} for n in ODD_NAMES]
    table = write_table(tmp_path / "clotho_captions_development.csv", rows)
    clips, bad = read_clips(DataSource(str(table), audio_dir=str(tmp_path / "development")))
    assert bad == [] and [clip.name for clip in clips] == ODD_NAMES
    assert clips[0].captions == tuple(f"{ODD_NAMES[0]} {j}" for j in range(1, 6))
    assert all(soundfile.info(clip.audio).frames for clip in clips)


def test_ten_captions_stay_in_the_order_of_their_numbers(tmp_path):
    write_wav(tmp_path / "a.wav")
    row = {"file_name": "a.wav", **{f"caption_{j}": f"c{j}" for j in (10, 2, 1)}}
    clips, _ = read_clips(DataSource(str(write_table(tmp_path / "t.csv", [row]))))
    assert clips[0].captions == ("c1", "c2", "c10")


@pytest.mark.parametrize(
    "stem",
    [
        *("abc_30", "Yabc", "abc", "91", "Yabc_30", "abc_30.0", "abc_30.000", "abc_30000"),
        *("abc_30_40", "abc_30-40", "[abc]-[30-40]", "abc_30.000_40.000", "abc_30000_40000", "Yabc_30.000_40.000"),
    ],
)
def test_audiocaps_finds_recordings_under_the_names_that_downloaders_give(tmp_path, stem):
    write_wav(tmp_path / "audio" / f"{stem}.wav")
    rows = [{"audiocap_id": 91 + i, "youtube_id": "abc", "start_time": 30, "caption": f"rain {i}"} for i in range(5)]
    table = write_table(tmp_path / "val.csv", rows)
    clips, bad = read_clips(DataSource(str(table), audio_dir=str(tmp_path / "audio")))
    assert bad == [] and len(clips) == 1
    assert clips[0].captions == tuple(f"rain {i}" for i in range(5))


def test_enclaps_csv_with_paths_from_anywhere(tmp_path):
    write_wav(tmp_path / "far" / "a.wav")
    write_wav(tmp_path / "near" / "b.wav")
    rows = [{"file_path": str(tmp_path / "far" / "a.wav"), "caption": "x"}, {"file_path": "near/b.wav", "caption": "y"}]
    clips, bad = read_clips(DataSource(str(write_table(tmp_path / "train.csv", rows))))
    assert bad == [] and [clip.captions for clip in clips] == [("x",), ("y",)]


@pytest.mark.parametrize("stem", ["-0Gj8-vB1q4", "[-0Gj8-vB1q4]-[30-37]", "-0Gj8-vB1q4_30_37", "-0Gj8-vB1q4_30"])
def test_musiccaps(tmp_path, stem):
    write_wav(tmp_path / f"{stem}.wav")
    row = {"ytid": "-0Gj8-vB1q4", "start_s": 30, "end_s": 37, "aspect_list": "['slow']", "caption": "A slow song."}
    clips, bad = read_clips(DataSource(str(write_table(tmp_path / "musiccaps-public.csv", [row]))))
    assert bad == [] and clips[0].captions == ("A slow song.",) and clips[0].audio == str(tmp_path / f"{stem}.wav")


def test_a_path_beside_a_video_is_taken_first(tmp_path):
    write_wav(tmp_path / "mine.wav")
    write_wav(tmp_path / "abc_30.wav")
    columns = {"youtube_id": "abc", "start_time": 30, "caption": "x"}
    for path, found in (("mine.wav", "mine.wav"), ("gone.wav", "abc_30.wav"), ("", "abc_30.wav")):
        table = write_table(tmp_path / "t.csv", [{"file_path": path, **columns}])
        clips, bad = read_clips(DataSource(str(table)))
        assert bad == [] and clips[0].audio == str(tmp_path / found)


WAVCAPS = {
    "AudioSet_SL": {"id": "Yq1w2e3r4t5y.wav", "caption": "A bell.", "audio": "wav_path", "duration": 10.0},
    "BBC_Sound_Effects": {
        **{"description": "Bell, single stroke.", "category": "['Bells']", "caption": "A bell.", "id": "NHU00000001"},
        **{"duration": 2.5, "audio": "wav_path", "download_link": "https://example.org/NHU00000001.wav.zip"},
    },
    "FreeSound": {
        **{"id": "100001", "file_name": "My Bell.wav", "href": "/people/someone/sounds/100001/", "tags": ["bell"]},
        **{"description": "my bell", "author": "someone", "duration": 1.5, "download_link": "https://example.org/1"},
        **{"caption": "A bell.", "audio": "wav_path"},
    },
    "SoundBible": {
        **{"title": "Bell", "description": "A bell.", "author": "Someone", "href": "2001-Bell.html"},
        **{"caption": "A bell.", "id": "2001", "duration": 3.0, "audio": "wav_path", "download_link": "https://e.org"},
    },
}


def write_wavcaps(path, entries: list[dict]) -> str:
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": entries}))
    return str(path)


@pytest.mark.parametrize("subset", WAVCAPS)
def test_wavcaps_as_it_is_shipped(tmp_path, subset):
    """Every entry says `audio: wav_path`, Freesound's tell the uploader's title, AudioSet's say wav of a flac file."""
    first = WAVCAPS[subset]
    second = {**first, "id": first["id"].replace("1", "7"), "caption": "Rain."}
    for entry in (first, second):
        write_wav(tmp_path / "audio" / "sub" / f"{entry['id'].removesuffix('.wav')}.flac")
    table = write_wavcaps(tmp_path / "final.json", [first, second])
    clips, bad = read_clips(DataSource(table, audio_dir=str(tmp_path / "audio")))
    assert bad == [] and by_name(clips) == {first["id"]: ("A bell.",), second["id"]: ("Rain.",)}
    assert [clip.audio.rsplit("/", 1)[1].split(".")[0] for clip in clips] == [
        entry["id"].removesuffix(".wav") for entry in (first, second)
    ]


def test_wavcaps_with_paths_filled_in(tmp_path):
    """Of some Freesound clips the number is unknown: `Not found` names no clip, and so does not make several one."""
    names = [str(tmp_path / f"elsewhere {i}.wav") for i in range(3)]
    for name in names:
        write_wav(pathlib.Path(name))
    ids = ("100001", "Not found", "Not found")
    entries = [{**WAVCAPS["FreeSound"], "id": i, "audio": name} for i, name in zip(ids, names, strict=True)]
    clips, bad = read_clips(DataSource(write_wavcaps(tmp_path / "fsd.json", entries)))
    assert bad == [] and [clip.audio for clip in clips] == names
    nameless = {**WAVCAPS["FreeSound"], "id": "Not found"}
    _, bad = read_clips(DataSource(write_wavcaps(tmp_path / "fsd.json", [*entries, nameless, nameless])))
    assert [clip.reason for clip in bad] == ["the row names no recording"] * 2


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("metadata.csv", "file_name,text\nin/a.wav,a bell\n"),
        ("metadata.jsonl", '{"file_name": "in/a.wav", "captions": ["a bell", " "]}\n\n'),
    ],
)
def test_audiofolder(tmp_path, name, lines):
    write_wav(tmp_path / "in" / "a.wav")
    (tmp_path / name).write_text(lines)
    clips, bad = read_clips(DataSource(str(tmp_path)))
    assert bad == [] and by_name(clips) == {"in/a.wav": ("a bell",)}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"caption": ["a", "b"]}, ("b",)),
        ({"caption": [["a", "b"], ["c", "d"]]}, ("c", "d")),
        ({"caption_1": ["a", "b"], "caption_2": ["c", "d"]}, ("b", "d")),
    ],
    ids=["one", "list", "numbered"],
)
@pytest.mark.parametrize("as_audio", [True, False], ids=["audio", "paths"])
def test_datasets_with_an_audio_column(tmp_path, columns, expected, as_audio):
    """The audio column is never decoded by `datasets`, which would need another decoder."""
    import datasets

    write_wav(tmp_path / "a.wav")
    write_wav(tmp_path / "b.wav", seed=1)
    dataset = datasets.Dataset.from_dict({"audio": [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")], **columns})
    if as_audio:
        dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    dataset.save_to_disk(str(tmp_path / "saved"))
    clips, bad = read_clips(DataSource(str(tmp_path / "saved")))
    assert bad == [] and len(clips) == 2 and clips[1].captions == expected and clips[1].name == "000001-b.wav"
    assert len(load_audio(clips[1].audio).samples) == 2400


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"caption": ["a", "b"]}, ("b",)),
        ({"caption": [["a"], ["b", "c"]]}, ("b", "c")),
        ({"caption_1": ["a", "b"], "caption_2": ["", "c"]}, ("b", "c")),
    ],
    ids=["one", "list", "numbered"],
)
def test_a_mirror_of_parquet_files_with_the_recordings_in_them(tmp_path, columns, expected):
    """The layout that `push_to_hub` gives data sets: data/<split>-*.parquet, audio as bytes."""
    import datasets

    write_wav(tmp_path / "a.wav")
    audio = [{"bytes": (tmp_path / "a.wav").read_bytes(), "path": f"{name}.wav"} for name in "ab"]
    rows = datasets.Dataset.from_dict({"audio": audio, **columns})
    rows = rows.cast_column("audio", datasets.Audio(decode=False))
    rows.to_parquet(tmp_path / "mirror" / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(CaptionDataError, match="has the splits train; name one as `split`"):
        read_clips(DataSource(str(tmp_path / "mirror")))
    clips, bad = read_clips(DataSource(str(tmp_path / "mirror"), split="train"))
    assert bad == [] and [clip.name for clip in clips] == ["000000-a.wav", "000001-b.wav"]
    assert clips[0].captions == ("a",) and clips[1].captions == expected
    assert len(load_audio(clips[0].audio).samples) == 2400


def test_json_lines(tmp_path):
    write_wav(tmp_path / "sounds" / "a.wav")
    lines = [{"audio": "sounds/a.wav", "caption": "a bell"}, {"audio": "sounds/a.wav", "caption": "it rings"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    clips, bad = read_clips(DataSource(str(tmp_path / "train.jsonl")))
    assert bad == [] and by_name(clips) == {"sounds/a.wav": ("a bell", "it rings")}


def test_sound_scenes_are_written_once(tmp_path):
    source = DataSource(str(tmp_path / "scenes"), num_scenes=2, first_seed=5)
    clips, _ = read_clips(source)
    written = (tmp_path / "scenes" / "captions.csv").stat().st_mtime_ns
    again, _ = read_clips(source)
    assert len(clips) == 2 and clips == again and len(clips[0].captions) == 5
    assert (tmp_path / "scenes" / "captions.csv").stat().st_mtime_ns == written


# Bad data


def make_folder(folder, rows: list[dict], files=("a.wav", "b.wav"), **kwargs) -> DataSource:
    for name in files:
        write_wav(folder / name)
    return DataSource(str(write_table(folder / "table.csv", rows, **kwargs)))


def row(name: str = "a.wav", **cells) -> dict:
    return {"file_name": name, **(cells or {"caption": "rain"})}


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([row(), row("c.wav")], {"c.wav": "no such recording"}),
        ([row(), row("b.wav", caption=" ")], {"b.wav": "its caption is empty"}),
        ([row(), row("", caption="rain")], {"file_name=, caption=rain": "names no recording"}),
        ([row(), row("./a.wav", caption="hail"), row("b.wav")], {}),
        ([row(), row("x/a.wav")], {"x/a.wav": "the recording of a.wav already"}),
        ([row(), row("b.wav", caption=""), row("b.wav", caption=" ")], {"b.wav": "its caption is empty"}),
    ],
    ids=["missing file", "empty caption", "no name", "another spelling", "two names", "empty captions"],
)
def test_bad_rows_are_listed_with_their_reason(tmp_path, rows, outcome):
    clips, bad = read_clips(make_folder(tmp_path, rows))
    assert "a.wav" in by_name(clips) and len(bad) == len(outcome)
    for clip in bad:
        assert outcome[clip.name] in clip.reason


def test_a_clip_with_an_empty_caption_beside_a_good_one_is_used(tmp_path, caplog):
    clips, bad = read_clips(make_folder(tmp_path, [row(caption=""), row(), row("b.wav")]))
    assert bad == [] and by_name(clips) == {"a.wav": ("rain",), "b.wav": ("rain",)}
    assert (
        "empty captions beside others are passed over, in 1 clips: a.wav" in caplog.text and "b.wav" not in caplog.text
    )


def test_duplicate_ids_become_one_clip_with_each_caption_once(tmp_path):
    rows = [row(caption="rain"), row(caption="hail"), row(caption="rain "), row("b.wav", caption="rain")]
    clips, bad = read_clips(make_folder(tmp_path, rows))
    assert bad == [] and by_name(clips) == {"a.wav": ("rain", "hail"), "b.wav": ("rain",)}


def test_recordings_of_one_name_in_two_folders_are_not_guessed(tmp_path):
    source = make_folder(tmp_path, [row("b.wav"), row("c.wav")], files=("b.wav", "x/c.wav", "y/c.wav"))
    _, bad = read_clips(source)
    assert [clip.name for clip in bad] == ["c.wav"] and "2 recordings have this name" in bad[0].reason


def test_a_csv_that_is_not_utf8_says_where_and_what_to_do(tmp_path):
    source = make_folder(tmp_path, [row(caption="Öde")], encoding="latin-1")
    with pytest.raises(CaptionDataError, match=r"table.csv is not utf-8 text .* at byte \d+\); save it as UTF-8"):
        read_clips(source)
    clips, _ = read_clips(DataSource(source.path, encoding="latin-1"))
    assert clips[0].captions == ("Öde",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf8", "UTF_8", "utf-8-sig"])
def test_a_byte_order_mark_is_passed_over(tmp_path, encoding):
    path = make_folder(tmp_path, [row()], encoding="utf-8-sig").path
    clips, _ = read_clips(DataSource(path, encoding=encoding))
    assert by_name(clips) == {"a.wav": ("rain",)}


@pytest.mark.parametrize("columns", [{"file_name": "a.wav", "label": "rain"}, {"sound": "a.wav", "caption": "rain"}])
def test_wrong_columns_say_which_there_are_and_which_are_expected(tmp_path, columns):
    with pytest.raises(CaptionDataError) as error:
        read_clips(make_folder(tmp_path, [columns]))
    assert all(repr(name) in str(error.value) for name in columns)
    assert "`file_name`" in str(error.value) and "`caption_1`" in str(error.value) and "\n" not in str(error.value)


ODD_COLUMNS = {"file_name": "a.wav", "caption": "made", "text": "spoken", "caption_clean": "good", "second": "b.wav"}


@pytest.mark.parametrize(
    ("columns", "fields", "expected"),
    [
        (ODD_COLUMNS, {}, ("made",)),
        (ODD_COLUMNS, {"caption_column": "caption_clean"}, ("good",)),
        (ODD_COLUMNS, {"audio_column": "second"}, ("made",)),
        ({"file_name": "a.wav", "caption": "c", "caption_2": "d", "captions": "e"}, {}, ("c", "d")),
        ({"file_name": "a.wav", "captions": "e", "text": "f"}, {}, ("e",)),
        ({"file_name": "a.wav", "note": "g"}, {"caption_column": "note"}, ("g",)),
    ],
)
def test_captions_are_of_the_named_column_or_of_the_first_usual_one(tmp_path, columns, fields, expected):
    clips, bad = read_clips(DataSource(make_folder(tmp_path, [columns]).path, **fields))
    assert bad == [] and clips[0].captions == expected
    assert clips[0].audio == str(tmp_path / ("b.wav" if "audio_column" in fields else "a.wav"))


@pytest.mark.parametrize("field", ["caption_column", "audio_column"])
def test_a_named_column_that_is_not_there(tmp_path, field):
    source = DataSource(make_folder(tmp_path, [row()]).path, **{field: "clean"})
    with pytest.raises(
        CaptionDataError, match=rf"no column 'clean' \(`{field}`\); its columns are 'file_name', 'caption'"
    ):
        read_clips(source)


def test_one_usual_column_of_a_dataset_is_read(tmp_path):
    import datasets

    columns = {"audio": ["a.wav"], "text": ["spoken"], "caption": ["a bell"], "clean": ["it rings"]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "saved"))
    assert read_clips(DataSource(str(tmp_path / "saved")))[0][0].captions == ("a bell",)
    assert read_clips(DataSource(str(tmp_path / "saved"), caption_column="clean"))[0][0].captions == ("it rings",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "file_name,caption\na.wav,rain, then hail\n", r"t.csv, line 2: more cells"),
        ("t.csv", "file_name,caption\n", r"t.csv has no rows"),
        ("t.jsonl", '{"file_name": "a.wav"\n', r"t.jsonl, line 1: not JSON"),
        ("t.json", '{"clips": []}', r"t.json holds one dict; expected a list, or `data`"),
        ("t.json", "[1]", r"t.json, entry 1: got a int"),
    ],
)
def test_broken_tables(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(CaptionDataError, match=message):
        read_clips(DataSource(str(tmp_path / name)))


def test_what_does_not_exist(tmp_path):
    with pytest.raises(CaptionDataError, match="none.csv does not exist"):
        read_clips(DataSource(str(tmp_path / "none.csv")))
    with pytest.raises(CaptionDataError, match="none does not exist"):
        read_clips(DataSource(str(tmp_path / "none")))
    source = make_folder(tmp_path, [row()])
    with pytest.raises(CaptionDataError, match="folder of recordings .* does not exist"):
        read_clips(DataSource(source.path, audio_dir=str(tmp_path / "nowhere")))
    with pytest.raises(CaptionDataError, match="has no usable clip.*no such recording"):
        read_clips(make_folder(tmp_path, [row("c.wav")]))


def test_wrong_columns_of_a_dataset(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"sound": ["a.wav"], "caption": ["x"]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(CaptionDataError, match=r"has the columns sound, caption; expected audio in `audio`"):
        read_clips(DataSource(str(tmp_path / "saved")))


def test_bad_clips_are_skipped_up_to_the_share_that_the_user_sets(caplog):
    bad = [BadClip(f"{i}.wav", "it is empty") for i in range(5)]
    check_bad_share(bad, 100, 0.05, "data.csv")
    assert "5 of 100 clips cannot be used (0.wav: it is empty" in caplog.text and "2 more in the log" in caplog.text
    with pytest.raises(CaptionDataError, match=r"data.csv: 5 of 99 .* allowed are 5.0%.*`max_bad_share`"):
        check_bad_share(bad, 99, 0.05, "data.csv")


# Sources


def test_sources_are_written_as_paths_objects_or_json():
    assert parse_source("a.csv") == DataSource("a.csv")
    expected = DataSource("a.csv", weight=2)
    assert parse_source({"path": "a.csv", "weight": 2}) == parse_source('{"path": "a.csv", "weight": 2}') == expected
    for wrong in ({"weight": 2}, {"path": "a.csv", "wieght": 2}, "{path: a}"):
        with pytest.raises(CaptionDataError, match="Got the data set"):
            parse_source(wrong)


def test_weights_are_of_all_data_sets_or_of_none():
    assert read_weights([DataSource("a"), DataSource("b")]) is None
    assert read_weights([DataSource("a", weight=1), parse_source({"path": "b", "weight": "3"})]) == [1, 3]
    with pytest.raises(CaptionDataError, match="positive `weight` of every data set"):
        read_weights([DataSource("a"), DataSource("b", weight=1.0)])


@pytest.mark.parametrize("weight", [0.0, -1, "two", "nan", [1]])
def test_a_weight_that_is_no_positive_number(weight):
    with pytest.raises(CaptionDataError, match=r"Got the weight .* of a.csv; expected a positive `weight`, or none"):
        parse_source({"path": "a.csv", "weight": weight})


def test_every_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_wav(tmp_path / "sounds" / "a.wav")
    write_wav(tmp_path / "sounds" / "b.wav")
    write_table(tmp_path / "t.csv", [row(), row("b.wav")])
    (tmp_path / "test.txt").write_text("b.wav\n")
    clips, bad = read_clips(DataSource("~/t.csv", audio_dir="~/sounds", exclude="~/test.txt"))
    assert bad == [] and by_name(clips) == {"a.wav": ("rain",)}
    with pytest.raises(CaptionDataError, match="Got the audio_dir 5 of a data set; expected a path"):
        DataSource("t.csv", audio_dir=5)


def test_a_streamed_dataset_gives_every_clip_once_over_its_shards(tmp_path):
    import datasets

    names = [str(tmp_path / f"{i}.wav") for i in range(5)]
    captions = [f"c{i}" for i in range(5)]
    datasets.Dataset.from_dict({"audio": names, "caption": captions}).save_to_disk(str(tmp_path / "saved"))
    source = open_source(str(tmp_path / "saved"))
    seen = [clip.captions[0] for part in range(2) for clip in source.stream_clips(shuffle_seed=3, shard=(part, 2))]
    assert sorted(seen) == captions
    assert np.array_equal(seen, [c.captions[0] for p in range(2) for c in source.stream_clips(3, (p, 2))])


def test_scenes_of_other_seeds_are_written_anew(tmp_path):
    """A test set could else be the training set."""
    names = []
    for first_seed in (0, 900, 900):
        clips, _ = read_clips(DataSource(str(tmp_path), num_scenes=2, first_seed=first_seed))
        names.append([clip.name for clip in clips])
    assert names[0] == ["scene_0000000.wav", "scene_0000001.wav"]
    assert names[1] == names[2] == ["scene_0000900.wav", "scene_0000901.wav"]
