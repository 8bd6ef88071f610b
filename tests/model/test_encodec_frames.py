"""The two frozen encoders give each clip what it gets alone from the stock models, in any batch and any mode."""

import copy

import pytest
import torch
from enclap_hf.model.audio_encoders import AudioEncoders, group_by_length
from transformers import ClapAudioModelWithProjection, EncodecConfig, EncodecModel

from conftest import build_clap, build_codec, build_processor, make_clip
from enclap_hf.model import audio_encoders, codec_encoder, onednn_linear
from enclap_hf.model.codec_encoder import encode_latent_alone

BANDWIDTH = 1.5  # kb/s of the tiny codec's 4 codebooks
# One sample, around one codec frame (320) and one convolution, around the length from which clips are batched (2240),
# lengths that leave every remainder to the strides, and some that end right behind a block of 8 frames.
LENGTHS = [1, 2, 3, 39, 319, 320, 321, 640, 777, 2239, 2240, 2241, 2559, 3200, 4001, 5123, 7999, 8000, 11_111, 24_000]
LENGTHS += [2561, 2563, 5120, 5121, 5130, 7681, 7750]


@pytest.fixture(scope="module")
def codec() -> EncodecModel:
    return build_codec()


@pytest.fixture(scope="module")
def encoders(codec) -> AudioEncoders:
    return AudioEncoders(codec, build_clap())


def make_waveforms(lengths) -> list[torch.Tensor]:
    return [torch.from_numpy(make_clip(length / 24_000, seed=length)) for length in lengths]


def stock_codes(codec: EncodecModel, waveform: torch.Tensor) -> torch.Tensor:
    """What transformers' own encode returns for a clip alone: (T, K)."""
    with torch.no_grad():
        return codec.encode(waveform[None, None], bandwidth=BANDWIDTH).audio_codes[0, 0].T


def count_different(ours: torch.Tensor, expected: torch.Tensor) -> int:
    assert ours.shape == expected.shape and ours.dtype == torch.int64
    return int((ours != expected).sum())


