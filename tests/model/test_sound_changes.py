"""Segments begin and end where the sound changes, keep their bounds, and are the same however the samples arrive."""

import tracemalloc

import numpy as np
import pytest
import torch

from conftest import make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.model.sound_changes import ChangeSegments, make_embed
from enclap_hf.model.windows import plan_windows

RATE = 8000
FRAME = RATE // 4  # samples


def make_sound(*parts: tuple[str, float], seed: int = 0) -> np.ndarray:
    """float32 (1, num_samples) of (kind, seconds): hum, whistle, hiss, loud hiss, strokes of hiss, silence."""
    rng, pieces = np.random.default_rng(seed), []
    for kind, seconds in parts:
        time = np.arange(round(seconds * RATE)) / RATE
        hiss = 0.02 * rng.standard_normal(len(time))
        pieces.append(
            {
                "hum": 0.3 * np.sin(2 * np.pi * 150 * time) + 0.01 * hiss,
                "whistle": 0.3 * np.sin(2 * np.pi * 2500 * time) + 0.01 * hiss,
                "hiss": hiss,
                "loud hiss": 10 * hiss,
                "strokes": 10 * hiss * (time % 0.5 < 0.1),
                "silence": 1e-5 * hiss,
            }[kind]
        )
    return np.concatenate(pieces).astype(np.float32)[None]


def cut(samples: np.ndarray, block: int = RATE, **options) -> list[tuple[int, int]]:
    segmenter, found = ChangeSegments(RATE, **options), []
    for start in range(0, samples.shape[1], block):
        found += segmenter.feed(samples[:, start : start + block])
    found += segmenter.finish()
    assert all((window.start, window.end) == (window.first, window.last) for window in found)
    return [(window.start, window.end) for window in found]


def find_boundaries_s(segments: list[tuple[int, int]]) -> list[float]:
    assert segments[0][0] == 0 and all(a[1] == b[0] for a, b in zip(segments, segments[1:], strict=False))
    return [end / RATE for _, end in segments[:-1]]


def tag(samples: np.ndarray, change_s: float) -> np.ndarray:
    """Samples whose mean, far below what is heard, tells `embed_tags` what they are."""
    sign = np.where(np.arange(samples.shape[1]) < change_s * RATE, -1.0, 1.0)
    return samples + 1e-4 * sign.astype(np.float32)


def embed_tags(clips: list[np.ndarray]) -> np.ndarray:
    return np.array([[1.0, 0.0] if clip.mean() < 0 else [0.0, 1.0] for clip in clips])


def test_boundaries_are_where_the_spectrum_changes():
    samples = make_sound(("hum", 4.0), ("whistle", 3.0), ("hiss", 5.5), ("hum", 2.0))
    assert find_boundaries_s(cut(samples)) == pytest.approx([4.0, 7.0, 12.5], abs=0.25)


def test_a_boundary_is_where_the_level_changes():
    assert find_boundaries_s(cut(make_sound(("hiss", 5.0), ("loud hiss", 6.0)))) == pytest.approx([5.0], abs=0.25)


def test_a_boundary_is_where_the_vector_changes():
    samples = tag(make_sound(("hum", 12.0)), change_s=7.0)
    assert find_boundaries_s(cut(samples, embed=embed_tags)) == pytest.approx([7.0], abs=0.5)
    assert find_boundaries_s(cut(samples)) == [], "nothing else tells"


def test_strokes_are_one_sound():
    assert find_boundaries_s(cut(make_sound(("strokes", 10.0), ("hum", 5.0)))) == pytest.approx([10.0], abs=0.5)


def test_a_higher_cost_gives_fewer_boundaries():
    samples = make_sound(*[("hiss", 3.0), ("loud hiss", 3.0)] * 4)
    counts = [len(cut(samples, boundary_cost=cost)) for cost in (1.0, 1000.0)]
    assert counts[0] == 8 and counts[1] < 4


