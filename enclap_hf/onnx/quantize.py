"""Quantises the graphs of a captioner to 8 bits: every product by a constant matrix, rows and columns with scales.

ONNX Runtime's own dynamic quantisation has one scale for a whole tensor of activations, so that a caption would depend
on its neighbours in the batch. Here every row has a scale of its own, in standard operators:

    row of activations    scale = greatest absolute value / 127;   uint8 = round(row / scale) + 128
    column of weights     scale = greatest absolute value / 127;   8 bits = round(column / scale)
    product               MatMulInteger, in whole numbers;   times both scales

Activations are unsigned: processors multiply signed ones many times slower. Weights are signed where a processor adds
products of 8 bits without saturating (VNNI, ARM), and unsigned for the others, whose kernels then widen first. The
whole numbers are the same either way, and so are the captions.
"""

import os

import numpy as np

from ..model.onnx_files import choose_kind
from ..model.onnx_names import FILES, FOLDER, SUFFIXES

LEVELS = 127  # of weights and activations, to either side of zero
ZERO = 128
# A row of zeros has no scale; divided by this, it stays zeros.
LEAST_SCALE = 1e-30


def quantize_graphs(folder: str, kind: str) -> list[str]:
    """Write quantised encoder and decoder graphs beside those of a repository in float32.

    Args:
        folder: of the repository, with its graphs.
        kind: a key of `SUFFIXES`, or "int8" for this machine's.
    Returns:
        paths of the files written.
    """
    kind = choose_kind() if kind == "int8" else kind
    paths = []
    for part in ("encoder", "decoder"):
        source = os.path.join(folder, FOLDER, f"{FILES[part]}.onnx")
        paths.append(os.path.join(folder, FOLDER, f"{FILES[part]}_{SUFFIXES[kind]}.onnx"))
        quantize_graph(source, paths[-1], signed=kind != "avx2")
    return paths


def quantize_graph(source: str, target: str, signed: bool) -> None:
    """Quantise the products of one graph by constant matrices.

    Args:
        source: file of a graph in float32.
        target: file to write.
        signed: whether weights are int8, rather than uint8 around 128.
    """
    import onnx

    model = onnx.load(source)
    writer = GraphWriter(model.graph, signed)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        is_product = node.op_type in ("MatMul", "Gemm") and node.input[1] in writer.constants
        if is_product and node.input[0] != "clap_embedding":  # one row a clip
            writer.multiply(node)
        else:
            model.graph.node.append(node)
    writer.drop_unused()
    onnx.save(model, target)


class GraphWriter:
    """Writes the nodes and constants of a graph whose products become those of whole numbers.

    Args:
        graph: of a model, to which they are added.
        signed: see [`quantize_graph`].
    """

    def __init__(self, graph, signed: bool):
        from onnx import numpy_helper

        self.graph, self.signed = graph, signed
        self.constants = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
        self.to_tensor, self.to_array = numpy_helper.from_array, numpy_helper.to_array
        self.rows: dict[str, tuple[str, str]] = {}  # of each activation: its whole numbers, and its scales
        self.columns: dict[str, tuple[str, str, str]] = {}  # of each weight: numbers, zero point, scales
        self.add_constant("q8_levels", np.array(LEVELS, np.float32))
        self.add_constant("q8_least", np.array(LEAST_SCALE, np.float32))
        self.add_constant("q8_zero_float", np.array(ZERO, np.float32))
        self.add_constant("q8_zero", np.array(ZERO, np.uint8))
        self.add_constant("q8_last_axis", np.array([-1], np.int64))

    def multiply(self, node) -> None:
        """Write a product of rows by a constant matrix: MatMul, or Gemm as the exporter writes `linear`."""
        is_gemm, name = node.op_type == "Gemm", node.output[0]
        rows, row_scales = self.quantize_rows(node.input[0])
        columns, zero, column_scales = self.quantize_columns(node.input[1], transposed=is_gemm)
        self.add("MatMulInteger", [rows, columns, "q8_zero", zero], f"{name}_whole")
        self.add("Cast", [f"{name}_whole"], f"{name}_float", to=1)
        self.add("Mul", [f"{name}_float", column_scales], f"{name}_columns")
        if len(node.input) > 2:  # the bias of Gemm
            self.add("Mul", [f"{name}_columns", row_scales], f"{name}_rows")
            self.add("Add", [f"{name}_rows", node.input[2]], name)
        else:
            self.add("Mul", [f"{name}_columns", row_scales], name)

    def quantize_rows(self, name: str) -> tuple[str, str]:
        """Names of the whole numbers and the scales of an activation's rows, made once for all products it is in."""
        if name not in self.rows:
            self.add("Abs", [name], f"{name}_abs")
            self.add("ReduceMax", [f"{name}_abs", "q8_last_axis"], f"{name}_most", keepdims=1)
            self.add("Div", [f"{name}_most", "q8_levels"], f"{name}_raw_scale")
            self.add("Max", [f"{name}_raw_scale", "q8_least"], f"{name}_scale")
            self.add("Div", [name, f"{name}_scale"], f"{name}_scaled")
            self.add("Round", [f"{name}_scaled"], f"{name}_rounded")
            self.add("Add", [f"{name}_rounded", "q8_zero_float"], f"{name}_shifted")
            self.add("Cast", [f"{name}_shifted"], f"{name}_whole", to=2)
            self.rows[name] = (f"{name}_whole", f"{name}_scale")
        return self.rows[name]

    def quantize_columns(self, name: str, transposed: bool) -> tuple[str, str, str]:
        """Names of a weight's whole numbers, of their zero point and of the columns' scales.

        Args:
            name: of the weight, (in, out).
            transposed: it is (out, in).
        """
        if name not in self.columns:
            weight = self.to_array(self.constants[name])
            weight = weight.T if transposed else weight
            scales = np.maximum(np.abs(weight).max(axis=0) / LEVELS, LEAST_SCALE).astype(np.float32)
            whole = np.rint(np.ascontiguousarray(weight) / scales)
            whole = whole.astype(np.int8) if self.signed else (whole + ZERO).astype(np.uint8)
            zero = np.array(0, np.int8) if self.signed else np.array(ZERO, np.uint8)
            names = (f"{name}_whole", f"{name}_zero", f"{name}_scales")
            for constant, array in zip(names, (whole, zero, scales), strict=True):
                self.add_constant(constant, array)
            self.columns[name] = names
        return self.columns[name]

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> None:
        """Add a node, called as its output."""
        from onnx import helper

        self.graph.node.append(helper.make_node(kind, inputs, [output], name=f"{output}_q8", **attributes))

    def add_constant(self, name: str, array: np.ndarray) -> None:
        """Add a constant."""
        self.graph.initializer.append(self.to_tensor(array, name))

    def drop_unused(self) -> None:
        """Remove constants that no node reads any more."""
        read = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
