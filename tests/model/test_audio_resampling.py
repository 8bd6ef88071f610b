"""Resampling keeps what both rates can hold."""

import numpy as np
import pytest

from audio_clips import CLIP, RATE, rms, sine
from enclap_hf.model.audio_resampling import resample_audio


def resample(num_samples):
    return resample_audio(np.ones(num_samples, np.float32), 48_000, 8_000)


@pytest.mark.parametrize("from_rate", [8_000, 16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("to_rate", [24_000, 48_000])
def test_resampling_keeps_a_sines_frequency_and_level(from_rate, to_rate):
    clip = sine(from_rate, 1.0, 1000.0)
    resampled = resample_audio(clip, from_rate, to_rate)
    assert resampled.dtype == np.float32 and abs(len(resampled) - to_rate) <= 1
    expected = sine(to_rate, 1.0, 1000.0)
    middle = slice(to_rate // 10, -to_rate // 10)  # the filter rings at the two ends
    np.testing.assert_allclose(resampled[: len(expected)][middle], expected[middle], atol=1e-4)  # HQ: about 100 dB


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    assert rms(resample_audio(sine(48_000, 1.0, 15_000.0), 48_000, 24_000)[2400:-2400]) < 1e-4


def test_resampling_to_the_same_rate_changes_nothing():
    assert resample_audio(CLIP, RATE, RATE) is CLIP
    assert resample_audio(CLIP.astype(np.float64), RATE, RATE).dtype == np.float32


def test_resampling_keeps_at_least_one_sample():
    for num_samples in range(1, 9):
        resampled = resample(num_samples)
        assert len(resampled) >= 1 and resampled.dtype == np.float32
    assert resample(1).tolist() == [1.0]


@pytest.mark.parametrize(
    "samples, rates",
    [(np.zeros((2, 9)), (1, 2)), (np.zeros(9, np.int16), (1, 2)), (np.zeros(0), (1, 2)), (np.zeros(9), (0, 2))]
    + [(np.zeros(9), (16_000, -1)), (np.zeros(9), (16_000, 0.5)), (np.zeros(9), (None, 2))],
)
def test_resampling_refuses_what_it_cannot_resample(samples, rates):
    with pytest.raises(ValueError, match="expected"):
        resample_audio(samples, *rates)
