"""Linear layers that multiply float32 matrices on an x86 CPU with oneDNN, which torch ships beside MKL.

MKL keeps its fastest kernels for Intel's processors: on others oneDNN multiplies about twice as fast, for a training
batch and for the few rows of a decoding step alike. A GELU before such a product is kept for the backward once, not
twice.

Layers stay what they are, `nn.Linear` and `GELUActivation`, with one hook each. Another class would hide them from all
that looks layers up by their class (quantisation, torch.fx, FLOP counters), and a `forward` set on the layer would stay
bound to it in what torch makes of its attributes (copies for several GPUs). A hook is handed the layer, and it leaves
alone what is not an ordinary float32 product and its first derivative: other devices, number types, layouts and tensor
classes, autocast, compiled, exported and traced graphs, `torch.func`, forward-mode and second derivatives, modes that
watch or rewrite operations, and layers with further hooks or another `forward`.

One switch gives plain layers: `use_onednn(model, False)` for a model in memory, `use_onednn(model)` takes it back, and
`ENCLAP_ONEDNN=0` in the environment of the process does it for every model. Where oneDNN is switched off in torch
(`torch.backends.mkldnn.flags(enabled=False)`), it is off here.

Layers that multiply rows of several clips can be told to give every row the bits that it has alone (`mark_rows`), in
float32 and bfloat16; see `row_bits.py`.
"""

import os
from collections.abc import Callable

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks
from transformers.activations import GELUActivation

from .row_bits import ENOUGH_VALUES, has_aligned_rows, multiply_rows

PLAIN_TENSORS = (torch.Tensor, nn.Parameter)  # not those of quantised or sharded weights
# Rows whose transposed copies stay in a CPU's cache: over all rows at once a weight's gradient takes 1.7 times as long.
CACHED_ROWS = 1024
# Rows (the beams of a batch) and columns from which, and to which, the transposed product is the faster one by a tenth.
SWAPPED_ROWS, MAX_SWAPPED_COLUMNS = range(16, 65), 8192
OFF_WORDS = ("0", "false", "no", "off")  # of ENCLAP_ONEDNN
PLAIN_FUNCTION, PLAIN_LINEAR, PLAIN_GELU = nn.functional.linear, nn.Linear.forward, GELUActivation.forward


def use_onednn(model: nn.Module, enabled: bool = True) -> None:
    """Let every `nn.Linear` of a model multiply by oneDNN where it can, or restore plain layers.

    Args:
        model: a model or a layer; its parameters, their names and the classes of its layers stay.
        enabled: False takes out what an earlier call put in.
    """
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if is_own_hook(hook)]:
                del hooks[key]
        if enabled and HAS_ONEDNN:
            if type(module) is nn.Linear:
                module.register_forward_pre_hook(hand_to_onednn)
            elif type(module) is GELUActivation:
                module.register_forward_hook(note_before_gelu)


def is_own_hook(hook: Callable) -> bool:
    """By name, since a Hub repository brings a copy of this file."""
    return getattr(hook, "__name__", None) in (hand_to_onednn.__name__, note_before_gelu.__name__)


def mark_rows(model: nn.Module) -> None:
    """Let the `nn.Linear` of a model, of which rows of several clips are asked together, give each row its own bits.

    That holds for inputs (N, S, in_features) without gradients. Rows (N, in_features) count as a clip by themselves.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.keeps_rows = True


def hand_to_onednn(layer: nn.Linear, arguments: tuple) -> tuple | None:
    """Forward pre-hook: the input that oneDNN may multiply reaches `nn.Linear.forward` as a [`OneDnnInput`]."""
    if len(arguments) != 1 or torch.is_autocast_enabled("cpu"):
        return None
    if not torch.is_grad_enabled() and getattr(layer, "keeps_rows", False) and multiplies_rows(layer, *arguments):
        return (RowsInput(arguments[0]),)
    if not multiplies_with_onednn(*arguments):
        return None
    return (OneDnnInput(arguments[0]),) if is_plain_layer(layer) else None


def is_plain_layer(layer: nn.Linear) -> bool:
    """Whether nobody but this file has a part in what the layer computes."""
    return (
        type(layer).forward is PLAIN_LINEAR
        and "forward" not in layer.__dict__
        and len(layer._forward_pre_hooks) == 1
        and not layer._forward_hooks  # they would be handed the stand-in, too
        and not layer._backward_hooks
        and not layer._backward_pre_hooks
        and not module_hooks._has_any_global_hook()
        and nn.functional.linear is PLAIN_FUNCTION
    )


def multiplies_rows(layer: nn.Linear, inputs: torch.Tensor) -> bool:
    """Whether these are rows of several clips, for a layer whose products keep a row's bits."""
    weight, bias = layer.weight, layer.bias
    return (
        is_plain_inference(inputs)
        and inputs.dim() == 3
        and inputs.numel() > 0
        and inputs.dtype == weight.dtype
        and inputs.shape[-1] == weight.shape[-1]
        and keeps_rows(weight)
        and (bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype))
        and is_plain_layer(layer)
    )


