"""EnCodec's encoder and quantiser as a module that exports: samples (B, n), of clips of one length, to codes (B, T, K).

The stock encoder computes its paddings in Python, from the length of the clip. Here every layer pads as much whatever
the length, and picks the reflected frames by indices that follow it; a convolution passes over what it does not need.
"""

import torch
from torch import nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM, EncodecResnetBlock


class CodecGraph(nn.Module):
    """EnCodec without its decoder: causal, with weight norm, of one channel, without segments and scaling.

    Args:
        codec: float32, in evaluation mode.
        num_codebooks: K, the first ones.
    """

    def __init__(self, codec: EncodecModel, num_codebooks: int):
        super().__init__()
        self.layers = nn.ModuleList(build_layer(layer) for layer in codec.encoder.layers)
        for index, layer in enumerate(codec.quantizer.layers[:num_codebooks]):
            embed = layer.codebook.embed.detach().clone()
            # The nearest entry e of x has the least |x|^2 - 2 x.e + |e|^2, so the greatest x.(2 e) - |e|^2.
            self.register_buffer(f"entries_{index}", embed)
            self.register_buffer(f"doubled_{index}", (2 * embed).t().contiguous())
            self.register_buffer(f"negative_norms_{index}", -embed.pow(2).sum(1))
        self.num_codebooks = num_codebooks

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, n) -> (B, T, K)."""
        states = samples[:, None]
        for layer in self.layers:
            states = layer(states)
        residual, codes = states.transpose(1, 2), []  # (B, T, H)
        for index in range(self.num_codebooks):
            products = residual @ getattr(self, f"doubled_{index}")
            nearest = (products + getattr(self, f"negative_norms_{index}")).argmax(2)
            residual = residual - nn.functional.embedding(nearest, getattr(self, f"entries_{index}"))
            codes.append(nearest)
        return torch.stack(codes, dim=2)


def build_layer(layer: nn.Module) -> nn.Module:
    """The module that stands for a layer of the stock encoder."""
    if isinstance(layer, EncodecConv1d):
        return PaddedConvolution(layer)
    if isinstance(layer, EncodecLSTM):
        return ResidualLstm(layer.lstm)
    if isinstance(layer, EncodecResnetBlock):
        return ResidualBlock(layer)
    return layer


class ResidualBlock(nn.Module):
    """EnCodec's residual block."""

    def __init__(self, block: EncodecResnetBlock):
        super().__init__()
        self.block = nn.Sequential(*map(build_layer, block.block))
        self.shortcut = build_layer(block.shortcut)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.shortcut(states) + self.block(states)


class PaddedConvolution(nn.Module):
    """A causal convolution, padded by reflection: the start by its reach, the end up to a whole stride.

    A clip no longer than its padding is followed by zeros before it is reflected, as in the stock layer.
    """

    def __init__(self, layer: EncodecConv1d):
        super().__init__()
        convolution = layer.conv
        self.weight = nn.Parameter(convolution.weight.detach().clone(), requires_grad=False)  # weight norm is folded
        self.bias = nn.Parameter(convolution.bias.detach().clone(), requires_grad=False)
        self.stride, self.dilation = convolution.stride[0], convolution.dilation[0]
        self.num_before = (convolution.kernel_size[0] - 1) * self.dilation + 1 - self.stride

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, in, L) -> (B, out, ceil(L / stride))."""
        length, parts = states.shape[2], [states]
        if self.num_before:
            places = torch.arange(self.num_before, 0, -1, device=states.device)
            parts.insert(0, pick(states, places.clamp(max=length - 1), places < length))
        if self.stride > 1:
            places = length - 2 - torch.arange(self.stride - 1, device=states.device)
            parts.append(pick(states, places.clamp(min=0), places * 0 + length > self.num_before))
        padded = torch.cat(parts, dim=2) if len(parts) > 1 else states
        return nn.functional.conv1d(padded, self.weight, self.bias, self.stride, dilation=self.dilation)


def pick(states: torch.Tensor, places: torch.Tensor, is_there: torch.Tensor) -> torch.Tensor:
    """Some frames of (B, channels, L); zeros for those that are not there."""
    return states.index_select(2, places) * is_there.to(states.dtype)


class ResidualLstm(nn.Module):
    """EnCodec's LSTM with its residual connection, as ONNX's own operator: (B, channels, T) -> the same."""

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.size, self.num_layers = lstm.hidden_size, lstm.num_layers
        for index in range(lstm.num_layers):
            parts = (getattr(lstm, f"{name}_l{index}").detach() for name in ("weight_ih", "weight_hh"))
            for name, weight in zip(("weights", "recurrences"), parts, strict=True):
                self.register_buffer(f"{name}_{index}", order_gates(weight)[None])
            biases = [order_gates(getattr(lstm, f"bias_{name}_l{index}").detach()) for name in ("ih", "hh")]
            self.register_buffer(f"biases_{index}", torch.cat(biases)[None])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        frames = outputs = states.permute(2, 0, 1)  # (T, B, channels)
        for index in range(self.num_layers):
            tensors = (getattr(self, f"{name}_{index}") for name in ("weights", "recurrences", "biases"))
            outputs = torch.onnx.ops.symbolic(
                "LSTM",
                (outputs, *tensors),
                attrs={"hidden_size": self.size},
                dtype=states.dtype,
                shape=(frames.shape[0], 1, frames.shape[1], self.size),
            ).squeeze(1)
        return (outputs + frames).permute(1, 2, 0)


def order_gates(rows: torch.Tensor) -> torch.Tensor:
    """torch's order of an LSTM's gates, input, forget, cell, output, to ONNX's: input, output, forget, cell."""
    of_input, of_forget, of_cell, of_output = rows.chunk(4)
    return torch.cat([of_input, of_output, of_forget, of_cell])
