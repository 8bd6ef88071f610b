"""Clips of a test set are kept out of a training by a list of their ids."""

import json
import logging

import pytest

from caption_files import by_name, read_clips, write_table, write_wav
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.data_source import DataSource

# The form of WavCaps' own lists: AudioSet's ids have a Y and an ending, and some of Freesound's are unknown.
BLACKLIST = {"AudioSet": ["Yq1w2e3r4t5y.wav", "Yelsewhere00.wav"], "FreeSound": ["100001", "Not found"]}


def write_list(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(("dropped", "kept"), [("Yq1w2e3r4t5y.wav", "Yq1w2e3r4t5z.wav"), ("100001", "100002")])
def test_wavcaps_own_list(tmp_path, caplog, dropped, kept):
    entries = [{"id": i, "file_name": "My Bell.wav", "audio": "wav_path", "caption": i} for i in (dropped, kept)]
    (tmp_path / "final.json").write_text(json.dumps({"num_captions_per_audio": 1, "data": entries}))
    for i in (dropped, kept):
        write_wav(tmp_path / f"{i.removesuffix('.wav')}.flac")
    blacklist = write_list(tmp_path / "blacklist_exclude_test_ac.json", BLACKLIST)
    with caplog.at_level(logging.INFO, logger="enclap_hf"):
        clips, bad = read_clips(DataSource(str(tmp_path / "final.json"), exclude=blacklist))
    assert bad == [] and by_name(clips) == {kept: (kept,)}
    assert "final.json: 1 clips are left out, which `exclude` names" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        ("l.txt", "b.wav\n\n", {"a.wav", "x/c.wav"}),
        ("l.txt", "\ufeffb\r\nc.flac\r\n", {"a.wav"}),
        ("l.json", ["x/c.wav", "y/a.wav"], {"a.wav", "b.wav"}),
        ("l.json", ["a", 5], {"b.wav", "x/c.wav"}),
    ],
)
def test_a_list_of_ids_or_file_names(tmp_path, name, content, kept):
    names = ("a.wav", "b.wav", "x/c.wav")
    for file in names:
        write_wav(tmp_path / file)
    table = write_table(tmp_path / "t.csv", [{"file_name": file, "caption": "rain"} for file in names])
    clips, bad = read_clips(DataSource(str(table), exclude=write_list(tmp_path / name, content)))
    assert bad == [] and set(by_name(clips)) == kept


def test_videos_are_known_by_any_of_their_names(tmp_path):
    rows = [{"youtube_id": video, "start_time": 30, "caption": video} for video in ("q1w2e3r4t5y", "q1w2e3r4t5z")]
    for row in rows:
        write_wav(tmp_path / f"{row['youtube_id']}_30.wav")
    table = write_table(tmp_path / "train.csv", rows)
    clips, _ = read_clips(DataSource(str(table), exclude=write_list(tmp_path / "l.json", BLACKLIST)))
    assert [clip.captions for clip in clips] == [("q1w2e3r4t5z",)]


@pytest.mark.parametrize("columns", [{}, {"id": ["p", "q"]}], ids=["paths", "ids"])
def test_rows_of_a_dataset(tmp_path, caplog, columns):
    import datasets

    rows = {"audio": [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")], "caption": ["a", "b"], **columns}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    exclude = write_list(tmp_path / "l.txt", "p" if columns else "a.wav")
    source = DataSource(str(tmp_path / "saved"), exclude=exclude)
    with caplog.at_level(logging.INFO, logger="enclap_hf"):
        clips, bad = read_clips(source)
    assert bad == [] and [clip.captions for clip in clips] == [("b",)] and "1 clips are left out" in caplog.text
    assert [clip.captions for clip in open_source(source).stream_clips()] == [("b",)]


def test_a_list_of_other_clips_warns(tmp_path, caplog):
    write_wav(tmp_path / "a.wav")
    table = write_table(tmp_path / "t.csv", [{"file_name": "a.wav", "caption": "rain"}])
    clips, _ = read_clips(DataSource(str(table), exclude=write_list(tmp_path / "l.json", BLACKLIST)))
    assert len(clips) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "t.csv: `exclude` names none of its clips; is it the list of another data set?" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, r"gone.json cannot be read: No such file"),
        ("l.json", "{", r"l.json is of an unknown form \(.*expected JSON with a list of ids"),
        ("l.json", {"AudioSet": "Yabc.wav"}, r"l.json is of an unknown form"),
        ("l.json", [["a"]], r"l.json is of an unknown form"),
        ("l.json", 5, r"l.json is of an unknown form"),
        ("l.json", [], r"l.json names no clip"),
        ("l.txt", "\n \n", r"l.txt names no clip"),
        ("l.txt", b"\xd6de.wav", r"l.txt is of an unknown form"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, name, content, message):
    write_wav(tmp_path / "a.wav")
    table = write_table(tmp_path / "t.csv", [{"file_name": "a.wav", "caption": "rain"}])
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        write_list(tmp_path / name, content)
    with pytest.raises(CaptionDataError, match=message) as error:
        read_clips(DataSource(str(table), exclude=str(tmp_path / name)))
    assert "\n" not in str(error.value)
