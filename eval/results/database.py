"""The SQLite file behind the results store: opened, checked, written in transactions, closed as one plain file."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...configs.errors import InputError

SCHEMA_VERSION = 2

APPLICATION_ID = 0x77617270  # "warp"

_PATIENCE = 60.0  # seconds to wait for another process that writes


class Database:
    """A SQLite file, or a database in memory, whose failures are sentences.

    Args:
        path: The file, made where absent; None keeps everything in memory.
        schema: ``CREATE`` statements of a new file, separated by semicolons.
        read_only: Open an existing file without the right to change it.

    Raises:
        InputError: The file is no results store, is of another schema version, or cannot be opened.
    """

    def __init__(self, path: Path | None, schema: str, *, read_only: bool) -> None:
        self.path = path
        if read_only and (path is None or not path.is_file()):
            raise InputError(f"results file {path} does not exist: give the path that `evaluate` wrote.")
        with self._clear_errors():
            self._connection = self._connect(read_only)
            try:
                self._check_schema(schema, read_only)
            except (sqlite3.Error, InputError):
                self._connection.close()
                raise

    def query(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._clear_errors():
            return self._connection.execute(statement, tuple(values)).fetchall()

    def change(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run one statement inside a transaction; returns how many rows it touched."""
        return self._connection.execute(statement, tuple(values)).rowcount

    def insert(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for many rows inside a transaction."""
        self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all changes of the block, or none."""
        with self._clear_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        if self.path is None:
            return sqlite3.connect(":memory:", isolation_level=None)
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if read_only else "rwc"
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE)

    def _check_schema(self, schema: str, read_only: bool) -> None:
        application, version, tables = self._header()
        if tables == 0 and application == 0 and not read_only:
            with self.transaction():
                self._create_tables(schema)
        elif application != APPLICATION_ID:
            raise InputError(
                f"{self.path} is a SQLite file but no warplca results store: choose another path."
            )
        elif version != SCHEMA_VERSION:
            raise InputError(
                f"results store {self.path} has schema version {version}, expected {SCHEMA_VERSION}: "
                "use the warplca version that wrote it, or evaluate into a new file."
            )
        if not read_only and self._connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
            self._write_ahead()

    def _header(self) -> tuple[int, int, int]:
        """Application id, schema version and number of tables, all of one moment: others may be making them."""
        execute = self._connection.execute
        execute("BEGIN")
        try:
            application = execute("PRAGMA application_id").fetchone()[0]
            version = execute("PRAGMA user_version").fetchone()[0]
            return application, version, execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            if self._connection.in_transaction:
                execute("ROLLBACK")

    def _write_ahead(self) -> None:
        """Switch to the write-ahead log, which SQLite refuses at once, ignoring the timeout, while others write."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _create_tables(self, schema: str) -> None:
        execute = self._connection.execute
        # A second process may have made the tables while this one waited for the lock.
        if execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        for statement in schema.split(";"):
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

    def close(self) -> None:
        """Close the file; with the last writer gone it is one plain file that read-only places can hold."""
        with contextlib.suppress(
            sqlite3.Error
        ):  # another writer, or a full disk: the file stays valid as it is
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()


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


MOST_UNPACKED = 2**26  # bytes: sixteen million images


def pack(values: NDArray[np.generic], dtype: str) -> bytes:
    """Array to compressed bytes of the given little-endian type."""
    return zlib.compress(np.ascontiguousarray(values, dtype=dtype).tobytes(), 6)


def unpack(blob: bytes, dtype: str) -> NDArray[Any]:
    """Inverse of `pack`: a one-dimensional array.

    Raises:
        InputError: The bytes are damaged, or grow beyond what the largest data set needs.
    """
    try:
        opened = zlib.decompressobj()
        values = opened.decompress(blob, MOST_UNPACKED)
        if opened.unconsumed_tail or not opened.eof:
            raise ValueError("incomplete, or too large")
        return np.frombuffer(values, dtype=dtype)
    except (zlib.error, ValueError, TypeError) as error:
        raise InputError(f"the results store is damaged ({error}); restore a copy of it.") from error