def keeps_rows(weight: torch.Tensor) -> bool:
    """Whether rows keep their bits in products with this weight."""
    is_plain = type(weight) in PLAIN_TENSORS and weight.is_contiguous() and weight.dtype in ENOUGH_VALUES
    return is_plain and weight.numel() > 0 and has_aligned_rows(weight.shape[1], weight.dtype)


def is_plain_inference(tensor: torch.Tensor) -> bool:
    """Whether this is an ordinary tensor on a CPU, without gradients, and torch does as it is told."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled():
        return False
    return type(tensor) in PLAIN_TENSORS and tensor.is_cpu and tensor.layout is torch.strided and not is_transformed()


class OneDnnInput:
    """Stands in for a layer's input: `torch.nn.functional.linear` leaves the product to it (`__torch_function__`)."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        stand_in, weight, bias = args
        return multiply(stand_in.tensor, weight, bias, find_before_gelu(stand_in.tensor))


class RowsInput(OneDnnInput):
    """Stands in for the rows of several clips, each of which is to keep its bits."""

    __slots__ = ()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        stand_in, weight, bias = args
        uses_onednn = weight.dtype == torch.float32 and torch._C._get_mkldnn_enabled()
        product = multiply_transposed if uses_onednn else nn.functional.linear
        return multiply_rows(product, stand_in.tensor, weight, bias)


def note_before_gelu(module: GELUActivation, arguments: tuple, output: torch.Tensor) -> None:
    """Forward hook: note on GELU's output what it was made of, for the product that follows."""
    if not torch.is_grad_enabled() or not multiplies_with_onednn(*arguments, output) or len(arguments) != 1:
        return
    is_plain_module = (
        type(module).forward is PLAIN_GELU
        and "forward" not in module.__dict__
        and module.act is nn.functional.gelu
        and len(module._forward_hooks) == 1  # others might change the output by `.data`, which leaves no trace
        and not module_hooks._has_any_global_hook()
    )
    before = arguments[0]
    if is_plain_module and not before.is_inference():  # those cannot be kept
        output.before_gelu = (before.detach(), before._version)


def find_before_gelu(inputs: torch.Tensor) -> torch.Tensor | None:
    """What GELU made `inputs` of, if it did and neither has changed since."""
    before, version = getattr(inputs, "before_gelu", (None, None))
    return None if before is None or inputs._version or before._version != version else before


