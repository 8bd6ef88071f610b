"""Exports a captioner with its processor: a complete repository with ONNX graphs beside the weights.

onnx/front_end_model.onnx         samples to codes and CLAP vector
onnx/encoder_model.onnx           codes and CLAP vector to states
onnx/decoder_model_merged.onnx    states to keys and values; tokens, keys and values to logits
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator

import torch

from ..model.modeling_enclap import EnClapForConditionalGeneration
from ..model.onnx_files import describe_model
from ..model.onnx_front_end import describe_front_end
from ..model.onnx_names import FILES, FOLDER, name_cache
from ..model.processing_enclap import EnClapProcessor
from ..model.repository import save_repository
from .captioner_graphs import DecoderGraph, EncoderGraph
from .front_end_graph import FrontEndGraph, find_front_end_problem
from .graph_files import DEFAULT_OPSET, write_graph
from .quantize import quantize_graphs

logger = logging.getLogger(__name__)

INSTALL_LINE = 'pip install "enclap-hf[onnx]"'
# Of ONNX: the first with products and sums in all forms that are written here, and the latest that torch writes.
FIRST_OPSET, LAST_OPSET = 18, 23
ROWS, CLIPS, SLOTS = "rows", "clips", "slots"


def export_repository(
    source: str, output: str, kind: str | None = None, opset: int = DEFAULT_OPSET, revision: str | None = None
) -> list[str]:
    """Write a repository with graphs beside its weights; it takes its place when it is complete.

    Args:
        source: folder or Hub repository of a captioner.
        output: a folder that is not there yet; or that of `source`, which graphs are added to.
        kind: of quantised graphs that are written, too, see [`quantize_graphs`].
        opset: of ONNX.
        revision: of a Hub repository.
    Returns:
        paths of the graphs.
    Raises:
        ImportError: what exports is not installed.
        ValueError: a folder that is there, or an opset that is not written.
        OSError, ModelFileError: the model cannot be read.
    """
    check_packages()
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        raise ValueError(f"Got opset {opset}; expected {FIRST_OPSET} to {LAST_OPSET}.")
    is_same = os.path.isdir(source) and os.path.isdir(output) and os.path.samefile(source, output)
    if not is_same and os.path.lexists(output):
        raise ValueError(
            f"Got {output}, which exists; pass a new folder, or the model's own, which graphs are added to."
        )
    place = {"revision": revision} if revision else {}
    model = EnClapForConditionalGeneration.from_pretrained(source, dtype="auto", **place).cpu().eval()
    processor = EnClapProcessor.from_pretrained(source, **place)
    with stage(output) as staged:
        if not is_same:
            save_repository(model, processor, staged)
        paths = export_graphs(model.float(), processor, staged, opset, output if is_same else staged)
        paths += quantize_graphs(staged, kind) if kind else []
        if is_same:
            os.makedirs(os.path.join(output, FOLDER), exist_ok=True)
            for path in paths:
                os.replace(path, os.path.join(output, FOLDER, os.path.basename(path)))
        else:
            os.rename(staged, output)
    return [os.path.join(output, FOLDER, os.path.basename(path)) for path in paths]


def check_packages() -> None:
    """Raise ImportError where what exports is not installed."""
    try:
        import onnxscript  # noqa: F401

        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Exporting needs onnx and onnxscript ({error}). Run: {INSTALL_LINE}") from None


@contextlib.contextmanager
def stage(output: str) -> Iterator[str]:
    """A folder beside another one, removed at the end unless it was renamed."""
    parent = os.path.dirname(os.path.abspath(output))
    os.makedirs(parent, exist_ok=True)
    prefix = f".{os.path.basename(os.path.abspath(output))}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as unfinished:
        staged = os.path.join(unfinished, "repository")
        os.makedirs(staged)
        yield staged


def export_graphs(model, processor, folder: str, opset: int = DEFAULT_OPSET, weights: str | None = None) -> list[str]:
    """Write the graphs of a captioner into `onnx/` of a folder.

    Args:
        model: [`EnClapForConditionalGeneration`], float32, on the CPU.
        processor: [`EnClapProcessor`].
        folder: of the repository.
        opset: of ONNX.
        weights: the folder that the model's weights are in; None is `folder`.
    Returns:
        paths of the files written.
    """
    place = os.path.join(folder, FOLDER)
    os.makedirs(place, exist_ok=True)
    metadata = describe_model(model.config, weights or folder)
    paths = {part: os.path.join(place, f"{name}.onnx") for part, name in FILES.items()}
    with torch.no_grad():
        write_encoder(model, paths["encoder"], opset, metadata)
        write_decoder(model, paths["decoder"], opset, metadata)
        problem = find_front_end_problem(processor)
        if problem is None:
            of_encoders = describe_front_end(processor, weights or folder)
            write_front_end(processor, paths["front_end"], opset, {**metadata, **of_encoders})
        else:
            logger.warning("The front end is not exported, and goes on in torch: %s", problem)
            del paths["front_end"]
    return list(paths.values())


def write_encoder(model, path: str, opset: int, metadata: dict[str, str]) -> None:
    """The encoder, see [`EncoderGraph`]."""
    config, num_clips, num_frames = model.config, 2, 9
    if config.frame_kind == "codes":
        frames = torch.zeros(num_clips, num_frames, config.num_codebooks, dtype=torch.long)
    else:
        frames = torch.zeros(num_clips, num_frames, config.frame_dim)
    name = "audio_codes" if config.frame_kind == "codes" else "audio_features"
    example, inputs = (frames,), {name: {0: CLIPS, 1: "frames"}}
    if config.clap_dim:
        example, inputs = (frames, torch.zeros(num_clips, config.clap_dim)), {**inputs, "clap_embedding": {0: CLIPS}}
    outputs = {"last_hidden_state": {0: CLIPS, 1: SLOTS}}
    write_graph(EncoderGraph(model), example, inputs, outputs, path, opset, metadata)


def write_decoder(model, path: str, opset: int, metadata: dict[str, str]) -> None:
    """The decoder, see [`DecoderGraph`]."""
    config, heads = model.config, model.config.decoder_attention_heads
    num_clips, num_beams, num_tokens, num_past, num_slots = 2, 3, 4, 5, 11
    width = config.d_model // heads
    own, of_clips = (num_clips * num_beams, heads, num_past, width), (num_clips, heads, num_slots, width)
    example = (
        torch.zeros(num_clips + 1, num_slots + 2, config.d_model),
        torch.ones(num_clips, num_slots, dtype=torch.long),
        torch.zeros(num_clips * num_beams, num_tokens, dtype=torch.long),
        torch.arange(num_clips * num_beams),
        [[torch.zeros(size) for size in (own, own, of_clips, of_clips)] for _ in range(config.decoder_layers)],
    )
    axes = {"decoder": {0: "past_rows", 2: "past_tokens"}, "encoder": {0: CLIPS, 2: SLOTS}}
    inputs = {
        "encoder_hidden_states": {0: "projected_clips", 1: "projected_slots"},
        "encoder_attention_mask": {0: CLIPS, 1: SLOTS},
        "input_ids": {0: ROWS, 1: "tokens"},
        "beam_idx": {0: ROWS},
        **{name: axes[owner] for name, owner in name_cache(config.decoder_layers, "past_key_values")},
    }
    axes = {"decoder": {0: ROWS, 2: "total_tokens"}, "encoder": {0: "projected_clips", 2: "projected_slots"}}
    present = list(name_cache(config.decoder_layers, "present"))
    outputs = {"logits": {0: ROWS, 1: "tokens"}}
    outputs |= {name: axes[owner] for owner in ("decoder", "encoder") for name, whose in present if whose == owner}
    write_graph(DecoderGraph(model), example, inputs, outputs, path, opset, metadata)


def write_front_end(processor, path: str, opset: int, metadata: dict[str, str]) -> None:
    """The front end, see [`FrontEndGraph`]; inputs of CLAP are those of [`ClapGraph`]."""
    extractor, module = processor.feature_extractor, FrontEndGraph(processor)
    example = [torch.zeros(2, 7 * processor.frame_encoder.sampling_rate)]
    inputs, outputs = {"input_values": {0: CLIPS, 1: "samples"}}, {"audio_codes": {0: CLIPS, 1: "frames"}}
    if module.clap is not None:
        num_windows = 4 if extractor.long_clips == "fusion" else 1
        example.append(torch.zeros(2, extractor.clap_window_length + 5 * extractor.hop_length))
        example.append(torch.zeros(3, num_windows, extractor.window_mel_frames, extractor.num_mel_bins))
        inputs |= {"clap_values": {0: "sounding_clips", 1: "clap_samples"}, "input_features": {0: "prepared_clips"}}
        if module.clap.patches is not None:
            example.append(torch.zeros(3, 1, dtype=torch.bool))
            inputs["is_longer"] = {0: "prepared_clips"}
        outputs["clap_embedding"] = {0: "clap_clips"}
    write_graph(module, tuple(example), inputs, outputs, path, opset, metadata)
