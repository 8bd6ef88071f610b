"""Exports a captioner with its processor: a complete repository with ONNX graphs beside the weights.

onnx/front_end_model.onnx         samples to codes and CLAP vector
onnx/encoder_model.onnx           codes and CLAP vector to states
onnx/decoder_model_merged.onnx    states to keys and values; tokens, keys and values to logits
"""

import logging
import os

import torch

from ..model.onnx_files import FILES, FOLDER, describe_model, name_cache
from .captioner_graphs import DecoderGraph, EncoderGraph
from .front_end_graph import FrontEndGraph, find_front_end_problem
from .graph_files import DEFAULT_OPSET, write_graph

logger = logging.getLogger(__name__)

ROWS, CLIPS, SLOTS = "rows", "clips", "slots"


def export_graphs(model, processor, folder: str, opset: int = DEFAULT_OPSET) -> list[str]:
    """Write the graphs of a captioner into `onnx/` of its repository.

    Args:
        model: [`EnClapForConditionalGeneration`], float32, on the CPU.
        processor: [`EnClapProcessor`].
        folder: of the repository.
        opset: of ONNX.
    Returns:
        paths of the files written.
    Raises:
        ValueError: an opset that the exporter does not write.
    """
    place = os.path.join(folder, FOLDER)
    os.makedirs(place, exist_ok=True)
    metadata = describe_model(model.config, folder)
    paths = []
    with torch.no_grad():
        for name, write in (("encoder", write_encoder), ("decoder", write_decoder)):
            paths.append(os.path.join(place, f"{FILES[name]}.onnx"))
            write(model, paths[-1], opset, metadata)
        problem = find_front_end_problem(processor)
        if problem is None:
            paths.append(os.path.join(place, f"{FILES['front_end']}.onnx"))
            write_front_end(processor, paths[-1], opset, metadata)
        else:
            logger.warning("The front end is not exported, and runs in torch: %s", problem)
    return paths


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
    """The front end, see [`FrontEndGraph`]."""
    extractor = processor.feature_extractor
    example, inputs = (
        (torch.zeros(2, 7 * processor.frame_encoder.sampling_rate),),
        {"input_values": {0: CLIPS, 1: "samples"}},
    )
    outputs = {"audio_codes": {0: CLIPS, 1: "frames"}}
    if processor.clap is not None:
        example = (*example, torch.zeros(2, extractor.clap_window_length + 5 * extractor.hop_length))
        inputs = {**inputs, "clap_values": {0: CLIPS, 1: "clap_samples"}}
        outputs = {**outputs, "clap_embedding": {0: CLIPS}}
    write_graph(FrontEndGraph(processor), example, inputs, outputs, path, opset, metadata)
