"""The captioner's encoder on ONNX Runtime, clip by clip: a clip's states have the same bits in any batch."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from .configuration_enclap import NUM_EXTRA_SLOTS, EnClapConfig
from .input_checks import check_mask, check_range
from .onnx_sessions import GraphSession


class OnnxEncoder(nn.Module):
    """The encoder's graph, as `model.get_encoder()` is called.

    Args:
        graph: its session.
        config: of the captioner.
    """

    main_input_name = "audio_codes"

    def __init__(self, graph: GraphSession, config: EnClapConfig):
        super().__init__()
        self.graph, self.config = graph, config

    def forward(
        self,
        audio_codes: torch.LongTensor | None = None,
        clap_embedding: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        audio_features: torch.FloatTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """Encode each clip as it is alone; arguments and result are those of [`EnClapEncoder.forward`].

        Raises:
            ValueError: embedded frames, which the graph does not take, or shapes and codes that do not fit.
        """
        name = "audio_codes" if self.config.frame_kind == "codes" else "audio_features"
        frames = self.check_frames(audio_codes, audio_features, inputs_embeds)
        clap = self.check_clap(clap_embedding, len(frames))
        lengths = measure_clips(attention_mask, frames.shape[0], frames.shape[1])
        states = frames.new_zeros(
            len(frames), frames.shape[1] + NUM_EXTRA_SLOTS, self.config.d_model, dtype=torch.float
        )
        for row, length in enumerate(lengths):
            feeds = {name: frames[row : row + 1, :length]}
            if clap is not None:
                feeds["clap_embedding"] = clap[row : row + 1]
            encoded = self.graph.run_tensors(feeds, ["last_hidden_state"])[0]
            states[row, : length + NUM_EXTRA_SLOTS] = encoded[0].to(states.device)
        return BaseModelOutput(last_hidden_state=states)

    def check_frames(self, audio_codes, audio_features, inputs_embeds) -> torch.Tensor:
        """The one kind of frames that this captioner reads: (B, T, K) int64 or (B, T, F) float32."""
        reads_codes, config = self.config.frame_kind == "codes", self.config
        own, other = (audio_codes, audio_features) if reads_codes else (audio_features, audio_codes)
        name, width = ("audio_codes", config.num_codebooks) if reads_codes else ("audio_features", config.frame_dim)
        if own is None or other is not None or inputs_embeds is not None:
            raise ValueError(
                f"Pass `{name}` as the processor returns them: the ONNX graph of this captioner reads these."
            )
        if own.dim() != 3 or own.shape[2] != width or not 1 <= own.shape[1] <= config.max_codec_frames:
            raise ValueError(
                f"Got `{name}` of shape {tuple(own.shape)}; expected (B, T, {width}) with T from 1 to "
                f"{config.max_codec_frames}."
            )
        if not reads_codes:
            return own.float()
        check_range(own, 0, config.codec_mask_token_id, "`audio_codes`", "the last of which marks hidden ones")
        return own.long()

    def check_clap(self, clap_embedding: torch.Tensor | None, num_clips: int) -> torch.Tensor | None:
        """CLAP vectors (B, C), zeros where none are passed; None for a captioner that reads none."""
        width = self.config.clap_dim
        if not width:
            if clap_embedding is not None:
                raise ValueError("Got `clap_embedding`, and this captioner reads none (`clap_dim` 0); leave it out.")
            return None
        if clap_embedding is None:
            return torch.zeros(num_clips, width)
        if tuple(clap_embedding.shape) != (num_clips, width):
            raise ValueError(
                f"Got `clap_embedding` of shape {tuple(clap_embedding.shape)}; expected (B, C) = {(num_clips, width)}."
            )
        return clap_embedding.float()


def measure_clips(attention_mask: torch.Tensor | None, num_clips: int, num_frames: int) -> list[int]:
    """Frames of each clip.

    Raises:
        ValueError: the mask is not of these clips, or no run of ones followed by zeros.
    """
    if attention_mask is None:
        return [num_frames] * num_clips
    if tuple(attention_mask.shape) != (num_clips, num_frames):
        raise ValueError(
            f"Got `attention_mask` of shape {tuple(attention_mask.shape)}; expected (B, T) = {(num_clips, num_frames)}."
        )
    check_mask(attention_mask)
    return attention_mask.sum(1).tolist()
