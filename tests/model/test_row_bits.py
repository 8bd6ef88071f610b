"""Items computed together have the bits that they have in parts; where one differs, the parts become smaller."""

import pytest
import torch
from torch import nn

from enclap_hf.model import row_bits
from enclap_hf.model.row_bits import attend_rows, count_slots, find_runs, multiply_rows, run_together


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(row_bits, "_compared", {})


def differ_above(limit: int, calls: list):
    """A function whose last bits change where more than so many rows come together."""

    def function(rows):
        calls.append(len(rows))
        return rows * (1.0 if len(rows) <= limit else 1.0 + 1e-6)

    return function


def test_rows_that_would_differ_are_halved_until_none_does():
    rows, calls = torch.randn(20, 7), []
    assert torch.equal(run_together(differ_above(6, calls), (rows,), 2, ("test",)), rows)
    calls.clear()
    assert torch.equal(run_together(differ_above(6, calls), (rows,), 2, ("test",)), rows)
    assert calls[-4:] and max(calls) <= 10 and sum(calls) < 100


def test_a_shape_is_compared_until_enough_values_were_equal(monkeypatch):
    monkeypatch.setattr(row_bits, "ENOUGH_VALUES", {torch.float32: 300})
    rows, calls = torch.randn(8, 25), []
    for _ in range(5):
        run_together(differ_above(100, calls), (rows,), 2, ("test",))
    assert calls == [8, 2, 2, 2, 2] * 2 + [8] * 3  # 200 values each time


@pytest.mark.parametrize("place", [0, 3, 19])
def test_a_row_whose_place_matters_is_found_at_either_end(place):
    def function(rows):
        changed = rows.clone()
        if len(rows) > 1:
            changed[min(place, len(rows) - 1)] *= 1 + 1e-6
        return changed

    rows = torch.randn(20, 7)
    assert torch.equal(run_together(function, (rows,), 1, ("test", place)), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 8, 37, 300])
def test_products_are_those_of_linear_and_a_row_keeps_its_bits(dtype, num_rows):
    torch.manual_seed(0)
    rows, weight, bias = (
        torch.randn(num_rows, 1, 64).to(dtype),
        torch.randn(48, 64).to(dtype),
        torch.randn(48).to(dtype),
    )
    product = multiply_rows(nn.functional.linear, rows, weight, bias)
    close = {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.01}
    torch.testing.assert_close(product, nn.functional.linear(rows, weight, bias), **close)
    for i in range(0, num_rows, 9):
        assert torch.equal(product[i : i + 1], multiply_rows(nn.functional.linear, rows[i : i + 1], weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_causal", [True, False])
def test_attention_is_that_of_torch(dtype, is_causal):
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 5, 4, 6, 16).to(dtype)
    ours = attend_rows(queries, keys, values, 0.3, is_causal)
    exact = [tensor.double() for tensor in (queries, keys, values)]
    expected = nn.functional.scaled_dot_product_attention(*exact, is_causal=is_causal, scale=0.3)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2  # of the result's own rounding; of rounded scores it is more
    torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=tolerance)
    for i in range(5):
        own = (tensor[i : i + 1].clone() for tensor in (queries, keys, values))
        assert torch.equal(ours[i : i + 1], attend_rows(*own, 0.3, is_causal))


def test_own_slots_are_counted_in_masks_of_every_kind():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    hidden = torch.zeros(2, 3).masked_fill(mask == 0, torch.finfo(torch.float32).min)
    for kind in (mask, mask.bool()[:, None, None], hidden[:, None, None], hidden[:, None, None].expand(2, 1, 4, 3)):
        assert count_slots(kind, 2, 3) == [3, 1]
    assert count_slots(None, 2, 3) == [3, 3]


def test_neighbours_of_equal_length_stay_together():
    assert find_runs([3, 3, 5, 3, 3, 3]) == [(0, 2, 3), (2, 3, 5), (3, 6, 3)]
    assert find_runs([7]) == [(0, 1, 7)]
