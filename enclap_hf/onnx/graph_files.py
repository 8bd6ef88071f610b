"""Writes modules as .onnx files: free batch and lengths, sizes and origin in the metadata."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

FREE = torch.export.Dim.DYNAMIC
DEFAULT_OPSET = 18


def write_graph(
    module: nn.Module,
    example: tuple,
    input_shapes: dict[str, dict[int, str]],
    output_shapes: dict[str, dict[int, str]],
    path: str,
    opset: int,
    metadata: dict[str, str],
) -> None:
    """Export a module.

    Args:
        module: in evaluation mode.
        example: its inputs, of sizes above 1 along free axes.
        input_shapes: names of the inputs, in their order, with their free axes; lists in `example` are flattened.
        output_shapes: the same of the outputs.
        path: of the file.
        opset: of ONNX.
        metadata: what the file says of itself.
    """
    shapes = iter(input_shapes.values())
    free = torch.utils._pytree.tree_map(lambda tensor: dict.fromkeys(next(shapes), FREE), example)
    with quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=free,
            input_names=list(input_shapes),
            output_names=list(output_shapes),
            external_data=False,
        )
    graph = program.model.graph
    for values, named in ((graph.inputs, input_shapes), (graph.outputs, output_shapes)):
        for value in values:
            name_free_axes(value, named[value.name])
    fold_transposes(graph)
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def fold_transposes(graph) -> None:
    """Store matrices the way products read them; the exporter leaves that of large ones to the runtime."""
    import onnx_ir

    for node in [node for node in graph if node.op_type == "Transpose"]:
        (matrix,), (transposed,) = node.inputs, node.outputs
        if matrix.const_value is None or len(matrix.shape) != 2:
            continue
        array = np.ascontiguousarray(matrix.const_value.numpy().T)
        constant = onnx_ir.Value(name=f"{matrix.name}_transposed", const_value=onnx_ir.tensor(array))
        constant.shape, constant.dtype = onnx_ir.Shape(array.shape), matrix.dtype
        graph.register_initializer(constant)
        transposed.replace_all_uses_with(constant)
        graph.remove(node, safe=True)
        if not matrix.uses():
            graph.initializers.pop(matrix.name)


def name_free_axes(value, names: dict[int, str]) -> None:
    """Call the free axes of an input or output by their names."""
    import onnx_ir

    sizes = list(value.shape)
    for axis, name in names.items():
        sizes[axis] = name
    value.shape = onnx_ir.Shape(sizes)


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress and remarks from the terminal; faults are raised."""
    names = ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
