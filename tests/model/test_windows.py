"""Windows of long recordings: their places to the sample, their sound to the bit, whatever the file."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from enclap_hf.model.audio_errors import AudioLoadError
from enclap_hf.model.windows import FixedWindows, Window, WindowPlan, cut_windows, plan_windows


def cut(plan: WindowPlan, rate: int, num_samples: int, block: int) -> list[Window]:
    """All windows of a recording that comes in blocks."""
    segmenter, found = FixedWindows(plan, rate), []
    for start in range(0, num_samples, block):
        found += segmenter.feed(np.empty((1, min(block, num_samples - start)), np.int8))
    return found + segmenter.finish()


def cut_as_transformers_does(num_samples: int, chunk: int, left: int, right: int) -> list[Window]:
    """The places of `chunk_iter` of transformers' speech recognition, in whole samples."""
    windows, step = [], chunk - left - right
    for start in range(0, num_samples, step):
        end = min(start + chunk, num_samples)
        is_last = start + chunk >= num_samples
        if end - start > (left if start else 0):
            windows.append(Window(start, end, start + (left if start else 0), end if is_last else end - right))
        if is_last:
            return windows
    return windows


@pytest.mark.parametrize("strides", [(0, 0), (2, 0), (0, 3), (2, 3), (4, 4)])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_windows_are_those_of_transformers(strides, block):
    plan = plan_windows(None, 10, strides)
    for num_samples in range(1, 80):
        expected = cut_as_transformers_does(num_samples, 10, *strides)
        assert cut(plan, 1, num_samples, block) == expected, num_samples


@pytest.mark.parametrize("strides", [(0, 0), (1, 0), (0.5, 1.5)])
@pytest.mark.parametrize("rest", [1, 150, 299, 300, 301, 900])
def test_a_last_window_of_under_a_second_reaches_back(strides, rest):
    """And its time stamp is what remains alone."""
    rate, chunk = 300, 1200
    left, right = (round(stride * rate) for stride in strides)
    step = chunk - left - right
    num_samples = step * 5 + left + rest  # the time stamp of the last begins at step * 5 + left
    *_, before, last = cut(plan_windows(None, 4.0, strides), rate, num_samples, 100)
    if right and rest <= right:
        assert last.last == num_samples and last.last - last.first >= right
        return
    assert (last.first, last.last, last.end) == (before.last, num_samples, num_samples)
    assert last.last - last.first == rest
    assert last.start == (num_samples - chunk if rest < rate else last.first - left)


@pytest.mark.parametrize(
    ("rate", "chunk_s", "strides"),
    [(48_000, 10, (0, 0)), (44_100, 9.7, (0.3, 0.1)), (22_050, 1 / 3, (0, 0)), (11_025, 13.613333333333333, (1.1, 0))],
)
def test_windows_of_a_day_are_exact_to_the_sample(rate, chunk_s, strides):
    """Steps of a fraction of a sample must not add up."""
    num_samples = 24 * 3600 * rate + 12_345
    segmenter = FixedWindows(plan_windows(None, chunk_s, strides), rate)
    step_s = Fraction(repr(float(chunk_s))) - Fraction(str(strides[0])) - Fraction(str(strides[1]))
    number, last = 0, 0

    class Silence:
        def __init__(self, length):
            self.shape = (1, length)

    for start in range(0, num_samples, 600 * rate):
        for window in segmenter.feed(Silence(min(600 * rate, num_samples - start))):
            assert abs(window.start - number * step_s * rate) <= Fraction(1, 2)
            assert window.first == last, "no sample is left out, none is captioned twice"
            number, last = number + 1, window.last
    (final,) = segmenter.finish()
    assert final.first == last and final.last == num_samples and number > 24 * 3600 / chunk_s - 2


@pytest.mark.parametrize("strides", [(0, 0), (2, 1), (3, 0)])
def test_going_on_gives_the_windows_that_were_left(strides):
    plan, rate, num_samples = plan_windows(None, 10, strides), 3, 301
    every = cut(plan, rate, num_samples, 10)
    for number, window in enumerate(every):
        segmenter = FixedWindows(plan, rate)
        start = segmenter.skip_to(window.first)
        assert start <= every[number].start
        left = segmenter.feed(np.empty((1, num_samples - start))) + segmenter.finish()
        assert left == every[number:]
    segmenter = FixedWindows(plan, rate)
    start = segmenter.skip_to(num_samples)
    assert segmenter.feed(np.empty((1, num_samples - start))) + segmenter.finish() == [], "nothing is left"


