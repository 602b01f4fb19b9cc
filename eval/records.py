"""One finished cell as a value, and its form as a row of the results store."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..configs.errors import InputError
from .cells import Condition, ImageSet
from .statistics import calibration_error

KEY_COLUMNS = (
    "model",
    "model_seed",
    "dataset",
    "kind",
    "condition",
    "severity",
    "threat",
    "source",
    "seed",
    "image_set",
)
FACT_COLUMNS = (
    "fingerprint",
    "images",
    "correct",
    "status",
    "mean_confidence",
    "ece",
    "queries",
    "gradients",
    "seconds",
    "notes",
    "created",
)
BLOB_COLUMNS = ("predictions", "confidences")
COLUMNS = (*KEY_COLUMNS, *FACT_COLUMNS, "details", *BLOB_COLUMNS)

COMPLETE, BOUND, NOT_APPLICABLE, NOT_RUN = "complete", "bound so far", "not applicable", "not run"
UNMEASURED = (NOT_APPLICABLE, NOT_RUN)
"""States of a cell whose predictions are those of the clean images: it has no accuracy of its own."""

CONFIDENCE_UNITS = 65535

SCHEMA = """
CREATE TABLE image_sets (
    key TEXT PRIMARY KEY, dataset TEXT NOT NULL, fingerprint TEXT NOT NULL,
    indices BLOB NOT NULL, labels BLOB NOT NULL
);
CREATE TABLE cells (
    model TEXT NOT NULL, model_seed INTEGER NOT NULL, dataset TEXT NOT NULL, kind TEXT NOT NULL,
    condition TEXT NOT NULL, severity INTEGER NOT NULL, threat TEXT NOT NULL, source TEXT NOT NULL,
    seed INTEGER NOT NULL, image_set TEXT NOT NULL REFERENCES image_sets (key), fingerprint TEXT NOT NULL,
    images INTEGER NOT NULL, correct INTEGER NOT NULL, status TEXT NOT NULL,
    mean_confidence REAL NOT NULL, ece REAL NOT NULL,
    queries INTEGER NOT NULL, gradients INTEGER NOT NULL, seconds REAL NOT NULL, notes TEXT NOT NULL,
    created TEXT NOT NULL, details TEXT NOT NULL, predictions BLOB NOT NULL, confidences BLOB NOT NULL,
    PRIMARY KEY (model, model_seed, dataset, kind, condition, severity, threat, source, seed, image_set)
);
CREATE TABLE outcomes (
    model TEXT NOT NULL, model_seed INTEGER NOT NULL, fingerprint TEXT NOT NULL, image_set TEXT NOT NULL,
    seed INTEGER NOT NULL, batch_size INTEGER NOT NULL, threat TEXT NOT NULL, attack TEXT NOT NULL,
    settings TEXT NOT NULL, image INTEGER NOT NULL, broken INTEGER NOT NULL, prediction INTEGER NOT NULL,
    adversarial BLOB,
    PRIMARY KEY (model, model_seed, fingerprint, image_set, seed, batch_size, threat, attack, settings, image)
);
"""


@dataclass(frozen=True)
class CellResult:
    """What one model answered in one cell.

    Attributes:
        model: Name of the model (of the method, where several networks were trained).
        model_seed: Training seed that tells networks of one method apart.
        fingerprint: Fingerprint of the network, see `eval.fingerprint`.
        condition: What was done to the images.
        image_set: Which images.
        seed: Seed of the evaluation.
        predictions: (n,) predicted classes; -1 where no valid class stands for a broken image.
        confidences: (n,) top-1 probabilities, 0 to 1.
        seconds: Wall time.
        queries: Forward passes (images times passes) an attack used.
        gradients: Backward passes an attack used.
        notes: Remarks for the reader, e.g. ``"random between equal calls"``.
        status: ``COMPLETE``; ``BOUND`` if a budget ended it; ``NOT_APPLICABLE`` and ``NOT_RUN`` if no attack ran,
            with the predictions of the clean images.
        details: What a suite of attacks said (`eval.suite_record`), as JSON; else empty.
    """

    model: str
    model_seed: int
    fingerprint: str
    condition: Condition
    image_set: ImageSet
    seed: int
    predictions: NDArray[np.integer]
    confidences: NDArray[np.floating]
    seconds: float = 0.0
    queries: int = 0
    gradients: int = 0
    notes: str = ""
    status: str = COMPLETE
    details: str = ""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether each image is classified rightly."""
        return np.asarray(self.predictions) == self.image_set.labels


def cell_key(
    model: str, model_seed: int, condition: Condition, image_set: ImageSet, seed: int
) -> dict[str, str | int]:
    """The columns that identify a cell, in the order of `KEY_COLUMNS`."""
    values = (
        model,
        model_seed,
        image_set.dataset,
        condition.kind,
        condition.name,
        condition.severity,
        condition.threat,
        condition.source,
        seed,
        image_set.key,
    )
    return dict(zip(KEY_COLUMNS, values, strict=True))


def to_row(cell: CellResult) -> dict[str, Any]:
    """All columns of a cell.

    Raises:
        InputError: The predictions or confidences are not one for each image.
    """
    images = len(cell.image_set.indices)
    for name, values in (("predictions", cell.predictions), ("confidences", cell.confidences)):
        if np.shape(values) != (images,):
            raise InputError(f"{name} of shape {np.shape(values)} for {images} images: expected ({images},).")
    units = np.rint(np.asarray(cell.confidences, dtype=np.float64) * CONFIDENCE_UNITS)
    return {
        **cell_key(cell.model, cell.model_seed, cell.condition, cell.image_set, cell.seed),
        "fingerprint": cell.fingerprint,
        "images": images,
        "correct": int(cell.correct.sum()),
        "status": cell.status,
        "mean_confidence": float(np.mean(cell.confidences)),
        "ece": calibration_error(cell.confidences, cell.correct),
        "queries": cell.queries,
        "gradients": cell.gradients,
        "seconds": cell.seconds,
        "notes": cell.notes,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "details": cell.details,
        "predictions": pack(cell.predictions, "<i2"),
        "confidences": pack(units, "<u2"),
    }


def from_row(row: Mapping[Any, Any]) -> CellResult:
    """Rebuild a cell from a row of `ResultsStore.to_frame(predictions=True)`."""
    images = ImageSet(row["dataset"], row["dataset_fingerprint"], row["indices"], row["labels"])
    condition = Condition(row["kind"], row["condition"], int(row["severity"]), row["threat"], row["source"])
    return CellResult(
        model=row["model"],
        model_seed=int(row["model_seed"]),
        fingerprint=row["fingerprint"],
        condition=condition,
        image_set=images,
        seed=int(row["seed"]),
        predictions=row["predictions"],
        confidences=row["confidences"],
        seconds=float(row["seconds"]),
        queries=int(row["queries"]),
        gradients=int(row["gradients"]),
        notes=row["notes"],
        status=row["status"],
        details=row["details"],
    )


def pack(values: NDArray[np.generic], dtype: str) -> bytes:
    """Array to compressed bytes of the given little-endian type."""
    return zlib.compress(np.ascontiguousarray(values, dtype=dtype).tobytes(), 6)


def unpack(blob: bytes, dtype: str) -> NDArray[Any]:
    """Inverse of `pack`: a one-dimensional array."""
    return np.frombuffer(zlib.decompress(blob), dtype=dtype)
