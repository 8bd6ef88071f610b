"""EnCodec's encoder and quantiser, arranged for speed: waveforms to latents, latents to codes.

Distinctive choices; the weights are those of the stock codec, and so are the codes:
- The convolutions run channels-last, which oneDNN multiplies without rearranging the signal, with weight norm folded
  once. Each activation is written straight behind the frames that pad it.
- On a CPU the convolutions take 1.7 s of a clip at a time, all layers one after another, and keep of it what those of
  the next block reach back to. The LSTM takes all clips of a batch, and two at least (`row_bits.py`): its 16 MB of
  weights are read once at every step, however many clips share it.
- The search for the nearest codes multiplies as the captioner does (`onednn_linear.py`).
"""

import torch
from torch import nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM, EncodecResnetBlock

from .onednn_linear import multiply
from .row_bits import PRODUCT_ROWS

# Clips that pass the codec's convolutions together, and how many of their codec frames at a time: on a CPU so few that
# all stays in its cache, and that no memory is asked of the system, which clears it first.
CONVOLUTION_BATCH_SIZE = {"cpu": 1, "cuda": 64}
CONVOLUTION_BLOCK_FRAMES = {"cpu": 128, "cuda": 1 << 20}
# Codec frames, of which the convolutions take a multiple: oneDNN compiles its code anew for each length.
LENGTH_STEP_FRAMES = 32
# Codec frames quantised together: on a CPU their scores of all codes of a codebook stay in the cache.
QUANTIZER_BLOCK_FRAMES = {"cpu": 256, "cuda": 1 << 20}
# Codec frames that the LSTM takes at a time, so that its gates of a long clip are never in memory as a whole.
LSTM_BLOCK_FRAMES = 2048
CHECKED_LSTM_FRAMES = 16


def encode_latent_alone(codec: EncodecModel, waveform: torch.Tensor) -> torch.Tensor:
    """The stock latent of one waveform, scaled first where the codec asks for it: (num_samples,) -> (T, H)."""
    if codec.config.normalize:
        waveform = waveform / (waveform.pow(2).mean().sqrt() + 1e-8)
    channels = waveform.expand(1, codec.config.audio_channels, -1)
    return codec.encoder(channels)[0].T


