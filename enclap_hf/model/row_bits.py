"""The same bits for a clip alone and in any batch, on a CPU.

Floating-point sums depend on their order in the last bits. A kernel may choose another order as its rows become more,
as a neighbour makes the batch longer, or as another thread takes a row. So on a CPU a batch is computed like this:

* Whatever sums along a clip (attention over its states, the encoder, the codec) sees the clip's own length.
* Rows that are multiplied together (the beams of a batch in a decoding step) give what they give in parts of a fixed,
  small size: that is the definition. All at once is faster, and the same on most processors; whether it is on this one
  is looked up nowhere, but compared, in the first calls of a shape. Where a bit differs the rows are halved until none
  does.

An accelerator computes a batch as it comes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

# Rows of the parts that products are defined by: kernels for a single row sum in another order than all others.
PRODUCT_ROWS = 2
# Rows multiplied at once; more are split, so that shapes are few.
MAX_PRODUCT_ROWS = 256
# Parts that are compared of each call: from the begin and the end, where kernels have their edges.
NUM_COMPARED = 8
# Values to compare of a shape before it counts as equal. Rounding to fewer digits hides most differences: in bfloat16
# one value of 10,000 shows that its sum had another order.
ENOUGH_VALUES = {torch.float32: 1 << 12, torch.bfloat16: 1 << 17}
DIFFERS = -1
ALIGNMENT = 64  # bytes at which torch begins its tensors, and rows that are to be alike

_compared: dict[tuple, int] = {}  # values of a shape that were compared and equal, or DIFFERS


def run_together(
    function: Callable[..., torch.Tensor], tensors: Sequence[torch.Tensor], part: int, name: tuple
) -> torch.Tensor:
    """What `function` gives for each `part` items of `tensors` by itself, of many at once where that is equal.

    Args:
        function: of tensors with a first axis of equal length N; each item's result depends on that item alone.
        tensors: (N, ...) each, N a multiple of `part`.
        part: items that stand for themselves.
        name: what the function is, beside the shape of the first of the tensors.
    Returns:
        (N, ...), the same bits whatever N.
    """
    num_items = len(tensors[0])
    if num_items <= part:
        return function(*tensors)
    key = (name, tensors[0].shape, tensors[0].dtype, torch.get_num_threads())
    compared = _compared.get(key, 0)
    if compared != DIFFERS:
        result = function(*tensors)
        if compared >= ENOUGH_VALUES[tensors[0].dtype]:
            return result
        num_equal = count_equal_values(function, tensors, part, result)
        _compared[key] = DIFFERS if num_equal is None else compared + num_equal
        if num_equal is not None:
            return result
    middle = -(-num_items // (2 * part)) * part
    halves = ([tensor[:middle] for tensor in tensors], [tensor[middle:] for tensor in tensors])
    return torch.cat([run_together(function, half, part, name) for half in halves])


def count_equal_values(function, tensors: Sequence[torch.Tensor], part: int, result: torch.Tensor) -> int | None:
    """Compare some parts of a result with what they give by themselves: the values compared, or None if any differs."""
    num_parts = len(result) // part
    edges = [*range(NUM_COMPARED // 2), *range(num_parts - NUM_COMPARED // 2, num_parts)]
    num_values = 0
    for index in sorted({index for index in edges if 0 <= index < num_parts}):
        own = slice(index * part, (index + 1) * part)
        if not torch.equal(result[own], function(*(tensor[own].clone() for tensor in tensors))):
            return None
        num_values += result[own].numel()
    return num_values


def multiply_rows(multiply: Callable, inputs: torch.Tensor, weight: torch.Tensor, bias) -> torch.Tensor:
    """`multiply(rows, weight, bias)` for rows that keep their bits: (..., in_features) -> (..., out_features).

    Args:
        multiply: of rows (N, in_features), as `torch.nn.functional.linear`.
    """
    rows = inputs.flatten(0, -2)
    num_missing = -len(rows) % PRODUCT_ROWS
    if num_missing:
        rows = nn.functional.pad(rows, (0, 0, 0, num_missing))
    name = ("product", weight.shape, bias is None)
    parts = [
        run_together(lambda some: multiply(some, weight, bias), (some,), PRODUCT_ROWS, name)
        for some in (rows.split(MAX_PRODUCT_ROWS) if len(rows) > MAX_PRODUCT_ROWS else (rows,))
    ]
    product = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (product[:-num_missing] if num_missing else product).unflatten(0, inputs.shape[:-1])


def attend_rows(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float, is_causal: bool = False
) -> torch.Tensor:
    """Attention of each item to itself, with its own bits: (N, heads, Q, d) over (N, heads, L, d) -> the former.

    In float32 by two products: torch's fused attention is made for many queries, and gives its threads memory that
    begins at any byte, on which the last bits depend. In fewer digits products would round the scores; there the fused
    attention keeps its bits.
    """

    def attend(queries, keys, values):
        if queries.dtype != torch.float32:
            return nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=is_causal, scale=scaling)
        heads = (queries * scaling).flatten(0, 1).transpose(1, 2)
        # Keys first: a product of few rows by many columns takes twice as long as its transpose.
        scores = torch.bmm(keys.flatten(0, 1), heads).transpose(1, 2)  # (N * heads, Q, L)
        if is_causal:
            later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).unflatten(0, queries.shape[:2])

    # In fewer digits many values are to be compared, and a caption's length is another one at each step.
    length = keys.shape[2] if queries.dtype == torch.float32 else keys.shape[2].bit_length()
    return run_together(attend, (queries, keys, values), 1, ("attention", is_causal, length))


def count_slots(mask: torch.Tensor | None, num_clips: int, num_slots: int) -> list[int]:
    """Own slots of each clip, from a mask of slots (B, L), or of attention (B, 1, Q, L), added or boolean."""
    if mask is None:
        return [num_slots] * num_clips
    if mask.dim() == 4:
        mask = mask[:, 0, 0]
        mask = mask if mask.dtype == torch.bool else mask == 0
    return mask.long().sum(1).tolist()


def find_runs(lengths: list[int]) -> list[tuple[int, int, int]]:
    """Neighbours of equal length: (first, behind the last, length)."""
    runs = []
    for i, length in enumerate(lengths):
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], i + 1, length)
        else:
            runs.append((i, i + 1, length))
    return runs


def has_aligned_rows(width: int, dtype: torch.dtype) -> bool:
    """Whether rows of a batch begin at bytes that are alike for the kernels."""
    return width * dtype.itemsize % ALIGNMENT == 0


def place_alike(tensor: torch.Tensor) -> torch.Tensor:
    """A part of a batch in memory as it has by itself."""
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
