"""EnCodec gives each clip the codes that it gets alone from the stock model, in any batch and any mode."""

import copy

import numpy as np
import pytest
import torch
from transformers import EncodecModel

from conftest import build_clap, build_codec, build_processor, make_clip
from enclap_hf.model import codec_encoder, encodec_frames
from enclap_hf.model.codec_encoder import encode_latent_alone
from enclap_hf.model.encodec_frames import EncodecFrames, EncodecLatents, group_by_length
from frame_encoder_models import ENCODEC_32_KHZ, ENCODEC_48_KHZ, build_encodec

BANDWIDTH = 1.5  # kbit/s of the tiny codec's 4 codebooks
# One sample, around one codec frame (320) and one convolution, around the length from which clips are batched (2240),
# lengths that leave every remainder to the strides, and some that end right behind a block of 8 frames.
LENGTHS = [1, 2, 3, 39, 319, 320, 321, 640, 777, 2239, 2240, 2241, 2559, 3200, 4001, 5123, 7999, 8000, 11_111, 24_000]
LENGTHS += [2561, 2563, 5120, 5121, 5130, 7681, 7750]


@pytest.fixture(scope="module")
def codec() -> EncodecModel:
    return build_codec()


@pytest.fixture(scope="module")
def encoder(codec) -> EncodecFrames:
    return EncodecFrames(codec)


def make_waveforms(lengths) -> list[torch.Tensor]:
    return [torch.from_numpy(make_clip(length / 24_000, seed=length)) for length in lengths]


def stock_codes(codec: EncodecModel, waveform: torch.Tensor) -> torch.Tensor:
    """What transformers' own encode returns for a clip alone: (T, K)."""
    with torch.no_grad():
        return codec.encode(waveform[None, None], bandwidth=BANDWIDTH).audio_codes[0, 0].T


def count_different(ours: torch.Tensor, expected: torch.Tensor) -> int:
    assert ours.shape == expected.shape and ours.dtype == torch.int64
    return int((ours != expected).sum())


def test_codes_of_a_clip_alone_equal_the_stock_codec(encoder, codec):
    for waveform in make_waveforms(LENGTHS):
        (ours,) = encoder.encode([waveform])
        assert len(ours) == -(-len(waveform) // 320)
        assert count_different(ours, stock_codes(codec, waveform)) == 0


@pytest.mark.parametrize(
    ("batch_size", "together", "block_frames"), [(2, 1, 128), (4, 3, 8), (100, 1, 8), (100, 100, 128), (100, 100, 16)]
)
def test_codes_in_a_batch_equal_the_stock_codec_alone(codec, monkeypatch, batch_size, together, block_frames):
    """A batch padded with zeros would change the last, partial frame."""
    monkeypatch.setitem(encodec_frames.BATCH_SIZE, "cpu", batch_size)
    monkeypatch.setitem(codec_encoder.CONVOLUTION_BATCH_SIZE, "cpu", together)
    monkeypatch.setitem(codec_encoder.CONVOLUTION_BLOCK_FRAMES, "cpu", block_frames)
    monkeypatch.setattr(codec_encoder, "LSTM_BLOCK_FRAMES", 10)
    waveforms = make_waveforms([length for length in LENGTHS if length >= 2240])
    encoder = EncodecFrames(codec)
    for ours, waveform in zip(encoder.encode(waveforms), waveforms, strict=True):
        assert count_different(ours, stock_codes(codec, waveform)) == 0


def test_clips_too_short_to_batch_and_long_ones_mix(encoder, codec):
    waveforms = make_waveforms([24_000, 1, 8000, 320, 5123])
    for ours, waveform in zip(encoder.encode(waveforms), waveforms, strict=True):
        assert count_different(ours, stock_codes(codec, waveform)) == 0


def test_a_clip_too_short_to_batch_does_not_slow_the_others_down(encoder, monkeypatch):
    alone, encode = [], encode_latent_alone
    monkeypatch.setattr(
        codec_encoder, "encode_latent_alone", lambda codec, clip: alone.append(len(clip)) or encode(codec, clip)
    )
    encoder.encode(make_waveforms([24_000, 1, 8000, 320, 5123]))
    assert alone == [320, 1]


def test_codes_tell_sounds_apart(encoder):
    """Otherwise the tests above prove nothing."""
    codes = torch.cat(encoder.encode(make_waveforms([24_000, 8000, 5123])))
    assert all(len(codes[:, k].unique()) > 1 for k in range(4))


def test_a_clip_does_not_change_its_waveform(encoder):
    waveforms = make_waveforms([2560, 3333])
    before = copy.deepcopy(waveforms)
    encoder.encode(waveforms)
    torch.testing.assert_close(waveforms, before, atol=0, rtol=0)


def test_fewer_codebooks_are_the_first_ones_and_more_are_refused(codec):
    encoder, waveforms = EncodecFrames(codec), make_waveforms([4001])
    whole = encoder.encode(waveforms)[0]
    encoder.limit_codebooks(2)
    assert torch.equal(encoder.encode(waveforms)[0], whole[:, :2])
    with pytest.raises(ValueError, match="Asked for 5 codebooks of a codec that has 4"):
        encoder.limit_codebooks(5)
    encoder.limit_codebooks(4)
    assert torch.equal(encoder.encode(waveforms)[0], whole)


def assert_codes_equal_the_stock_codec(codec: EncodecModel, lengths: list[int], num_codebooks: int = 4) -> None:
    """In a batch, and telling sounds apart."""
    waveforms, encoder = make_waveforms(lengths), EncodecFrames(codec)
    encoder.limit_codebooks(num_codebooks)
    codes = encoder.encode(waveforms)
    assert len(torch.cat(codes)[:, 0].unique()) > 3
    for ours, waveform in zip(codes, waveforms, strict=True):
        with torch.no_grad():
            bandwidth = codec.config.target_bandwidths[-1]
            expected = codec.encode(waveform[None, None], bandwidth=bandwidth).audio_codes[0, 0].T
        assert count_different(ours, expected[:, :num_codebooks]) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"use_conv_shortcut": False, "kernel_size": 31},
        {"num_residual_layers": 3},
        {"num_lstm_layers": 2, "upsampling_ratios": [6, 5, 3], "target_bandwidths": [6.0]},
        {"residual_kernel_size": 1, "last_kernel_size": 3},
    ],
)
@pytest.mark.parametrize("block_frames", [8, 128])
def test_causal_codecs_of_any_shape_are_batched_and_equal_the_stock_codec(monkeypatch, fields, block_frames):
    monkeypatch.setitem(codec_encoder.CONVOLUTION_BLOCK_FRAMES, "cpu", block_frames)
    monkeypatch.setattr(codec_encoder, "encode_latent_alone", None)  # an error, should it be called
    assert_codes_equal_the_stock_codec(build_encodec(**fields), [15_011, 24_000, 20_480])


