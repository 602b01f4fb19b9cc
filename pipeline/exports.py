"""Export formats by name, on the images that each needs, and the measured results that go along."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..configs.errors import InputError, unknown_name
from ..data import ImageDataset
from ..eval import ResultsStore
from ..eval.measure.inference import module_fingerprint
from ..models import (
    Classifier,
    ExportCheck,
    QuantisedCheck,
    export_compiled,
    export_onnx,
    export_program,
    export_quantised,
)

# Columns of a cell, where the store has them; a column added later is one entry here.
COLUMNS = (
    "kind",
    "condition",
    "severity",
    "threat",
    "accuracy",
    "low",
    "high",
    "images",
    "ece",
    "source",
    "seed",
    "status",
    "verdict",
    "attribution",
    "notes",
)


def collect_evidence(
    results: str | Path, model: nn.Module, *, name: str | None = None, dataset: str | None = None
) -> dict[str, Any]:
    """Return what was measured on this very network, in the form that :mod:`~warplca.models.card` takes.

    Args:
        results: The results store.
        model: The network; only rows with its fingerprint count.
        name: Name of the model in the store; None if only one name has its rows.
        dataset: The data set, if the store has rows of several.

    Raises:
        InputError: If there is no such store, no row is of this network, or several names or data sets are.
    """
    if not Path(results).is_file():
        raise InputError(f"there is no results store {results}; `warplca evaluate` writes one.")
    with ResultsStore(results, read_only=True) as store:
        frame = store.to_frame()
    if name is not None and name not in set(frame["model"]):
        raise unknown_name("model", name, set(frame["model"]), where=str(results))
    own = frame[frame["fingerprint"] == module_fingerprint(model)]
    for column, value in (("model", name), ("dataset", dataset)):
        if value is not None:
            own = own[own[column] == value]
    if own.empty:
        raise InputError(
            f"{results} has no results of this network (other weights or settings have other fingerprints); measure it "
            "with `warplca evaluate`."
        )
    for column in ("model", "dataset"):
        if own[column].nunique() > 1:
            raise InputError(
                f"{results} has this network under several names of {column}: {', '.join(sorted(set(own[column])))}; "
                "name one."
            )
    rows = [
        {column: _plain(row[column]) for column in COLUMNS if column in row} for row in own.to_dict("records")
    ]
    verdicts = {
        f"{row['condition']}, {row['threat']}": row["verdict"]
        for row in rows
        if row["kind"] == "attack" and row.get("verdict")
    }
    return {
        "model": str(own["model"].iloc[0]),
        "dataset": str(own["dataset"].iloc[0]),
        "fingerprint": str(own["fingerprint"].iloc[0]),
        "measured": str(max(own["created"])),
        "cells": [{key: value for key, value in row.items() if value not in ("", None)} for row in rows],
        "settings": {"evaluation seeds": ", ".join(str(seed) for seed in sorted(set(own["seed"])))},
        "verdict": verdicts,
    }


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


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