def multiply(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    before_gelu: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `torch.nn.functional.linear` returns: (..., in_features) -> (..., out_features).

    Args:
        before_gelu: what GELU made `inputs` of, kept for the backward in their place.
    """
    operands = (inputs, weight) if bias is None else (inputs, weight, bias)
    if not multiplies_with_onednn(*operands) or torch.is_autocast_enabled("cpu") or not have_fitting_shapes(*operands):
        return nn.functional.linear(inputs, weight, bias)
    rows = inputs.flatten(0, -2)
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in operands):
        return multiply_transposed(rows, weight, bias).unflatten(0, inputs.shape[:-1])
    product = OneDnnProduct.apply(rows, weight, bias)
    if before_gelu is not None and weight.requires_grad:
        keep_before_gelu(product.grad_fn, before_gelu.flatten(0, -2))
    return product.unflatten(0, inputs.shape[:-1])


class OneDnnProduct(torch.autograd.Function):
    """inputs (n, in) x weight (out, in) transposed + bias (out): first derivatives by oneDNN, further ones by torch."""

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        needs_inputs, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(inputs if needs_weight else None, weight if needs_inputs else None)
        ctx.keeps_before_gelu = False
        return multiply_transposed(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        activation = nn.functional.gelu if ctx.keeps_before_gelu and not torch.is_grad_enabled() else None
        if torch.is_grad_enabled() or not multiplies_with_onednn(gradient):
            inputs_gradient = gradient @ weight if needs_inputs else None
            if needs_weight:
                weight_gradient = gradient.t() @ (inputs if activation is None else activation(inputs))
        else:
            inputs_gradient = multiply_transposed(gradient, weight.t()) if needs_inputs else None
            if needs_weight:
                weight_gradient = sum_outer_products(gradient, inputs, activation)
        return inputs_gradient, weight_gradient if needs_weight else None, gradient.sum(0) if needs_bias else None


def keep_before_gelu(node: torch.autograd.graph.Node, before: torch.Tensor) -> None:
    """Let a [`OneDnnProduct`] keep `before` (n, in) in place of its inputs, which GELU made of it.

    It is kept already, for GELU's own backward: the widest activations of a transformer are in memory once, not twice.
    A first derivative unpacks `before` itself and sums over blocks; further ones unpack the inputs with their graph.
    """
    version = before._version

    def unpack(kept: torch.Tensor) -> torch.Tensor:
        if kept._version != version:
            raise RuntimeError(
                "The input of a GELU was modified by an inplace operation before the backward, which needs it as it "
                "was; modify a copy."
            )
        return nn.functional.gelu(kept) if torch.is_grad_enabled() else kept

    try:
        node._raw_saved_tensors[0].register_hooks(lambda _: before, unpack)
    except RuntimeError:  # hooks of checkpointing or offloading are there already, and keep the inputs their own way
        return
    node.keeps_before_gelu = True


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


def multiplies_with_onednn(*tensors: torch.Tensor) -> bool:
    """Whether oneDNN may multiply these: all are ordinary float32 tensors on a CPU, and torch does as it is told."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first of all: the rest cannot be traced
        return False
    return HAS_ONEDNN and all(map(is_plain_float, tensors)) and torch._C._get_mkldnn_enabled() and not is_transformed()


def is_plain_float(tensor: torch.Tensor) -> bool:
    """Whether this is an ordinary tensor of float32 numbers on a CPU."""
    return (
        type(tensor) in PLAIN_TENSORS
        and tensor.is_cpu
        and tensor.dtype == torch.float32
        and tensor.layout is torch.strided
        and not tensor.is_nested
    )


def is_transformed() -> bool:
    """Whether something follows, rewrites or counts what torch computes: `torch.func`, forward-mode AD or a mode."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or not torch._C._is_torch_function_enabled()
        or (torch._C._len_torch_function_stack() > 0 and has_function_mode())
    )


def has_function_mode() -> bool:
    """Whether a mode is asked about each function, other than one that only says where new tensors go."""
    modes = torch.overrides._get_current_function_mode_stack()
    return not all(type(mode) is torch.utils._device.DeviceContext for mode in modes)


def have_fitting_shapes(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    """Whether these are rows, a matrix and at most one number per column, and there is something to multiply."""
    return (
        inputs.dim() > 1
        and weight.dim() == 2
        and inputs.shape[-1] == weight.shape[1]
        and inputs.numel() > 0
        and weight.numel() > 0
        and (bias is None or bias.shape == weight.shape[:1])
    )


def finds_onednn() -> bool:
    """Whether torch has oneDNN for this processor, and all that is asked of it here, and nobody switched it off."""
    asked = {
        torch._C: (
            *("_get_mkldnn_enabled", "_are_functorch_transforms_active", "_is_torch_function_enabled"),
            *("_len_torch_dispatch_stack", "_len_torch_function_stack"),
        ),
        torch.overrides: ("_get_current_function_mode_stack",),
        torch.utils._device: ("DeviceContext",),
        torch.ops.mkldnn: ("_linear_pointwise",),
        forward_ad: ("_current_level",),
        module_hooks: ("_has_any_global_hook",),
    }
    return (
        os.environ.get("ENCLAP_ONEDNN", "").strip().lower() not in OFF_WORDS
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and all(hasattr(owner, name) for owner, names in asked.items() for name in names)
    )


HAS_ONEDNN = finds_onednn()
