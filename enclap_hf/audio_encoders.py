"""The two frozen audio encoders: EnCodec's codes and CLAP's embedding of waveforms, in batches of any lengths.

Both stay in float32 and in evaluation mode. A clip's result does not depend on what it is batched with: EnCodec pads
every clip at its own end (`CodecEncoder`), CLAP sees windows of one length.

Distinctive choices, all for speed; the weights and their files stay those of the stock models:
- EnCodec's convolutions run channels-last, which oneDNN multiplies without rearranging the signal, with weight norm
  folded once. Each activation is written straight behind the frames that pad it.
- On a CPU the convolutions take a clip at a time and the LSTM all clips of a batch: its 16 MB of weights are read once
  at every step, however many clips share it.
- CLAP's linear layers and the search for the nearest codes multiply as the captioner does (`onednn_linear.py`).
"""

import os

import torch
from safetensors import safe_open
from torch import nn
from transformers import ClapAudioModelWithProjection, EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM, EncodecResnetBlock
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from .onednn_linear import multiply, use_onednn

# Clips encoded together.
CODEC_BATCH_SIZE = {"cpu": 16, "cuda": 64}
CLAP_BATCH_SIZE = {"cpu": 8, "cuda": 128}
# Codec frames, of which the codec runs over a multiple: oneDNN compiles its code anew for each length.
LENGTH_STEP_FRAMES = 32
# Clips that pass the codec's convolutions together: on a CPU one keeps the cores busy, and more would leave the cache.
CONVOLUTION_BATCH_SIZE = {"cpu": 1, "cuda": 64}
# Codec frames quantised together: on a CPU their scores of all codes of a codebook stay in the cache.
QUANTIZER_BLOCK_FRAMES = {"cpu": 256, "cuda": 1 << 20}
# Codec frames that the LSTM takes at a time, so that its gates of a long clip are never in memory as a whole.
LSTM_BLOCK_FRAMES = 2048


class CodecModel(EncodecModel):
    """`EncodecModel` that may be stored without its decoder, which captioning never runs."""

    _keys_to_ignore_on_load_missing = [r"^decoder\."]


