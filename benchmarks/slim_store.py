"""Merge results stores into one that is small enough for the repository.

    python benchmarks/slim_store.py docs/results/field.sqlite runs/gpu/*.sqlite [--without MODEL ...]

Images are put in the order of their labels, in which predictions take half the bytes. Confidences of single images
become 0, which no table needs; their mean and calibration error stay. Corrupted images made on different machines,
which differ in a few bits, count as the same source; of cells that are then equal the last one stays.
"""

from __future__ import annotations

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from warplca.configs.atomic import file_written_whole
from warplca.eval import ResultsStore
from warplca.eval.results.database import pack, unpack
from warplca.eval.results.records import ImageSet

SOURCE = "files"


def slim(out: Path, stores: list[Path], without: list[str]) -> None:
    """Write the merged store."""
    with file_written_whole(out) as target:
        for path in stores:
            with ResultsStore(target) as merged:
                merged.merge(path)
        with closing(sqlite3.connect(target)) as database, database:
            database.executemany("DELETE FROM cells WHERE model = ?", [(name,) for name in without])
            database.execute("UPDATE OR REPLACE cells SET source = ? WHERE source LIKE 'files %'", (SOURCE,))
            _sort(database)
        with closing(sqlite3.connect(target)) as database:
            database.execute("VACUUM")


def _sort(database: sqlite3.Connection) -> None:
    """Put the images of every set in the order of their labels, and forget the confidences of single ones."""
    for key, name, mark, *packed in database.execute("SELECT * FROM image_sets").fetchall():
        indices, labels = unpack(packed[0], "<i4"), unpack(packed[1], "<i2")
        order = np.argsort(labels, kind="stable")
        images = ImageSet(name, mark, indices[order], labels[order])
        database.execute(
            "UPDATE image_sets SET key = ?, indices = ?, labels = ? WHERE key = ?",
            (images.key, pack(images.indices, "<i4"), pack(images.labels, "<i2"), key),
        )
        nothing = pack(np.zeros(len(order)), "<u2")
        rows = database.execute("SELECT rowid, predictions FROM cells WHERE image_set = ?", (key,)).fetchall()
        database.executemany(
            "UPDATE cells SET image_set = ?, predictions = ?, confidences = ? WHERE rowid = ?",
            [(images.key, pack(unpack(blob, "<i2")[order], "<i2"), nothing, row) for row, blob in rows],
        )


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("out", type=Path)
    options.add_argument("stores", nargs="+", type=Path)
    options.add_argument("--without", nargs="+", default=[], help="models to leave out")
    arguments = options.parse_args()
    slim(arguments.out, arguments.stores, arguments.without)


if __name__ == "__main__":
    main()