def test_the_published_sizes_equal_the_stock_codec():
    codec = build_encodec(
        num_filters=32, hidden_size=128, codebook_size=1024, num_lstm_layers=2, target_bandwidths=[12.0]
    )
    assert_codes_equal_the_stock_codec(codec, [24_000, 20_001], num_codebooks=16)


@pytest.mark.parametrize(
    "change",
    [
        {"use_causal_conv": False},
        {"normalize": True},
        {"norm_type": "time_group_norm"},
        {"pad_mode": "constant"},
    ],
)
def test_other_codecs_encode_each_clip_alone(change):
    """A codec that looks ahead, scales the clip or normalises over it cannot be batched with clips of other lengths."""
    assert_codes_equal_the_stock_codec(build_encodec(**change), [8000, 4001, 2560])


def test_encoding_leaves_the_codecs_weights_as_they_are(codec, encoder):
    before = copy.deepcopy(codec.state_dict())
    encoder.encode(make_waveforms([8000, 4001]))
    after = codec.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", [EncodecFrames, EncodecLatents])
def test_what_the_encoder_returns_can_be_trained_on(codec, family):
    (frames,) = family(codec).encode(make_waveforms([4001]))
    weight = torch.ones(frames.shape[1], 5, requires_grad=True)
    (frames.float() @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, frames.float().sum(0)[:, None].expand(-1, 5))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_no_convolution_takes_the_slow_routine(encoder, num_threads):
    """torch's own choice would, for short kernels in a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.profiler.profile() as profile:
            encoder.encode(make_waveforms([24_000]))
    finally:
        torch.set_num_threads(before)
    called = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in called and not any("slow_conv" in name for name in called)


def test_clips_of_about_one_length_share_the_shapes_of_their_convolutions(codec, monkeypatch):
    """oneDNN compiles for each shape, which takes as long as encoding some seconds."""
    shapes, convolve = [], codec_encoder.convolve

    def listen(states, *args):
        shapes[-1].append(tuple(states.shape))
        return convolve(states, *args)

    monkeypatch.setattr(codec_encoder, "convolve", listen)
    latents = codec_encoder.CodecEncoder(codec, torch.device("cpu")).encode
    for length in (30_720, 25_001, 20_481):
        shapes.append([])
        with torch.inference_mode():
            assert len(latents(make_waveforms([length]))[0]) == -(-length // 320)
    assert len(shapes[0]) > 10 and shapes[0] == shapes[1] == shapes[2]


# Codecs of other rates and channels


def make_stereo(num_samples: int) -> np.ndarray:
    """Unlike channels: float32 (2, num_samples) at 48 kHz."""
    return np.stack([make_clip(num_samples / 48_000, seed=seed, sampling_rate=48_000) for seed in (5, 6)])


def test_ten_seconds_at_32_khz_give_500_frames():
    encoder = EncodecFrames(build_encodec(**ENCODEC_32_KHZ))
    assert (encoder.sampling_rate, encoder.frame_rate, encoder.num_channels) == (32_000, 50.0, 1)
    clip = make_clip(10.0, sampling_rate=32_000)
    (codes,) = encoder.encode([encoder.prepare(clip[None])])
    assert codes.shape == (500, 4)
    assert count_different(codes, encoder.model.encode(torch.from_numpy(clip)[None, None]).audio_codes[0, 0].T) == 0


def test_a_stereo_codec_reads_both_channels_and_mono_twice():
    encoder = EncodecFrames(build_encodec(**ENCODEC_48_KHZ))
    assert encoder.num_channels is None  # all that there are
    stereo = make_stereo(30_000)
    assert np.array_equal(encoder.prepare(stereo), stereo)
    mono = encoder.prepare(stereo[:1])
    assert np.array_equal(mono, np.repeat(stereo[:1], 2, axis=0))
    surround = np.concatenate([stereo, stereo[:1]])
    assert np.allclose(encoder.prepare(surround), surround.mean(0), atol=1e-7)  # float32 sums in another order
    swapped = encoder.prepare(stereo[::-1])
    codes = encoder.encode([encoder.prepare(stereo), swapped, mono])
    assert not torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])
    with torch.no_grad():
        expected = encoder.model.encode(mono[None], bandwidth=3.0).audio_codes[0, 0].T
    assert torch.equal(codes[2], expected)


@pytest.mark.parametrize("num_samples", [1, 320, 47_520, 47_600, 48_000, 48_001, 95_300, 120_000])
def test_segments_equal_those_of_the_stock_codec_without_its_padding(num_samples):
    codec = build_encodec(**ENCODEC_48_KHZ)
    encoder, stereo = EncodecFrames(codec), make_stereo(num_samples)
    (codes,) = encoder.encode([encoder.prepare(stereo)])
    with torch.no_grad():
        out = codec.encode(torch.from_numpy(stereo)[None], bandwidth=3.0)
    expected = torch.cat([segment[0].T for segment in out.audio_codes])
    assert torch.equal(codes, expected[: len(expected) - (out.last_frame_pad_length or 0)])
    starts = range(0, num_samples, 47_520)
    assert len(codes) == sum(-(-min(48_000, num_samples - start) // 320) for start in starts)


def test_a_clip_whose_last_segment_but_one_is_short_has_codes_too():
    """The stock codec fails on it, for it can stack only segments of the first one's number of frames."""
    codec = build_encodec(**ENCODEC_48_KHZ)
    encoder, stereo = EncodecFrames(codec), make_stereo(95_200)
    with pytest.raises(RuntimeError, match="stack"):
        codec.encode(torch.from_numpy(stereo)[None], bandwidth=3.0)
    (codes,) = encoder.encode([encoder.prepare(stereo)])
    alone = [encoder.encode([torch.from_numpy(stereo[:, start : start + 48_000])])[0] for start in (0, 47_520)]
    assert len(codes) == 150 + 149 + 1
    assert torch.equal(codes[:150], alone[0][:150]) and torch.equal(codes[150:299], alone[1][:149])


