"""Frame encoders: what turns a recording into the frames that a captioner reads. One class, in one file, is one family.

    samples (channels, n) --prepare--> (n,) or (channels, n) --encode--> codes (T, K) or features (T, F)

A frame encoder alone knows its sampling rate, its frame rate, its codebooks or the width of its features, and how its
weights are loaded, saved and told apart. Everything else asks it. `FrameEncoder` is the interface with what most
families share, `CodecFrames` that of the neural codecs of transformers. `frame_encoder_families.py` lists them.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig, PreTrainedModel

from .config_checks import CONFIGURATION, load_config
from .model_checks import LOADING, load_checked
from .model_files import MODEL_FILES, read_json_object

# Clips encoded together.
BATCH_SIZE = {"cpu": 16, "cuda": 64}


class FrameEncoder:
    """The interface, and the parts of it that most families share.

    Attributes:
        frame_encoder_type: name of the family, as `processor_config.json` has it.
        kind: "codes", int64 (T, K), or "features", float32 (T, F).
        part: sub-folder of a repository that its files are in.
        files: patterns of their names; what else lies there is not uploaded.
        num_channels: channels that `prepare` reads: 1, and it gets the mean of a recording's; or None, and it gets all.
        sampling_rate: Hz of the samples that `prepare` gets.
        frame_rate: frames of a second, Hz.
        lookahead_s: seconds of sound behind a frame that change it.
        num_codebooks, codebook_size: of codes: K that the codec has, and the codes in each codebook.
        kept_codebooks: how many of these, the first ones, are encoded.
        frame_dim: of features: F.
        device: where it encodes.
        is_loaded: whether its weights are in memory.
    """

    frame_encoder_type = ""
    kind = "codes"
    part = "codec"
    files: tuple[str, ...] = MODEL_FILES
    num_channels: int | None = 1
    sampling_rate = 24_000
    frame_rate = 75.0
    lookahead_s = 0.0
    num_codebooks: int | None = None
    codebook_size: int | None = None
    frame_dim: int | None = None
    device = torch.device("cpu")
    is_loaded = True
    _codebook_limit: int | None = None

    @classmethod
    def load(cls, source: str) -> "FrameEncoder":
        """Read an encoder from the folder that it was saved to. Large files are read when they are needed."""
        raise NotImplementedError(f"{cls.__name__} has no `load`.")

    def save(self, folder: str) -> None:
        """Write the encoder to a folder, from which `load` reads it."""
        raise NotImplementedError(f"{type(self).__name__} has no `save`.")

    def bind(self, processor) -> None:
        """Meet the processor that owns this encoder, for families that share a part with it."""

    @property
    def kept_codebooks(self) -> int | None:
        return self.num_codebooks if self._codebook_limit is None else self._codebook_limit

    def limit_codebooks(self, num_codebooks: int) -> None:
        """Encode the first codebooks only, until the next call.

        Raises:
            ValueError: it has fewer.
        """
        if self.num_codebooks is None or num_codebooks > self.num_codebooks:
            raise ValueError(
                f"Asked for {num_codebooks} codebooks of a codec that has {self.num_codebooks or 'none'}; lower "
                "`num_codebooks`, or use a codec with more."
            )
        self._codebook_limit = num_codebooks

    def prepare(self, samples: np.ndarray) -> torch.Tensor:
        """Samples (channels, num_samples) at `sampling_rate` -> what `encode` reads; here the mean, (num_samples,)."""
        return torch.from_numpy(mix_channels(samples).copy())

    def encode(self, clips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Encode prepared clips, each as it is alone: a list of int64 (T, K) or float32 (T, F), on the CPU."""
        frames = []
        for clip in clips:
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                encoded = self.encode_alone(clip.to(self.device, torch.float32))
            frames.append(encoded.cpu().clone())  # training refuses tensors that were made in inference mode
        return frames

    def encode_alone(self, clip: torch.Tensor) -> torch.Tensor:
        """Encode one prepared clip, on `device`: (T, K) or (T, F)."""
        raise NotImplementedError(f"{type(self).__name__} prepares recordings only, and encodes none.")

    def to(self, device: str | torch.device) -> "FrameEncoder":
        """Encode on `device`."""
        self.device = torch.device(device)
        return self

    def __deepcopy__(self, memo) -> "FrameEncoder":
        return self  # frozen: copies share it

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that its frames depend on."""
        raise NotImplementedError(f"{type(self).__name__} has no `fingerprint`.")


class WaveformFrames(FrameEncoder):
    """Prepares waveforms for an encoder of which only the rates are known.

    Args:
        sampling_rate: Hz.
        hop_length: samples of a frame.
    """

    def __init__(self, sampling_rate: int, hop_length: int):
        self.sampling_rate, self.frame_rate = sampling_rate, sampling_rate / hop_length


class CodecFrames(FrameEncoder):
    """Codes of a neural codec of transformers, whose configuration is read at once and whose weights when needed.

    Args:
        source: a loaded codec, or the folder of one.

    Raises:
        OSError: the folder has no configuration.
        ValueError: the folder holds another codec.
    """

    # Of the tensors, those that codes do not depend on.
    unread_tensors: tuple[str, ...] = ("decoder.",)

    def __init__(self, source: PreTrainedModel | str):
        is_loaded = isinstance(source, PreTrainedModel)
        self._model, self._source = (source, None) if is_loaded else (None, source)
        self.config = source.config if is_loaded else self.load_config(source)
        self.read_config(self.config)

    @classmethod
    def model_class(cls) -> type[PreTrainedModel]:
        """The codec's class."""
        raise NotImplementedError

    def read_config(self, config: PretrainedConfig) -> None:
        """Set the rates and sizes."""
        raise NotImplementedError

    @classmethod
    def load(cls, source: str) -> "CodecFrames":
        return cls(source)

    def load_config(self, folder: str) -> PretrainedConfig:
        """Read the configuration in a folder, which must be of this family."""
        config_class = self.model_class().config_class
        model_type = read_json_object(os.path.join(folder, CONFIGURATION)).get("model_type")
        if model_type != config_class.model_type:
            raise ValueError(
                f"Got a model of type {model_type!r} in {folder} as the frame encoder {self.frame_encoder_type!r}; "
                f"expected {config_class.model_type!r}: set `frame_encoder_type` to its family."
            )
        return load_config(config_class, str(folder))

    @property
    def model(self) -> PreTrainedModel:
        """The codec, float32, in evaluation mode."""
        with LOADING:
            if self._model is None:
                self._model = self.read_model(self._source).to(self.device)
        return self._model

    @property
    def is_loaded(self) -> bool:
        return self._model is not None

    def read_model(self, folder: str) -> PreTrainedModel:
        """Load the codec of a folder."""
        return load_frozen(self.model_class(), folder)

    def __getstate__(self) -> dict:
        if self._source is not None:
            return {**self.__dict__, "_model": None}  # it is read again
        model = self._model  # torch pickles no parametrised modules
        tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        parts = [name for name, part in model.named_children() if part is not None]
        return {**self.__dict__, "_model": (type(model), model.config, tensors, parts)}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if isinstance(self._model, tuple):
            self._model = rebuild_model(*self._model).to(self.device)

    def to(self, device: str | torch.device) -> "CodecFrames":
        super().to(device)
        if self._model is not None:
            self._model.to(self.device)
        return self

    def save(self, folder: str) -> None:
        self.model.save_pretrained(folder)

    @property
    def fingerprint(self) -> str:
        return fingerprint_tensors(self.find_read_tensors())

    def find_read_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that codes depend on."""
        tensors = self.model.state_dict()
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(self.unread_tensors)}


def load_frozen(model_class: type[PreTrainedModel], source: str) -> PreTrainedModel:
    """Load a model of a folder for inference alone: float32, from safetensors, every tensor in memory of its own."""
    folder = source.complete() if hasattr(source, "complete") else source
    use_safetensors = getattr(folder, "use_safetensors", True) or None  # None takes either
    options = {"dtype": torch.float32, "use_safetensors": use_safetensors}
    with torch.random.fork_rng(devices=[]):  # weights that are replaced are drawn first; nobody's randomness moves
        model = load_checked(model_class.from_pretrained, model_class, str(folder), **options)
    # Weights of a mapped file begin at any byte, and the last bits of a product depend on where.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.eval().requires_grad_(False)


def rebuild_model(
    model_class: type[PreTrainedModel], config: PretrainedConfig, tensors: dict[str, torch.Tensor], parts: list[str]
) -> PreTrainedModel:
    """A frozen model of its tensors, with those of its parts that it had."""
    with torch.random.fork_rng(devices=[]):  # what it starts from is drawn, and replaced at once
        model = model_class(config)
    for name, part in list(model.named_children()):
        if part is not None and name not in parts:
            setattr(model, name, None)
    model.load_state_dict(tensors)
    return freeze(model)


def fingerprint_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of named tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def fingerprint_unnamed(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of tensors whose names differ between versions of transformers."""
    digests = []
    for tensor in tensors:
        digest = hashlib.sha256(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
        digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def save_settings(folder: str, settings: dict) -> None:
    """Write the config.json of an encoder that is not a model of transformers."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=2, sort_keys=True)
        file.write("\n")


def read_settings(folder: str) -> dict:
    """Read what [`save_settings`] wrote."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return json.load(file)


def mix_channels(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels: (channels, num_samples) -> (num_samples,); one channel stays as it is."""
    return samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float32)


def count_samples(encoder: FrameEncoder, num_frames: int) -> int:
    """Samples, at the encoder's rate, that so many frames cover."""
    return math.ceil(num_frames * encoder.sampling_rate / encoder.frame_rate - 1e-6)


def pad_frames(frames: list[torch.Tensor], padding_code: int | None = None) -> dict[str, torch.Tensor]:
    """Stack the frames of clips into a batch.

    Args:
        frames: int64 (T, K) or float32 (T, F) of each clip.
        padding_code: of codes, the id of a hidden one; None for features, which are padded with zeros.
    Returns:
        `audio_codes` (B, T, K) or `audio_features` (B, T, F), and `attention_mask` (B, T).
    """
    masks = [torch.ones(len(clip), dtype=torch.long) for clip in frames]
    name = "audio_features" if padding_code is None else "audio_codes"
    padding = 0.0 if padding_code is None else padding_code
    return {
        name: pad_sequence(frames, batch_first=True, padding_value=padding),
        "attention_mask": pad_sequence(masks, batch_first=True),
    }


def freeze(model: nn.Module) -> nn.Module:
    """A model for inference alone: float32, evaluation mode, no gradients."""
    return model.float().eval().requires_grad_(False)
