"""What CLAP and EnCodec are given equals an independent computation of it, and does not depend on other clips."""

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from conftest import build_feature_extractor, make_clip
from enclap_hf import EnClapFeatureExtractor
from enclap_hf.model import log_mel
from enclap_hf.model.feature_extraction_enclap import choose_window_starts

WINDOW = 480_000  # samples of LAION-CLAP's ten seconds
# Power sums run in another order: in dB, where a bin is nearly silent, that shows in the second digit.
MEL_ATOL_DB = 0.02


@pytest.fixture(scope="module")
def laion() -> EnClapFeatureExtractor:
    return EnClapFeatureExtractor(int16_round_trip=False)


def stock_mel(samples: np.ndarray, extractor: EnClapFeatureExtractor) -> np.ndarray:
    """Log-mel of transformers' own numpy code: (mel frames, mel bins)."""
    filters = mel_filter_bank(
        num_frequency_bins=extractor.n_fft // 2 + 1,
        num_mel_filters=extractor.num_mel_bins,
        min_frequency=extractor.frequency_min,
        max_frequency=extractor.frequency_max,
        sampling_rate=extractor.clap_sampling_rate,
        norm=None,
        mel_scale="htk",
    )
    return spectrogram(
        samples.astype(np.float64),
        window_function(extractor.n_fft, "hann"),
        frame_length=extractor.n_fft,
        hop_length=extractor.hop_length,
        power=2.0,
        mel_filters=filters,
        log_mel="dB",
    ).T


def shrink_bilinear(mel: np.ndarray, num_frames: int) -> np.ndarray:
    """Bilinear without antialiasing along time: output frame i reads around (i + 0.5) * scale - 0.5."""
    position = np.clip((np.arange(num_frames) + 0.5) * len(mel) / num_frames - 0.5, 0, len(mel) - 1)
    left = np.floor(position).astype(int)
    right = np.minimum(left + 1, len(mel) - 1)
    share = (position - left)[:, None]
    return (1 - share) * mel[left] + share * mel[right]


def noisy_clip(num_samples: int, sampling_rate: int = 48_000) -> np.ndarray:
    """White noise under a tone: no bin is silent, so dB values compare well."""
    return make_clip(num_samples / sampling_rate + 0.1, seed=num_samples, sampling_rate=sampling_rate)[:num_samples]


