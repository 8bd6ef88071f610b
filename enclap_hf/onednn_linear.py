"""Linear layers that multiply float32 matrices on an x86 CPU with oneDNN, which torch ships beside MKL.

MKL keeps its fastest kernels for Intel's processors: on others oneDNN multiplies about twice as fast, for a training
batch and for the few rows of a decoding step alike. Everything else (other devices, number types and tensor classes,
autocast, compiled graphs) goes through `nn.Linear` as usual, and `torch.backends.mkldnn.flags(enabled=False)` switches
oneDNN off here too.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

PLAIN_TENSORS = (torch.Tensor, nn.Parameter)  # not those of quantised or sharded weights
# Rows whose transposed copies stay in a CPU's cache: over all rows at once a weight's gradient takes 1.7 times as long.
CACHED_ROWS = 1024


class OneDnnLinear(nn.Linear):
    """`nn.Linear` with the same parameters, and float32 products by oneDNN."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`inputs` (..., in_features) -> (..., out_features)."""
        return multiply(inputs, self.weight, self.bias)


def multiply(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """What `torch.nn.functional.linear` returns: (..., in_features) -> (..., out_features)."""
    if not multiplies_with_onednn(inputs, weight):
        return nn.functional.linear(inputs, weight, bias)
    rows = inputs.flatten(0, -2)
    if torch.is_grad_enabled() and (inputs.requires_grad or weight.requires_grad):
        product = OneDnnProduct.apply(rows, weight, bias)
    else:
        product = multiply_transposed(rows, weight, bias)
    return product.unflatten(0, inputs.shape[:-1])


class OneDnnProduct(torch.autograd.Function):
    """inputs (n, in) x weight (out, in) transposed + bias (out), and its first derivative."""

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        ctx.save_for_backward(inputs, weight)
        return multiply_transposed(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            multiply_transposed(gradient, weight.t()) if needs_inputs else None,
            sum_outer_products(gradient, inputs) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
        )


def multiply_transposed(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """left (m, k) x right (n, k) transposed + bias (n) -> (m, n)."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


def sum_outer_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left (m, n) transposed x right (m, k) -> (n, k), a block of rows at a time."""
    blocks = zip(left.split(CACHED_ROWS), right.split(CACHED_ROWS), strict=True)
    total = None
    for left_block, right_block in blocks:
        product = multiply_transposed(left_block.t(), right_block.t())
        total = product if total is None else total.add_(product)
    return total


def multiplies_with_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether oneDNN may multiply these two."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first of all: the rest cannot be traced
        return False
    return (
        inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == weight.device.type == "cpu"
        and type(weight) in PLAIN_TENSORS
        and inputs.dim() > 1
        and inputs.numel() > 0
        and HAS_ONEDNN
        and torch._C._get_mkldnn_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def use_onednn(model: nn.Module) -> None:
    """Turn every `nn.Linear` of a model into a [`OneDnnLinear`]; parameters and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
