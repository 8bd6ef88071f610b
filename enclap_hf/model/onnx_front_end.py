"""Both frozen encoders on ONNX Runtime: samples to codes and CLAP vectors, without weights of torch.

The graph takes samples at the rates of the codec and of CLAP, each clip by itself, and does all that comes after.
"""

import torch

from .onnx_sessions import GraphSession


class OnnxFrontEnd:
    """What a processor encodes recordings with in the place of its encoders.

    Args:
        graph: the session of `onnx/front_end_model.onnx`.
    """

    def __init__(self, graph: GraphSession):
        self.graph = graph

    def encode(
        self, samples: list[torch.Tensor], clap_samples: list[torch.Tensor] | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Encode clips, each as it is alone.

        Args:
            samples: float32 (n,) of each clip, at the codec's rate.
            clap_samples: float32 (m,) of each, at CLAP's; None for a captioner that reads no CLAP vector.
        Returns:
            int64 (T, K) of each clip, and float32 (B, C), each row of length 1, or None.
        """
        codes, embeddings = [], []
        for index, clip in enumerate(samples):
            feeds, wanted = {"input_values": clip[None]}, ["audio_codes"]
            if clap_samples is not None:
                feeds["clap_values"] = clap_samples[index][None]
                wanted.append("clap_embedding")
            encoded = self.graph.run_tensors(feeds, wanted)
            codes.append(encoded[0][0])
            embeddings += encoded[1:]
        return codes, torch.cat(embeddings) if embeddings else None
