"""Bad data, row by row, through the script itself: each kind is skipped and listed, taken as it is, or refused."""

import csv
import os

import numpy as np
import pytest
import soundfile

from conftest import CAPTIONS, make_clip
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.prepared_features import PreparedClips
from training_runs import make_recipe, train, write_repository_and_clips

GOOD = [f"clip [{i}].wav" for i in range(7)]
BAD = "bad.wav"
RATE = 8_000


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    write_repository_and_clips(folder)
    return folder


def write_table(folder, rows: list[tuple[str, str]], columns=("file_name", "caption"), encoding="utf-8"):
    """Seven good rows, then `rows`, in a table of its own."""
    good = [(name, CAPTIONS[i % len(CAPTIONS)]) for i, name in enumerate(GOOD)]
    with open(folder / "table.csv", "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([columns, *good, *rows])


def write_clip(folder, samples) -> None:
    soundfile.write(folder / "audio" / BAD, samples, RATE)


def missing_file(folder):
    write_table(folder, [(BAD, "rain")])


def zero_length_clip(folder):
    write_clip(folder, np.zeros(0, np.float32))
    write_table(folder, [(BAD, "rain")])


def empty_file(folder):
    (folder / "audio" / BAD).touch()
    write_table(folder, [(BAD, "rain")])


def corrupt_clip(folder):
    (folder / "audio" / BAD).write_bytes(b"RIFF" + bytes(range(256)) * 4)
    write_table(folder, [(BAD, "rain")])


def empty_caption(folder):
    write_clip(folder, make_clip(0.3, sampling_rate=RATE))
    write_table(folder, [(BAD, "  ")])


def empty_caption_beside_a_good_one(folder):
    write_clip(folder, make_clip(0.3, sampling_rate=RATE))
    write_table(folder, [(BAD, ""), (BAD, "rain")])


def clip_of_another_format(folder):
    soundfile.write(folder / "audio" / "bad.flac", make_clip(0.3, sampling_rate=RATE), RATE)
    write_table(folder, [(BAD, "rain")])


def duplicate_ids(folder):
    write_table(folder, [(GOOD[0], "another caption"), (GOOD[0], CAPTIONS[0])])


def caption_longer_than_the_decoder(folder):
    write_clip(folder, make_clip(0.3, sampling_rate=RATE))
    write_table(folder, [(BAD, "rain falls " * 200)])


def clip_shorter_than_a_mask_span(folder):
    write_clip(folder, make_clip(0.03, sampling_rate=RATE))
    write_table(folder, [(BAD, "a click")])


def clip_of_an_hour(folder):
    write_clip(folder, np.zeros(3600 * RATE, np.int16))
    write_table(folder, [(BAD, "silence")])


def csv_that_is_not_utf8(folder):
    write_table(folder, [(GOOD[0], "Öde")], encoding="latin-1")


def wrong_columns(folder):
    write_table(folder, [], columns=("sound", "label"))


def run(work, tmp_path, monkeypatch, **arguments) -> tuple[dict, PreparedClips]:
    """Train one step on the table; returns the results and the features."""
    nothing = dict.fromkeys(("validation_data", "test_data", "metric_for_best_model", "greater_is_better"))
    recipe = make_recipe(
        work, tmp_path / "out", train_data=[{"path": str(work / "table.csv"), "audio_dir": str(work / "audio")}],
        eval_strategy="no", load_best_model_at_end=False, save_strategy="no", max_steps=1, max_duration_s=1.0,
        per_device_train_batch_size=8, report_to="none", **nothing, **arguments,
    )  # fmt: skip
    results = train(monkeypatch, recipe)
    return results, PreparedClips(str(tmp_path / "out" / "_features" / "train-0"))


@pytest.fixture(autouse=True)
def clean(work):
    yield
    for name in (BAD, "bad.flac"):
        (work / "audio" / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("make_bad", "reason"),
    [
        (missing_file, "no such recording"),
        (zero_length_clip, "no samples"),
        (empty_file, "empty"),
        (corrupt_clip, "it is damaged or cut off"),
        (empty_caption, "its caption is empty"),
    ],
)
def test_a_clip_that_cannot_be_used_is_listed_and_skipped_up_to_a_share(
    work, tmp_path, monkeypatch, caplog, make_bad, reason
):
    make_bad(work)
    results, features = run(work, tmp_path, monkeypatch, max_bad_share=0.2)
    assert np.isfinite(results["train_loss"]) and features.names == GOOD
    (bad,) = features.manifest["bad_clips"]
    assert bad["name"] == BAD and reason in bad["reason"], bad
    assert f"{BAD} left out: " in caplog.text
    with pytest.raises(CaptionDataError, match=rf"1 of 8 clips cannot be used \({BAD}: .* allowed are 10.0%"):
        run(work, tmp_path / "strict", monkeypatch, max_bad_share=0.1)


@pytest.mark.parametrize(
    ("make_odd", "names", "num_frames"),
    [
        (duplicate_ids, GOOD, None),
        (empty_caption_beside_a_good_one, [*GOOD, BAD], 23),
        (clip_of_another_format, [*GOOD, BAD], 23),
        (caption_longer_than_the_decoder, [*GOOD, BAD], 23),
        (clip_shorter_than_a_mask_span, [*GOOD, BAD], 3),
        (clip_of_an_hour, [*GOOD, BAD], 75),
    ],
)
def test_odd_clips_are_trained_on(work, tmp_path, monkeypatch, caplog, make_odd, names, num_frames):
    make_odd(work)
    results, features = run(work, tmp_path, monkeypatch, max_bad_share=0.0)
    assert np.isfinite(results["train_loss"]) and features.names == names
    assert features.manifest["bad_clips"] == []
    if num_frames is not None:
        assert features.lengths[-1] == num_frames
    expected = [CAPTIONS[0], "another caption"] if make_odd is duplicate_ids else [CAPTIONS[0]]
    assert features.captions[0] == expected
    is_cut = "1 of 8 captions are longer than 128 tokens and are cut" in caplog.text
    assert is_cut == (make_odd is caption_longer_than_the_decoder)


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (csv_that_is_not_utf8, r"table.csv is not utf-8 text .*; save it as UTF-8, or say its `encoding`"),
        (wrong_columns, r"table.csv has the columns 'sound', 'label'; expected a recording \(`file_path`"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(work, tmp_path, monkeypatch, make_wrong, message):
    make_wrong(work)
    with pytest.raises(CaptionDataError, match=message):
        run(work, tmp_path, monkeypatch)
    assert not os.path.exists(tmp_path / "out" / "_features")
