"""ONNX files of others: what they would take is read from the graph, and giants are refused before anything runs."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from warplca.configs import InputError
from warplca.models import open_predictor
from warplca.models.foreign import as_classifier

HUGE = 10**6


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def scalar(name: str, value: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=np.int64), name)


def reals(name: str, *values: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


GIANTS: dict[str, tuple[list[tuple[str, list[str], dict]], list[onnx.TensorProto]]] = {
    "ConstantOfShape": ([("ConstantOfShape", ["s"], {})], [integers("s", HUGE, HUGE)]),
    "Expand": ([("Expand", ["images", "s"], {})], [integers("s", 10 * HUGE, 3, 8, 8)]),
    "Tile": ([("Tile", ["images", "s"], {})], [integers("s", 1, 1, HUGE, HUGE)]),
    "Resize": ([("Resize", ["images", "", "f"], {})], [reals("f", 1, 1, HUGE, HUGE)]),
    "Upsample of sizes": ([("Resize", ["images", "", "", "s"], {})], [integers("s", 1, 3, HUGE, HUGE)]),
    "Pad": ([("Pad", ["images", "s"], {})], [integers("s", 0, 0, 0, 0, 0, 0, HUGE, HUGE)]),
    "Range": (
        [("Range", ["a", "b", "c"], {})],
        [scalar("a", 0), scalar("b", 10**12), scalar("c", 1)],
    ),
    "Range of a shape": (
        [
            ("Shape", ["images"], {"start": 2, "end": 3}, ),
            ("Squeeze", ["t0"], {}),
            ("Mul", ["t1", "b"], {}),
            ("Range", ["a", "t2", "c"], {}),
        ],
        [scalar("a", 0), scalar("b", 10**11), scalar("c", 1)],
    ),
    "size computed from pixels": (
        [
            ("ReduceMax", ["images"], {"keepdims": 0}),
            ("Cast", ["t0"], {"to": TensorProto.INT64}),
            ("Mul", ["t1", "b"], {}),
            ("Range", ["a", "t2", "c"], {}),
        ],
        [scalar("a", 0), scalar("b", 10**11), scalar("c", 1)],
    ),
    "many at once": (
        [("Tile", ["images", "s"], {}) for _ in range(12)]
        + [("Sum", [f"t{n}" for n in range(12)], {})],
        [integers("s", 1, 1, 1000, 1000)],
    ),
    "outer product": (
        [("Reshape", ["images", "s"], {}), ("Transpose", ["t0"], {}), ("Tile", ["t1", "r"], {}),
         ("Transpose", ["t2"], {}),         ("MatMul", ["t2", "t3"], {})],
        [integers("s", 1, 192), integers("r", 100, 1)],
    ),
    "endless products": (
        [("Tile", ["images", "s"], {}), ("MatMul", ["t0", "t0"], {})]
        + [("MatMul", [f"t{n}", "t0"], {}) for n in range(1, 60)],
        [integers("s", 1, 1, 500, 500)],
    ),
    "wide pool": (
        [("AveragePool", ["images"], {"kernel_shape": [HUGE, HUGE], "pads": [HUGE - 1] * 4})],
        [],
    ),
    "RNN": ([("LSTM", ["images", "w", "w"], {"hidden_size": 1})], [reals("w", 0)]),
}  # fmt: skip


def graph(
    path: Path,
    nodes: list[tuple[str, list[str], dict]],
    constants: list[onnx.TensorProto],
    *,
    claims: bool = True,
) -> Path:
    made = [helper.make_node(kind, inputs, [f"t{n}"], **more) for n, (kind, inputs, more) in enumerate(nodes)]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
    # The file claims that all is small.
    claimed = [helper.make_tensor_value_info(f"t{n}", TensorProto.FLOAT, [1]) for n in range(len(nodes) - 1)]
    last = helper.make_tensor_value_info(f"t{len(nodes) - 1}", TensorProto.FLOAT, None)
    body = helper.make_graph(made, "g", [image], [last], constants, value_info=claimed if claims else [])
    path.write_bytes(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    return path


@pytest.mark.parametrize("name", GIANTS)
def test_giants_are_refused_in_a_sentence_before_they_run(tmp_path: Path, name: str) -> None:
    path = graph(tmp_path / "x.onnx", *GIANTS[name])
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        InputError, match="of shape|size shows only when it runs|for one image|operator"
    ) as refused:
        open_predictor(path)
    assert "\n" not in str(refused.value)
    if name != "outer product":
        with pytest.raises(InputError):
            as_classifier(path, mean=(0,), std=(1,))
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # kilobytes


@pytest.mark.parametrize("kind", ["function", "text", "sparse", "hollow", "input"])
def test_what_hides_its_size_is_refused(tmp_path: Path, kind: str) -> None:
    path = graph(tmp_path / "x.onnx", [("Identity", ["images"], {})], [])
    model = onnx.load(str(path))
    if kind == "function":
        body = [helper.make_node("Identity", ["x"], ["y"])]
        model.functions.append(
            helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("", 18)])
        )
    if kind == "text":
        model.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"x"]))
        model.graph.node.append(helper.make_node("Identity", ["w"], ["z"]))
    if kind == "sparse":
        entry = helper.make_sparse_tensor(reals("v", 1.0), integers("i", 0), [2**40])
        model.graph.sparse_initializer.append(entry)
    if kind == "hollow":
        model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**28]))
    if kind == "input":
        for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            side.dim_value = HUGE
    onnx.save(model, str(path))
    message = {
        "function": "functions or sparse", "sparse": "functions or sparse", "text": "computes with text",
        "hollow": "without its values", "input": "from an input",
    }[kind]  # fmt: skip
    with pytest.raises(InputError, match=message):
        open_predictor(path)


def test_what_is_small_passes_whatever_it_says_of_itself(tmp_path: Path) -> None:
    nodes = [
        ("Shape", ["images"], {"end": 1}),
        ("Squeeze", ["t0"], {}),
        ("Range", ["a", "t1", "c"], {}),
        ("Cast", ["t2"], {"to": TensorProto.FLOAT}),
        ("Flatten", ["images"], {}),
        ("Unsqueeze", ["t3", "c1"], {}),
        ("Add", ["t4", "t5"], {}),
    ]
    path = graph(
        tmp_path / "x.onnx", nodes, [scalar("a", 0), scalar("c", 1), integers("c1", 1)], claims=False
    )
    predictor = open_predictor(path)
    images = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    import torch

    logits, _ = predictor.answer(torch.from_numpy(images))
    np.testing.assert_allclose(logits, images.reshape(2, -1) + np.arange(2)[:, None], rtol=1e-6)
