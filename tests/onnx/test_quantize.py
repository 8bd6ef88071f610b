"""Graphs of 8 bits: what is rounded, by how much, and that their captions are those of the float32 graphs mostly."""

import numpy as np
import pytest
import torch

import onnx
from enclap_hf import EnClapForConditionalGeneration
from enclap_hf.model.model_files import ModelFileError
from enclap_hf.model.onnx_captioner import OnnxCaptioner
from enclap_hf.model.onnx_files import choose_kind
from enclap_hf.model.onnx_names import SUFFIXES
from exported_models import export_tiny, make_clips, search
from onnx import numpy_helper

KINDS = ("avx2", "avx512_vnni")


def load_graph(name: str):
    return onnx.load(f"{export_tiny()}/onnx/{name}.onnx")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["encoder_model", "decoder_model_merged"])
def test_every_product_by_a_constant_matrix_has_8_bits_and_no_other(part, kind):
    plain, quantised = load_graph(part), load_graph(f"{part}_{SUFFIXES[kind]}")
    constants = {tensor.name: tensor for tensor in plain.graph.initializer}
    products = [n for n in plain.graph.node if n.op_type in ("MatMul", "Gemm") and n.input[0] != "clap_embedding"]
    by_constant = [n for n in products if n.input[1] in constants]
    others = [n for n in products if n.input[1] not in constants]
    operators = [node.op_type for node in quantised.graph.node]
    assert len(by_constant) >= 12 and others
    assert operators.count("MatMulInteger") == len(by_constant) and operators.count("MatMul") == len(others)
    kept = {tensor.name: tensor for tensor in quantised.graph.initializer}
    for node in by_constant:
        weight = numpy_helper.to_array(constants[node.input[1]])
        weight = weight.T if node.op_type == "Gemm" else weight
        whole, zero, scales = (numpy_helper.to_array(kept[f"{node.input[1]}_{x}"]) for x in ("whole", "zero", "scales"))
        assert whole.dtype == (np.int8 if kind == "avx512_vnni" else np.uint8)
        again = (whole.astype(np.int64) - int(zero)) * scales
        assert np.abs(again - weight).max() <= 0.5001 * scales.max()
        assert (np.abs(again - weight) <= 0.5001 * scales).all() and np.abs(whole.astype(int) - int(zero)).max() == 127


def test_graphs_for_either_kind_of_processor_compute_the_same_bits():
    batch, found = make_clips(40, 57, 9), []
    for kind in KINDS:
        found.append(search(OnnxCaptioner.from_pretrained(export_tiny(), file_name=SUFFIXES[kind]), batch))
    assert torch.equal(found[0].sequences, found[1].sequences)
    assert torch.equal(found[0].sequences_scores, found[1].sequences_scores)


def test_states_of_8_bits_are_near_those_of_float32():
    batch = make_clips(40, 57, 9)
    plain, quantised = (OnnxCaptioner.from_pretrained(export_tiny(), file_name=name) for name in (None, "int8"))
    states, expected = quantised.get_encoder()(**batch)[0], plain.get_encoder()(**batch)[0]
    error = ((states - expected).pow(2).mean() / expected.pow(2).mean()).sqrt()
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize(
    "file_name",
    [
        "int8",
        "avx512_vnni",
        "qint8_avx512_vnni",
        "encoder_model_qint8_avx512_vnni.onnx",
        "onnx/decoder_model_merged_qint8_avx512_vnni.onnx",
    ],
)
def test_graphs_are_found_by_any_of_their_names(file_name, monkeypatch):
    monkeypatch.setattr("enclap_hf.model.onnx_files.choose_kind", lambda: "avx512_vnni")
    model = EnClapForConditionalGeneration.from_pretrained(export_tiny(), backend="onnx", file_name=file_name)
    assert model.graphs["decoder"].path.endswith("decoder_model_merged_qint8_avx512_vnni.onnx")
    assert model.graphs["encoder"].path.endswith("encoder_model_qint8_avx512_vnni.onnx")
    assert model.graphs["front_end"].path.endswith("front_end_model.onnx")


def test_the_backend_of_8_bits_takes_what_the_machine_multiplies_best_or_what_there_is(monkeypatch):
    for kind in (*KINDS, "arm64"):
        monkeypatch.setattr("enclap_hf.model.onnx_files.choose_kind", lambda kind=kind: kind)
        model = EnClapForConditionalGeneration.from_pretrained(export_tiny(), backend="onnx-int8")
        expected = kind if kind in KINDS else "avx2"  # which is there, and computes the same
        assert model.graphs["decoder"].path.endswith(f"_{SUFFIXES[expected]}.onnx")


def test_a_quantised_graph_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(ModelFileError, match="decoder_model_merged|encoder_model_qint8_arm64.onnx: there is no such"):
        OnnxCaptioner.from_pretrained(export_tiny(), file_name="qint8_arm64")
    with pytest.raises(ModelFileError, match="names no kind of graphs"):
        OnnxCaptioner.from_pretrained(export_tiny(), file_name="model_fp16.onnx")


def test_this_machine_has_a_kind():
    assert choose_kind() in SUFFIXES
