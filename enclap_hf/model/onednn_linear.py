"""Linear layers that multiply float32 matrices on an x86 CPU with oneDNN, which torch ships beside MKL.

MKL keeps its fastest kernels for Intel's processors: on others oneDNN multiplies about twice as fast, for a training
batch and for the few rows of a decoding step alike. Everything else (other devices, number types and tensor classes,
autocast, compiled graphs) goes through `nn.Linear` as usual, and `torch.backends.mkldnn.flags(enabled=False)` switches
oneDNN off here too. A GELU before such a product is kept for the backward once, not twice.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUActivation

PLAIN_TENSORS = (torch.Tensor, nn.Parameter)  # not those of quantised or sharded weights
# Rows whose transposed copies stay in a CPU's cache: over all rows at once a weight's gradient takes 1.7 times as long.
CACHED_ROWS = 1024
# Rows (the beams of a batch) and columns from which, and to which, the transposed product is the faster one by a tenth.
SWAPPED_ROWS, MAX_SWAPPED_COLUMNS = range(16, 65), 8192


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
        product = OneDnnProduct.apply(rows, weight, bias, find_before_gelu(inputs))
    else:
        product = multiply_transposed(rows, weight, bias)
    return product.unflatten(0, inputs.shape[:-1])


class OneDnnGelu(GELUActivation):
    """GELU that notes on its output what it was made of, for the product that follows."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The same as the base class."""
        outputs = super().forward(inputs)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            outputs.before_gelu = inputs.detach()
        return outputs


def find_before_gelu(inputs: torch.Tensor) -> torch.Tensor | None:
    """What GELU made `inputs` of, as rows, if it did and nothing has changed them since."""
    before = getattr(inputs, "before_gelu", None)
    return None if before is None or inputs._version else before.flatten(0, -2)


class OneDnnProduct(torch.autograd.Function):
    """inputs (n, in) x weight (out, in) transposed + bias (out), and its first derivative.

    Of inputs that GELU made, not they are kept for the backward but what they were made of, which is kept already: the
    widest activations of a transformer are in memory once, not twice, and GELU is computed again.
    """

    @staticmethod
    def forward(ctx, inputs, weight, bias, before_gelu):
        ctx.follows_gelu = before_gelu is not None
        ctx.save_for_backward(before_gelu if ctx.follows_gelu else inputs, weight)
        return multiply_transposed(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        kept, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias, _ = ctx.needs_input_grad
        activation = nn.functional.gelu if ctx.follows_gelu else None
        return (
            multiply_transposed(gradient, weight.t()) if needs_inputs else None,
            sum_outer_products(gradient, kept, activation) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
            None,
        )


def multiply_transposed(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """left (m, k) x right (n, k) transposed + bias (n) -> (m, n)."""
    if len(left) in SWAPPED_ROWS and len(right) <= MAX_SWAPPED_COLUMNS:
        product = torch.ops.mkldnn._linear_pointwise(right, left, None, "none", [], "").t().contiguous()
        return product if bias is None else product.add_(bias)
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


def sum_outer_products(
    left: torch.Tensor, right: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.Tensor:
    """left (m, n) transposed x right (m, k), after an activation if given -> (n, k), a block of rows at a time."""
    blocks = zip(left.split(CACHED_ROWS), right.split(CACHED_ROWS), strict=True)
    total = None
    for left_block, right_block in blocks:
        if activation is not None:
            right_block = activation(right_block)
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
    """Turn every `nn.Linear` of a model into a [`OneDnnLinear`], and every GELU; parameters and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
        elif type(module) is GELUActivation:
            module.__class__ = OneDnnGelu


HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
