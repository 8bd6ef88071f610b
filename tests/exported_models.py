"""Captioners with their graphs, exported once for all tests of a run; and what is asked of their captions."""

import functools
import os
import tempfile

import torch

from conftest import build_model, build_processor, make_inputs
from enclap_hf import EnClapForConditionalGeneration
from enclap_hf.model.onnx_captioner import OnnxCaptioner
from enclap_hf.model.repository import save_repository
from enclap_hf.onnx.export import export_graphs
from enclap_hf.onnx.quantize import quantize_graphs

# Two correct float32 implementations sum in another order.
SCORE_ATOL = 2e-6
_FOLDERS = []  # kept until the process ends


def make_folder() -> str:
    """A folder for the rest of the run."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="enclap-onnx-"))
    return _FOLDERS[-1].name


@functools.cache
def export_tiny(long_clips: str = "middle") -> str:
    """A folder with the tiny captioner of the fixtures, its processor, and graphs in float32 and in 8 bits."""
    folder, model, processor = make_folder(), build_model(), build_processor(long_clips)
    model.generation_config.max_length = 12
    save_repository(model, processor, folder)
    export_graphs(model, processor, folder)
    for kind in ("avx2", "avx512_vnni"):
        quantize_graphs(folder, kind)
    return folder


def load_both(folder: str, **options) -> tuple[EnClapForConditionalGeneration, OnnxCaptioner]:
    """The captioner of a folder in torch and on ONNX Runtime."""
    model = EnClapForConditionalGeneration.from_pretrained(folder).eval()
    return model, EnClapForConditionalGeneration.from_pretrained(folder, backend="onnx", **options)


def cut_clip(batch: dict, row: int) -> dict:
    """One clip of a batch, without padding."""
    length = int(batch["attention_mask"][row].sum())
    clip = {name: tensor[row : row + 1] for name, tensor in batch.items()}
    return {
        **clip,
        "audio_codes": clip["audio_codes"][:, :length],
        "attention_mask": clip["attention_mask"][:, :length],
    }


def make_clips(*lengths: int, seed: int = 0) -> dict:
    """A padded batch of random clips of so many frames."""
    return make_inputs(lengths, seed, targets=False)


def search(model, batch: dict, **decoding):
    """Ids and scores of the search."""
    options = {"output_scores": True, "return_dict_in_generate": True, **decoding}
    return model.generate(**batch, **options)


def assert_same_captions(ours, expected) -> None:
    """The same ids; scores of beams but for rounding."""
    assert torch.equal(ours.sequences, expected.sequences)
    if expected.get("sequences_scores") is not None:
        torch.testing.assert_close(ours.sequences_scores, expected.sequences_scores, atol=SCORE_ATOL, rtol=0)


def list_graphs(folder: str) -> set[str]:
    """Names of a folder's graphs."""
    return set(os.listdir(os.path.join(folder, "onnx")))
