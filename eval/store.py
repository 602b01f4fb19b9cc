"""The results store: one SQLite file that holds the prediction of every image in every finished cell.

Each cell is written in one transaction, so a killed run leaves whole cells only. Predictions
(zlib of int16) and top-1 confidences (zlib of uint16, in units of 1/65535) lie beside the counts: paired
tests and a later start need them. Images and labels are stored once for each choice of images.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd

from ..configs.errors import InputError
from .cells import Condition, ImageSet
from .records import (
    BLOB_COLUMNS,
    COLUMNS,
    CONFIDENCE_UNITS,
    FACT_COLUMNS,
    KEY_COLUMNS,
    SCHEMA,
    CellResult,
    cell_key,
    from_row,
    pack,
    to_row,
    unpack,
)
from .statistics import wilson_interval

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x77617270  # "warp"

_FRAME_COLUMNS = (
    *KEY_COLUMNS,
    "images",
    "correct",
    "accuracy",
    "low",
    "high",
    *FACT_COLUMNS[3:],
    "fingerprint",
)


class ResultsStore:
    """Finished cells in a SQLite file, or in memory.

    Args:
        path: The file, made where absent; None keeps everything in memory.
        read_only: Open an existing file without the right to change it.

    Raises:
        InputError: The file is no results store, is of another schema version, or cannot be opened.
    """

    def __init__(self, path: str | Path | None = None, *, read_only: bool = False) -> None:
        self.path = None if path is None else Path(path)
        if read_only and (self.path is None or not self.path.is_file()):
            raise InputError(f"results file {self.path} does not exist: give the path that `evaluate` wrote.")
        with self._clear_errors():
            self._connection = self._connect(read_only)
            try:
                self._check_schema(read_only)
            except (sqlite3.Error, InputError):
                self._connection.close()
                raise

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        if self.path is None:
            return sqlite3.connect(":memory:", isolation_level=None)
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if read_only else "rwc"
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=60.0)

    def _check_schema(self, read_only: bool) -> None:
        execute = self._connection.execute
        application = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables == 0 and application == 0 and not read_only:
            with self._transaction():
                self._create_tables()
        elif application != APPLICATION_ID:
            raise InputError(
                f"{self.path} is a SQLite file but no warplca results store: choose another path."
            )
        elif version != SCHEMA_VERSION:
            raise InputError(
                f"results store {self.path} has schema version {version}, expected {SCHEMA_VERSION}: "
                "use the warplca version that wrote it, or evaluate into a new file."
            )
        if not read_only:
            execute("PRAGMA journal_mode = WAL")

    def _create_tables(self) -> None:
        execute = self._connection.execute
        # A second process may have made the tables while this one waited for the lock.
        if execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        for statement in SCHEMA.split(";"):
            if statement.strip():
                execute(statement)
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn SQLite's and the file system's failures into sentences a user can act on."""
        try:
            yield
        except OSError as error:
            raise InputError(f"cannot use {self.path} as results store: {error.strerror}.") from error
        except sqlite3.DatabaseError as error:
            raise InputError(_explain(error, self.path)) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._clear_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def save(self, cell: CellResult) -> None:
        """Write one finished cell in one transaction; a cell with the same key is replaced.

        Raises:
            InputError: The disk is full, the file cannot be written, or the arrays do not fit the images.
        """
        row = to_row(cell)
        images = cell.image_set
        blobs = (pack(images.indices, "<i4"), pack(images.labels, "<i2"))
        with self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO image_sets VALUES (?, ?, ?, ?, ?)",
                (images.key, images.dataset, images.fingerprint, *blobs),
            )
            self._insert([row[column] for column in COLUMNS])

    def _insert(self, values: Sequence[object]) -> None:
        marks = ", ".join("?" for _ in COLUMNS)
        self._connection.execute(
            f"INSERT OR REPLACE INTO cells ({', '.join(COLUMNS)}) VALUES ({marks})", tuple(values)
        )

    def has(self, model: str, model_seed: int, condition: Condition, image_set: ImageSet, seed: int) -> bool:
        """Whether this cell is finished."""
        key = cell_key(model, model_seed, condition, image_set, seed)
        where = " AND ".join(f"{column} = ?" for column in KEY_COLUMNS)
        with self._clear_errors():
            found = self._connection.execute(
                f"SELECT 1 FROM cells WHERE {where}", tuple(key.values())
            ).fetchone()
        return found is not None

    def discard_stale(self, model: str, model_seed: int, fingerprint: str) -> int:
        """Remove the rows that another network left under this name; returns how many, and logs it."""
        with self._transaction():
            removed = self._connection.execute(
                "DELETE FROM cells WHERE model = ? AND model_seed = ? AND fingerprint != ?",
                (model, model_seed, fingerprint),
            ).rowcount
        if removed:
            logger.warning(
                "model %r (training seed %d) differs from the one measured before under this name: "
                "its %d old rows are replaced",
                model,
                model_seed,
                removed,
            )
        return removed

    def to_frame(self, *, predictions: bool = False) -> pd.DataFrame:
        """All cells as a table, in the order they were first finished.

        Args:
            predictions: Add the columns ``indices``, ``labels``, ``predictions`` and ``confidences``, whose
                entries are arrays over the images.

        Returns:
            One row a cell: the key, ``images``, ``correct``, ``accuracy`` with the bounds ``low`` and ``high``
            of Wilson's 95 % interval, ``mean_confidence``, ``ece`` (expected calibration error), ``queries``,
            ``gradients``, ``seconds``, ``notes``, ``created``, ``fingerprint``.
        """
        columns = [*KEY_COLUMNS, *FACT_COLUMNS, *(BLOB_COLUMNS if predictions else ())]
        with self._clear_errors():
            rows = self._connection.execute(
                f"SELECT {', '.join(columns)} FROM cells ORDER BY rowid"
            ).fetchall()
        frame = pd.DataFrame(rows, columns=pd.Index(columns))
        intervals = [
            wilson_interval(int(c), int(n)) for c, n in zip(frame["correct"], frame["images"], strict=True)
        ]
        for column, field in (("accuracy", "mean"), ("low", "low"), ("high", "high")):
            frame[column] = np.array([getattr(interval, field) for interval in intervals], dtype=np.float64)
        frame = frame[list(_FRAME_COLUMNS) + list(BLOB_COLUMNS if predictions else ())]
        if predictions:
            known = self._image_sets()
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
        with self._clear_errors():
            rows = self._connection.execute(
                "SELECT dataset, fingerprint, indices, labels FROM image_sets"
            ).fetchall()
        sets = [ImageSet(name, mark, unpack(i, "<i4"), unpack(y, "<i2")) for name, mark, i, y in rows]
        return {images.key: images for images in sets}

    def merge(self, other: ResultsStore | str | Path) -> int:
        """Copy every cell of another store into this one, replacing equal keys; returns their number."""
        source = other if isinstance(other, ResultsStore) else ResultsStore(other, read_only=True)
        with source._clear_errors():
            sets = source._connection.execute("SELECT * FROM image_sets").fetchall()
            rows = source._connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM cells ORDER BY rowid"
            ).fetchall()
        with self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO image_sets VALUES (?, ?, ?, ?, ?)", sets)
            for row in rows:
                self._insert(row)
        if source is not other:
            source.close()
        return len(rows)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, path: str | Path | None = None) -> Self:
        """Build a store from a table that `to_frame(predictions=True)` made.

        Raises:
            InputError: The table lacks columns, most often because it was made without predictions.
        """
        needed = (*KEY_COLUMNS, *BLOB_COLUMNS, "fingerprint", "dataset_fingerprint", "indices", "labels")
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
        with contextlib.suppress(
            sqlite3.Error
        ):  # another writer, or a full disk: the file stays valid as it is
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _explain(error: sqlite3.DatabaseError, path: Path | None) -> str:
    """One sentence of advice for a SQLite failure."""
    text = str(error)
    if "full" in text:
        return f"no space left to write results to {path}: finished cells are safe; free space and run again."
    if "readonly" in text or "unable to open" in text:
        return f"cannot write results to {path} ({text}): choose a path in a folder you may write to."
    if "locked" in text:
        return f"another program holds the results file {path}: close it and run again."
    return (
        f"{path} is no warplca results store or is damaged ({text}): choose another path or restore a copy."
    )
