"""Merge results stores into one without the confidences of single images, which no table needs, for the repository.

    python benchmarks/slim_store.py docs/results/field.sqlite runs/gpu/*.sqlite

Their mean and calibration error stay; the single ones become 0. Corrupted images made on different machines, which
differ in a few bits, count as the same source.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from warplca.eval import ResultsStore
from warplca.eval.results.database import pack

SOURCE = "files"


def slim(out: Path, stores: list[Path]) -> None:
    """Write the merged store."""
    for path in stores:
        with ResultsStore(out) as merged:
            merged.merge(path)
    with closing(sqlite3.connect(out)) as database, database:
        for (images,) in database.execute("SELECT DISTINCT images FROM cells").fetchall():
            nothing = pack([0] * images, "<u2")
            database.execute("UPDATE cells SET confidences = ? WHERE images = ?", (nothing, images))
        database.execute("UPDATE OR REPLACE cells SET source = ? WHERE source LIKE 'files %'", (SOURCE,))
    with closing(sqlite3.connect(out)) as database:
        database.execute("VACUUM")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    slim(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
