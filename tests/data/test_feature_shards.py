"""Prepared features are those that the processor computes, complete after any kill, and of no other encoders."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import build_clap, build_codec, build_feature_extractor, build_tokenizer, make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.data import feature_shards
from enclap_hf.data.caption_clips import CaptionDataError, Clip
from enclap_hf.data.feature_shards import FeatureSettings, prepare_features
from enclap_hf.data.prepared_features import PreparedClips, is_prepared, read_manifest
from enclap_hf.training.clips import ShownAudio, TrainingClips

SETTINGS = FeatureSettings(num_codebooks=4, shard_size=3)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Seven clips, so that the last of three shards is short."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(7):
        soundfile.write(folder / f"{i}.wav", make_clip(0.2 + 0.05 * i, i), 24_000, subtype="FLOAT")
    return [Clip(f"{i}.wav", str(folder / f"{i}.wav"), (f"a dog {i}", f"rain {i}")) for i in range(7)]


def prepare(clips, folder, processor, settings=SETTINGS, **kwargs) -> None:
    source = kwargs.pop("source", "")
    settings = replace(settings, **{"show_progress": False, "batch_size": 2, **kwargs})
    prepare_features(clips, str(folder), processor, settings, source=source)


def assert_same_features(ours: PreparedClips, expected: PreparedClips) -> None:
    assert ours.names == expected.names and ours.captions == expected.captions
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a["audio_codes"], b["audio_codes"])
        np.testing.assert_array_equal(a["clap_embedding"], b["clap_embedding"])


def test_features_are_what_the_processor_gives_for_each_clip_alone(clips, tmp_path, tiny_processor):
    prepare(clips, tmp_path, tiny_processor)
    features = PreparedClips(str(tmp_path), tiny_processor)
    assert features.names == [clip.name for clip in clips]
    for clip, row in zip(clips, features, strict=True):
        inputs = tiny_processor(audio=clip.audio)
        assert row["audio_codes"].dtype == np.uint16 and row["captions"] == list(clip.captions)
        np.testing.assert_array_equal(row["audio_codes"], inputs["audio_codes"][0])
        # A batch sums in another order.
        np.testing.assert_allclose(row["clap_embedding"], inputs["clap_embedding"][0], atol=1e-5)
    assert features.lengths == [len(row["audio_codes"]) for row in features]
    assert sorted(name for name in os.listdir(tmp_path) if name != "features.json") == [
        f"shard-{i:05d}-of-00003.arrow" for i in range(3)
    ]


def test_the_first_clips_alone_can_be_shown(clips, tmp_path, tiny_processor):
    prepare(clips, tmp_path, tiny_processor)
    whole, first = (PreparedClips(str(tmp_path), max_clips=number) for number in (100, 4))
    assert len(whole) == 7 and first.names == whole.names[:4] and len(list(first)) == 4
    np.testing.assert_array_equal(first[3]["audio_codes"], whole[3]["audio_codes"])


def test_codes_of_a_clip_longer_than_the_window_are_kept_whole(tmp_path, tiny_processor):
    """Training draws its windows from them; the processor alone keeps the first 253 frames."""
    soundfile.write(tmp_path / "long.wav", make_clip(5.0), 24_000)
    prepare([Clip("long.wav", str(tmp_path / "long.wav"), ("x",))], tmp_path / "f", tiny_processor)
    codes = PreparedClips(str(tmp_path / "f"))[0]["audio_codes"]
    head = tiny_processor(audio=str(tmp_path / "long.wav"))["audio_codes"][0]
    assert len(codes) == 375 and len(head) == 253
    np.testing.assert_array_equal(codes[:253], head)


def test_of_a_clip_of_an_hour_the_first_seconds_are_read(tmp_path, tiny_processor):
    path = tmp_path / "hour.wav"
    soundfile.write(path, np.zeros(3600 * 8000, np.int16), 8_000)
    prepare([Clip("hour.wav", str(path), ("x",))], tmp_path / "f", tiny_processor, FeatureSettings(4, 2.0))
    assert PreparedClips(str(tmp_path / "f")).lengths == [150]


def test_several_processes_write_what_one_writes(clips, tmp_path, tiny_processor):
    prepare(clips, tmp_path / "one", tiny_processor)
    for process in (2, 0, 1):
        assert not is_prepared(str(tmp_path / "three"))
        prepare(clips, tmp_path / "three", tiny_processor, process_index=process, num_processes=3)
    assert_same_features(PreparedClips(str(tmp_path / "three")), PreparedClips(str(tmp_path / "one")))


@pytest.mark.parametrize("num_batches", [0, 1, 3, 4])
def test_a_stopped_run_goes_on_without_redoing_finished_shards(
    clips, tmp_path, tiny_processor, monkeypatch, num_batches
):
    prepare(clips, tmp_path / "whole", tiny_processor)
    done, encode = [], feature_shards.encode_batch

    def stop_after(items, *args):
        if len(done) == num_batches:
            raise KeyboardInterrupt
        done.append(len(items))
        return encode(items, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_shards, "encode_batch", stop_after)
        prepare(clips, tmp_path / "stopped", tiny_processor)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("*.arrow")}
    assert len(before) == num_batches // 2 and not is_prepared(str(tmp_path / "stopped"))
    with pytest.raises(CaptionDataError, match="features that are not complete"):
        PreparedClips(str(tmp_path / "stopped"))
    prepare(clips, tmp_path / "stopped", tiny_processor)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("*.arrow")}
    assert all(after[name] == time_ns for name, time_ns in before.items())
    assert_same_features(PreparedClips(str(tmp_path / "stopped")), PreparedClips(str(tmp_path / "whole")))


def break_clip(clips, tmp_path, content: bytes) -> list[Clip]:
    (tmp_path / "bad.wav").write_bytes(content)
    return [*clips[:4], Clip("bad.wav", str(tmp_path / "bad.wav"), ("x",)), *clips[4:]]


@pytest.mark.parametrize("content", [b"", b"RIFF\x00\x00\x00\x00WAVE", b"no sound at all"])
def test_clips_that_cannot_be_read_are_listed_and_skipped(clips, tmp_path, tiny_processor, content):
    broken = break_clip(clips, tmp_path, content)
    prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.2)
    features = PreparedClips(str(tmp_path / "f"))
    assert features.names == [clip.name for clip in clips]
    (bad,) = read_manifest(str(tmp_path / "f"))["bad_clips"]
    assert bad["name"] == "bad.wav" and bad["reason"]


def test_too_many_bad_clips_are_an_error(clips, tmp_path, tiny_processor):
    broken = break_clip(clips, tmp_path, b"")
    with pytest.raises(CaptionDataError, match=r"1 of 8 clips cannot be used \(bad.wav: .*allowed are 10.0%"):
        prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.1)


@pytest.fixture
def repairable(clips, tmp_path):
    """The seven clips, the first, fourth and last of which are empty files, and what repairs them."""
    files = {i: tmp_path / f"{i}.wav" for i in (0, 3, 6)}
    for path in files.values():
        path.touch()

    def repair(*indices: int) -> None:
        for i in indices or files:
            files[i].write_bytes(Path(clips[i].audio).read_bytes())

    return [Clip(c.name, str(files[i]) if i in files else c.audio, c.captions) for i, c in enumerate(clips)], repair


def test_repaired_clips_are_taken_in_by_a_run_that_was_stopped(clips, repairable, tmp_path, tiny_processor):
    """One bad clip in each shard: the finished shards would go on without theirs."""
    broken, repair = repairable
    with pytest.raises(CaptionDataError, match="3 of 7 clips cannot be used"):
        prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.3)
    assert len(list((tmp_path / "f").glob("*.arrow"))) == 2
    repair()
    prepare(broken, tmp_path / "f", tiny_processor)
    prepare(clips, tmp_path / "whole", tiny_processor)
    assert_same_features(PreparedClips(str(tmp_path / "f")), PreparedClips(str(tmp_path / "whole")))
    assert read_manifest(str(tmp_path / "f"))["bad_clips"] == []


def test_shards_whose_bad_clips_are_as_bad_as_before_are_kept(repairable, tmp_path, tiny_processor):
    """Where one clip in a hundred is bad, each shard has some; a killed run must not begin anew for that."""
    broken, repair = repairable
    with pytest.raises(CaptionDataError):
        prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.3)
    paths = [tmp_path / "f" / f"shard-{i:05d}-of-00003.arrow" for i in range(2)]
    before = [path.stat().st_ino for path in paths]
    repair(3)
    prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.3)
    assert [path.stat().st_ino == inode for path, inode in zip(paths, before, strict=True)] == [True, False]
    bad = [clip["name"] for clip in read_manifest(str(tmp_path / "f"))["bad_clips"]]
    assert bad == ["0.wav", "6.wav"] and len(PreparedClips(str(tmp_path / "f"))) == 5


def test_bad_clips_of_finished_shards_count_when_a_run_goes_on(repairable, tmp_path, tiny_processor):
    """Else a run is refused again only at its end, hours later."""
    broken, _ = repairable
    for _ in range(2):
        with pytest.raises(CaptionDataError, match="3 of 7 clips cannot be used"):
            prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.3)
        assert len(list((tmp_path / "f").glob("*.arrow"))) == 2  # stopped in the third


@pytest.mark.parametrize("process", [0, 1, 2])
def test_no_process_completes_without_the_repaired_clips_of_another(
    clips, repairable, tmp_path, tiny_processor, process, monkeypatch
):
    """All shards are there when the first process looks, but the others have not yet redone theirs."""
    broken, repair = repairable
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_shards, "_complete_manifest", interrupt)
        prepare(broken, tmp_path / "f", tiny_processor, max_bad_share=0.5)
    repair()
    prepare(broken, tmp_path / "f", tiny_processor, process_index=process, num_processes=3)
    prepare(clips, tmp_path / "whole", tiny_processor)
    assert_same_features(PreparedClips(str(tmp_path / "f")), PreparedClips(str(tmp_path / "whole")))


def interrupt(*args) -> None:
    raise KeyboardInterrupt


def test_a_finished_folder_is_held_to_the_share_too(repairable, tmp_path, tiny_processor):
    broken, repair = repairable
    folder = tmp_path / "f"
    prepare(broken, folder, tiny_processor, max_bad_share=0.5)
    prepare(broken, folder, tiny_processor, max_bad_share=0.5)
    repair()
    with pytest.raises(CaptionDataError, match=f"3 of 7 clips .* Once they are repaired, delete {folder}, which"):
        prepare(broken, folder, tiny_processor, max_bad_share=0.4)
    shutil.rmtree(folder)
    prepare(broken, folder, tiny_processor)
    assert len(PreparedClips(str(folder))) == 7


def other_processor(**parts) -> EnClapProcessor:
    made = {"feature_extractor": build_feature_extractor(), "codec": build_codec(), "clap": build_clap(), **parts}
    return EnClapProcessor.from_encoders(
        made["feature_extractor"], build_tokenizer(), made["codec"], made["clap"], num_codebooks=4
    )


def test_features_of_other_encoders_are_refused(clips, tmp_path, tiny_processor):
    prepare(clips, tmp_path, tiny_processor)
    PreparedClips(str(tmp_path), other_processor())  # the same weights in another object
    with pytest.raises(CaptionDataError, match="are of another frame encoder"):
        PreparedClips(str(tmp_path), other_processor(codec=build_codec(seed=1)))
    with pytest.raises(CaptionDataError, match="are of another CLAP"):
        PreparedClips(str(tmp_path), other_processor(clap=build_clap(seed=1)))
    extractor = build_feature_extractor()
    extractor.int16_round_trip = False
    with pytest.raises(CaptionDataError, match="differ in `int16_round_trip` True and False"):
        PreparedClips(str(tmp_path), other_processor(feature_extractor=extractor))
    extractor = build_feature_extractor()
    extractor.max_codec_frames = 100  # the captioner's window, not the features'
    PreparedClips(str(tmp_path), other_processor(feature_extractor=extractor))


def test_a_folder_that_was_begun_with_something_else_is_refused(clips, tmp_path, tiny_processor):
    prepare(clips, tmp_path, tiny_processor)
    with pytest.raises(CaptionDataError, match="was begun with `settings`"):
        prepare(clips, tmp_path, tiny_processor, FeatureSettings(2, shard_size=3))
    with pytest.raises(CaptionDataError, match="was begun with `num_clips` 7, and this run has 6"):
        prepare(clips[:6], tmp_path, tiny_processor)
    with pytest.raises(CaptionDataError, match="was begun with `clips_sha256`"):
        prepare(clips[::-1], tmp_path, tiny_processor)
    with pytest.raises(CaptionDataError, match="another frame encoder"):
        prepare(clips, tmp_path, other_processor(codec=build_codec(seed=1)))


def test_the_manifest_names_encoders_and_settings(clips, tmp_path, tiny_processor):
    prepare(clips, tmp_path, tiny_processor, source="clips.csv")
    manifest = json.loads((tmp_path / "features.json").read_text())
    assert manifest["source"] == "clips.csv" and manifest["num_rows"] == 7
    assert manifest["settings"] == {"num_codebooks": 4, "max_duration_s": 60.0, "shard_size": 3}
    assert len(manifest["encoders"]["frames"]["sha256"]) == 64
    assert manifest["encoders"]["feature_extractor"]["clap_sampling_rate"] == 16_000


# Clips as the trainer reads them


def make_training_clips(clips, folder, processor, shown=None, **kwargs) -> TrainingClips:
    if not is_prepared(str(folder)):
        prepare(clips, folder, processor)
    return TrainingClips([PreparedClips(str(folder))], processor.tokenizer, shown or ShownAudio(32), 16, **kwargs)


def test_every_caption_or_every_clip_is_an_example(clips, tmp_path, tiny_processor):
    every = make_training_clips(clips, tmp_path, tiny_processor)
    assert len(every) == 14 and every.sizes == [14] and len(every.lengths) == 14
    decoded = [tiny_processor.decode(every[i]["labels"]) for i in range(4)]
    assert decoded == ["a dog 0", "rain 0", "a dog 1", "rain 1"]
    one = make_training_clips(clips, tmp_path, tiny_processor, captions="one")
    assert len(one) == 7 and one[3]["labels"] == every[6]["labels"]
    drawn = {tuple(one.draw(3, np.random.default_rng(seed))["labels"]) for seed in range(10)}
    assert drawn == {tuple(every[6]["labels"]), tuple(every[7]["labels"])}


def test_ablations_change_what_a_clip_shows(clips, tmp_path, tiny_processor):
    whole = make_training_clips(clips, tmp_path, tiny_processor)[0]
    first = make_training_clips(clips, tmp_path, tiny_processor, ShownAudio(32, num_codebooks=1))[0]
    np.testing.assert_array_equal(first["audio_codes"], whole["audio_codes"][:, :1])
    without = make_training_clips(clips, tmp_path, tiny_processor, ShownAudio(32, use_codes=False))
    assert without[0]["audio_codes"].tolist() == [[32] * 4] and set(without.lengths) == {1}
    assert (
        "clap_embedding" not in make_training_clips(clips, tmp_path, tiny_processor, ShownAudio(32, use_clap=False))[0]
    )


def test_wrong_choices_are_refused(clips, tmp_path, tiny_processor):
    with pytest.raises(CaptionDataError, match="reads 8 codebooks and .* holds 4"):
        make_training_clips(clips, tmp_path, tiny_processor, ShownAudio(32, num_codebooks=8))
    with pytest.raises(CaptionDataError, match="'first'; expected all or one"):
        make_training_clips(clips, tmp_path, tiny_processor, captions="first")


def test_long_captions_are_cut_and_keep_their_end(clips, tmp_path, tiny_processor, caplog):
    long = [Clip(clips[0].name, clips[0].audio, ("rain " * 50, "rain"))]
    examples = make_training_clips(long, tmp_path, tiny_processor)
    assert examples.warn_of_long_captions() == 1 and "1 of 2 captions are longer than 16 tokens" in caplog.text
    labels = examples[0]["labels"]
    assert len(labels) == 16 and labels[0] == 0 and labels[-1] == 2