def test_codes_of_a_clip_alone_equal_the_stock_codec(encoders, codec):
    for waveform in make_waveforms(LENGTHS):
        (ours,) = encoders.encode_codes([waveform], 4)
        assert len(ours) == -(-len(waveform) // 320)
        assert count_different(ours, stock_codes(codec, waveform)) == 0


@pytest.mark.parametrize(
    ("batch_size", "together", "block_frames"), [(2, 1, 128), (4, 3, 8), (100, 1, 8), (100, 100, 128), (100, 100, 16)]
)
def test_codes_in_a_batch_equal_the_stock_codec_alone(codec, monkeypatch, batch_size, together, block_frames):
    """A batch padded with zeros would change the last, partial frame."""
    monkeypatch.setitem(audio_encoders.CODEC_BATCH_SIZE, "cpu", batch_size)
    monkeypatch.setitem(codec_encoder.CONVOLUTION_BATCH_SIZE, "cpu", together)
    monkeypatch.setitem(codec_encoder.CONVOLUTION_BLOCK_FRAMES, "cpu", block_frames)
    monkeypatch.setattr(codec_encoder, "LSTM_BLOCK_FRAMES", 10)
    waveforms = make_waveforms([length for length in LENGTHS if length >= 2240])
    encoders = AudioEncoders(codec, build_clap())
    for ours, waveform in zip(encoders.encode_codes(waveforms, 4), waveforms, strict=True):
        assert count_different(ours, stock_codes(codec, waveform)) == 0


def test_clips_too_short_to_batch_and_long_ones_mix(encoders, codec):
    waveforms = make_waveforms([24_000, 1, 8000, 320, 5123])
    for ours, waveform in zip(encoders.encode_codes(waveforms, 4), waveforms, strict=True):
        assert count_different(ours, stock_codes(codec, waveform)) == 0


def test_a_clip_too_short_to_batch_does_not_slow_the_others_down(encoders, monkeypatch):
    alone, encode = [], encode_latent_alone
    monkeypatch.setattr(
        codec_encoder, "encode_latent_alone", lambda codec, clip: alone.append(len(clip)) or encode(codec, clip)
    )
    encoders.encode_codes(make_waveforms([24_000, 1, 8000, 320, 5123]), 4)
    assert alone == [320, 1]


def test_codes_tell_sounds_apart(encoders):
    """Otherwise the tests above prove nothing."""
    codes = torch.cat(encoders.encode_codes(make_waveforms([24_000, 8000, 5123]), 4))
    assert all(len(codes[:, k].unique()) > 1 for k in range(4))


def test_a_clip_does_not_change_its_waveform(encoders):
    waveforms = make_waveforms([2560, 3333])
    before = copy.deepcopy(waveforms)
    encoders.encode_codes(waveforms, 4)
    torch.testing.assert_close(waveforms, before, atol=0, rtol=0)


def test_fewer_codebooks_are_the_first_ones_and_more_are_refused(encoders):
    waveforms = make_waveforms([4001])
    assert torch.equal(encoders.encode_codes(waveforms, 2)[0], encoders.encode_codes(waveforms, 4)[0][:, :2])
    with pytest.raises(ValueError, match="Asked for 5 codebooks of a codec that has 4"):
        encoders.encode_codes(waveforms, 5)


def build_plain_codec(**fields) -> EncodecModel:
    """A small codec whose random codebooks lie where the latents of sound do."""
    torch.manual_seed(0)
    small = {"num_filters": 4, "hidden_size": 16, "codebook_size": 32, "target_bandwidths": [1.5], "num_lstm_layers": 1}
    codec = EncodecModel(EncodecConfig(**{**small, **fields})).eval()
    with torch.no_grad():
        for name, parameter in codec.encoder.named_parameters():
            if name.endswith("original0"):  # the default start leaves the latent near zero
                parameter.mul_(3.0)
            elif name.endswith("conv.bias"):  # and what is left of it the same for every sound
                parameter.zero_()
        clips = make_waveforms([24_000, 20_001])
        latent = torch.cat([encode_latent_alone(codec, clip) for clip in clips])  # (T, H)
        for index, layer in enumerate(codec.quantizer.layers):
            noise = torch.randn(codec.config.codebook_size, latent.shape[1])
            layer.codebook.embed.copy_(0.8**index * latent.std(0) * noise + (latent.mean(0) if index == 0 else 0))
    return codec


def assert_codes_equal_the_stock_codec(codec: EncodecModel, lengths: list[int], num_codebooks: int = 4) -> None:
    """In a batch, and telling sounds apart."""
    waveforms = make_waveforms(lengths)
    codes = AudioEncoders(codec, build_clap()).encode_codes(waveforms, num_codebooks)
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
    assert_codes_equal_the_stock_codec(build_plain_codec(**fields), [15_011, 24_000, 20_480])


def test_the_published_sizes_equal_the_stock_codec():
    codec = build_plain_codec(
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
    assert_codes_equal_the_stock_codec(build_plain_codec(**change), [8000, 4001, 2560])


def test_encoding_leaves_the_codecs_weights_as_they_are(codec, encoders):
    before = copy.deepcopy(codec.state_dict())
    encoders.encode_codes(make_waveforms([8000, 4001]), 4)
    after = codec.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


def test_what_the_encoders_return_can_be_trained_on(encoders):
    codes = encoders.encode_codes(make_waveforms([4001]), 4)[0]
    embedding = encoders.embed_features(make_features(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    table, weight = torch.zeros(32, 24, requires_grad=True), torch.zeros(24, 24, requires_grad=True)
    (torch.nn.functional.embedding(codes, table).sum() + (embedding @ weight).sum()).backward()
    assert table.grad.sum() == codes.numel() * 24 and weight.grad.any()


# CLAP


def make_features(batch_size: int, windows: int) -> torch.Tensor:
    return 20 * torch.randn(batch_size, windows, 201, 16, generator=torch.Generator().manual_seed(1)) - 40


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_embeddings_in_a_batch_equal_the_stock_tower_alone(monkeypatch, fusion, batch_size):
    monkeypatch.setitem(audio_encoders.CLAP_BATCH_SIZE, "cpu", batch_size)
    clap = build_clap(fusion=fusion)
    features = make_features(5, 4 if fusion else 1)
    longer = torch.tensor([[False], [True], [False], [True], [False]]) & fusion
    embeddings = AudioEncoders(build_codec(), clap).embed_features(features, longer)
    assert embeddings.shape == (5, 24) and embeddings.dtype == torch.float32
    for i in range(5):
        with torch.no_grad():
            alone = clap(features[i : i + 1], is_longer=longer[i : i + 1]).audio_embeds[0]
        torch.testing.assert_close(embeddings[i], alone / alone.norm(), atol=2e-6, rtol=0)  # sums in another order


def test_fused_windows_count_only_in_longer_clips():
    encoders = AudioEncoders(build_codec(), build_clap(fusion=True))
    features = make_features(2, 4)
    changed = features.clone()
    changed[:, 1:] += 30
    for longer in (False, True):
        flags = torch.full((2, 1), longer)
        same = torch.equal(encoders.embed_features(features, flags), encoders.embed_features(changed, flags))
        assert same is not longer


@pytest.mark.parametrize("num_threads", [1, 2])
def test_no_convolution_takes_the_slow_routine(encoders, num_threads):
    """torch's own choice would, for short kernels in a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.profiler.profile() as profile:
            encoders.encode_codes(make_waveforms([24_000]), 4)
    finally:
        torch.set_num_threads(before)
    called = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in called and not any("slow_conv" in name for name in called)


def test_products_of_the_encoders_run_as_the_captioners(encoders):
    if not onednn_linear.HAS_ONEDNN:
        pytest.skip("this processor multiplies with one library")
    with torch.profiler.profile() as profile:
        encoders.embed_features(make_features(2, 1), torch.zeros(2, 1, dtype=torch.bool))
    called = {event.key for event in profile.key_averages()}
    assert "mkldnn::_linear_pointwise" in called and "aten::addmm" not in called


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


# Loading and number types


def test_encoders_stay_in_float32_under_autocast(encoders):
    waveforms, features, longer = make_waveforms([4001, 8000]), make_features(2, 1), torch.zeros(2, 1, dtype=torch.bool)
    codes, embeddings = encoders.encode_codes(waveforms, 4), encoders.embed_features(features, longer)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, encoders.encode_codes(waveforms, 4), codes))
        assert torch.equal(encoders.embed_features(features, longer), embeddings)


def test_encoders_saved_in_half_precision_run_in_float32(tmp_path):
    build_codec().half().save_pretrained(tmp_path / "codec")
    build_clap().half().save_pretrained(tmp_path / "clap")
    sources = ({"pretrained_model_name_or_path": str(tmp_path), "subfolder": name} for name in ("codec", "clap"))
    encoders = AudioEncoders(*sources)
    for model in (encoders.codec, encoders.clap):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    encoders.encode_codes(make_waveforms([4001]), 4)


def test_encoders_handed_over_in_half_precision_run_in_float32():
    processor = build_processor()
    half = type(processor).from_encoders(
        processor.feature_extractor, processor.tokenizer, build_codec().half(), build_clap().half(), num_codebooks=4
    )
    assert half(audio=make_clip(0.3), sampling_rate=24_000)["clap_embedding"].dtype == torch.float32
    assert half.codec.dtype == half.clap.dtype == torch.float32


def test_each_encoder_is_loaded_when_first_needed(tmp_path):
    build_codec().save_pretrained(tmp_path / "codec")
    build_clap().save_pretrained(tmp_path / "clap")
    encoders = AudioEncoders(
        *({"pretrained_model_name_or_path": str(tmp_path), "subfolder": name} for name in ("codec", "clap"))
    )
    assert all(isinstance(model, dict) for model in encoders._models.values())
    encoders.encode_codes(make_waveforms([4001]), 4)
    assert isinstance(encoders._models["codec"], EncodecModel) and isinstance(encoders._models["clap"], dict)
    encoders.embed_features(make_features(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    assert isinstance(encoders._models["clap"], ClapAudioModelWithProjection)


def test_a_codec_stored_without_its_decoder_loads_without_one(tmp_path, codec):
    """Random weights in its place must not pass for a decoder."""
    state = {name: value for name, value in codec.state_dict().items() if not name.startswith("decoder.")}
    codec.save_pretrained(tmp_path / "codec", state_dict=state)
    encoders = AudioEncoders({"pretrained_model_name_or_path": str(tmp_path / "codec")}, build_clap())
    waveforms = make_waveforms([4001, 8000])
    assert encoders.codec.decoder is None
    for ours, waveform in zip(encoders.encode_codes(waveforms, 4), waveforms, strict=True):
        assert count_different(ours, stock_codes(codec, waveform)) == 0
    encoders.codec.save_pretrained(tmp_path / "again")
    again = AudioEncoders({"pretrained_model_name_or_path": str(tmp_path / "again")}, build_clap())
    assert all(map(torch.equal, again.encode_codes(waveforms, 4), encoders.encode_codes(waveforms, 4)))


def test_the_encoders_run_where_they_are_sent(encoders):
    assert encoders.to("cpu").device == torch.device("cpu")
    later = AudioEncoders({"pretrained_model_name_or_path": "not/needed"}, build_clap()).to("meta")
    assert later.clap.device == torch.device("meta")
    assert isinstance(later._models["codec"], dict)


def test_groups_hold_clips_of_like_length_and_every_clip_once():
    groups = group_by_length([5, 9, 1, 7, 3], 2)
    assert groups == [[1, 3], [0, 4], [2]]
    assert group_by_length([], 4) == []
