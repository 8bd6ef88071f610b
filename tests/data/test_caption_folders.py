"""Folders with sounds: which table is theirs, which part a split is, and which recording a name means."""

import pytest

from caption_files import by_name, read_clips, write_table, write_wav
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.data_source import DataSource

SPLITS = ("train", "test")


def write_one_table(folder) -> None:
    """An audiofolder with train/, test/ and one table for both."""
    for split in SPLITS:
        write_wav(folder / split / f"{split}.wav")
    write_table(folder / "metadata.csv", [{"file_name": f"{split}/{split}.wav", "caption": split} for split in SPLITS])


def write_a_table_each(folder) -> None:
    """An audiofolder with a table in each of train/ and test/."""
    for split in SPLITS:
        write_wav(folder / split / f"{split}.wav")
        write_table(folder / split / "metadata.csv", [{"file_name": f"{split}.wav", "caption": split}])


@pytest.mark.parametrize("write", [write_one_table, write_a_table_each])
@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_a_folder(tmp_path, write, split):
    """A model must not see the test set because one table lists both."""
    write(tmp_path)
    clips, bad = read_clips(DataSource(str(tmp_path), split=split))
    assert bad == [] and [clip.captions for clip in clips] == [(split,)]
    assert clips[0].audio == str(tmp_path / split / f"{split}.wav")


def test_a_split_of_a_table_with_whole_paths(tmp_path):
    write_one_table(tmp_path)
    rows = [{"file_name": str(tmp_path / split / f"{split}.wav"), "caption": split} for split in SPLITS]
    write_table(tmp_path / "metadata.csv", rows)
    clips, _ = read_clips(DataSource(str(tmp_path), split="test"))
    assert [clip.captions for clip in clips] == [("test",)]


def test_without_a_split_one_table_is_read_in_full(tmp_path):
    write_one_table(tmp_path)
    assert len(read_clips(DataSource(str(tmp_path)))[0]) == 2


@pytest.mark.parametrize(
    ("write", "split", "message"),
    [
        (write_one_table, "validation", r"no entry in a folder validation/; its entries are in train, test; name one"),
        (write_a_table_each, "validation", r"in the folders test, train, and got the split 'validation'; name one"),
        (write_a_table_each, None, r"in the folders test, train, and got no `split`; name one of them"),
    ],
)
def test_a_split_that_is_not_there(tmp_path, write, split, message):
    write(tmp_path)
    with pytest.raises(CaptionDataError, match=message):
        read_clips(DataSource(str(tmp_path), split=split))


def test_a_split_of_entries_without_folders(tmp_path):
    write_wav(tmp_path / "a.wav")
    write_table(tmp_path / "metadata.csv", [{"file_name": "a.wav", "caption": "rain"}])
    with pytest.raises(CaptionDataError, match="its entries name no folder, leave `split` out"):
        read_clips(DataSource(str(tmp_path), split="test"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "test"}, r"split 'test' of .*t.csv, and a table has no splits; leave `split` out"),
        ({"name": "large"}, r"Got `name` 'large' for the table .*leave it out"),
        ({"revision": "main"}, r"Got `revision` 'main' for the table"),
    ],
)
def test_what_a_table_cannot_have_is_refused(tmp_path, fields, message):
    write_wav(tmp_path / "a.wav")
    table = write_table(tmp_path / "t.csv", [{"file_name": "a.wav", "caption": "rain"}])
    with pytest.raises(CaptionDataError, match=message):
        read_clips(DataSource(str(table), **fields))


def test_sounds_without_a_table(tmp_path):
    write_wav(tmp_path / "train" / "a.wav")
    message = r"has sounds and no table of captions; expected metadata.csv or captions.csv with file_name,caption"
    with pytest.raises(CaptionDataError, match=message + " beside them[.]$"):
        read_clips(DataSource(str(tmp_path)))
    write_table(tmp_path / "val.csv", [{"file_name": "a.wav", "caption": "rain"}])
    with pytest.raises(CaptionDataError, match=message + " beside them, or one of val.csv as `path`"):
        read_clips(DataSource(str(tmp_path), split="train"))


def test_a_table_is_not_streamed(tmp_path):
    write_one_table(tmp_path)
    for path in (tmp_path, tmp_path / "metadata.csv"):
        with pytest.raises(CaptionDataError, match="is a table, which cannot be streamed; leave"):
            next(open_source(str(path)).stream_clips())


def test_files_that_datasets_cannot_read_give_one_line(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(CaptionDataError, match="cannot be loaded") as error:
        read_clips(DataSource(str(tmp_path), split="train"))
    assert "\n" not in str(error.value)


# Recordings


@pytest.mark.parametrize(
    ("files", "name", "found"),
    [
        (["a.flac"], "a.wav", "a.flac"),
        (["a.flac", "a.wav"], "a.wav", "a.wav"),
        (["x/a.MP3"], "a.wav", "x/a.MP3"),
        (["train/a.flac", "test/a.flac"], "test/a.wav", "test/a.flac"),
        (["a 1.5.flac"], "a 1.5", "a 1.5.flac"),
    ],
)
def test_a_recording_of_another_ending_is_found(tmp_path, files, name, found):
    for file in files:
        write_wav(tmp_path / file)
    table = write_table(tmp_path / "t.csv", [{"file_name": name, "caption": "rain"}])
    clips, bad = read_clips(DataSource(str(table)))
    assert bad == [] and by_name(clips) == {name: ("rain",)} and clips[0].audio == str(tmp_path / found)
