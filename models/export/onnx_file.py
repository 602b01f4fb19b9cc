"""ONNX: written by PyTorch's dynamo exporter, run by onnxruntime; and its int8 form."""

from __future__ import annotations

import copy
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...configs import InputError
from ...configs.atomic import file_written_whole
from ...configs.errors import brief, first_line
from ...configs.untrusted import plain_file
from .bounds import refuse_giants
from .checked import (
    BATCH,
    Deployed,
    ExportCheck,
    Run,
    eager,
    export_checked,
    in_batches,
    is_export,
    metadata,
    on_cpu,
)

OPSET = 23

KEY = "warplca"

FRONTEND = "model.frontend"

CALIBRATION_IMAGES = 100

MOST_LOST = 0.02

MOST_BYTES = 2**31  # of a protobuf file; of a tensor of floats


class OnnxBackend:
    """ONNX files, in onnxruntime on the CPU, which has no convolution in float64."""

    name = "ONNX"
    double = False

    def write(self, model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write a module with a dynamic batch."""
        # ONNX has no orders in memory, and torch 2.9 and 2.10 write a pooled image's channels last as a loop.
        model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        names = model.output_names if isinstance(model, Deployed) else ("output",)
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                (images.new_zeros(2, *images.shape[1:]),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=list(names),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            if program is None:
                raise InputError("PyTorch's exporter gave no ONNX program; try another version of torch.")
            program.model.metadata_props[KEY] = json.dumps(metadata)
            program.save(str(path), include_initializers=True)

    def open(self, path: Path) -> Run:
        """Open an ONNX file that was just written here, with as many threads as PyTorch has."""
        session = _session(path)

        def run(images: Tensor) -> list[np.ndarray]:
            return [np.asarray(output) for output in session.run(None, {"images": images.numpy()})]

        return run


def session_of(path: Path) -> Any:
    """Return an onnxruntime session on the CPU for a file from anywhere.

    Raises:
        InputError: If onnxruntime is missing, or the file is no ONNX file or takes giant memory or time.
    """
    _refuse_unbounded(plain_file(path, MOST_BYTES))
    return _session(path)


def _session(path: Path) -> Any:
    onnxruntime = _needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise InputError(f"{path} cannot be read as ONNX: {first_line(error)}") from error


def _refuse_unbounded(path: Path) -> None:
    """Refuse a file that could run for ever, reach other files, or take memory beyond all measure.

    Raises:
        InputError: If it holds or makes tensors of giant shape, has weights in other files, is no ONNX file, or
            :func:`~warplca.models.export.bounds.refuse_giants` does.
    """
    onnx = _needed("onnx")
    try:
        graph = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own errors have no common base class
        raise InputError(f"{path} cannot be read as ONNX: {first_line(error)}") from error
    constants = [
        *graph.graph.initializer,
        *(a.t for node in graph.graph.node for a in node.attribute if a.HasField("t")),
    ]
    if any(tensor.external_data for tensor in constants):
        raise InputError(f"{path} keeps weights in other files; export it as one file.")
    for tensor in constants:
        sound = min(tensor.dims, default=0) >= 0 and math.prod(tensor.dims) <= 4 * tensor.ByteSize()
        if not sound:  # of the narrowest types four entries take a byte
            raise InputError(
                f"{path} holds the tensor {tensor.name!r} of shape {brief(list(tensor.dims))} without its values; it "
                "was not opened."
            )
    try:
        refuse_giants(graph, path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as ONNX: {first_line(error)}") from error


def export_onnx(model: nn.Module, path: str | Path, images: Tensor, *, sparsity: bool = True) -> ExportCheck:
    """Write an ONNX file with a dynamic batch, if onnxruntime agrees with PyTorch on the images.

    Arguments, check and errors are those of :func:`~warplca.models.export.export_checked`.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _needed(name)
    return export_checked(OnnxBackend(), model, path, images, sparsity=sparsity)


@dataclass(frozen=True)
class QuantisedCheck:
    """Effect of int8 on real images.

    Attributes:
        images: Number of images.
        accuracy: Share classified rightly by the int8 file.
        float_accuracy: Share classified rightly by PyTorch in float32.
        same_prediction: Share of images with the same predicted class.
        size: Bytes of the file.
    """

    images: int
    accuracy: float
    float_accuracy: float
    same_prediction: float
    size: int


def export_quantised(
    model: nn.Module,
    path: str | Path,
    images: Tensor,
    labels: Tensor,
    calibration: Tensor,
    *,
    frontend: bool = False,
    sparsity: bool = True,
) -> QuantisedCheck:
    """Write an ONNX file with the backbone's convolutions in int8, if accuracy falls by at most 2 points.

    Args:
        model: Maps pixels in [0, 1] to logits, on any device; used in evaluation mode.
        path: File to write; an older export there is replaced if the check passes.
        images: Real images (N, C, H, W) to measure on.
        labels: Classes of the images, (N,).
        calibration: Other real images, from which the ranges of values are taken.
        frontend: Whether the front-end is quantised too; its thresholds then pass other units.
        sparsity: Whether to add the sparsity output, as for :func:`export_onnx`.

    Raises:
        InputError: If optional packages are missing or accuracy falls by more (no file is written then).
    """
    quantization = _needed("onnxruntime.quantization")
    _needed("onnxscript")
    model, images = model.eval(), images.cpu()
    backend = OnnxBackend()
    with file_written_whole(Path(path), ours=is_export) as target, TemporaryDirectory() as folder, _quiet():
        plain, draft = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        backend.write(Deployed(on_cpu(model), sparsity=sparsity), images, plain, metadata(model, images))
        quantization.quantize_static(
            str(plain),
            str(draft),
            _Calibration(calibration[:CALIBRATION_IMAGES]),
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=[] if frontend else _frontend_nodes(plain),
            per_channel=True,
        )
        expected, found = eager(model, images), in_batches(backend.open(draft), images)
        truth = labels.cpu().numpy()
        check = QuantisedCheck(
            images=len(images),
            accuracy=float((found.argmax(1) == truth).mean()),
            float_accuracy=float((expected.argmax(1) == truth).mean()),
            same_prediction=float((found.argmax(1) == expected.argmax(1)).mean()),
            size=draft.stat().st_size,
        )
        if check.accuracy < check.float_accuracy - MOST_LOST:
            raise InputError(
                f"int8 lowers accuracy from {check.float_accuracy:.1%} to {check.accuracy:.1%} on {check.images} "
                f"images ({MOST_LOST:.0%} at most expected); nothing was written. Export to float32 ONNX instead."
            )
        target.write_bytes(draft.read_bytes())
    return check


class _Calibration:
    """Hands calibration images to the quantiser, a batch at a time."""

    def __init__(self, images: Tensor) -> None:
        self.batches = iter(images.split(BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch.cpu().numpy()}

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError("calibration images are few enough for one range")


def _frontend_nodes(path: Path) -> list[str]:
    """Names of the nodes that come from the front-end, by the module path that the exporter noted."""
    onnx = _needed("onnx")
    return [
        node.name
        for node in onnx.load(str(path)).graph.node
        if any(entry.key == "namespace" and FRONTEND in entry.value for entry in node.metadata_props)
    ]


def _needed(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"ONNX export needs the package {error.name}; install it with: pip install 'warplca[export]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and hints from the screen; errors remain exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "root", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
