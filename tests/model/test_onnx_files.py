"""Graphs that are damaged, another model's or an earlier one's, and runtimes that are missing, are one line each."""

import json
import os
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import onnx
from enclap_hf import EnClapForConditionalGeneration
from enclap_hf.cli import main
from enclap_hf.model.model_files import ModelFileError
from enclap_hf.model.onnx_sessions import INSTALL_LINE, choose_providers
from exported_models import export_tiny, make_clips
from onnx import TensorProto, helper

DECODER = "onnx/decoder_model_merged.onnx"


@pytest.fixture
def folder(tmp_path) -> str:
    """A copy of the exported repository, to be damaged."""
    return shutil.copytree(export_tiny(), tmp_path / "repository")


def load(folder, **options):
    return EnClapForConditionalGeneration.from_pretrained(str(folder), backend="onnx", **options)


def refuse(folder, *words: str, **options) -> None:
    with pytest.raises(ModelFileError) as refusal:
        load(folder, **options)
    message = str(refusal.value)
    assert "\n" not in message and len(message) < 700
    for word in words:
        assert word in message, message


def make_foreign(path, opset: int = 18) -> None:
    """A graph that only adds."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "foreign", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "pointer"])
def test_a_damaged_graph_is_refused(folder, damage):
    path = folder / DECODER
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "garbage": b"RIFF" + bytes(range(256)) * 9,
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        }[damage]
    )
    refuse(folder, "decoder_model_merged.onnx", "damaged", "enclap export")


def test_a_graph_that_is_missing_is_refused(folder):
    os.remove(folder / DECODER)
    refuse(folder, "decoder_model_merged.onnx: there is no such file")
    shutil.rmtree(folder / "onnx")
    refuse(folder, "encoder_model.onnx: there is no such file", "enclap export")
    refuse(folder, "no quantised graphs", "--quantize", file_name="int8")


def test_a_foreign_graph_is_refused(folder):
    make_foreign(folder / DECODER)
    refuse(folder, "decoder_model_merged.onnx", "no graph of an EnCLAP captioner")


def test_a_graph_of_an_opset_that_the_runtime_does_not_know_is_refused(folder):
    make_foreign(folder / DECODER, opset=99)
    refuse(folder, "does not know its opset", "newer onnxruntime", "--opset")


def test_a_graph_of_other_sizes_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 321}))
    refuse(folder, "exported with `vocab_size` 320, and config.json says 321")


def test_graphs_of_earlier_weights_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.layers.0.fc1.bias"][3] += 0.25
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, "exported from other weights", "enclap export")


def test_graphs_need_no_weights_of_torch_beside_them(folder):
    os.remove(folder / "model.safetensors")
    shutil.rmtree(folder / "codec")
    assert torch.equal(load(folder).generate(**make_clips(20)), load(export_tiny()).generate(**make_clips(20)))


def test_another_number_type_or_backend_is_refused(folder):
    with pytest.raises(ValueError, match=r'float32. Leave it out, or pass `file_name="int8"`'):
        load(folder, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="Got `backend`=\"?'?tensorrt"):
        EnClapForConditionalGeneration.from_pretrained(str(folder), backend="tensorrt")


def test_providers_and_threads_are_what_was_asked_for(folder):
    captioner = load(folder, num_threads=2, providers=["CPUExecutionProvider"])
    session = captioner.graphs["decoder"].session
    assert session.get_session_options().intra_op_num_threads == 2
    assert session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(ValueError, match="Got `providers` TensorrtFoo; onnxruntime here has"):
        load(folder, providers=["TensorrtFoo"])
    assert load(folder).graphs["decoder"].session.get_session_options().intra_op_num_threads == torch.get_num_threads()


def test_a_device_without_a_provider_is_told_and_left(caplog):
    assert choose_providers(torch.device("mps")) == ["CPUExecutionProvider"]
    assert "has no provider for mps" in caplog.text


def test_a_runtime_that_is_not_installed_is_named_with_its_install_line(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError) as refusal:
        load(folder)
    assert INSTALL_LINE in str(refusal.value) and "\n" not in str(refusal.value)
    assert main(["caption", str(__file__), "--model", str(folder), "--backend", "onnx"]) == 2
    error = capsys.readouterr().err
    assert INSTALL_LINE in error and "Traceback" not in error


@pytest.mark.parametrize("backend", ["onnx", "onnx-int8"])
def test_the_command_says_in_one_line_that_a_model_has_no_graphs(capsys, backend):
    sound = os.path.join(os.path.dirname(__file__), "../../examples/sounds/dog_then_telephone.flac")
    assert main(["caption", sound, "--backend", backend]) == 2
    error = capsys.readouterr().err
    assert "enclap export" in error and len(error.strip().splitlines()) == 1