@pytest.mark.parametrize("strides", [(0, 0), (2, 1)])
@pytest.mark.parametrize("block", [1, 17, 64, 500])
def test_windows_hold_the_samples_of_their_places(strides, block):
    samples = np.arange(2 * 777, dtype=np.float32).reshape(2, 777)
    blocks = [samples[:, i : i + block] for i in range(0, 777, block)]
    segmenter = FixedWindows(plan_windows(None, 10, strides), 10)
    windows = list(cut_windows(iter(blocks), segmenter))
    assert [window for window, _ in windows] == cut(plan_windows(None, 10, strides), 10, 777, 777)
    for window, part in windows:
        np.testing.assert_array_equal(part, samples[:, window.start : window.end])
        assert not np.shares_memory(part, samples)


def test_windows_come_while_the_recording_is_read_and_memory_stays():
    taken = []

    def blocks():
        for i in itertools.count():
            taken.append(i)
            yield np.zeros((1, 100), np.float32)

    windows = cut_windows(blocks(), FixedWindows(plan_windows(None, 10), 100))
    for number in range(50):
        assert next(windows)[0].start == 1000 * number
        assert len(taken) == 10 * (number + 1), "no window waits for the next"


def test_what_comes_before_a_damage_is_cut_as_if_the_recording_ended_there():
    def blocks():
        yield np.ones((1, 250), np.float32)
        raise AudioLoadError("damaged")

    found = []
    with pytest.raises(AudioLoadError, match="damaged"):
        for window, samples in cut_windows(blocks(), FixedWindows(plan_windows(None, 10), 10)):
            found.append((window.first, window.last, samples.shape[1]))
    assert found == [(0, 100, 100), (100, 200, 100), (200, 250, 50)]


def test_long_recordings_are_cut_unasked_to_what_the_model_hears():
    plan = plan_windows(20.36)
    assert (plan.limit_s, plan.chunk_length_s, plan.is_asked) == (20.36, 10.0, False)
    assert plan_windows(3.37).chunk_length_s == 3.37
    assert plan_windows(None).limit_s == plan_windows(20.0, 0).limit_s == float("inf")
    plan = plan_windows(20.0, 5, [1, 2])
    assert (plan.limit_s, plan.left_s, plan.right_s, plan.is_asked) == (5, 1, 2, True)
    assert plan_windows(20.0, stride_length_s=2).left_s == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"chunk_length_s": -1}, "`chunk_length_s`=-1; expected seconds"),
        ({"chunk_length_s": float("nan")}, "`chunk_length_s`=nan"),
        ({"chunk_length_s": "10"}, "`chunk_length_s`='10'"),
        ({"chunk_length_s": True}, "`chunk_length_s`=True"),
        ({"chunk_length_s": 13.7}, "this model hears 13.61 s at a time"),
        ({"chunk_length_s": 1e-9}, "they must leave 0.1 s"),
        ({"chunk_length_s": 10, "stride_length_s": 5}, "`stride_length_s` 5 and 5 with windows of 10 s"),
        ({"chunk_length_s": 10, "stride_length_s": [0, 9.95]}, "they must leave 0.1 s of a window"),
        ({"chunk_length_s": 10, "stride_length_s": [1, 2, 3]}, "a pair of them"),
        ({"stride_length_s": -1}, "0 or more"),
        ({"stride_length_s": 6}, "`stride_length_s` 6 and 6"),
        ({"chunk_length_s": 0, "stride_length_s": 1}, "cuts no windows"),
        ({"segmentation": "odd"}, "'fixed' or 'changes'"),
        ({"segmentation": "changes", "chunk_length_s": 2.5}, "at least 3 s"),
        ({"segmentation": "changes", "stride_length_s": 1}, "share nothing"),
    ],
)
def test_windows_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(ValueError) as caught:
        plan_windows(13.613333333333333, **arguments)
    assert said in str(caught.value) and str(caught.value).isprintable()
