"""What is checked of a loaded model's tensors: that floats are finite, and that indices are rows of their table."""

import re

import torch
from torch import nn

from .model_files import file_error, shorten


def check_finite(model: nn.Module, place: str) -> None:
    """Refuse weights that are NaN or infinite, in one pass over each, but for those that a file may leave out."""
    unread = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_missing", None) or ()]
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if any(pattern.search(name) for pattern in unread):
            continue
        if not tensor.is_floating_point() or tensor.device.type == "meta" or not tensor.numel():
            continue
        lowest, highest = torch.aminmax(tensor.detach())
        if not torch.isfinite(highest - lowest):
            if torch.isfinite(tensor).all():  # only their difference is not
                continue
            raise file_error(place, f"tensor {shorten(name)} holds numbers that are NaN or infinite.")


def check_indices(model: nn.Module, place: str) -> None:
    """Refuse whole numbers that are no rows of the table beside them, as a window's relative positions are."""
    for module_name, module in model.named_modules():
        num_rows = max((len(table) for table in module.parameters(recurse=False) if table.dim() == 2), default=0)
        for name, buffer in module.named_buffers(recurse=False):
            if not num_rows or buffer.dtype not in (torch.int32, torch.int64) or buffer.device.type == "meta":
                continue
            if buffer.numel() and not (buffer.min() >= 0 and buffer.max() < num_rows):
                named = shorten(f"{module_name}.{name}")
                raise file_error(
                    place, f"tensor {named} holds {int(buffer.min())} to {int(buffer.max())}, of {num_rows} rows."
                )
