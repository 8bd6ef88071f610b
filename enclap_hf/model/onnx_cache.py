"""What a search on ONNX Runtime keeps: keys and values of the clips, made once, and those of the tokens so far."""

from typing import NamedTuple

import numpy as np
import torch

from .onnx_sessions import GraphSession

# Slots of a batch of clips are a multiple of this: sums run over so many at a time.
SLOT_STEP = 64


class ClipCache(NamedTuple):
    """Keys and values of a batch of clips, kept with the states that they were made of.

    Attributes:
        version: of the tensor of states, which counts its changes.
        lengths: frames of each clip.
        graph: the decoder's, which made them.
        arrays: keys and values, layer by layer (B, heads, slots, head width).
        values: the same, and the mask of slots, as the graph takes them.
    """

    version: int
    lengths: list[int]
    graph: GraphSession
    arrays: list[np.ndarray]
    values: dict

    def is_of(self, lengths: list[int], graph: GraphSession) -> bool:
        """Whether they are those of clips of these lengths, made by this graph."""
        return self.lengths == lengths and self.graph is graph


def find_kept(states: torch.Tensor | None) -> ClipCache | None:
    """What is kept with states, unless they have changed since; nothing is kept with tensors that count no changes."""
    kept: ClipCache | None = getattr(states, "clip_cache", None)
    return None if kept is None or states is None or kept.version != states._version else kept


class StepCache:
    """What a step of the decoder goes on from: keys and values of the tokens so far, and those of the clips.

    Args:
        clips: `past_key_values.*.encoder.*` and `encoder_attention_mask` of the decoder's graph.
    """

    is_compileable = False

    def __init__(self, clips: dict):
        self.clips, self.tokens = clips, None
        self.num_tokens = 0
        self.beam_idx: torch.Tensor | None = None

    def get_seq_length(self, *args) -> int:
        """Tokens so far."""
        return self.num_tokens


def round_up(num_slots: int) -> int:
    """The next multiple of `SLOT_STEP`."""
    return -(-num_slots // SLOT_STEP) * SLOT_STEP


def no_states() -> None:
    """Stands for a reference to states that are gone."""
