"""The results store: one SQLite file that holds the prediction of every image in every finished cell.

Each cell is written in one transaction, so a killed run leaves whole cells only. Predictions
(zlib of int16) and top-1 confidences (zlib of uint16, in units of 1/65535) lie beside the counts: paired
tests and a later start need them. Images and labels are stored once for each choice of images. A suite of
attacks keeps each image's outcome under each attack as well, batch by batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from ...configs.errors import InputError
from ..compare.statistics import wilson_interval
from .certificates import StoredImages, has_table
from .database import Database, pack, unpack
from .records import (
    BLOB_COLUMNS,
    COLUMNS,
    CONFIDENCE_UNITS,
    FACT_COLUMNS,
    KEY_COLUMNS,
    SCHEMA,
    UNMEASURED,
    CellResult,
    Entry,
    ImageSet,
    check_rows,
    from_row,
    to_row,
)
from .suites import StoredOutcomes, attribution_text, verdict_text

logger = logging.getLogger(__name__)

_FRAME_COLUMNS = (
    *KEY_COLUMNS,
    "images",
    "correct",
    "accuracy",
    "low",
    "high",
    "status",
    "verdict",
    "attribution",
    *FACT_COLUMNS[4:],
    "fingerprint",
)

_INSERT = f"INSERT OR REPLACE INTO cells ({', '.join(COLUMNS)}) VALUES ({', '.join('?' for _ in COLUMNS)})"


_ANOTHER = "WHERE model = ? AND model_seed = ? AND fingerprint != ?"


def _of_another(
    model: str, model_seed: int, fingerprint: str, dataset: str | None
) -> tuple[str, list[object]]:
    """The condition, and its values, for rows of another network under this name."""
    values: list[object] = [model, model_seed, fingerprint]
    if dataset is None:
        return _ANOTHER, values
    return f"{_ANOTHER} AND image_set IN (SELECT key FROM image_sets WHERE fingerprint = ?)", [
        *values,
        dataset,
    ]


class Found(NamedTuple):
    """Progress of a cell, and the outcome of its suite of attacks (JSON, empty for others)."""

    status: str
    details: str


class ResultsStore:
    """Finished cells in a SQLite file, or in memory.

    Args:
        path: The file, made where absent; None keeps everything in memory.
        read_only: Open an existing file without the right to change it.

    Raises:
        InputError: The file is no results store, is of another schema version, or cannot be opened.
    """

    def __init__(self, path: str | Path | None = None, *, read_only: bool = False) -> None:
        self._database = Database(None if path is None else Path(path), SCHEMA, read_only=read_only)

    def save(self, cell: CellResult) -> None:
        """Write one finished cell in one transaction; an older one of the same network and key is replaced.

        Raises:
            InputError: The disk is full, the file cannot be written, the arrays do not fit the images, or another
                network has a cell with this key.
        """
        row = to_row(cell)
        images = cell.image_set
        blobs = (pack(images.indices, "<i4"), pack(images.labels, "<i2"))
        with self._database.transaction():
            self._refuse_replacing(row[column] for column in (*KEY_COLUMNS, "fingerprint"))
            self._database.change(
                "INSERT OR IGNORE INTO image_sets VALUES (?, ?, ?, ?, ?)",
                (images.key, images.dataset, images.fingerprint, *blobs),
            )
            self._database.change(_INSERT, [row[column] for column in COLUMNS])

    def find(self, key: Sequence[str | int]) -> Found | None:
        """Return the progress of the cell with this key, the values of `KEY_COLUMNS`; None without any."""
        where = " AND ".join(f"{column} = ?" for column in KEY_COLUMNS)
        rows = self._database.query(f"SELECT status, details FROM cells WHERE {where}", list(key))
        return Found(*rows[0]) if rows else None

    def outcomes(
        self,
        *,
        model: str,
        model_seed: int,
        fingerprint: str,
        image_set: ImageSet,
        seed: int,
        batch_size: int,
        shape: tuple[int, ...],
        settings: Mapping[str, str],
    ) -> StoredOutcomes:
        """Return the store in which a suite of attacks keeps each image's outcome of one network between runs.

        Args:
            model: Name of the model.
            model_seed: Training seed of the model.
            fingerprint: Fingerprint of the network.
            image_set: The images, whose positions are the outcomes' indices.
            seed: Seed of the attacks.
            batch_size: Images in one batch: it decides which images are attacked together.
            shape: (C, H, W) of an image.
            settings: Digest of each attack's settings, see `eval.outcomes.attack_settings`.
        """
        key = (model, model_seed, fingerprint, image_set.key, seed, batch_size)
        return StoredOutcomes(self._database, key, shape, settings)

    def images(self, key: tuple[str | int, ...]) -> StoredImages:
        """Return the store of single images of a smoothed network between runs; see `StoredImages`."""
        return StoredImages.open(self._database, key)

    def claim(self, entry: Entry, fingerprint: str, dataset: str | None = None) -> None:
        """Take a name and a training seed for one network: refuse or, where it replaces, delete another one's rows.

        Args:
            entry: Name and seed.
            fingerprint: Fingerprint of the network.
            dataset: Fingerprint of the only data set whose rows count; None for all.

        Raises:
            InputError: See :meth:`refuse_other`.
        """
        treat = self.discard_other if entry.replace else self.refuse_other
        treat(entry.name, entry.seed, fingerprint, dataset)

    def refuse_other(self, model: str, model_seed: int, fingerprint: str, dataset: str | None = None) -> None:
        """Refuse to mix a network's rows with those of another one under the same name and seed.

        Args:
            model: Name of the model.
            model_seed: Training seed of the model.
            fingerprint: Fingerprint of the network.
            dataset: Fingerprint of the only data set whose rows count; None for all.

        Raises:
            InputError: There are such rows; the message says how to keep both, and how to be rid of the old ones.
        """
        where, values = _of_another(model, model_seed, fingerprint, dataset)
        count = self._database.query(f"SELECT count(*) FROM cells {where}", values)[0][0]
        if count:
            raise InputError(
                f"{self._database.path or 'the store'} has {count} results of another network under the name {model!r} "
                f"with training seed {model_seed}; give this one another name (--name) or seed (--model-seed), or "
                "delete the old ones by asking for it (--replace; in Python name=Entry(..., replace=True))."
            )

    def discard_other(self, model: str, model_seed: int, fingerprint: str, dataset: str | None = None) -> int:
        """Delete the rows that :meth:`refuse_other` refuses to mix with; returns how many, and logs it."""
        where, values = _of_another(model, model_seed, fingerprint, dataset)
        with self._database.transaction():
            removed = self._database.change(f"DELETE FROM cells {where}", values)
            self._database.change(f"DELETE FROM outcomes {where}", values)
            if has_table(self._database):
                on = "" if dataset is None else " AND dataset = ?"
                self._database.change(f"DELETE FROM smoothed {_ANOTHER}{on}", values)
        if removed:
            logger.warning(
                "deleted %d results of another network under the name %r (training seed %d)",
                removed,
                model,
                model_seed,
            )
        return removed

    def _refuse_replacing(self, key_and_fingerprint: Iterable[object]) -> None:
        *key, fingerprint = key_and_fingerprint
        where = " AND ".join(f"{column} = ?" for column in KEY_COLUMNS)
        rows = self._database.query(f"SELECT fingerprint FROM cells WHERE {where}", key)
        if rows and rows[0][0] != fingerprint:
            raise InputError(
                f"{self._database.path or 'the store'} has this result ({', '.join(map(str, key[:-1]))}) of another "
                "network under the same name; nothing was changed. Give one of them another name or seed."
            )

    def to_frame(self, *, predictions: bool = False) -> pd.DataFrame:
        """All cells as a table, in the order they were first finished.

        Args:
            predictions: Add the columns ``indices``, ``labels``, ``predictions`` and ``confidences``, whose
                entries are arrays over the images.

        Returns:
            One row a cell: the key, ``images``, ``correct``, ``accuracy`` with the bounds ``low`` and ``high``
            of Wilson's 95 % interval (NaN where nothing was measured), ``status`` (``"complete"``, ``"bound so
            far"`` where a budget ended a suite, ``"not applicable"``, ``"not run"``), ``verdict`` (of an attack:
            ``"not assessed"``, or a suite's), ``attribution`` (which attack of a suite broke how many),
            ``mean_confidence``, ``ece`` (expected calibration error), ``queries``, ``gradients``, ``seconds``,
            ``notes``, ``created``, ``fingerprint``.
        """
        arrays = ("details", *BLOB_COLUMNS) if predictions else ()
        columns = [*KEY_COLUMNS, *FACT_COLUMNS, "details", *BLOB_COLUMNS]
        rows = self._database.query(f"SELECT {', '.join(columns)} FROM cells ORDER BY rowid")
        check_rows(rows, columns, self._database.path)
        frame = pd.DataFrame(rows, columns=pd.Index(columns))
        intervals = [
            wilson_interval(int(c), int(n)) for c, n in zip(frame["correct"], frame["images"], strict=True)
        ]
        measured = ~frame["status"].isin(UNMEASURED)
        for column, field in (("accuracy", "mean"), ("low", "low"), ("high", "high")):
            values = np.array([getattr(interval, field) for interval in intervals], dtype=np.float64)
            frame[column] = np.where(measured, values, np.nan)
        cells = list(zip(frame["kind"], frame["details"], strict=True))
        frame["verdict"] = [verdict_text(details) if kind == "attack" else "" for kind, details in cells]
        frame["attribution"] = [
            attribution_text(details) if kind == "attack" else "" for kind, details in cells
        ]
        frame = frame[[*_FRAME_COLUMNS, *arrays]]
        if predictions:
            known = self._image_sets()
            if missing := next((key for key in frame["image_set"] if key not in known), None):
                raise InputError(
                    f"{self._database.path} is damaged: it lacks the image set {missing}; restore a copy."
                )
            sets = [known[key] for key in frame["image_set"]]
            arrays = {
                "predictions": [unpack(blob, "<i2") for blob in frame["predictions"]],
                "confidences": [
                    unpack(blob, "<u2") / np.float32(CONFIDENCE_UNITS) for blob in frame["confidences"]
                ],
                "indices": [images.indices for images in sets],
                "labels": [images.labels for images in sets],
                "dataset_fingerprint": [images.fingerprint for images in sets],
            }
            frame = frame.assign(**{name: pd.Series(v, frame.index, object) for name, v in arrays.items()})
        return frame

    def _image_sets(self) -> dict[str, ImageSet]:
        rows = self._database.query("SELECT dataset, fingerprint, indices, labels FROM image_sets")
        sets = [ImageSet(name, mark, unpack(i, "<i4"), unpack(y, "<i2")) for name, mark, i, y in rows]
        return {images.key: images for images in sets}

    def merge(self, other: ResultsStore | str | Path) -> int:
        """Copy every cell of another store into this one, replacing equal keys of the same network; returns how many.

        What unfinished suites kept of single images stays behind.

        Raises:
            InputError: Another network has a cell with the same key here; nothing is copied then.
        """
        source = other if isinstance(other, ResultsStore) else ResultsStore(other, read_only=True)
        sets = source._database.query("SELECT * FROM image_sets")
        rows = source._database.query(f"SELECT {', '.join(COLUMNS)} FROM cells ORDER BY rowid")
        places = [COLUMNS.index(column) for column in (*KEY_COLUMNS, "fingerprint")]
        with self._database.transaction():
            for row in rows:
                self._refuse_replacing(row[place] for place in places)
            self._database.insert("INSERT OR IGNORE INTO image_sets VALUES (?, ?, ?, ?, ?)", sets)
            self._database.insert(_INSERT, rows)
        if source is not other:
            source.close()
        return len(rows)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, path: str | Path | None = None) -> Self:
        """Build a store from a table that `to_frame(predictions=True)` made.

        Raises:
            InputError: The table lacks columns, most often because it was made without predictions.
        """
        needed = (
            *KEY_COLUMNS,
            *BLOB_COLUMNS,
            "details",
            "fingerprint",
            "dataset_fingerprint",
            "indices",
            "labels",
        )
        missing = [column for column in needed if column not in frame.columns]
        if missing:
            raise InputError(
                f"the table lacks the columns {', '.join(missing)}: make it with to_frame(predictions=True)."
            )
        store = cls(path)
        for row in frame.to_dict("records"):
            store.save(from_row(row))
        return store

    def close(self) -> None:
        """Close the file; with the last writer gone it is one plain file that read-only places can hold."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
