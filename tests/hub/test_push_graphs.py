"""A repository's graphs are pushed with its weights, and caption from the Hub without these."""

import os

import pytest
import torch
from huggingface_hub import constants

from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.hub.export import push_repository
from exported_models import export_tiny, list_graphs, make_clips


def find_graphs(hub, name: str) -> set[str]:
    return {os.path.basename(file) for file in hub.files(name) if file.startswith("onnx/")}


def test_a_pushed_folder_has_weights_and_graphs_and_captions_from_the_hub(hub):
    push_repository(export_tiny(), "me/exported")
    files = hub.files("me/exported")
    assert find_graphs(hub, "me/exported") == list_graphs(export_tiny())
    assert {"model.safetensors", "codec/model.safetensors", "onnx_captioner.py"} <= set(files)
    expected = EnClapForConditionalGeneration.from_pretrained(export_tiny(), backend="onnx")
    captioner = EnClapForConditionalGeneration.from_pretrained("me/exported", backend="onnx")
    batch = make_clips(20, 31)
    assert torch.equal(captioner.generate(**batch), expected.generate(**batch))
    cached = [name for _, _, names in os.walk(constants.HF_HUB_CACHE) for name in names]
    assert "decoder_model_merged.onnx" in cached and "model.safetensors" not in cached
    assert "decoder_model_merged_quint8_avx2.onnx" not in cached


@pytest.mark.parametrize("whole", [False, True])
def test_a_captioner_of_graphs_is_pushed_with_the_weights_that_they_are_of(hub, whole):
    captioner = EnClapForConditionalGeneration.from_pretrained(export_tiny(), backend="onnx-int8")
    processor = EnClapProcessor.from_pretrained(export_tiny()) if whole else None
    captioner.push_to_hub("again", processor=processor)
    assert find_graphs(hub, "me/again") == list_graphs(export_tiny())
    assert {"model.safetensors", "config.json", "modeling_enclap.py"} <= set(hub.files("me/again"))
    assert ("processor_config.json" in hub.files("me/again")) is whole
    again = EnClapForConditionalGeneration.from_pretrained("me/again", backend="onnx-int8")
    batch = make_clips(20, 31)
    assert torch.equal(again.generate(**batch), captioner.generate(**batch))
    assert type(EnClapForConditionalGeneration.from_pretrained("me/again")) is EnClapForConditionalGeneration
