"""Codes of Mimi, whose first codebook was taught what is said; 12.5 frames a second."""

import torch
from transformers import MimiConfig, MimiModel

from .frame_encoder import CodecFrames, fingerprint_unnamed


class MimiFrames(CodecFrames):
    """Mimi's codes. It is causal: a frame depends on no later sound."""

    frame_encoder_type = "mimi"
    unread_tensors = ("decoder", "upsample")

    @classmethod
    def model_class(cls) -> type[MimiModel]:
        return MimiModel

    def read_config(self, config: MimiConfig) -> None:
        self.sampling_rate, self.frame_rate = config.sampling_rate, float(config.frame_rate)
        self.num_codebooks, self.codebook_size = config.num_quantizers, config.codebook_size

    def limit_codebooks(self, num_codebooks: int) -> None:
        semantic = self.config.num_semantic_quantizers
        if num_codebooks < semantic:
            raise ValueError(
                f"Asked for {num_codebooks} codebooks of a Mimi; expected at least its {semantic} semantic."
            )
        super().limit_codebooks(num_codebooks)

    @property
    def fingerprint(self) -> str:
        return fingerprint_unnamed(self.find_read_tensors().values())

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """(num_samples,) -> (T, K)."""
        codes = self.model.encode(clip[None, None], num_quantizers=self.kept_codebooks).audio_codes
        return codes[0].t()  # (1, K, T) -> (T, K)
