"""The memory and work that an ONNX file needs for one image, bounded from its graph before any of it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...configs import InputError
from ...configs.errors import brief

UNBOUNDED = {
    "Loop",
    "Scan",
    "If",
    "SequenceMap",
    "RNN",
    "LSTM",
    "GRU",
    "DFT",
    "STFT",
    "RoiAlign",
    "Multinomial",
}
"""Operators that run others, or whose work does not follow from shapes; exported classifiers have none."""

SHAPES = {
    "Squeeze",
    "Unsqueeze",
    "Gather",
    "Concat",
    "Mul",
    "Add",
    "Sub",
    "Cast",
    "Identity",
    "Reshape",
    "Constant",
}
"""Operations that may compute the length of a ``Range``; no result is larger than its inputs."""

FEW = 64  # entries of a tensor that may be a shape
MOST_BYTES = 3 * 2**28  # of all tensors that are needed at one time
MOST_PRODUCTS = 2**40  # multiplications: about half a minute of one core
USUAL = (1, 3, 224, 224)  # sizes of an image where a file leaves them open


def refuse_giants(model: Any, path: Path) -> None:
    """Refuse a graph that takes more memory or time for one image than any classifier, or an unknown amount of them.

    Args:
        model: The ``onnx.ModelProto``; its large weights, and what it claims of shapes, are taken out of it.
        path: The file, for messages.

    Raises:
        InputError: If it does, or holds functions, strings, sparse tensors or operators whose work is unknown.
    """
    graph = model.graph
    unknown = next((node.op_type for node in graph.node if node.op_type in UNBOUNDED), None)
    if unknown is not None:
        raise InputError(
            f"{path} holds the operator {unknown}, which may never end; classifiers that warplca exports have none."
        )
    if model.functions or graph.sparse_initializer:
        raise InputError(f"{path} holds functions or sparse tensors of its own; export it without them.")
    known = _inferred(model, path)
    alive = peak = products = 0
    last = {name: number for number, node in enumerate(graph.node) for name in node.input}
    leaving: dict[int, int] = {}
    for value in graph.input:
        alive += _bytes(value.name, "an input", known, path)
    for number, node in enumerate(graph.node):
        for name in filter(None, node.output):
            size = _bytes(name, f"the operator {node.op_type}", known, path)
            alive += size
            end = last.get(name, number)
            leaving[end] = leaving.get(end, 0) + size
        peak = max(peak, alive)
        alive -= leaving.get(number, 0)
        products += _products(node, known)
    if peak > MOST_BYTES or products > MOST_PRODUCTS:
        raise InputError(
            f"{path} takes {peak / 2**20:,.0f} MB and {products:.1g} multiplications for one image, more than any "
            "classifier; it was not opened."
        )


Known = dict[str, tuple[tuple[int, ...], int]]
"""For each tensor its shape, and the bytes of an entry."""


def _bytes(name: str, source: str, known: Known, path: Path) -> int:
    """Return the bytes of a tensor."""
    if name not in known:
        raise InputError(
            f"{path} has tensors whose size shows only when it runs, first from {source}; it was not opened."
        )
    shape, size = known[name]
    if math.prod(shape) * size > MOST_BYTES:
        raise InputError(
            f"{path} takes a tensor of shape {brief(list(shape))} for one image, from {source}; it was not opened."
        )
    return math.prod(shape) * size


def _inferred(model: Any, path: Path) -> Known:
    """Return what follows for each tensor from one image."""
    import onnx

    graph = model.graph
    small = _small_initializers(graph)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in graph.input:
        for side, usual in zip(value.type.tensor_type.shape.dim, USUAL, strict=False):
            if not side.HasField("dim_value"):
                side.dim_value = usual
    while True:
        known = _known(onnx.shape_inference.infer_shapes(model, data_prop=True), path)
        ranges = list(_ranges(graph, known, small))
        if not ranges:
            return known
        for name, kind, count in ranges:  # the one operator of fixed length whose length onnx does not infer
            graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, [count]))


def _small_initializers(graph: Any) -> dict[str, np.ndarray]:
    """Return the values of those that may be shapes; the others lose theirs, so that inference copies no weights."""
    from onnx import numpy_helper

    small = {}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= FEW:
            small[tensor.name] = numpy_helper.to_array(tensor)
        else:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
    return small


def _known(model: Any, path: Path) -> Known:
    """Return shape and entry size of each tensor whose shape is known."""
    import onnx

    graph = model.graph
    known: Known = {}
    for tensor in graph.initializer:
        known[tensor.name] = (
            tuple(tensor.dims),
            onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize,
        )
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.STRING:
            raise InputError(f"{path} computes with text; classifiers of images do not.")
        sides = tensor.shape.dim
        if (
            tensor.HasField("shape")
            and tensor.elem_type
            and all(s.HasField("dim_value") and s.dim_value >= 0 for s in sides)
        ):
            size = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
            known[value.name] = tuple(side.dim_value for side in sides), size
    return known


def _ranges(graph: Any, known: Known, small: dict[str, np.ndarray]) -> Iterator[tuple[str, int, int]]:
    """Yield name, type and length of every ``Range`` whose length is not known yet and follows from shapes."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    values = dict(small)
    for node in graph.node:
        inputs = [values.get(name) for name in node.input]
        if node.op_type == "Shape" and node.input[0] in known:
            values[node.output[0]] = _sides(node, known[node.input[0]][0])
        elif node.op_type in SHAPES and all(value is not None and value.size <= FEW for value in inputs):
            made: Any = ReferenceEvaluator(node).run(None, dict(zip(node.input, inputs, strict=True)))
            values[node.output[0]] = np.asarray(made[0])
        elif (
            node.op_type == "Range"
            and node.output[0] not in known
            and all(value is not None for value in inputs)
        ):
            start, limit, step = (value.item() for value in inputs if value is not None)
            count = max(math.ceil((limit - start) / step), 0) if step else MOST_BYTES
            yield node.output[0], onnx.helper.np_dtype_to_tensor_dtype(inputs[0].dtype), count  # type: ignore[union-attr]


def _sides(node: Any, shape: Sequence[int]) -> np.ndarray:
    """What ``Shape`` gives."""
    ends = {entry.name: entry.i for entry in node.attribute}
    return np.array(shape[ends.get("start", 0) : ends.get("end")], dtype=np.int64)


def _products(node: Any, known: Known) -> int:
    """Multiplications of an operator, or their like."""
    made = math.prod(known[node.output[0]][0])
    taken = [known.get(name, ((), 1))[0] for name in node.input]
    window = math.prod(
        side for entry in node.attribute if entry.name == "kernel_shape" for side in entry.ints
    )
    if node.op_type == "ConvTranspose":
        return math.prod(taken[0]) * math.prod(taken[1][1:])
    if "Conv" in node.op_type:
        weight = taken[3] if node.op_type == "QLinearConv" else taken[1]
        return made * math.prod(weight[1:])
    if node.op_type == "Einsum":
        equation = next(entry.s.decode() for entry in node.attribute if entry.name == "equation")
        terms = equation.split("->")[0].replace(" ", "").split(",")
        sizes = {
            letter: side
            for term, shape in zip(terms, taken, strict=False)
            for letter, side in zip(term, shape, strict=False)
        }
        return math.prod(sizes.values())
    if "MatMul" in node.op_type or node.op_type in ("Gemm", "Attention"):
        return made * max(taken[0][-2:], default=1) * (2 if node.op_type == "Attention" else 1)
    return max(made * window, *(math.prod(shape) for shape in taken), 1)
