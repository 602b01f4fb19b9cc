"""The export formats by name, on the images that each needs: public calls in sequence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..data import ImageDataset
from ..models import (
    Classifier,
    ExportCheck,
    QuantisedCheck,
    export_compiled,
    export_onnx,
    export_program,
    export_quantised,
)

CHECK_IMAGES = 1000
CALIBRATION_IMAGES = 100

Exporter = Callable[[Classifier, Path, ImageDataset, ImageDataset], ExportCheck | QuantisedCheck]


def _float(
    write: Callable[..., ExportCheck],
    model: Classifier,
    path: Path,
    test: ImageDataset,
    training: ImageDataset,
) -> ExportCheck:
    return write(model, path, test.tensors(range(min(CHECK_IMAGES, len(test))))[0])


def _int8(model: Classifier, path: Path, test: ImageDataset, training: ImageDataset) -> QuantisedCheck:
    images, labels = test.tensors(range(min(CHECK_IMAGES, len(test))))
    calibration, _ = training.tensors(range(min(CALIBRATION_IMAGES, len(training))))
    return export_quantised(model, path, images, labels, calibration)


# Model, file, test images, training images (from which int8 takes its ranges) -> how the file was checked.
EXPORTERS: dict[str, Exporter] = {
    "onnx": partial(_float, export_onnx),
    "onnx-int8": _int8,
    "pt2": partial(_float, export_program),
    "aoti": partial(_float, export_compiled),
}
