"""Synthetic scenes: what a seed fixes, that captions say what was placed, and the data set on disk."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from enclap_hf import sound_scenes
from enclap_hf.sound_scenes import SAMPLING_RATE, SOUND_KINDS, degrade_audio, make_scene, parse_caption, write_scenes
from enclap_hf.sound_scenes.scene_captions import TEMPLATES, write_captions
from enclap_hf.sound_scenes.scene_plan import plan_scene

COUNTABLE = sorted(name for name, kind in SOUND_KINDS.items() if kind.countable)


def plan_of(seed):
    return plan_scene(np.random.default_rng([seed, 0]), None, None, None, None)


def count_strokes(audio):
    """Count strokes by the rises of a short-term envelope, without looking at how they were placed."""
    frame = SAMPLING_RATE // 100
    level = np.sqrt(np.mean(audio[: len(audio) // frame * frame].reshape(-1, frame) ** 2, axis=1))
    level = np.convolve(level, np.ones(4) / 4)
    high, low, strokes, above = 0.45 * level.max(), 0.2 * level.max(), 0, False
    for value in level:
        if not above and value > high:
            strokes, above = strokes + 1, True
        elif above and value < low:
            above = False
    return strokes


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed) for seed in range(70)]


def test_a_seed_gives_the_same_scene_whatever_was_made_before():
    first = make_scene(12)
    make_scene(13)
    again = make_scene(12)
    np.testing.assert_array_equal(first.audio, again.audio)
    assert (first.events, first.captions, first.relation) == (again.events, again.captions, again.relation)
    assert not np.array_equal(first.audio[:1000], make_scene(14).audio[:1000])


def test_a_seed_gives_the_same_scene_in_another_process():
    code = (
        "from enclap_hf.sound_scenes import make_scene; import hashlib; s = make_scene(5); "
        "print(hashlib.sha256(s.audio.tobytes() + repr((s.events, s.captions)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_every_wording_names_its_own_kind_and_no_other():
    for name, kind in SOUND_KINDS.items():
        assert len(kind.clauses) >= 3 and len(kind.clauses) == len(kind.phrases)
        for wording in kind.clauses + kind.phrases:
            assert parse_caption(wording).kinds == (name,), wording


def test_captions_of_3000_scenes_parse_back():
    rng = np.random.default_rng(0)
    for seed in range(3000):
        plan = plan_of(seed)
        kinds = [kind.name for kind in plan.kinds]
        counts = [int(rng.integers(1, 6)) if kind.countable else None for kind in plan.kinds]
        captions = write_captions(np.random.default_rng([seed, 2]), plan.relation, kinds, counts)
        assert len(set(captions)) == 5
        for caption in captions:
            parsed = parse_caption(caption)
            assert set(parsed.kinds) == set(kinds), caption
            assert parsed.relation == plan.relation, caption
            if plan.relation == "then":
                assert list(parsed.kinds) == kinds, caption
            for name, count in parsed.counts.items():
                assert counts[kinds.index(name)] == count, caption
            assert caption[0].isupper() and caption.endswith(".") and len(caption.split()) <= 25


def test_make_scene_uses_the_plan_and_the_captions_tested_above(scenes):
    for scene in scenes[:10]:
        kinds, counts = [event.kind for event in scene.events], [event.count for event in scene.events]
        assert kinds == [kind.name for kind in plan_of(scene.seed).kinds]
        assert scene.captions == write_captions(np.random.default_rng([scene.seed, 2]), scene.relation, kinds, counts)


@pytest.mark.parametrize(
    ("caption", "kinds", "relation"),
    [
        ("Rain falls after a dog barks.", ("dog", "rain"), "then"),
        ("After a dog barks, rain falls.", ("dog", "rain"), "then"),
        ("rain falls while a man whistles", ("rain", "whistling"), "while"),
        ("A cat meows, then a cow moos, while wind blows in the background.", ("cat", "cow", "wind"), "background"),
        ("A train whistle blows, and afterwards a train passes.", ("train_whistle", "train"), "then"),
        ("A dog barks and a dog barks.", ("dog",), "single"),
        ("A spoon stirs the soup.", (), None),
        ("", (), None),
    ],
)
def test_the_parser_reads_any_text(caption, kinds, relation):
    parsed = parse_caption(caption)
    assert (parsed.kinds, parsed.relation) == (kinds, relation)


def test_the_parser_gives_a_count_to_the_kind_before_it():
    caption = "A dog barks three times, then someone knocks twice, with rain falling in the background."
    assert parse_caption(caption).counts == {"dog": 3, "knocking": 2}


def test_scenes_are_finite_unclipped_and_within_the_level_range(scenes):
    for scene in scenes:
        assert scene.audio.dtype == np.float32 and scene.audio.ndim == 1 and scene.sampling_rate == 24000
        assert 3.5 - 1e-3 <= len(scene.audio) / SAMPLING_RATE <= 7.5
        assert np.isfinite(scene.audio).all() and np.abs(scene.audio).max() < 0.999
        level_db = 20 * np.log10(np.sqrt(np.mean(scene.audio.astype(np.float64) ** 2)))
        # Below -30 dB only where a peak, as of a single knock, forbids more.
        assert level_db <= -15.9 and (level_db >= -30.1 or np.abs(scene.audio).max() > 0.9)


def test_events_lie_in_the_scene_and_follow_their_relation(scenes):
    for scene in scenes:
        events = scene.events
        assert len({event.kind for event in events}) == len(events)
        for event in events:
            assert 0 <= event.start_s < event.end_s <= len(scene.audio) / SAMPLING_RATE + 1e-6
        in_sequence = events if scene.relation == "then" else events[:-1] if scene.relation == "background" else ()
        for first, second in zip(in_sequence[:-1], in_sequence[1:], strict=True):
            assert second.start_s > first.start_s and second.start_s > first.end_s - 0.2
        if scene.relation == "while":
            assert (
                min(e.end_s for e in events) - max(e.start_s for e in events) > 0.5 * len(scene.audio) / SAMPLING_RATE
            )
        roles = [event.role for event in events]
        assert roles == ["foreground"] * (len(events) - 1) + [
            "background" if scene.relation == "background" else roles[0]
        ]


@pytest.mark.parametrize("name", COUNTABLE)
def test_the_number_of_strokes_is_exact(name):
    kind = SOUND_KINDS[name]
    for count in range(kind.counts[0], kind.counts[1] + 1):
        sound = kind.synthesize(np.random.default_rng(count), 10.0, count)
        assert len(sound.onsets_s) == count
        if name not in ("church_bell", "doorbell"):  # rings into the next stroke; two tones a stroke
            assert count_strokes(sound.audio) == count


@pytest.mark.parametrize("name", sorted(SOUND_KINDS))
def test_every_kind_makes_a_scene_and_its_bulk_lies_below_7_khz(name):
    scene = make_scene(3, kinds=[name])
    assert [event.kind for event in scene.events] == [name] and scene.relation == "single"
    power = np.abs(np.fft.rfft(scene.audio)) ** 2
    below = np.fft.rfftfreq(len(scene.audio), 1 / SAMPLING_RATE) < 7000
    assert power[below].sum() > 0.7 * power.sum()


def test_every_kind_and_every_relation_is_drawn():
    plans = [plan_of(seed) for seed in range(2500)]
    assert {kind.name for plan in plans for kind in plan.kinds} == set(SOUND_KINDS) and len(SOUND_KINDS) >= 42
    assert {(plan.relation, len(plan.kinds)) for plan in plans} == set(TEMPLATES)
    shares = np.bincount([len(plan.kinds) for plan in plans])[1:] / len(plans)
    np.testing.assert_allclose(shares, (0.35, 0.40, 0.25), atol=0.04)  # four standard errors of 2,500 draws


def test_what_is_asked_for_is_made():
    scene = make_scene(1, kinds=["dog", "rain"], relation="background", duration_s=5.0)
    assert [(event.kind, event.role) for event in scene.events] == [("dog", "foreground"), ("rain", "background")]
    assert len(scene.audio) == 5 * SAMPLING_RATE
    assert scene.events[1].start_s == 0.0 and scene.events[1].count is None
    drawn = make_scene(1, kinds=["dog", "cat", "owl", "bee"], num_events=2)
    assert {event.kind for event in drawn.events} < {"dog", "cat", "owl", "bee"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_events": 4}, "1, 2 or 3"),
        ({"relation": "during"}, "expected one of single"),
        ({"kinds": ["unicorn"]}, "unicorn"),
        ({"kinds": ["dog", "dog"]}, "different kinds"),
        ({"kinds": ["rain", "dog"], "relation": "background"}, "must be continuous"),
        ({"num_events": 2, "relation": "single"}, "one event only"),
        ({"kinds": ["thunder", "wind", "rain"], "relation": "then", "duration_s": 2.0}, "longer `duration_s`"),
        ({"duration_s": 0.1}, "1 to 60"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        make_scene(0, **options)


def test_degraded_audio_is_stereo_at_16_khz_and_band_limited():
    clip = make_scene(4, kinds=["rain"]).audio
    audio, rate = degrade_audio(clip, SAMPLING_RATE, gain_db=-12.0, mp3_like=True, rng=np.random.default_rng(0))
    assert rate == 16000 and audio.dtype == np.float32
    assert audio.shape == (2, -(-len(clip) * 2 // 3))
    assert not np.array_equal(audio[0], audio[1])
    power = np.abs(np.fft.rfft(audio[0])) ** 2
    hz = np.fft.rfftfreq(audio.shape[1], 1 / rate)
    assert power[hz > 7300].sum() < 1e-3 * power.sum()
    quieter_db = 10 * np.log10(np.mean(audio**2) / np.mean(clip**2))
    assert -18 < quieter_db < -11  # the band above 7 kHz is gone too


def test_a_gain_alone_keeps_the_rate_and_never_clips():
    clip = make_scene(4).audio
    quiet, rate = degrade_audio(clip, SAMPLING_RATE, gain_db=-12.0, rng=np.random.default_rng(0))
    assert rate == SAMPLING_RATE
    np.testing.assert_allclose(quiet, clip * 10 ** (-0.6), atol=1e-7)  # float32 rounding
    loud, _ = degrade_audio(clip, SAMPLING_RATE, gain_db=60.0, rng=np.random.default_rng(0))
    assert np.abs(loud).max() == 1.0
    short, _ = degrade_audio(clip[:100], SAMPLING_RATE, mp3_like=True, rng=np.random.default_rng(0))
    assert short.shape == (2, 67)
    with pytest.raises(ValueError, match="one channel"):
        degrade_audio(np.zeros((2, 10)), SAMPLING_RATE, rng=np.random.default_rng(0))


def test_written_scenes_have_the_layout_of_clotho(tmp_path):
    write_scenes(tmp_path, 4, first_seed=20, show_progress=False)
    with (tmp_path / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file_name", *(f"caption_{index}" for index in range(1, 6))]
    truth = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [row["file_name"] for row in truth]
    for seed, row, facts in zip(range(20, 24), rows, truth, strict=True):
        scene = make_scene(seed)
        audio, rate = soundfile.read(tmp_path / "audio" / row["file_name"])
        assert rate == SAMPLING_RATE
        np.testing.assert_allclose(audio, scene.audio, atol=2**-15)  # 16-bit steps
        assert tuple(row[f"caption_{index}"] for index in range(1, 6)) == scene.captions
        assert [event["kind"] for event in facts["events"]] == [event.kind for event in scene.events]


def test_a_stopped_run_is_taken_up_where_it_ended(tmp_path, monkeypatch):
    write_scenes(tmp_path, 3, show_progress=False)
    whole = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    lines = (tmp_path / "events.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_text(lines[0] + lines[1] + lines[2][:40])
    (tmp_path / "captions.csv").unlink()
    made = []
    original = sound_scenes.make_scene
    monkeypatch.setattr(
        sound_scenes.scene_files, "make_scene", lambda seed, **options: made.append(seed) or original(seed, **options)
    )
    write_scenes(tmp_path, 3, show_progress=False)
    assert made == [2]
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == whole
    write_scenes(tmp_path, 1, show_progress=False, num_events=1)
    assert made == [2, 0], "scenes of other options must not be taken over"


def test_several_workers_write_the_same_files(tmp_path):
    write_scenes(tmp_path / "one", 3, show_progress=False)
    sound_scenes.write_scenes(tmp_path / "two", 3, num_workers=2, show_progress=False)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
