"""Layers that multiply by oneDNN are `nn.Linear` to all that torch and its tools do with them."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import GELUActivation

from conftest import build_model, make_inputs
from enclap_hf.model import onednn_linear
from enclap_hf.model.onednn_linear import HAS_ONEDNN, OneDnnInput, finds_onednn, use_onednn

needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="torch has no oneDNN for this processor")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture
def calls(monkeypatch) -> list:
    """The products that went to oneDNN."""
    seen, multiply = [], onednn_linear.multiply_transposed
    monkeypatch.setattr(
        onednn_linear, "multiply_transposed", lambda *args: seen.append(args[0].shape) or multiply(*args)
    )
    return seen


def make_feed_forward(fast: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 30), GELUActivation(), nn.Linear(30, 5))
    use_onednn(layers, fast)
    return layers


@pytest.fixture
def layers() -> nn.Sequential:
    return make_feed_forward()


@pytest.fixture
def plain() -> nn.Sequential:
    """The same weights in layers that were never touched."""
    return make_feed_forward(fast=False)


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


def assert_same_gradients(layers: nn.Module, plain: nn.Module, **tolerance) -> None:
    for ours, theirs in zip(layers.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **(tolerance or CLOSE))


# Derivatives of every kind


def second_derivatives(model: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of the squared length of the loss's gradient."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    length = sum(gradient.square().sum() for gradient in first if gradient is not None)
    second = torch.autograd.grad(length, parameters, allow_unused=True)
    return [gradient for gradient in second if gradient is not None]


def test_second_derivatives_of_the_captioner_are_those_of_plain_layers():
    """`once_differentiable` is not told of a second derivative that reaches a parameter by another way, too."""
    model, plain = (build_model(attn_implementation="eager").train() for _ in range(2))
    inputs = make_inputs()
    use_onednn(plain, False)
    ours, theirs = (second_derivatives(each, each(**inputs).loss) for each in (model, plain))
    assert len(ours) == len(theirs) > 50
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(float(other.abs().max()), 1.0), rtol=1e-5)


def test_forward_mode_derivatives_of_the_captioner_are_those_of_plain_layers():
    def slope(model):
        values = dict(model.named_parameters())
        tangents = {name: torch.ones_like(value) for name, value in values.items()}
        return torch.func.jvp(
            lambda parameters: torch.func.functional_call(model, parameters, kwargs=make_inputs()).caption_loss,
            (values,),
            (tangents,),
        )[1]

    model, plain = (build_model(attn_implementation="eager") for _ in range(2))
    use_onednn(plain, False)
    assert slope(plain).abs() > 1e-3
    torch.testing.assert_close(slope(model), slope(plain), rtol=1e-5, atol=0)


def test_second_derivatives_reach_what_lies_between_the_layers(layers, plain, inputs):
    """What GELU made is not kept, and still has its place in the graph of the first derivative."""

    def derive(layers):
        made = layers[1](layers[0](inputs))
        loss = layers[2](made).square().sum()
        (first,) = torch.autograd.grad(loss, layers[2].weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [made, layers[0].weight, layers[2].weight])

    for ours, theirs in zip(derive(layers), derive(plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-5)  # float32 sums in another order


def test_a_graph_that_is_retained_gives_first_and_second_derivatives_again(layers, plain, inputs):
    def derive(layers):
        loss = layers(inputs).square().mean()
        loss.backward(retain_graph=True)
        again = torch.autograd.grad(loss, list(layers.parameters()), retain_graph=True)
        return [*again, *second_derivatives(layers, loss)]

    for ours, theirs in zip(derive(layers), derive(plain), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    assert_same_gradients(layers, plain)


def loss_of(layers):
    return lambda parameters, rows: torch.func.functional_call(layers, parameters, (rows,)).square().mean()


def dual_slope(layers, inputs):
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        made = layers(torch.autograd.forward_ad.make_dual(inputs, torch.ones_like(inputs)))
        return torch.autograd.forward_ad.unpack_dual(made).tangent


TRANSFORMS = {
    "grad": lambda f, values, x: torch.func.grad(f)(values, x)["2.weight"],
    "vmap of grad": lambda f, values, x: torch.func.vmap(torch.func.grad(f), (None, 0))(values, x[:, None])["0.weight"],
    "hessian": lambda f, values, x: torch.func.hessian(lambda b: f({**values, "0.bias": b}, x))(values["0.bias"]),
    "jacrev": lambda f, values, x: torch.func.jacrev(lambda y: f(values, y))(x),
    "jacfwd": lambda f, values, x: torch.func.jacfwd(lambda y: f(values, y))(x),
    "linearize": lambda f, values, x: torch.func.linearize(lambda y: f(values, y), x)[1](torch.ones_like(x)),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_of_functions_are_those_of_plain_layers(layers, plain, inputs, transform):
    ours, theirs = (transform(loss_of(each), dict(each.named_parameters()), inputs) for each in (layers, plain))
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_dual_numbers_keep_their_tangents_without_a_graph_too(layers, plain, inputs):
    torch.testing.assert_close(dual_slope(layers, inputs), dual_slope(plain, inputs), **CLOSE)


@pytest.mark.filterwarnings("ignore:.*vmap.*")
def test_gradients_of_many_outputs_at_once_are_those_of_plain_layers(layers, plain, inputs):
    def derive(layers):
        made = layers(inputs)[0]
        return torch.autograd.grad(made, layers[2].weight, torch.eye(5), is_grads_batched=True)[0]

    torch.testing.assert_close(derive(layers), derive(plain), **CLOSE)


# Memory: checkpointing, offloading


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_have_the_same_gradients(layers, plain, inputs, reentrant):
    inputs.requires_grad_()
    for each in (layers, plain):
        checkpoint(each, inputs, use_reentrant=reentrant).square().sum().backward()
    assert_same_gradients(layers, plain, atol=1e-4, rtol=1e-5)


def test_hooks_on_saved_tensors_see_and_replace_what_plain_layers_keep(layers, plain, inputs):
    def run(layers):
        packed = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: packed.append(tuple(tensor.shape)) or tensor.clone(), lambda tensor: tensor
        ):
            loss = layers(inputs).square().sum()
        loss.backward()
        return packed

    assert run(layers).count((6, 30)) == run(plain).count((6, 30)) == 2
    assert_same_gradients(layers, plain, atol=1e-4, rtol=1e-5)


def test_a_deleted_layer_is_freed_at_once():
    layers = make_feed_forward()
    layers(torch.randn(6, 8))
    references = [weakref.ref(module) for module in layers]
    gc.disable()
    try:
        del layers
        assert [reference() for reference in references] == 3 * [None]
    finally:
        gc.enable()


# Copies


def dump(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def save(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@needs_onednn
@pytest.mark.parametrize("copy_of", [copy.deepcopy, dump, save])
def test_copies_multiply_by_onednn_with_weights_of_their_own(calls, layers, inputs, copy_of):
    expected = layers(inputs)
    other = copy_of(layers)
    with torch.no_grad():
        layers[2].weight.zero_()
    calls.clear()
    torch.testing.assert_close(other(inputs), expected)
    assert len(calls) == 2


@pytest.mark.parametrize("copy_of", [copy.copy, lambda layer: layer._replicate_for_data_parallel()])
def test_shallow_copies_use_the_weights_they_are_given(layers, inputs, copy_of):
    """`nn.DataParallel` and others copy a layer's attributes and then set other weights."""
    layer = copy_of(layers[0])
    layer._parameters = {"weight": torch.ones(30, 8), "bias": None}
    torch.testing.assert_close(layer(inputs), inputs.sum(1, keepdim=True).expand(6, 30), **CLOSE)


