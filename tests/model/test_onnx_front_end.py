"""Recordings become codes and CLAP vectors on ONNX Runtime as in torch, and no weights of torch are read for it."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from conftest import make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.model.handler import EndpointHandler
from enclap_hf.model.model_files import ModelFileError
from enclap_hf.model.onnx_captioner import OnnxCaptioner
from exported_models import export_tiny

# Two correct float32 implementations sum in another order; of vectors of length 1.
CLAP_ATOL = 1e-5


def load_processors(long_clips: str) -> tuple[EnClapProcessor, EnClapProcessor]:
    """The processor of an exported folder in torch, and on ONNX Runtime."""
    folder = export_tiny(long_clips)
    ours, expected = EnClapProcessor.from_pretrained(folder), EnClapProcessor.from_pretrained(folder)
    ours.use_front_end(OnnxCaptioner.from_pretrained(folder).front_end)
    return ours, expected


def assert_same_inputs(ours: dict, expected: dict) -> None:
    assert ours.keys() == expected.keys()
    assert torch.equal(ours["attention_mask"], expected["attention_mask"])
    assert torch.equal(ours["audio_codes"], expected["audio_codes"])
    torch.testing.assert_close(ours["clap_embedding"], expected["clap_embedding"], atol=CLAP_ATOL, rtol=0)


@pytest.mark.parametrize("long_clips", ["middle", "fusion"])
def test_recordings_of_any_length_give_the_inputs_of_torch(long_clips):
    """From a single sample to longer than the codec's window; CLAP's is 2 s, and a hop of its spectrogram 10 ms."""
    ours, expected = load_processors(long_clips)
    lengths_s = (1 / 24_000, 0.0003, 0.01, 1 / 75, 0.0401, 0.5, 1.0, 1.999, 2.0, 2.0001, 2.01, 2.0201, 2.7, 3.3, 4.2)
    clips = [make_clip(length_s, seed) for seed, length_s in enumerate(lengths_s)]
    assert_same_inputs(ours(audio=clips, sampling_rate=24_000), expected(audio=clips, sampling_rate=24_000))


@pytest.mark.parametrize("long_clips", ["middle", "fusion"])
def test_a_recording_has_the_same_bits_alone_and_among_others(long_clips):
    ours, _ = load_processors(long_clips)
    clips = [make_clip(length_s, seed) for seed, length_s in enumerate((0.4, 2.6, 1.1))]
    together = ours(audio=clips, sampling_rate=24_000)
    for row, clip in enumerate(clips):
        alone = ours(audio=clip, sampling_rate=24_000)
        length = alone["audio_codes"].shape[1]
        assert torch.equal(together["audio_codes"][row, :length], alone["audio_codes"][0])
        assert torch.equal(together["clap_embedding"][row], alone["clap_embedding"][0])


def test_loud_quiet_and_silent_recordings_give_the_inputs_of_torch():
    ours, expected = load_processors("fusion")
    clips = [4 * make_clip(0.7), 1e-5 * make_clip(0.7), np.zeros(9000, np.float32), np.ones(9000, np.float32)]
    assert_same_inputs(ours(audio=clips, sampling_rate=24_000), expected(audio=clips, sampling_rate=24_000))


@pytest.mark.parametrize("long_clips", ["middle", "fusion"])
def test_samples_in_the_place_of_windows_give_the_vector_of_torch(long_clips):
    """As a page in a browser passes them: the spectrogram, its windows and fusion are in the graph."""
    ours, expected = load_processors(long_clips)
    graph, extractor = ours.front_end.graph, expected.feature_extractor
    length, hop = extractor.clap_window_length, extractor.hop_length
    for num_samples in (1, 300, length // 5, length // 2, length, length + hop - 1, length + hop, 3 * length + 1234):
        sound = torch.from_numpy(make_clip(num_samples / 16_000 + 1e-6, num_samples, 16_000))
        windows, is_longer = extractor.prepare_clap_windows(sound)
        feeds = {"clap_values": sound[None], "input_features": windows[None][:0], "input_values": sound[None]}
        if ours.front_end.reads_longer:
            feeds["is_longer"] = torch.zeros(0, 1, dtype=torch.bool)
        (embedding,) = graph.run_tensors(feeds, ["clap_embedding"])
        wanted = expected.clap_encoder.embed(windows[None], torch.tensor([[is_longer]]))
        torch.testing.assert_close(embedding, wanted, atol=CLAP_ATOL, rtol=0)


def test_a_pipeline_captions_without_weights_of_torch(monkeypatch):
    folder = export_tiny()
    torch_captions = pipeline("audio-captioning", model=folder, device="cpu")
    captions = pipeline("audio-captioning", model=folder, model_kwargs={"backend": "onnx"}, device="cpu")
    clips = [{"array": make_clip(length_s, seed), "sampling_rate": 24_000} for seed, length_s in enumerate((0.5, 2.4))]
    for options in ({}, {"num_return_sequences": 3}, {"batch_size": 2}):
        ours, expected = captions(clips, **options), torch_captions(clips, **options)
        for one, other in zip(ours, expected, strict=True):
            for caption, wanted in zip(*(x if isinstance(x, list) else [x] for x in (one, other)), strict=True):
                assert caption["text"] == wanted["text"]
                assert caption["score"] == pytest.approx(wanted["score"], abs=1e-5)
    encoders = captions.processor.encoders
    assert not encoders.load_frame_encoder().is_loaded and not encoders.load_clap_encoder().is_loaded
    assert captions({"array": np.zeros(9000), "sampling_rate": 24_000}) == {"text": "", "silent": True}


def test_the_endpoint_computes_by_the_backend_of_its_environment(monkeypatch):
    request = {"inputs": {"array": make_clip(0.5).tolist(), "sampling_rate": 24_000}}
    answers = []
    for backend in ("torch", "onnx"):
        monkeypatch.setenv("ENCLAP_BACKEND", backend)
        handler = EndpointHandler(export_tiny())
        assert isinstance(handler.captioner.model, OnnxCaptioner) == (backend == "onnx")
        answers.append(handler(request)["text"])
    assert answers[0] == answers[1]


def test_a_graph_of_another_processor_is_refused(tmp_path):
    ours, expected = load_processors("middle")
    front_end, other = ours.front_end, EnClapProcessor.from_pretrained(export_tiny("middle"))
    other.feature_extractor.frequency_min = 40.0
    with pytest.raises(ModelFileError, match="exported with `frequency_min` 50.0, and the processor has 40.0"):
        other.use_front_end(front_end)
    folder = shutil.copytree(export_tiny("middle"), tmp_path / "other")
    weights = load_file(folder / "codec/model.safetensors")
    name = next(name for name, tensor in weights.items() if name.startswith("encoder.") and tensor.dim() == 1)
    save_file({**weights, name: weights[name] + 1}, folder / "codec/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="exported with another codec"):
        expected.use_front_end(OnnxCaptioner.from_pretrained(str(folder)).front_end)


def test_a_processor_encodes_by_torch_again_when_it_is_told():
    ours, expected = load_processors("middle")
    clip = make_clip(0.5)
    ours.use_front_end(None)
    inputs = ours(audio=clip, sampling_rate=24_000)
    assert torch.equal(inputs["clap_embedding"], expected(audio=clip, sampling_rate=24_000)["clap_embedding"])