def test_the_lowest_bandwidth_with_enough_codebooks_is_taken(monkeypatch):
    encoder, asked = EncodecFrames(build_encodec(**ENCODEC_48_KHZ)), []
    clip, encode = encoder.prepare(make_stereo(4000)), encoder.model.quantizer.encode
    whole = encoder.encode([clip])[0]
    monkeypatch.setattr(encoder.model.quantizer, "encode", lambda x, width: asked.append(width) or encode(x, width))
    for num_codebooks in (1, 2, 3, 4):
        encoder.limit_codebooks(num_codebooks)
        assert torch.equal(encoder.encode([clip])[0], whole[:, :num_codebooks])
    assert asked == [1.5, 1.5, 3.0, 3.0]


# Latents


@pytest.mark.parametrize("fields", [{}, ENCODEC_32_KHZ], ids=["24 kHz", "32 kHz"])
def test_latents_are_what_the_stock_encoder_gives_the_quantiser(fields):
    codec = build_encodec(**fields)
    encoder, rate = EncodecLatents(codec), codec.config.sampling_rate
    assert (encoder.kind, encoder.frame_dim, encoder.num_codebooks) == ("features", 16, None)
    clips = [torch.from_numpy(make_clip(seconds, sampling_rate=rate)) for seconds in (0.5, 1.3, 1 / rate)]
    for ours, clip in zip(encoder.encode(clips), clips, strict=True):
        with torch.no_grad():
            expected = codec.encoder(clip[None, None])[0].T
        assert ours.dtype == torch.float32 and ours.shape == expected.shape
        assert (ours - expected).norm() < 1e-5 * expected.norm()  # float32 sums in another order