@pytest.mark.parametrize(("shortest_s", "longest_s"), [(1.0, 20.0), (0.6, 1.5), (2.0, 5.3), (3.0, 6.0)])
@pytest.mark.parametrize("seconds", [11.0, 23.37])
def test_no_segment_is_shorter_or_longer_than_allowed(shortest_s, longest_s, seconds):
    rng, parts = np.random.default_rng(5), []
    while sum(length for _, length in parts) < seconds:
        parts.append((str(rng.choice(["hum", "whistle", "hiss", "silence"])), float(rng.uniform(0.2, 4.0))))
    samples = make_sound(*parts)[:, : round(seconds * RATE)]
    segments = cut(samples, shortest_s=shortest_s, longest_s=longest_s)
    find_boundaries_s(segments)
    assert segments[-1][1] == samples.shape[1]
    assert all(shortest_s * RATE <= end - start <= longest_s * RATE for start, end in segments)


def test_what_stays_the_same_is_cut_at_the_longest():
    segments = cut(make_sound(("hiss", 50.0)), longest_s=20.0)
    assert find_boundaries_s(segments) == [20.0, 40.0]


def test_silence_is_cut_out_and_not_embedded():
    samples = make_sound(("hum", 3.0), ("silence", 6.0), ("hiss", 4.0))
    heard = []

    def embed(clips):
        heard.extend(clips)
        return embed_tags(clips)

    segments = cut(samples, embed=embed)
    assert (3 * RATE, 9 * RATE) in segments
    assert heard and all(np.abs(clip).max() > 1e-3 for clip in heard)
    faint = cut(samples, silence_dbfs=None, boundary_cost=1e6)
    assert len(faint) == 1, "None knows no silence"


def test_a_sound_between_silences_takes_what_it_lacks_from_them():
    segments = cut(make_sound(("silence", 4.0), ("hum", 0.25), ("silence", 4.0)))
    sound = [(start, end) for start, end in segments if start <= 4.1 * RATE < end]
    assert [end - start for start, end in sound] == [1.5 * RATE]


def test_a_long_silence_keeps_the_longest():
    segments = cut(make_sound(("silence", 45.0)))
    assert all(end - start <= 20 * RATE for start, end in segments) and segments[-1][1] == 45 * RATE


@pytest.mark.parametrize("block", [1, 997, FRAME, 30_011, 10**9])
def test_blocks_of_any_size_give_the_same_segments(block):
    parts = [("hum", 2.3), ("hiss", 3.1), ("silence", 2.0), ("whistle", 1.7), ("hum", 4.4)]
    samples = tag(make_sound(*parts), change_s=9.0)
    if block == 1:  # one by one is slow: a part of it
        samples = samples[:, : 5 * RATE]
    options = {"embed": embed_tags, "longest_s": 4.0}
    assert cut(samples, block, **options) == cut(samples, RATE, **options)


def test_from_any_boundary_on_the_same_segments_come():
    rng = np.random.default_rng(2)
    parts = [(str(rng.choice(["hum", "whistle", "hiss", "silence"])), float(rng.uniform(0.3, 5))) for _ in range(16)]
    samples = tag(make_sound(*parts), change_s=20.1)
    segments = cut(samples, embed=embed_tags, longest_s=8.0)
    assert len(segments) > 8
    for number in (1, 2, 3, len(segments) - 1):
        segmenter = ChangeSegments(RATE, embed_tags, longest_s=8.0)
        first = segmenter.skip_to(segments[number][0])
        assert segments[number][0] - RATE < first <= segments[number][0]
        rest = segmenter.feed(samples[:, first:]) + segmenter.finish()
        assert [(window.start, window.end) for window in rest] == segments[number:]


def test_a_segment_is_decided_within_the_longest_length_and_little_is_kept():
    rng = np.random.default_rng(1)
    segmenter = ChangeSegments(RATE, embed_tags, longest_s=6.0)
    received, sizes = 0, []
    tracemalloc.start()
    try:
        for second in range(80):
            block = make_sound((str(rng.choice(["hum", "hiss"])), 1.0), seed=second)
            received += block.shape[1]
            for window in segmenter.feed(block):
                assert received - window.end <= 6 * RATE + block.shape[1]
            assert received - segmenter.needed_from <= 7 * RATE + block.shape[1]
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes[50:]) < 1.3 * max(sizes[20:50])


