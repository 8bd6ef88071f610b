"""Products by oneDNN equal those in double precision, are used where they may be, and nowhere else."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers.activations import GELUActivation

from conftest import build_model, make_inputs
from enclap_hf.model import onednn_linear
from enclap_hf.model.onednn_linear import HAS_ONEDNN, use_onednn

needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="torch has no oneDNN for this processor")


@pytest.fixture
def calls(monkeypatch) -> list:
    """The products that went to oneDNN."""
    seen, multiply = [], onednn_linear.multiply_transposed
    monkeypatch.setattr(
        onednn_linear, "multiply_transposed", lambda *args: seen.append(args[0].shape) or multiply(*args)
    )
    return seen


def make_layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(30, 50, bias=bias)
    use_onednn(layer)
    return layer


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 30), (2, 5, 30), (2, 3, 4, 30), (1, 1, 30), (100, 30)])
def test_products_and_gradients_equal_those_in_double_precision(calls, shape, bias):
    layer = make_layer(bias)
    inputs = torch.randn(shape, requires_grad=True)
    out = layer(inputs)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    exact = [value.detach().double().requires_grad_() for value in (inputs, layer.weight)]
    exact_bias = layer.bias.detach().double().requires_grad_() if bias else None
    expected = nn.functional.linear(*exact, exact_bias)
    expected.backward(gradient.double())
    for ours, theirs in ((out, expected), (inputs.grad, exact[0].grad), (layer.weight.grad, exact[1].grad)):
        torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)  # float32 sums
    if bias:
        torch.testing.assert_close(layer.bias.grad, exact_bias.grad.float(), atol=1e-5, rtol=1e-5)
    assert len(calls) == 3
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), out)


def make_feed_forward(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 30), GELUActivation(), nn.Dropout(dropout), nn.Linear(30, 50))
    use_onednn(layers)
    return layers


@needs_onednn
def test_what_gelu_made_is_not_kept_but_what_it_read_is_until_the_backward():
    layers, inputs = make_feed_forward(), torch.randn(7, 8)
    before = layers[0](inputs)
    read = StorageWeakRef(before.untyped_storage())
    made = layers[1](before)
    kept = StorageWeakRef(made.untyped_storage())
    loss = layers[3](made).sum()
    del before, made
    assert kept.expired() and not read.expired()
    loss.backward()
    assert read.expired(), "a loss that is still looked at must not hold the activations"


@needs_onednn
@pytest.mark.parametrize("dropout, enabled", [(0.5, True), (0.0, False)])
def test_after_dropout_and_in_plain_layers_the_layers_input_is_kept(dropout, enabled):
    layers = make_feed_forward(dropout)
    use_onednn(layers, enabled)
    read = layers[2](layers[1](layers[0](torch.randn(7, 8))))
    kept = StorageWeakRef(read.untyped_storage())
    out = layers[3](read)
    del read
    assert not kept.expired() and out.requires_grad


@needs_onednn
def test_an_activation_that_was_changed_afterwards_is_kept_itself():
    layers = make_feed_forward()
    inputs = torch.randn(7, 8)
    made = layers[1](layers[0](inputs))
    made.mul_(2.0)
    layers[3](made).sum().backward()
    expected = made.detach().sum(0).expand(50, 30)
    torch.testing.assert_close(layers[3].weight.grad, expected, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_what_gelu_read_may_change_before_the_product_and_is_missed_after_it():
    """With frozen layers below, GELU has no backward of its own that would notice."""
    layers, before = make_feed_forward(), torch.randn(7, 30)
    expected = nn.functional.gelu(before).sum(0).expand(50, 30)
    made = layers[1](before)
    before.zero_()
    layers[3](made).sum().backward()
    torch.testing.assert_close(layers[3].weight.grad, expected, atol=1e-5, rtol=1e-5)
    before = torch.randn(7, 30)
    out = layers[3](layers[1](before))
    before.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_tensors_of_inference_mode_may_be_activated_and_trained_on():
    layers = make_feed_forward()
    with torch.inference_mode():
        before = torch.randn(7, 30)
    layers[3](layers[1](before)).sum().backward()
    expected = nn.functional.gelu(before).sum(0).expand(50, 30)
    torch.testing.assert_close(layers[3].weight.grad, expected, atol=1e-5, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("shape", [(3, 700, 8), (5, 8)])
def test_what_gelu_made_is_computed_again_and_not_kept(shape):
    layers = make_feed_forward()
    plain = nn.Sequential(nn.Linear(8, 30), GELUActivation(), nn.Dropout(0.0), nn.Linear(30, 50)).double()
    plain.load_state_dict(layers.state_dict())
    inputs = torch.randn(shape, requires_grad=True)
    exact = inputs.detach().double().requires_grad_()
    out, expected = layers(inputs), plain(exact)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected.backward(gradient.double())
    torch.testing.assert_close(out, expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inputs.grad, exact.grad.float(), atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(layers.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad.float(), atol=2e-4, rtol=1e-5)  # float32 sums of many rows


@needs_onednn
@pytest.mark.parametrize("rows", [1024, 1025, 2500])
def test_a_weights_gradient_is_summed_over_all_blocks_of_rows(rows):
    layer, inputs = make_layer(), torch.randn(rows, 30)
    gradient = torch.randn(rows, 50)
    layer(inputs).backward(gradient)
    expected = (gradient.double().T @ inputs.double()).float()
    torch.testing.assert_close(layer.weight.grad, expected, atol=1e-3, rtol=1e-5)  # float32 sums of many rows


@needs_onednn
def test_strided_inputs_and_frozen_weights_are_multiplied(calls):
    layer = make_layer().requires_grad_(False)
    inputs = torch.randn(30, 4, 6, requires_grad=True)
    layer(inputs.permute(1, 2, 0)).sum().backward()
    expected = layer.weight.sum(0)[:, None, None].expand(30, 4, 6)
    torch.testing.assert_close(inputs.grad, expected, atol=1e-5, rtol=1e-5)  # float32 sums
    assert len(calls) == 2 and layer.weight.grad is None


@needs_onednn
def test_a_bias_alone_is_trained(calls):
    layer = make_layer()
    layer.weight.requires_grad_(False)
    layer(torch.randn(7, 30)).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((50,), 7.0))
    assert calls == [(7, 30)]


@needs_onednn
def test_inputs_of_frozen_weights_are_not_kept():
    layer = make_layer()
    layer.weight.requires_grad_(False)
    inputs = torch.randn(7, 30, requires_grad=True) * 1.0
    kept = StorageWeakRef(inputs.untyped_storage())
    out = layer(inputs)
    del inputs
    assert kept.expired() and out.requires_grad


@needs_onednn
def test_weights_and_biases_changed_in_place_are_seen_and_missed_in_the_backward(calls):
    layer, inputs = make_layer(), torch.randn(7, 30, requires_grad=True)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    out = layer(inputs)
    torch.testing.assert_close(out, inputs.sum(1, keepdim=True).expand(7, 50))
    with torch.no_grad():
        layer.weight.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    layer.weight = nn.Parameter(torch.full((50, 30), 2.0))
    torch.testing.assert_close(layer(inputs), 2 * inputs.sum(1, keepdim=True).expand(7, 50))
    assert len(calls) == 2


@pytest.mark.parametrize(
    "inputs", [torch.zeros(0, 30), torch.randn(30), torch.randn(3, 30, dtype=torch.bfloat16)], ids=["0", "1d", "bf16"]
)
def test_other_inputs_take_the_usual_way(calls, inputs):
    layer = make_layer().to(inputs.dtype)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    assert not calls


@pytest.mark.filterwarnings("ignore:TF32")  # the switch goes with one of Intel's GPUs
def test_autocast_and_the_switch_of_onednn_are_obeyed(calls):
    layer, inputs = make_layer(), torch.randn(3, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    assert not calls


def test_a_weight_of_another_class_keeps_its_own_product(calls):
    """Quantised and sharded weights are subclasses of a tensor that know how to multiply."""

    class Doubled(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            out = super().__torch_function__(function, types, args, kwargs or {})
            return out * 2 if function is nn.functional.linear else out

    layer, inputs = make_layer(bias=False), torch.randn(3, 30)
    expected = 2 * nn.functional.linear(inputs, layer.weight)
    weight = layer.weight.detach().as_subclass(Doubled)
    del layer.weight
    layer.weight = weight
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs).as_subclass(torch.Tensor), expected)
    assert not calls


@needs_onednn
def test_every_linear_layer_of_the_captioner_uses_it(calls):
    model, inputs = build_model(), make_inputs()
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    model(**inputs).loss.backward()
    # The CLAP vector needs no gradient, every other layer's input does.
    assert len(calls) == 3 * len(layers) - 1
