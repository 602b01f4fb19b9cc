"""Export to ONNX, checked against PyTorch before the file is kept."""

from __future__ import annotations

import logging
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..configs import InputError
from ..configs.atomic import file_written_whole

TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportCheck:
    """How an exported file agrees with PyTorch on real images.

    Attributes:
        images: Number of images compared.
        max_difference: Largest absolute difference of a logit.
        within_tolerance: Share of images whose logits all agree to 1e-4.
        same_prediction: Share of images with the same predicted class.
        size: Bytes of the file.
    """

    images: int
    max_difference: float
    within_tolerance: float
    same_prediction: float
    size: int


def export_onnx(model: nn.Module, path: str | Path, images: Tensor) -> ExportCheck:
    """Write an ONNX file with a dynamic batch, if onnxruntime agrees with PyTorch on the images.

    Logits must agree to 1e-4 for 99 % of the images and predictions for 99.9 %: a code near the threshold may
    flip in float32, so that a few images differ by more.

    Args:
        model: Maps pixels in [0, 1] to logits; used in evaluation mode.
        path: File to write; replaced only if the check passes.
        images: Real images (N, C, H, W) to compare on; their height and width become the file's.

    Raises:
        InputError: If the optional packages are missing or the check fails (no file is written then).
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ONNX export needs the package {error.name}; install it with: pip install 'warplca[export]'"
        ) from error
    model = model.eval()
    with file_written_whole(Path(path)) as target:
        _write(model, images[:2], target)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
        with torch.no_grad():
            expected = torch.cat([model(batch) for batch in images.split(100)]).numpy()
        outputs = [np.asarray(session.run(None, {"images": b.numpy()})[0]) for b in images.split(100)]
        found = np.concatenate(outputs)
        check = _compare(expected, found, target.stat().st_size)
        if check.within_tolerance < 0.99 or check.same_prediction < 0.999:
            raise InputError(
                f"the ONNX file disagrees with PyTorch: logits within {TOLERANCE:g} on {check.within_tolerance:.1%} of "
                f"{check.images} images (99 % expected), same prediction on {check.same_prediction:.2%} (99.9 % "
                "expected); nothing was written. Try another onnxruntime version."
            )
    return check


def _write(model: nn.Module, images: Tensor, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None
        program.save(str(path), include_initializers=True)


def _compare(expected: np.ndarray, found: np.ndarray, size: int) -> ExportCheck:
    difference = np.abs(expected - found).max(axis=1)
    return ExportCheck(
        images=len(expected),
        max_difference=float(difference.max()),
        within_tolerance=float((difference <= TOLERANCE).mean()),
        same_prediction=float((expected.argmax(1) == found.argmax(1)).mean()),
        size=size,
    )