def test_mel_equals_the_stock_computation(laion):
    samples = noisy_clip(61_000)
    ours = laion.log_mel(torch.from_numpy(samples)).numpy()
    assert ours.shape == (61_000 // 480 + 1, 64) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, stock_mel(samples, laion), atol=MEL_ATOL_DB, rtol=0)


def test_filters_are_made_once_for_each_setting(laion, monkeypatch):
    laion.log_mel(torch.zeros(4800))
    monkeypatch.setattr(log_mel, "mel_filter_bank", None)  # an error, should it be called
    laion.log_mel(torch.ones(4800))
    with pytest.raises(TypeError):
        EnClapFeatureExtractor(frequency_max=12_345.0).log_mel(torch.zeros(4800))


def test_silence_has_the_lowest_level_and_no_infinity(laion):
    assert (laion.log_mel(torch.zeros(48_000)) == -100).all()


@pytest.mark.parametrize("block", [1, 7, 40, 128])
def test_mel_in_blocks_equals_mel_in_one(laion, monkeypatch, block):
    samples = torch.from_numpy(noisy_clip(48_000))
    whole = laion.log_mel(samples)
    monkeypatch.setattr(log_mel, "MEL_BLOCK_FRAMES", block)
    torch.testing.assert_close(laion.log_mel(samples), whole, atol=1e-3, rtol=0)  # dB; another matmul shape


@pytest.mark.parametrize("num_samples", [1, 500, 100_000, 240_000, 479_999, WINDOW])
def test_a_short_clip_is_repeated_whole_times_then_padded(laion, num_samples):
    samples = noisy_clip(num_samples)
    filled = np.zeros(WINDOW, dtype=np.float32)
    for start in range(0, WINDOW - num_samples + 1, num_samples):
        filled[start : start + num_samples] = samples
    windows, longer = laion.prepare_clap_windows(torch.from_numpy(samples))
    assert windows.shape == (4, 1001, 64) and not longer
    expected = laion.log_mel(torch.from_numpy(filled))
    for window in windows:
        assert torch.equal(window, expected)


@pytest.mark.parametrize("num_samples", [480_001, 480_300, 480_479])
def test_a_clip_longer_by_less_than_a_hop_counts_as_one_window(laion, num_samples):
    """It has as many mel frames as the window; all of its samples are read."""
    samples = noisy_clip(num_samples)
    windows, longer = laion.prepare_clap_windows(torch.from_numpy(samples))
    assert windows.shape == (4, 1001, 64) and not longer
    assert all(torch.equal(window, windows[0]) for window in windows)
    np.testing.assert_allclose(windows[0].numpy(), stock_mel(samples, laion), atol=MEL_ATOL_DB, rtol=0)


@pytest.mark.parametrize("num_samples", [480_480, 480_960, 481_440, 700_123])
def test_a_longer_clip_is_shrunk_and_cut_as_laion_does_in_the_middle_of_its_thirds(laion, num_samples):
    samples = noisy_clip(num_samples)
    windows, longer = laion.prepare_clap_windows(torch.from_numpy(samples))
    assert windows.shape == (4, 1001, 64) and longer
    mel = stock_mel(samples, laion)
    np.testing.assert_allclose(windows[0].numpy(), shrink_bilinear(mel, 1001), atol=MEL_ATOL_DB, rtol=0)
    thirds = np.array_split(list(range(0, len(mel) - 1001 + 1)), 3)
    for window, third in zip(windows[1:], thirds, strict=True):
        start = int(third[len(third) // 2]) if len(third) else 0
        np.testing.assert_allclose(window.numpy(), mel[start : start + 1001], atol=MEL_ATOL_DB, rtol=0)


def test_window_starts_come_from_their_thirds_and_follow_the_generator():
    assert choose_window_starts(1002, 1001) == [0, 1, 0]  # two possible starts, so the last third has none
    assert choose_window_starts(2000, 1001) == [167, 500, 833]
    drawn = np.array([choose_window_starts(2000, 1001, np.random.default_rng(seed)) for seed in range(200)])
    assert ((drawn >= [0, 334, 667]) & (drawn <= [333, 666, 999])).all()
    assert all(len(np.unique(column)) > 50 for column in drawn.T)
    again = [choose_window_starts(2000, 1001, np.random.default_rng(7)) for _ in range(2)]
    assert again[0] == again[1]


def test_middle_takes_the_window_in_the_middle():
    extractor = build_feature_extractor("middle")
    samples = torch.from_numpy(make_clip(5.0, sampling_rate=16_000))
    windows, longer = extractor.prepare_clap_windows(samples)
    assert windows.shape == (1, 201, 16) and not longer
    middle, _ = extractor.prepare_clap_windows(samples[24_000:56_000])
    assert torch.equal(windows, middle)


def test_int16_round_trip_is_the_published_truncation():
    extractor = build_feature_extractor()
    samples = np.array([0.5, -0.5, 1.7, -1.7, 1e-5, -1e-5] * 6000, dtype=np.float32)
    truncated = (np.clip(samples, -1, 1) * 32767).astype(np.int16).astype(np.float32) / 32767
    with_round_trip, _ = extractor.prepare_clap_windows(torch.from_numpy(samples))
    extractor.int16_round_trip = False
    plain, _ = extractor.prepare_clap_windows(torch.from_numpy(truncated))
    torch.testing.assert_close(with_round_trip, plain, atol=1e-4, rtol=0)
    untouched, _ = extractor.prepare_clap_windows(torch.from_numpy(samples))
    assert (untouched - plain).abs().max() > 0.01


@pytest.mark.parametrize("long_clips", ["middle", "fusion"])
def test_a_clip_is_the_same_alone_and_in_any_order(long_clips):
    extractor = build_feature_extractor(long_clips)
    clips = [make_clip(duration_s, seed) for seed, duration_s in enumerate((0.3, 2.0, 4.1, 3.0))]
    together, reversed_ = extractor(clips, 24_000), extractor(clips[::-1], 24_000)
    for i, clip in enumerate(clips):
        alone = extractor(clip, 24_000)
        for batch, place in ((together, i), (reversed_, 3 - i)):
            for name in ("input_values", "input_features", "is_longer"):
                assert torch.equal(batch[name][place], alone[name][0]), name
    assert together["is_longer"].tolist() == [
        [longer and long_clips == "fusion"] for longer in (False, False, True, True)
    ]


def test_random_windows_need_a_generator_and_follow_it():
    extractor, clip = build_feature_extractor("fusion"), make_clip(6.0)
    plain = extractor(clip, 24_000)["input_features"]
    drawn = [extractor(clip, 24_000, rng=np.random.default_rng(seed))["input_features"] for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], plain)
    np.random.seed(0)
    assert torch.equal(extractor(clip, 24_000)["input_features"], plain), "global randomness has no effect"


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000])
def test_every_sampling_rate_gives_the_same_sound(rate):
    """A 440 Hz tone keeps its mel bin, its level and its length."""
    extractor = build_feature_extractor()
    tone = [np.sin(2 * np.pi * 440 * np.arange(round(hz * 2.0)) / hz).astype(np.float32) * 0.5 for hz in (rate, 16_000)]
    ours, expected = extractor(tone[0], rate), extractor(tone[1], 16_000)
    assert abs(len(ours["input_values"][0]) - 48_000) <= 1
    level = [mel["input_features"][0, 0, 20:-20].mean(0) for mel in (ours, expected)]
    assert level[0].argmax() == level[1].argmax()
    assert abs(level[0].max() - level[1].max()) < 0.1  # dB; the resampler's ripple
    codec = ours["input_values"][0]
    assert abs(codec[1000:-1000].pow(2).mean().sqrt() - 0.5 / 2**0.5) < 0.005