class AudioEncoders:
    """EnCodec and the CLAP audio tower, each loaded when first needed.

    Args:
        codec: a loaded `EncodecModel`, or a source: keyword arguments of `from_pretrained`, with the repository as
            `pretrained_model_name_or_path`.
        clap: the same for `ClapAudioModelWithProjection`.
    """

    def __init__(self, codec: EncodecModel | dict, clap: ClapAudioModelWithProjection | dict):
        self._models = {"codec": codec, "clap": clap}
        self._codec_encoder = None
        self.device = torch.device("cpu")
        if not isinstance(clap, dict):
            use_onednn(clap)

    def __deepcopy__(self, memo) -> "AudioEncoders":
        return self  # frozen: a copied processor shares them

    @property
    def codec(self) -> EncodecModel:
        """EnCodec, float32, in evaluation mode."""
        return self._load("codec", CodecModel)

    @property
    def clap(self) -> ClapAudioModelWithProjection:
        """The CLAP audio tower, float32, in evaluation mode."""
        return self._load("clap", ClapAudioModelWithProjection)

    def _load(self, name: str, model_class: type) -> nn.Module:
        model = self._models[name]
        if isinstance(model, dict):
            source, model = model, model_class.from_pretrained(**model, dtype=torch.float32)
            if name == "codec" and not stores_decoder(source):
                model.decoder = None  # random weights must not pass for it
            # Weights of a mapped file begin at any byte, and the last bits of a product depend on where.
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
            if name == "clap":
                use_onednn(model)
            model = self._models[name] = model.eval().requires_grad_(False).to(self.device)
        return model

    @property
    def codec_encoder(self) -> "CodecEncoder":
        """EnCodec's encoder and codebooks, arranged for speed on first use."""
        if self._codec_encoder is None:
            self._codec_encoder = CodecEncoder(self.codec, self.device)
        return self._codec_encoder

    def to(self, device: str | torch.device) -> "AudioEncoders":
        """Move both encoders, those not loaded yet as soon as they are."""
        self.device, self._codec_encoder = torch.device(device), None
        for model in self._models.values():
            if not isinstance(model, dict):
                model.to(self.device)
        return self

    def save_pretrained(self, save_directory: str) -> None:
        """Write `codec/` and `clap/`, each with its config.json and model.safetensors."""
        self.codec.save_pretrained(os.path.join(save_directory, "codec"))
        self.clap.save_pretrained(os.path.join(save_directory, "clap"))

    def encode_codes(self, waveforms: list[torch.Tensor], num_codebooks: int) -> list[torch.Tensor]:
        """Encode waveforms into EnCodec codes.

        Args:
            waveforms: mono clips (num_samples,) at the codec's sampling rate, at least one sample each.
            num_codebooks: K, how many of the codec's codebooks are kept.
        Returns:
            per clip, int64 (T, K) on the CPU with T = ceil(num_samples / hop length).
        Raises:
            ValueError: the codec has fewer codebooks.
        """
        num_available = len(self.codec.quantizer.layers)
        if num_codebooks > num_available:
            raise ValueError(
                f"Asked for {num_codebooks} codebooks of a codec that has {num_available}; lower "
                "`num_codebooks` or use a codec with a higher bandwidth."
            )
        codes = [None] * len(waveforms)
        batch_size = CODEC_BATCH_SIZE.get(self.device.type, CODEC_BATCH_SIZE["cuda"])
        for group in group_by_length([len(waveform) for waveform in waveforms], batch_size):
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                clips = [waveforms[i].to(self.device, torch.float32) for i in group]
                latents = self.codec_encoder.encode(clips)
                group_codes = [self.codec_encoder.quantize(latent, num_codebooks) for latent in latents]
            for i, clip_codes in zip(group, group_codes, strict=True):
                codes[i] = clip_codes.cpu().clone()  # training refuses tensors that were made in inference mode
        return codes

    def embed_features(self, input_features: torch.Tensor, is_longer: torch.Tensor) -> torch.Tensor:
        """Embed log-mel features with CLAP.

        Args:
            input_features: (B, windows, mel frames, mel bins) from the feature extractor.
            is_longer: bool (B, 1), clips whose three extra windows are fused.
        Returns:
            float32 (B, C) on the CPU, each row of length 1.
        """
        batch_size = CLAP_BATCH_SIZE.get(self.device.type, CLAP_BATCH_SIZE["cuda"])
        embeddings = []
        for features, longer in zip(input_features.split(batch_size), is_longer.split(batch_size), strict=True):
            if not longer.any():
                features = features[:, :1]  # the others are read of longer clips only
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                out = self.clap(features.to(self.device, torch.float32), is_longer=longer.to(self.device))
                embedding = nn.functional.normalize(out.audio_embeds, dim=-1)
            embeddings.append(embedding.cpu())
        return torch.cat(embeddings)  # out of inference mode, so that training can read it


def stores_decoder(source: dict) -> bool:
    """Whether the weights of a codec that was just loaded from `source` hold its decoder."""
    arguments = {name: value for name, value in source.items() if name != "force_download"}
    try:
        path = cached_file(arguments.pop("pretrained_model_name_or_path"), SAFE_WEIGHTS_NAME, **arguments)
    except OSError:  # other kinds of files come from stock models, which are complete
        return True
    with safe_open(path, "pt") as file:
        return any(key.startswith("decoder.") for key in file.keys())  # noqa: SIM118