def test_latents_of_segments_are_refused():
    with pytest.raises(ValueError, match="stereo, scaled or cut into segments"):
        EncodecLatents(build_encodec(**ENCODEC_48_KHZ))


# Loading and number types


@pytest.mark.parametrize("fields", [{}, ENCODEC_32_KHZ, ENCODEC_48_KHZ], ids=["24 kHz", "32 kHz", "48 kHz"])
def test_it_stays_in_float32_under_autocast(fields):
    encoder, waveforms = EncodecFrames(build_encodec(**fields)), make_waveforms([4001, 8000])
    codes = encoder.encode(waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, encoder.encode(waveforms), codes))


def test_a_codec_saved_in_half_precision_runs_in_float32(tmp_path):
    build_codec().half().save_pretrained(tmp_path)
    encoder = EncodecFrames.load(str(tmp_path))
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    assert not encoder.model.training and not any(p.requires_grad for p in encoder.model.parameters())
    encoder.encode(make_waveforms([4001]))


def test_encoders_handed_over_in_half_precision_run_in_float32():
    processor = build_processor()
    half = type(processor).from_encoders(
        processor.feature_extractor, processor.tokenizer, build_codec().half(), build_clap().half(), num_codebooks=4
    )
    assert half(audio=make_clip(0.3), sampling_rate=24_000)["clap_embedding"].dtype == torch.float32
    assert half.codec.dtype == half.clap.dtype == torch.float32


def test_the_weights_are_read_when_they_are_first_needed(tmp_path, codec):
    codec.save_pretrained(tmp_path)
    encoder = EncodecFrames.load(str(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "moved")
    assert (encoder.sampling_rate, encoder.frame_rate, encoder.num_codebooks) == (24_000, 75.0, 4)
    (tmp_path / "moved").rename(tmp_path / "model.safetensors")
    (waveform,) = make_waveforms([4001])
    assert count_different(encoder.encode([waveform])[0], stock_codes(codec, waveform)) == 0


def test_a_codec_stored_without_its_decoder_loads_without_one(tmp_path, codec, encoder):
    """Random weights in its place must not pass for a decoder."""
    state = {name: value for name, value in codec.state_dict().items() if not name.startswith("decoder.")}
    codec.save_pretrained(tmp_path / "codec", state_dict=state)
    loaded = EncodecFrames.load(str(tmp_path / "codec"))
    waveforms = make_waveforms([4001, 8000])
    assert loaded.model.decoder is None
    for ours, waveform in zip(loaded.encode(waveforms), waveforms, strict=True):
        assert count_different(ours, stock_codes(codec, waveform)) == 0
    loaded.save(str(tmp_path / "again"))
    again = EncodecFrames.load(str(tmp_path / "again"))
    assert all(map(torch.equal, again.encode(waveforms), loaded.encode(waveforms)))
    assert again.fingerprint == loaded.fingerprint == encoder.fingerprint  # codes do not depend on the decoder


def test_it_runs_where_it_is_sent(tmp_path, codec):
    codec.save_pretrained(tmp_path)
    for later in (False, True):
        encoder = EncodecFrames.load(str(tmp_path))
        if not later:
            encoder.encode(make_waveforms([4001]))
        assert encoder.to("meta").device == encoder.model.device == torch.device("meta")
        assert encoder.fast_encoder.codebooks[0][0].device == torch.device("meta")


def test_groups_hold_clips_of_like_length_and_every_clip_once():
    groups = group_by_length([5, 9, 1, 7, 3], 2)
    assert groups == [[1, 3], [0, 4], [2]]
    assert group_by_length([], 4) == []