@pytest.mark.parametrize("rate", [8000, 24_000, 44_100])
def test_cutting_to_the_window_gives_the_beginning_of_the_whole(rate):
    clip = make_clip(8.0, sampling_rate=rate)
    cut, whole = build_feature_extractor(), build_feature_extractor()
    whole.max_codec_frames = None
    ours, expected = (e.prepare_samples(clip[None], rate, e.default_encoder) for e in (cut, whole))
    assert len(ours) == 253 * 320 < len(expected)
    torch.testing.assert_close(ours, expected[: len(ours)], atol=1e-5, rtol=0)  # soxr works in blocks


def test_saving_and_loading_keeps_every_field(tmp_path):
    extractor = build_feature_extractor("fusion")
    extractor.save_pretrained(tmp_path)
    assert EnClapFeatureExtractor.from_pretrained(tmp_path).to_dict() == extractor.to_dict()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"long_clips": "random"}, "long_clips"),
        ({"frequency_max": 24_001.0}, "frequency_max"),
        ({"frequency_min": 15_000.0}, "frequency_min"),
        ({"max_codec_frames": 0}, "max_codec_frames"),
    ],
)
def test_a_field_out_of_range_is_named(fields, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        EnClapFeatureExtractor(**fields)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="recording"):
        build_feature_extractor()([])


def test_defaults_are_those_of_laion_clap_and_encodec():
    extractor = EnClapFeatureExtractor()
    assert extractor.clap_window_length == WINDOW and extractor.window_mel_frames == 1001
    assert extractor.default_encoder.frame_rate == 75 and extractor.default_encoder.sampling_rate == 24_000
    assert extractor.sampling_rate == 48_000