def group_by_length(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Split clip indices into batches of similar length, longest first so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def encode_latent_alone(codec: EncodecModel, waveform: torch.Tensor) -> torch.Tensor:
    """The stock latent of one waveform, scaled first where the codec asks for it: (num_samples,) -> (T, H)."""
    if codec.config.normalize:
        waveform = waveform / (waveform.pow(2).mean().sqrt() + 1e-8)
    channels = waveform.expand(1, codec.config.audio_channels, -1)
    return codec.encoder(channels)[0].T


class CodecEncoder:
    """EnCodec's encoder and quantiser, arranged for speed: waveforms to latents, latents to codes.

    Alone, a clip is padded at its end by every strided layer, by reflection. A causal encoder lets a batch of clips of
    unlike lengths run at once, if each of those layers first writes a clip's own reflection behind its end: what
    follows is never read. Codecs that are not causal, or scale or normalise over the clip, encode it alone, with the
    stock encoder.

    Args:
        codec: float32, in evaluation mode; its weights are copied, so later changes have no effect here.
        device: where it is.
    """

    def __init__(self, codec: EncodecModel, device: torch.device):
        self.codec = codec
        config, layers = codec.config, list(codec.encoder.layers)
        self.is_batchable = (
            config.use_causal_conv
            and config.norm_type == "weight_norm"
            and config.pad_mode == "reflect"
            and not config.normalize
        )
        # Reflection at the start needs more frames than the widest padding, also in the last layer.
        self.min_samples = config.hop_length * max(config.kernel_size, config.last_kernel_size)
        lstm = next(i for i, layer in enumerate(layers) if isinstance(layer, EncodecLSTM))
        self.convolutions, self.lstm, self.last_layers = layers[:lstm], layers[lstm].lstm, layers[lstm + 1 :]
        self.batch_size = CONVOLUTION_BATCH_SIZE.get(device.type, CONVOLUTION_BATCH_SIZE["cuda"])
        self.quantizer_block_frames = QUANTIZER_BLOCK_FRAMES.get(device.type, QUANTIZER_BLOCK_FRAMES["cuda"])
        self.memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        with torch.inference_mode():
            self.weights = {
                layer: layer.conv.weight.unsqueeze(2).contiguous(memory_format=self.memory_format)  # (out, in, 1, k)
                for layer in codec.encoder.modules()
                if isinstance(layer, EncodecConv1d)
            }
            embeddings = [layer.codebook.embed for layer in codec.quantizer.layers]
            # The nearest entry e of x has the least |x|^2 - 2 x.e + |e|^2, so the greatest x.(2 e) - |e|^2.
            self.codebooks = [(embed, 2 * embed, -embed.pow(2).sum(1)) for embed in embeddings]

    def encode(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """Latent of each waveform, longest first: (num_samples,) -> (T, H)."""
        num_together = sum(len(waveform) >= self.min_samples for waveform in waveforms) if self.is_batchable else 0
        latents = self._encode_together(waveforms[:num_together]) if num_together else []
        return latents + [encode_latent_alone(self.codec, waveform) for waveform in waveforms[num_together:]]

    def _encode_together(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """Latents of clips that are long enough, longest first."""
        lengths, frames, workspace = [], None, Workspace(self.memory_format)
        for start in range(0, len(waveforms), self.batch_size):
            part = waveforms[start : start + self.batch_size]
            states, part_lengths = self._run(self.convolutions, *self._stack(part), workspace)
            if frames is None:
                frames = states.new_zeros(states.shape[3], len(waveforms), states.shape[1])  # (T, B, channels)
            frames[: states.shape[3], start : start + len(part)] = states.squeeze(2).permute(2, 0, 1)
            lengths += part_lengths
        states = self._run_lstm(frames).permute(1, 2, 0).unsqueeze(2)
        states, _ = self._run(self.last_layers, states, lengths, workspace)  # (B, H, 1, T)
        return [states[i, :, 0, :length].T for i, length in enumerate(lengths)]

    def quantize(self, latent: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """Residual vector quantisation with the first K codebooks: (T, H) -> (T, K)."""
        blocks = []
        for residual in latent.split(self.quantizer_block_frames):
            codes = []
            for embed, doubled, negative_norms in self.codebooks[:num_codebooks]:
                indices = multiply(residual, doubled, negative_norms).argmax(1)
                residual = residual - embed[indices]
                codes.append(indices)
            blocks.append(torch.stack(codes, dim=1))
        return torch.cat(blocks)

    def _stack(self, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
        """Waveforms side by side, with room for whole frames, in one of few sizes: (B, 1, 1, L), and their lengths."""
        lengths, step = [len(waveform) for waveform in waveforms], self.codec.config.hop_length * LENGTH_STEP_FRAMES
        states = waveforms[0].new_zeros(len(waveforms), 1, 1, -(-max(lengths) // step) * step)
        for i, waveform in enumerate(waveforms):
            states[i, 0, 0, : lengths[i]] = waveform
        return states, lengths

    def _run(
        self, layers: list[nn.Module], states: torch.Tensor, lengths: list[int], workspace: "Workspace"
    ) -> tuple[torch.Tensor, list[int]]:
        """Run layers on (B, channels, 1, L), of which each clip owns its first `lengths[i]`; likewise afterwards."""
        activates = False
        for layer in layers:
            if isinstance(layer, nn.ELU):
                activates = True  # by the convolution that follows
            elif isinstance(layer, EncodecResnetBlock):
                branch, _ = self._run(layer.block, states, lengths, workspace)
                if isinstance(layer.shortcut, EncodecConv1d):
                    states = self._convolve(layer.shortcut, states, lengths, False, workspace)
                states = branch.add_(states)
            else:
                states = self._convolve(layer, states, lengths, activates, workspace)
                lengths, activates = [-(-length // layer.conv.stride[0]) for length in lengths], False
        return states, lengths

    def _convolve(
        self, layer: EncodecConv1d, states: torch.Tensor, lengths: list[int], activates: bool, workspace: "Workspace"
    ) -> torch.Tensor:
        """Pad as the layer does, after ELU where wanted, and convolve: (B, in, 1, L) -> (B, out, 1, L / stride)."""
        weight, stride, dilation = self.weights[layer], layer.conv.stride[0], layer.conv.dilation[0]
        padding = (weight.shape[3] - 1) * dilation + 1 - stride
        if padding or activates:
            padded = workspace.take(states, padding)
            own = padded[..., padding:]
            own.copy_(states)
            if activates:
                nn.functional.elu_(own)
            for clip, length in zip(own, lengths, strict=True):
                missing = -length % stride
                if missing:
                    clip[..., length : length + missing] = clip[..., length - 1 - missing : length - 1].flip(-1)
            padded[..., :padding] = own[..., 1 : padding + 1].flip(-1)
            states = padded
        return convolve(states, weight, layer.conv.bias, stride, dilation)

    def _run_lstm(self, frames: torch.Tensor) -> torch.Tensor:
        """The LSTM and its residual connection: (T, B, channels) -> the same."""
        blocks, carried = [], None
        for block in frames.split(LSTM_BLOCK_FRAMES):
            states, carried = self.lstm(block, carried)
            blocks.append(states)
        return torch.cat(blocks).add_(frames)


class Workspace:
    """Memory that the convolutions of a batch pad their inputs in, one after another.

    The system hands out large memory in pages that it clears first, which takes longer than the padding itself.
    """

    def __init__(self, memory_format: torch.memory_format):
        self.memory_format = memory_format
        self._memory = torch.empty(0)

    def take(self, states: torch.Tensor, padding: int) -> torch.Tensor:
        """Room for (B, channels, 1, padding + L); what was taken before is lost."""
        batch_size, channels, _, length = states.shape
        size = batch_size * channels * (padding + length)
        if self._memory.numel() < size:
            self._memory = states.new_empty(size)
        memory = self._memory[:size]
        if self.memory_format == torch.channels_last:
            return memory.view(batch_size, 1, padding + length, channels).permute(0, 3, 1, 2)
        return memory.view(batch_size, channels, 1, padding + length)


def convolve(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int = 1, dilation: int = 1
) -> torch.Tensor:
    """Convolve along the last axis: (B, in, 1, L) -> (B, out, 1, L / stride).

    On a CPU by oneDNN whatever the shape: torch itself takes a slower routine for short kernels in a single thread.
    """
    if states.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(states, weight, bias, (0, 0), (1, stride), (1, dilation), 1)
    return nn.functional.conv2d(states, weight, bias, (1, stride), dilation=(1, dilation))