@pytest.mark.parametrize("num_samples", [1, 37, FRAME, RATE - 1])
def test_a_recording_below_the_shortest_is_one_segment(num_samples):
    samples = make_sound(("hum", 2.0))[:, :num_samples]
    assert cut(samples) == cut(samples, embed=embed_tags) == [(0, num_samples)]


def test_nothing_gives_nothing():
    segmenter = ChangeSegments(RATE)
    assert segmenter.feed(np.zeros((2, 0), np.float32)) == segmenter.finish() == []


def test_channels_count_as_their_mean_and_their_loudest():
    hum, hiss = make_sound(("hum", 4.0), ("hum", 4.0)), make_sound(("silence", 4.0), ("loud hiss", 4.0))
    assert find_boundaries_s(cut(np.concatenate([hum, hiss]))) == pytest.approx([4.0], abs=0.25)
    opposite = np.concatenate([hum, -hum])
    assert len(cut(opposite, silence_dbfs=-20.0)) == 1, "it cancels itself, and is not silent"


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 192_000])
def test_any_sampling_rate_gives_the_same_times(rate):
    time = np.arange(12 * rate) / rate
    samples = np.where(time < 5, np.sin(2 * np.pi * 200 * time), 0.3 * np.sin(2 * np.pi * 3000 * time))
    segmenter = ChangeSegments(rate)
    windows = segmenter.feed(samples[None].astype(np.float32)) + segmenter.finish()
    assert [window.end / rate for window in windows] == pytest.approx([5.0, 12.0], abs=0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": 3}, "`sampling_rate`=3"),
        ({"sampling_rate": 8000.5}, "`sampling_rate`=8000.5"),
        ({"shortest_s": 0}, "`shortest_s`=0"),
        ({"shortest_s": True}, "`shortest_s`=True"),
        ({"longest_s": float("inf")}, "`longest_s`=inf"),
        ({"longest_s": "10"}, "`longest_s`='10'"),
        ({"shortest_s": 3.0, "longest_s": 5.0}, "`longest_s`=5 with `shortest_s`=3"),
        ({"silence_dbfs": 3}, "`silence_dbfs`=3"),
        ({"boundary_cost": 0}, "`boundary_cost`=0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match="expected") as caught:
        ChangeSegments(**{"sampling_rate": RATE, **arguments})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_vectors_of_another_number_are_refused():
    with pytest.raises(ValueError, match=r"`embed` gave vectors of shape \(1, 2\) for \d+ clips"):
        cut(make_sound(("hum", 5.0)), embed=lambda clips: embed_tags(clips[:1]))


def test_clips_are_embedded_as_the_captioner_hears_them(tiny_processor):
    clips = [make_clip(1.0, seed, RATE) for seed in range(3)]
    vectors = make_embed(tiny_processor, RATE)([np.stack([clip, clip]) for clip in clips])
    heard = tiny_processor(audio=clips, sampling_rate=RATE)["clap_embedding"]
    torch.testing.assert_close(vectors, heard, rtol=0, atol=1e-6)  # float32 sums in another order


def test_a_captioner_without_clap_has_nothing_to_embed_with(tiny_processor):
    without = EnClapProcessor.from_encoders(
        tiny_processor.feature_extractor, tiny_processor.tokenizer, tiny_processor.codec, None, num_codebooks=4
    )
    assert make_embed(without, RATE) is None


def test_changes_share_nothing_and_have_a_longest_length():
    plan = plan_windows(13.6, segmentation="changes")
    assert (plan.limit_s, plan.chunk_length_s, plan.is_asked) == (0, 13.6, True)
    assert plan_windows(None, segmentation="changes").chunk_length_s == 20
    assert plan_windows(13.6, 5, segmentation="changes").chunk_length_s == 5
    with pytest.raises(ValueError, match="share nothing"):
        plan_windows(13.6, 10, 1, "changes")
