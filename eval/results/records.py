"""One finished cell as a value (which images, under which condition, answered how) and as a row of the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...configs.errors import InputError, brief
from ..compare.statistics import calibration_error
from .database import pack


@dataclass(frozen=True)
class ImageSet:
    """A choice of images from one data set, with their labels.

    Attributes:
        dataset: Name of the data set.
        fingerprint: Fingerprint of the whole data set's contents.
        indices: (n,) where each image stands in the set it came from (`ImageDataset.indices`), int32.
        labels: (n,) true classes, int16.
    """

    dataset: str
    fingerprint: str
    indices: NDArray[np.int32]
    labels: NDArray[np.int16]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(f"{self.dataset}\0{self.fingerprint}\0".encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i4").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i2").tobytes())
        object.__setattr__(self, "key", digest.hexdigest()[:32])


SMOOTHED = CERTIFICATE, SMOOTHED_ATTACK = "certificate", "smoothed attack"
"""Kinds of cells that concern a smoothed classifier; attacks on its base are of the kind "attack"."""


@dataclass(frozen=True)
class Condition:
    """One condition under which a set of images is classified.

    Attributes:
        kind: ``"clean"``, ``"corruption"``, ``"attack"``, or of a smoothed classifier ``"certificate"`` and
            ``"smoothed attack"``.
        name: ``"clean"``, the corruption (or a chain joined by ``+``), the attack, or the noise of smoothing.
        severity: 1 to 5 for a corruption, otherwise 0.
        threat: The threat model of an attack, the ball of a certificate, otherwise empty.
        source: Source of corrupted images, e.g. ``"generator"`` or ``"official files"``; the samples of a
            certificate; else empty.
    """

    kind: str
    name: str
    severity: int = 0
    threat: str = ""
    source: str = ""

    @property
    def label(self) -> str:
        """Short readable name, e.g. ``"shot_noise 3"`` or ``"pgd-10 linf 8/255"``."""
        return cell_label(self.kind, self.name, self.severity, self.threat)


def cell_label(kind: str, condition: str, severity: int, threat: str) -> str:
    """Short readable name of a cell, e.g. ``"shot_noise 3"`` or ``"certificate, sigma 0.25, 10000 samples l2 0.5"``."""
    smoothed = f"{kind}, " if kind in SMOOTHED else ""
    return smoothed + " ".join(str(part) for part in (condition, severity or threat) if part)


@dataclass(frozen=True)
class Entry:
    """Under which name a network's results are kept.

    Attributes:
        name: The model's name, or the method's where several networks were trained.
        seed: Training seed that distinguishes several networks of one name.
        replace: Delete what the store has of another network under this name and seed; else that is an error.
    """

    name: str
    seed: int = 0
    replace: bool = False


def choose_images(labels: NDArray[np.integer], count: int | None, seed: int) -> NDArray[np.intp]:
    """First ``count`` of a seeded class-balanced permutation of the images.

    Classes take turns in random order, so every prefix is balanced to within one image (until a class is used
    up), and a smaller choice is a part of a larger one.

    Args:
        labels: (n,) class of each image.
        count: Number of images at most; 0 or None means all.
        seed: Seed of the permutation.

    Returns:
        (n,) positions.
    """
    total = len(labels)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(total)
    turn = np.empty(total, dtype=np.int64)
    for value in np.unique(labels):
        members = shuffled[labels[shuffled] == value]
        turn[members] = np.arange(members.size)
    order = np.lexsort((rng.random(total), turn))
    return order[: count or total]


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

TF32_NOTE = "Convolutions in TF32."

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
    """The answers of one model in one cell.

    Attributes:
        model: Name of the model (of the method, where several networks were trained).
        model_seed: Training seed that distinguishes networks of one method.
        fingerprint: Fingerprint of the network, see `eval.fingerprint`.
        condition: The corruption or attack.
        image_set: The images.
        seed: Seed of the evaluation.
        predictions: (n,) predicted classes; -1 where no valid class stands for a broken image.
        confidences: (n,) top-1 probabilities, 0 to 1.
        seconds: Wall time.
        queries: Forward passes (images times passes) an attack used.
        gradients: Backward passes an attack used.
        notes: Remarks for the reader, e.g. ``"random between equal calls"``.
        status: ``COMPLETE``; ``BOUND`` if a budget ended it; ``NOT_APPLICABLE`` and ``NOT_RUN`` if no attack ran,
            with the predictions of the clean images.
        details: Outcome of a suite of attacks (`SuiteRecord`), the radii of a smoothed classifier (`Bracket`), or of a
            clean or corrupted cell the share of images that each gate let through untouched, as JSON; else empty.
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


TEXT = frozenset(
    {
        "model",
        "dataset",
        "kind",
        "condition",
        "threat",
        "source",
        "image_set",
        "fingerprint",
        "status",
        "notes",
    }
    | {"created", "details"}
)
KINDS = frozenset({"clean", "corruption", "attack", *SMOOTHED})
WHOLE = frozenset({"model_seed", "severity", "seed", "images", "correct", "queries", "gradients"})


def check_rows(rows: Sequence[Sequence[object]], columns: Sequence[str], path: object) -> None:
    """Refuse rows whose values have other types than the schema says: SQLite does not keep to it by itself.

    Raises:
        InputError: If one has; the message names the column.
    """
    expected = [
        str if c in TEXT else int if c in WHOLE else bytes if c in BLOB_COLUMNS else (int, float)
        for c in columns
    ]
    for row in rows:
        for value, kind, column in zip(row, expected, columns, strict=True):
            if not isinstance(value, kind) or (column == "kind" and value not in KINDS):
                raise InputError(
                    f"{path} is damaged: {column} is {brief(value)} in a row; restore a copy of it."
                )
        images, correct = row[columns.index("images")], row[columns.index("correct")]
        if not images > 0 or not 0 <= correct <= images:  # type: ignore[operator]
            raise InputError(
                f"{path} is damaged: {correct} of {images} images are right in a row; restore a copy."
            )
