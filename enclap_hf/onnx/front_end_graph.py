"""Samples to codes and CLAP vector, as one graph of two independent parts."""

import torch
from torch import nn

from ..model.encodec_frames import EncodecFrames
from .clap_graph import ClapGraph
from .codec_graph import CodecGraph


class FrontEndGraph(nn.Module):
    """Both frozen encoders of a processor; see `codec_graph.py` and `clap_graph.py`."""

    def __init__(self, processor):
        super().__init__()
        self.codec = CodecGraph(processor.codec, processor.num_codebooks)
        tower = processor.clap
        self.clap = None if tower is None else ClapGraph(tower, processor.feature_extractor)

    def forward(self, input_values: torch.Tensor, *for_clap: torch.Tensor):
        """Samples (B, n) at the codec's rate, and what [`ClapGraph`] reads -> codes (B, T, K), vectors (A + B, C)."""
        codes = self.codec(input_values)
        return codes if self.clap is None else (codes, self.clap(*for_clap))


def find_front_end_problem(processor) -> str | None:
    """Why a processor's encoders cannot be exported; None where they can."""
    encoder = processor.frame_encoder
    if type(encoder) is not EncodecFrames:
        return f"frames of the family {encoder.frame_encoder_type!r} are encoded by torch; only EnCodec's are exported."
    config = encoder.config
    if encoder.is_stock or not config.use_causal_conv or config.norm_type != "weight_norm":
        return (
            "its EnCodec is stereo, scaled, cut into segments, or not causal; only one as the 24 kHz model is exported."
        )
    if config.pad_mode != "reflect":
        return f"its EnCodec pads by {config.pad_mode!r}; only one that reflects is exported."
    return None
