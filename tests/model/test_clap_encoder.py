"""CLAP's tower gives each recording the vector that the stock tower gives it alone, and frames of its last layer."""

import numpy as np
import pytest
import torch
from transformers import ClapAudioModelWithProjection

from conftest import build_clap, build_feature_extractor, make_clip
from enclap_hf.model import clap_encoder, onednn_linear
from enclap_hf.model.clap_encoder import ClapEncoder

NOT_LONGER = torch.zeros(2, 1, dtype=torch.bool)


@pytest.fixture(scope="module")
def encoder() -> ClapEncoder:
    return ClapEncoder(build_clap())


def make_features(batch_size: int, windows: int) -> torch.Tensor:
    return 20 * torch.randn(batch_size, windows, 201, 16, generator=torch.Generator().manual_seed(1)) - 40


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_embeddings_in_a_batch_equal_the_stock_tower_alone(monkeypatch, fusion, batch_size):
    monkeypatch.setitem(clap_encoder.BATCH_SIZE, "cpu", batch_size)
    clap = build_clap(fusion=fusion)
    features = make_features(5, 4 if fusion else 1)
    longer = torch.tensor([[False], [True], [False], [True], [False]]) & fusion
    embeddings = ClapEncoder(clap).embed(features, longer)
    assert embeddings.shape == (5, 24) and embeddings.dtype == torch.float32
    for i in range(5):
        with torch.no_grad():
            alone = clap(features[i : i + 1], is_longer=longer[i : i + 1]).audio_embeds[0]
        torch.testing.assert_close(embeddings[i], alone / alone.norm(), atol=2e-6, rtol=0)  # sums in another order


def test_fused_windows_count_only_in_longer_clips():
    encoder = ClapEncoder(build_clap(fusion=True))
    features = make_features(2, 4)
    changed = features.clone()
    changed[:, 1:] += 30
    for longer in (False, True):
        flags = torch.full((2, 1), longer)
        same = torch.equal(encoder.embed(features, flags), encoder.embed(changed, flags))
        assert same is not longer


def test_products_run_as_the_captioners(encoder):
    if not onednn_linear.HAS_ONEDNN:
        pytest.skip("this processor multiplies with one library")
    with torch.profiler.profile() as profile:
        encoder.embed(make_features(2, 1), NOT_LONGER)
    called = {event.key for event in profile.key_averages()}
    assert "mkldnn::_linear_pointwise" in called and "aten::addmm" not in called


def test_it_stays_in_float32_under_autocast(encoder):
    features = make_features(2, 1)
    embeddings = encoder.embed(features, NOT_LONGER)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.embed(features, NOT_LONGER), embeddings)


def test_embeddings_can_be_trained_on(encoder):
    weight = torch.zeros(24, 24, requires_grad=True)
    (encoder.embed(make_features(2, 1), NOT_LONGER) @ weight).sum().backward()
    assert weight.grad.any()


def test_a_tower_saved_in_half_precision_runs_in_float32(tmp_path):
    build_clap().half().save_pretrained(tmp_path)
    model = ClapEncoder(str(tmp_path)).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_the_weights_are_read_when_they_are_first_needed(tmp_path, encoder):
    encoder.save(str(tmp_path))
    loaded = ClapEncoder(str(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "moved")
    assert (loaded.embedding_dim, loaded.frame_dim) == (24, 16)
    (tmp_path / "moved").rename(tmp_path / "model.safetensors")
    features = make_features(2, 1)
    assert torch.equal(loaded.embed(features, NOT_LONGER), encoder.embed(features, NOT_LONGER))
    assert type(loaded.model) is ClapAudioModelWithProjection and loaded.fingerprint == encoder.fingerprint


def test_it_runs_where_it_is_sent(tmp_path, encoder):
    encoder.save(str(tmp_path))
    for later in (False, True):
        loaded = ClapEncoder(str(tmp_path))
        if not later:
            assert loaded.model.device == torch.device("cpu")
        assert loaded.to("meta").device == loaded.model.device == torch.device("meta")


# Frames


def test_frames_average_to_what_the_stock_tower_pools(encoder):
    windows = make_features(3, 1)[:, 0]
    with torch.inference_mode():
        frames = encoder.encode_windows(windows)
        pooled = encoder.model.audio_model(windows[:, None], is_longer=None).pooler_output
    assert frames.shape == (3, encoder.frames_per_window, encoder.frame_dim)
    torch.testing.assert_close(frames.mean(1), pooled, atol=1e-5, rtol=0)  # sums in another order


def test_frames_follow_the_sound_in_time(encoder):
    """A click in one stretch of a window changes the frames about it more than the others."""
    extractor = build_feature_extractor()
    silence = 1e-3 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    num_frames = encoder.frames_per_window
    with torch.inference_mode():
        quiet = encoder.encode_windows(extractor.log_mel(torch.from_numpy(silence))[None])[0]
        for frame in range(num_frames):
            clicked, middle = silence.copy(), (2 * frame + 1) * 32_000 // (2 * num_frames)
            clicked[middle - 200 : middle + 200] += make_clip(0.025, sampling_rate=16_000)
            loud = encoder.encode_windows(extractor.log_mel(torch.from_numpy(clicked))[None])[0]
            assert int((loud - quiet).norm(dim=1).argmax()) == frame