class CodecEncoder:
    """EnCodec without its decoder: waveforms to latents, latents to codes.

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
        # The last convolution before the LSTM has too many weights to read them for every block of frames.
        self.block_layers, self.clip_layers = layers[: lstm - 2], layers[lstm - 2 : lstm]
        self.lstm, self.last_layers = layers[lstm].lstm, layers[lstm + 1 :]
        self.block_frames = CONVOLUTION_BLOCK_FRAMES.get(device.type, CONVOLUTION_BLOCK_FRAMES["cuda"])
        self.batch_size = CONVOLUTION_BATCH_SIZE.get(device.type, CONVOLUTION_BATCH_SIZE["cuda"])
        self.quantizer_block_frames = QUANTIZER_BLOCK_FRAMES.get(device.type, QUANTIZER_BLOCK_FRAMES["cuda"])
        self.memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self._lstm_keeps_bits: dict[tuple, bool] = {}  # by clips and threads
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
        frames, workspace = None, Workspace(self.memory_format)
        parts = [waveforms[start : start + self.batch_size] for start in range(0, len(waveforms), self.batch_size)]
        for part, start in zip(parts, range(0, len(waveforms), self.batch_size), strict=True):
            states = self._convolve_clips(part, workspace)
            if frames is None:  # (T, B, channels)
                frames = states.new_zeros(states.shape[3], len(waveforms), states.shape[1])
            frames[: states.shape[3], start : start + len(part)] = states.squeeze(2).permute(2, 0, 1)
        frames, latents = self._run_lstm(frames), []
        for part in parts:
            num_frames, start = self._count_frames(part[0]), len(latents)
            states = frames[:num_frames, start : start + len(part)].permute(1, 2, 0).unsqueeze(2)
            lengths = self._count_lengths(part, 1)
            states = self._run(self.last_layers, states, lengths, workspace)  # (B, H, 1, T)
            latents += [states[i, :, 0, :length].T for i, length in enumerate(lengths)]
        return latents

    def _count_frames(self, waveform: torch.Tensor) -> int:
        """Codec frames that a batch with this clip as its longest has."""
        return -(-len(waveform) // (self.codec.config.hop_length * LENGTH_STEP_FRAMES)) * LENGTH_STEP_FRAMES

    def _convolve_clips(self, waveforms: list[torch.Tensor], workspace: "Workspace") -> torch.Tensor:
        """Run the layers before the LSTM: (B, channels, 1, T)."""
        hop, stride = self.codec.config.hop_length, self.clip_layers[-1].conv.stride[0]
        num_frames = self._count_frames(waveforms[0])
        states, reached = None, {}
        for first in range(0, num_frames, self.block_frames):
            begin, end = first * hop, min(first + self.block_frames, num_frames) * hop
            block = waveforms[0].new_zeros(len(waveforms), 1, 1, end - begin)
            for row, waveform in zip(block, waveforms, strict=True):
                samples = waveform[begin:end]
                row[0, 0, : len(samples)] = samples
            lengths = [len(waveform) - begin for waveform in waveforms]
            block = self._run(self.block_layers, block, lengths, workspace, reached)
            if states is None:
                size = (len(waveforms), block.shape[1], 1, num_frames * stride)
                states = torch.empty(size, device=block.device, memory_format=self.memory_format)
            states[..., first * stride : first * stride + block.shape[3]] = block
        return self._run(self.clip_layers, states, self._count_lengths(waveforms, stride), workspace)

    def _count_lengths(self, waveforms: list[torch.Tensor], stride: int) -> list[int]:
        """Lengths of the clips before so many of the codec's strides are left."""
        step = self.codec.config.hop_length // stride
        return [-(-len(waveform) // step) for waveform in waveforms]

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

    def _run(
        self,
        layers: list[nn.Module],
        states: torch.Tensor,
        lengths: list[int],
        workspace: "Workspace",
        reached: dict[nn.Module, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Run layers on whole clips or a block of their frames: (B, channels, 1, L) -> (B, channels, 1, L / strides).

        Args:
            lengths: where each clip ends, counted from the block's begin; below 1 it ended before, above L it goes on.
            reached: of each convolution the end of the block before, which it reaches back to; replaced by this one's.
        """
        activates = False
        for layer in layers:
            if isinstance(layer, nn.ELU):
                activates = True  # by the convolution that follows
            elif isinstance(layer, EncodecResnetBlock):
                branch = self._run(layer.block, states, lengths, workspace, reached)
                if isinstance(layer.shortcut, EncodecConv1d):
                    states = self._convolve(layer.shortcut, states, lengths, False, workspace, reached)
                states = branch.add_(states)
            else:
                states = self._convolve(layer, states, lengths, activates, workspace, reached)
                lengths, activates = [-(-length // layer.conv.stride[0]) for length in lengths], False
        return states

    def _convolve(
        self,
        layer: EncodecConv1d,
        states: torch.Tensor,
        lengths: list[int],
        activates: bool,
        workspace: "Workspace",
        reached: dict[nn.Module, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Pad as the layer does, after ELU where wanted, and convolve: (B, in, 1, L) -> (B, out, 1, L / stride)."""
        weight, stride, dilation = self.weights[layer], layer.conv.stride[0], layer.conv.dilation[0]
        padding = (weight.shape[3] - 1) * dilation + 1 - stride
        if padding or activates:
            padded, length = workspace.take(states, padding), states.shape[3]
            own = padded[..., padding:]
            if activates:
                torch.ops.aten.elu.out(states, out=own)
            else:
                own.copy_(states)
            goes_on = reached is not None and layer in reached
            if goes_on:
                padded[..., :padding] = reached[layer]
            for clip, end in zip(padded, lengths, strict=True):
                missing = -end % stride
                if missing and 0 < end < length:
                    end += padding
                    clip[..., end : end + missing] = clip[..., end - 1 - missing : end - 1].flip(-1)
            if not goes_on:
                padded[..., :padding] = own[..., 1 : padding + 1].flip(-1)
            if padding and reached is not None:
                reached[layer] = padded[..., length:].clone()
            states = padded
        return convolve(states, weight, layer.conv.bias, stride, dilation)

    def _run_lstm(self, frames: torch.Tensor) -> torch.Tensor:
        """The LSTM and its residual connection: (T, B, channels) -> the same."""
        num_clips, num_together = frames.shape[1], frames.shape[1]
        padded = frames
        if frames.device.type == "cpu":  # a single clip would have other bits than two
            padded = nn.functional.pad(frames, (0, 0, 0, -num_clips % PRODUCT_ROWS))
            num_together = self._find_lstm_batch(padded.shape[1])
        rows = []
        for part in padded.split(num_together, dim=1):
            blocks, carried = [], None
            for block in part.split(LSTM_BLOCK_FRAMES):
                states, carried = self.lstm(block.contiguous(), carried)
                blocks.append(states)
            rows.append(torch.cat(blocks))
        states = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        return states[:, :num_clips] + frames

    def _find_lstm_batch(self, num_clips: int) -> int:
        """Clips that the LSTM may take at once, so that each has the bits that it has beside any other one."""
        while num_clips > PRODUCT_ROWS:
            key = (num_clips, torch.get_num_threads())
            if key not in self._lstm_keeps_bits:
                self._lstm_keeps_bits[key] = keeps_lstm_bits(self.lstm, num_clips)
            if self._lstm_keeps_bits[key]:
                break
            num_clips = -(-num_clips // (2 * PRODUCT_ROWS)) * PRODUCT_ROWS
        return num_clips


def keeps_lstm_bits(lstm: nn.LSTM, num_clips: int) -> bool:
    """Whether an LSTM gives each of so many clips the bits that it gives two, whatever their length."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(CHECKED_LSTM_FRAMES, num_clips, lstm.input_size, generator=generator)
    together, half = lstm(frames)[0], CHECKED_LSTM_FRAMES // 2
    for first in {0, PRODUCT_ROWS, num_clips - PRODUCT_ROWS}:
        own = slice(first, first + PRODUCT_ROWS)
        if not torch.equal(together[:half, own], lstm(frames[:half, own].contiguous())[0]):
            return False
    return True


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