def test_weights_load_into_plain_layers_and_back(layers, plain, inputs):
    assert list(layers.state_dict()) == list(plain.state_dict()) and repr(layers) == repr(plain)
    plain.load_state_dict(layers.state_dict())
    torch.testing.assert_close(plain(inputs), layers(inputs), **CLOSE)


# Tools that replace, wrap or watch layers


@pytest.mark.filterwarnings("ignore")  # of deprecations, which name torchao as the successor
def test_dynamic_quantisation_takes_every_layer_that_it_takes_of_a_plain_model():
    from torch.ao.nn.quantized.dynamic import Linear

    def quantise(model):
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        return quantised, [name for name, module in quantised.named_modules() if type(module) is Linear]

    model, plain = build_model(), build_model()
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    use_onednn(plain, False)
    (ours, names), (theirs, expected) = quantise(model), quantise(plain)
    assert names == expected == linear
    logits, plain_logits = (each(**make_inputs()).logits for each in (ours, theirs))
    torch.testing.assert_close(logits, plain_logits)


def test_torchao_quantises_every_layer():
    torchao = pytest.importorskip("torchao.quantization")
    model, plain = build_model(), build_model()
    use_onednn(plain, False)
    for each in (model, plain):
        torchao.quantize_(each, torchao.Int8WeightOnlyConfig())
    weights = [type(module.weight) for module in model.modules() if isinstance(module, nn.Linear)]
    assert nn.Parameter not in weights
    torch.testing.assert_close(model(**make_inputs()).logits, plain(**make_inputs()).logits)


