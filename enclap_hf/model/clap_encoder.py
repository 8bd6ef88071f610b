"""The frozen CLAP audio tower: log-mel windows to one vector a recording, or to one frame for each stretch of a window.

It stays in float32 and in evaluation mode. Windows have one length, so a clip's result does not depend on what it is
batched with, on a CPU not in the last bit. Its linear layers multiply as the captioner's do (`onednn_linear.py`).
"""

import torch
from torch import nn
from transformers import ClapAudioConfig, ClapAudioModelWithProjection

from .config_checks import load_config
from .frame_encoder import fingerprint_tensors, load_frozen
from .model_checks import LOADING
from .onednn_linear import use_onednn

# Windows encoded together: on a CPU each by itself, so that its bits do not depend on the batch (`row_bits.py`).
BATCH_SIZE = {"cpu": 1, "cuda": 128}


class ClapEncoder:
    """A CLAP audio tower, whose configuration is read at once and whose weights when needed.

    Args:
        source: a loaded `ClapAudioModelWithProjection`, or the folder of one or of a whole CLAP.
    """

    part = "clap"

    def __init__(self, source: ClapAudioModelWithProjection | str):
        is_loaded = isinstance(source, nn.Module)
        self._model, self._source = (source, None) if is_loaded else (None, source)
        self.config = source.config if is_loaded else load_config(ClapAudioConfig, str(source))
        self.device = torch.device("cpu")
        if is_loaded:
            use_onednn(source)

    @property
    def embedding_dim(self) -> int:
        """C."""
        return self.config.projection_dim

    @property
    def model(self) -> ClapAudioModelWithProjection:
        """The tower, float32, in evaluation mode."""
        with LOADING:
            if self._model is None:
                model = load_frozen(ClapAudioModelWithProjection, self._source)
                use_onednn(model)
                self._model = model.to(self.device)
        return self._model

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def __getstate__(self) -> dict:
        return self.__dict__ if self._source is None else {**self.__dict__, "_model": None}  # it is read again

    def __deepcopy__(self, memo) -> "ClapEncoder":
        return self  # frozen: copies share it

    def to(self, device: str | torch.device) -> "ClapEncoder":
        """Encode on `device`."""
        self.device = torch.device(device)
        if self._model is not None:
            self._model.to(self.device)
        return self

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        self.model.save_pretrained(folder)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights."""
        return fingerprint_tensors(self.model.state_dict())

    def embed(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> torch.Tensor:
        """Embed recordings.

        Args:
            input_features: (B, windows, mel frames, mel bins) from the feature extractor.
            is_longer: bool (B, 1), clips whose three extra windows are fused.
        Returns:
            float32 (B, C) on the CPU, each row of length 1.
        """
        batch_size = BATCH_SIZE.get(self.device.type, BATCH_SIZE["cuda"])
        embeddings = []
        for features, longer in zip(input_features.split(batch_size), is_longer.split(batch_size), strict=True):
            if not longer.any():
                features = features[:, :1]  # the others are read of longer clips only
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                out = self.model(features.to(self.device, torch.float32), is_longer=longer.to(self.device))
                embedding = nn.functional.normalize(out.audio_embeds, dim=-1)
            embeddings.append(embedding.cpu())
        return torch.cat(embeddings)  # out of inference mode, so that training can read it

    @property
    def frames_per_window(self) -> int:
        """Frames that the tower's last layer has in time."""
        side = self.config.spec_size // (self.config.patch_stride[0] * 2 ** (len(self.config.depths) - 1))
        return side * (self.config.spec_size // self.config.num_mel_bins)

    @property
    def frame_dim(self) -> int:
        """Width of a frame."""
        return self.config.patch_embeds_hidden_size * 2 ** (len(self.config.depths) - 1)

    def encode_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """The last layer's frames: log-mel (windows, mel frames, mel bins) -> (windows, frames, width), on `device`."""
        is_longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        states = self.model.audio_model(windows[:, None], is_longer=is_longer).last_hidden_state
        return states.mean(dim=2).transpose(1, 2)  # (windows, width, frequency, frames) -> (windows, frames, width)
