"""`enclap export`: a complete repository with graphs in it, and one line about whatever keeps it from being written."""

import os
import shutil
import sys

import pytest
import soundfile
import torch

import onnx
from conftest import make_clip
from enclap_hf import EnClapForConditionalGeneration
from enclap_hf.cli import main
from enclap_hf.hub.export import find_missing_parts, has_remote_code
from enclap_hf.onnx.export import INSTALL_LINE, export_graphs, export_repository
from exported_models import assert_same_captions, export_tiny, list_graphs, load_both, search
from frame_encoder_models import build_captioner_for, build_frame_encoder, build_frame_processor

GRAPHS = {"encoder_model.onnx", "decoder_model_merged.onnx", "front_end_model.onnx"}
FREE = {
    "front_end_model": {"input_values", "clap_values", "input_features", "audio_codes", "clap_embedding"},
    "encoder_model": {"audio_codes", "clap_embedding", "last_hidden_state"},
}


def run(capsys, *arguments: str) -> tuple[int, str]:
    """Exit status and what is on the error stream."""
    status = main(list(arguments))
    return status, capsys.readouterr().err


def test_graphs_are_valid_and_their_batches_and_lengths_are_free():
    for name in sorted(list_graphs(export_tiny())):
        model = onnx.load(f"{export_tiny()}/onnx/{name}")
        onnx.checker.check_model(model)
        assert model.opset_import[0].version == 18 and model.metadata_props
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param, f"{name}: {value.name}"
        for stem, names in FREE.items():
            if name.startswith(stem):
                assert {value.name for value in (*model.graph.input, *model.graph.output)} == names


@pytest.mark.slow
def test_the_command_writes_a_repository_that_captions_by_torch_and_by_onnx(repository, tmp_path, capsys):
    output, sound = str(tmp_path / "exported"), str(tmp_path / "clip.wav")
    soundfile.write(sound, make_clip(0.7), 24_000)
    status, said = run(capsys, "export", repository, "--output", output, "--quantize", "avx512_vnni")
    assert status == 0 and said.count(".onnx") == 5
    assert find_missing_parts(output) == [] and has_remote_code(output)
    assert os.listdir(tmp_path) and not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    captions = []
    for backend in ("torch", "onnx", "onnx-int8"):
        assert main(["caption", sound, "--model", output, "--backend", backend]) == 0
        captions.append(capsys.readouterr().out)
    assert captions[0] == captions[1]
    assert captions[2]


@pytest.mark.slow
def test_graphs_are_added_to_the_models_own_folder(repository, tmp_path):
    folder = shutil.copytree(repository, tmp_path / "own")
    before = {path.name for path in folder.iterdir()}
    paths = export_repository(str(folder), str(folder), opset=20)
    assert {os.path.basename(path) for path in paths} == GRAPHS == list_graphs(str(folder))
    assert {path.name for path in folder.iterdir()} == before | {"onnx"}
    assert {onnx.load(path).opset_import[0].version for path in paths} == {20}
    model, captioner = load_both(str(folder))
    assert captioner.front_end is not None and model.config.d_model == captioner.config.d_model


@pytest.mark.slow
def test_a_captioner_of_features_is_exported_but_for_its_frame_encoder(tmp_path, caplog):
    processor, folder = build_frame_processor(build_frame_encoder("log_mel")), str(tmp_path)
    model = build_captioner_for(processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    export_graphs(model, processor, folder)
    assert list_graphs(folder) == GRAPHS - {"front_end_model.onnx"} and "goes on in torch" in caplog.text
    model, captioner = load_both(folder)
    assert captioner.front_end is None
    clips = [make_clip(0.4), make_clip(0.9, 1)]
    batch = processor(audio=clips, sampling_rate=24_000)
    assert_same_captions(search(captioner, batch, num_beams=3), search(model, batch, num_beams=3))


def test_what_cannot_be_written_is_said_in_one_line(repository, tmp_path, capsys, monkeypatch):
    (tmp_path / "there").mkdir()
    status, said = run(capsys, "export", repository, "--output", str(tmp_path / "there"))
    assert status == 2 and "which exists" in said and len(said.splitlines()) == 1
    for opset in ("7", "99"):
        status, said = run(capsys, "export", repository, "--output", str(tmp_path / "new"), "--opset", opset)
        assert status == 2 and f"Got opset {opset}; expected 18 to" in said
    status, said = run(capsys, "export", str(tmp_path / "none"), "--output", str(tmp_path / "new"))
    assert status == 2 and len(said.splitlines()) == 1
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    status, said = run(capsys, "export", repository, "--output", str(tmp_path / "new"))
    assert status == 2 and INSTALL_LINE in said and len(said.splitlines()) == 1
    assert os.listdir(tmp_path) == ["there"]


def test_a_torch_captioner_of_the_exported_folder_is_untouched():
    model = EnClapForConditionalGeneration.from_pretrained(export_tiny())
    assert type(model) is EnClapForConditionalGeneration and next(model.parameters()).dtype is torch.float32