class LowRank(nn.Module):
    """A layer with an addition of low rank, as LoRA wraps it."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, inputs):
        return self.base(inputs) + self.up(self.down(inputs))


def test_wrapped_layers_train_the_wrapper_alone(calls, layers, plain, inputs):
    for each in (layers, plain):
        torch.manual_seed(2)
        each[2] = LowRank(each[2])
        each(inputs).square().sum().backward()
        assert each[2].base.weight.grad is None
    assert not HAS_ONEDNN or calls
    for name in ("up", "down"):
        assert_same_gradients(getattr(layers[2], name), getattr(plain[2], name), atol=1e-4, rtol=1e-5)


REWRITES = {
    "weight norm": lambda layer: parametrizations.weight_norm(layer),
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer.eval()),
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_rewritten_weights_are_the_ones_that_multiply(layers, plain, inputs, rewrite):
    outputs = []
    for each in (layers, plain):
        torch.manual_seed(3)
        rewrite(each[2])
        with torch.no_grad():
            next(each[2].parameters()).mul_(1.5)
        outputs.append(each(inputs))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, **CLOSE)
    assert_same_gradients(layers, plain, atol=1e-4, rtol=1e-5)


def double(module, arguments):
    assert type(arguments[0]) is torch.Tensor
    return (2 * arguments[0],)


def add_inputs(module, arguments, output):
    assert type(arguments[0]) is torch.Tensor
    return output + arguments[0].sum(1, keepdim=True)


HOOKS = {
    "before": lambda layer: layer.register_forward_pre_hook(double),
    "before all": lambda layer: layer.register_forward_pre_hook(double, prepend=True),
    "after": lambda layer: layer.register_forward_hook(add_inputs),
    "backward": lambda layer: layer.register_full_backward_hook(lambda module, gradient, _: (3 * gradient[0],)),
    "before backward": lambda layer: layer.register_full_backward_pre_hook(lambda module, gradient: (3 * gradient[0],)),
}


@pytest.mark.filterwarnings("error:Full backward hook")  # of inputs that a hook cannot find
@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_hooks_are_handed_tensors_and_their_answers_count(layers, plain, inputs, hook):
    outputs = []
    for each in (layers, plain):
        hook(each[2])
        outputs.append(each(inputs))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, **CLOSE)
    assert_same_gradients(layers, plain, atol=1e-4, rtol=1e-5)


def test_a_hook_of_every_module_is_handed_tensors(layers, inputs):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, arguments, output: seen.extend((*arguments, output))
    )
    try:
        layers(inputs)
    finally:
        handle.remove()
    assert not any(isinstance(value, OneDnnInput) for value in seen) and len(seen) == 8


def test_hooks_may_change_what_gelu_made_without_a_trace(layers, plain, inputs):
    def halve(module, arguments, output):
        output.data.mul_(0.5)

    for each in (layers, plain):
        each[1].register_forward_hook(halve)
        each(inputs).sum().backward()
    assert_same_gradients(layers, plain)


class Doubling(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def change_class(layer):
    layer.__class__ = Doubling


def change_forward(layer):
    layer.forward = lambda input: input[:, :5] @ layer.weight[:, :5]


def change_activation(module):
    module.act = nn.functional.relu


@pytest.mark.parametrize("index, change", [(2, change_class), (2, change_forward), (1, change_activation)])
def test_another_forward_is_the_one_that_runs(layers, plain, inputs, index, change):
    outputs = []
    for each in (layers, plain):
        change(each[index])
        outputs.append(each(inputs))
        outputs[-1].sum().backward()
    torch.testing.assert_close(*outputs, **CLOSE)
    assert_same_gradients(layers, plain)


def test_another_function_of_the_product_is_the_one_that_runs(layers, inputs, monkeypatch):
    monkeypatch.setattr(nn.functional, "linear", lambda inputs, weight, bias=None: 2 * (inputs @ weight.t()))
    torch.testing.assert_close(layers[0](inputs), 2 * (inputs @ layers[0].weight.t()))


def test_layers_multiply_where_torch_asks_no_classes(layers, plain, inputs):
    with torch._C.DisableTorchFunction():
        torch.testing.assert_close(layers(inputs), plain(inputs), **CLOSE)


def count_operations(step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def test_operations_are_counted_as_those_of_plain_layers(layers, plain, inputs):
    ours, theirs = (count_operations(lambda each=each: each(inputs).sum().backward()) for each in (layers, plain))
    assert ours == theirs > 0
    losses = [each(inputs).sum() for each in (layers, plain)]
    ours, theirs = (count_operations(loss.backward) for loss in losses)
    assert ours == theirs > 0
    assert_same_gradients(layers, plain)


class OperationRecorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.seen.append(str(operation))
        return operation(*args, **(kwargs or {}))


def test_a_mode_sees_the_operations_of_plain_layers(layers, plain, inputs):
    seen = []
    for each in (layers, plain):
        with OperationRecorder() as recorder:
            each(inputs)
        seen.append(recorder.seen)
    assert seen[0] == seen[1] and "aten.addmm.default" in seen[0]


class Recorder(torch.overrides.TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append((function, [type(value) for value in args]))
        return function(*args, **(kwargs or {}))


def test_a_mode_sees_the_functions_of_plain_layers(layers, inputs):
    with Recorder() as recorder:
        layers(inputs)
    products = [types for function, types in recorder.seen if function is nn.functional.linear]
    assert products == 2 * [[torch.Tensor, nn.Parameter, nn.Parameter]]


@needs_onednn
def test_a_default_device_is_no_obstacle(calls, layers, inputs):
    with torch.device("cpu"):
        layers(inputs)
    assert len(calls) == 2


def test_graphs_of_every_kind_hold_plain_layers(calls, layers, inputs):
    expected = layers(inputs)
    calls.clear()
    symbolic = torch.fx.symbolic_trace(layers)
    assert [node.op for node in symbolic.graph.nodes].count("call_module") == 2
    torch.testing.assert_close(torch.compile(layers, backend="eager", fullgraph=True)(inputs), expected, **CLOSE)
    exported = torch.export.export(layers, (inputs,))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert targets.count("aten.linear.default") == 2 and "aten.detach.default" not in targets
    traced = torch.jit.trace(layers, inputs, check_trace=False)
    assert "mkldnn" not in str(traced.inlined_graph)
    graph = torch.fx.experimental.proxy_tensor.make_fx(layers)(inputs).graph
    assert not any("mkldnn" in str(node.target) for node in graph.nodes)
    assert not calls


# Tensors that are not ordinary


def odd_inputs() -> dict[str, torch.Tensor]:
    real = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    return {
        "meta": real.to("meta"),
        "sparse": real.to_sparse(),
        "repeated": real[:1].expand(6, 8),
        "strided": real.t().contiguous().t(),
        "negated": torch.complex(real, real).conj().imag,
        "double": real.double(),
        "nested": torch.nested.nested_tensor([real, real[:2]]),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", odd_inputs())
def test_odd_inputs_are_multiplied_as_in_plain_layers(layers, plain, name):
    inputs, outputs = odd_inputs()[name], []
    for each in (layers[0], plain[0]):
        if name in ("meta", "double"):
            each.to(inputs.device, inputs.dtype) if name == "double" else each.to_empty(device="meta")
        outputs.append(each(inputs))
    ours, theirs = outputs
    assert ours.is_nested == theirs.is_nested and ours.device == theirs.device and ours.layout == theirs.layout
    if name == "nested":
        ours, theirs = (torch.cat(output.unbind()) for output in outputs)
    if name != "meta":
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_sparse_weights_and_wide_biases_are_multiplied_as_in_plain_layers(layers, plain, inputs):
    dense = plain[0](inputs)
    layers[0].weight = nn.Parameter(layers[0].weight.detach().to_sparse_csr())
    torch.testing.assert_close(layers[0](inputs), dense, **CLOSE)
    layer = nn.Linear(8, 30)
    use_onednn(layer)
    layer.bias = nn.Parameter(torch.ones(1))
    torch.testing.assert_close(layer(inputs), inputs @ layer.weight.t() + 1, **CLOSE)


def test_inputs_of_a_wrong_width_are_refused_in_the_same_words(layers, plain):
    messages = []
    for each in (layers, plain):
        with pytest.raises(RuntimeError) as error:
            each(torch.zeros(6, 9))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_an_empty_batch_has_an_empty_result(layers):
    assert layers(torch.zeros(0, 8)).shape == (0, 5)


def test_the_input_may_be_named(layers, plain, inputs):
    torch.testing.assert_close(layers[0](input=inputs), plain[0](inputs), **CLOSE)
    torch.testing.assert_close(layers[1](input=inputs), plain[1](inputs))


# The switch


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@needs_onednn
def test_one_switch_restores_plain_layers_of_a_loaded_model_and_takes_them_back(calls):
    model, inputs = build_model(), make_inputs()
    keep = model.model.encoder.layers[0].fc1.register_forward_pre_hook(lambda module, arguments: None)
    use_onednn(model, False)
    assert hooks_of(model) == 1
    model(**inputs).loss.backward()
    assert not calls
    keep.remove()
    for _ in range(2):
        use_onednn(model)
    assert hooks_of(model) == sum(type(module) in (nn.Linear, GELUActivation) for module in model.modules())
    model(**inputs)
    assert calls


@needs_onednn
def test_hooks_of_another_copy_of_the_file_are_taken_out_too(layers):
    """Code that came with a Hub repository is a module of its own."""
    for module in layers:
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in hooks.items():
                hooks[key] = type(hook)(hook.__code__, {}, hook.__name__)
    use_onednn(layers, False)
    assert hooks_of(layers) == 0


@needs_onednn
@pytest.mark.parametrize("word, found", [("0", False), ("off", False), (" False ", False), ("1", True), ("", True)])
def test_the_environment_switches_every_model(monkeypatch, inputs, word, found):
    monkeypatch.setenv("ENCLAP_ONEDNN", word)
    assert finds_onednn() == found
    monkeypatch.setattr(onednn_linear, "HAS_ONEDNN", finds_onednn())
    assert hooks_of(make_feed_forward()) == (3 if found else 0)
