"""Merge results stores into one that is small enough for the repository.

    python benchmarks/slim_store.py merged.sqlite docs/results/field.sqlite runs/gpu/*.sqlite [--without MODEL ...]

Images are put in the order of their labels, in which predictions take half the bytes. Confidences of single images
become 0, which no table needs; their mean and calibration error stay. Corrupted images made on different machines,
which differ in a few bits, count as the same source; of cells that are then equal the last one stays. Certificates,
whose details are ordered as the images are, do not fit.
"""

from __future__ import annotations

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from warplca.configs import InputError
from warplca.configs.atomic import file_written_whole
from warplca.eval import ResultsStore
from warplca.eval.results.database import pack, unpack
from warplca.eval.results.records import SMOOTHED, ImageSet

SOURCE = "files"


def slim(out: Path, stores: list[Path], without: list[str], dataset: str | None) -> None:
    """Write the merged store; ``dataset`` renames the data set."""
    if out.exists():
        raise InputError(
            f"{out} exists; give a new file, and the old one among the stores to keep what it holds."
        )
    with file_written_whole(out) as target:
        for path in stores:
            with ResultsStore(target) as merged:
                merged.merge(path)
        with closing(sqlite3.connect(target)) as database, database:
            database.executemany("DELETE FROM cells WHERE model = ?", [(name,) for name in without])
            database.execute("UPDATE OR REPLACE cells SET source = ? WHERE source LIKE 'files %'", (SOURCE,))
            certified = database.execute("SELECT 1 FROM cells WHERE kind IN (?, ?)", SMOOTHED).fetchone()
            if certified:
                raise InputError("one of the stores has certificates; leave it out.")
            _sort(database, dataset)
        with closing(sqlite3.connect(target)) as database:
            database.execute("VACUUM")


def _sort(database: sqlite3.Connection, dataset: str | None) -> None:
    """Put the images of every set in the order of their labels, and forget the confidences of single ones."""
    for key, name, mark, *packed in database.execute("SELECT * FROM image_sets").fetchall():
        indices, labels = unpack(packed[0], "<i4"), unpack(packed[1], "<i2")
        order = np.lexsort((indices, labels))
        images = ImageSet(dataset or name, mark, indices[order], labels[order])
        packed = pack(images.indices, "<i4"), pack(images.labels, "<i2")
        values = (images.key, images.dataset, images.fingerprint, *packed)
        database.execute("INSERT OR IGNORE INTO image_sets VALUES (?, ?, ?, ?, ?)", values)
        nothing = pack(np.zeros(len(order)), "<u2")
        rows = database.execute("SELECT rowid, predictions FROM cells WHERE image_set = ?", (key,)).fetchall()
        database.executemany(
            "UPDATE OR REPLACE cells SET image_set = ?, dataset = ?, predictions = ?, confidences = ? WHERE rowid = ?",
            [
                (images.key, images.dataset, pack(unpack(blob, "<i2")[order], "<i2"), nothing, row)
                for row, blob in rows
            ],
        )
    database.execute("DELETE FROM image_sets WHERE key NOT IN (SELECT image_set FROM cells)")


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("out", type=Path)
    options.add_argument("stores", nargs="+", type=Path)
    options.add_argument("--without", nargs="+", default=[], help="models to leave out")
    options.add_argument("--dataset", help="name of the data set, for all of them")
    arguments = options.parse_args()
    try:
        slim(arguments.out, arguments.stores, arguments.without, arguments.dataset)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
