"""Give the rows of one network in results stores its present fingerprint, where fingerprints are computed anew.

    python benchmarks/rekey_results.py cifar10-slim-warp-lca OLD_FINGERPRINT STORE... --data cifar10.npz

A store is changed only if the network's predictions of the clean images are those that the store holds.
"""

from __future__ import annotations

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from warplca.data import ImageDataset, load_dataset
from warplca.eval import ResultsStore
from warplca.eval.measure.inference import classify, module_fingerprint, pixel_batches
from warplca.models import Classifier, load_checkpoint

SAME = 0.999  # share of equal predictions: rounding differs between machines


def same_predictions(model: Classifier, dataset: ImageDataset, rows: pd.DataFrame) -> float:
    """Share of the stored predictions of clean images that are this network's."""
    cell = rows[rows["kind"] == "clean"].iloc[0]
    batches = pixel_batches(dataset.images[cell["indices"]], 250, next(model.parameters()).device)
    answers = classify(model, batches, len(dataset.class_names))
    return float(np.mean(answers.predictions == cell["predictions"]))


def rekey(store: Path, old: str, new: str) -> int:
    """Change a fingerprint in every table that holds it; returns the number of rows."""
    with closing(sqlite3.connect(store)) as connection, connection:
        tables = ("cells", "outcomes")
        change = "UPDATE {} SET fingerprint = ? WHERE fingerprint = ?"
        return sum(connection.execute(change.format(table), (new, old)).rowcount for table in tables)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder, or name of a shipped classifier")
    parser.add_argument("old", help="the fingerprint in the stores")
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument(
        "--data", required=True, help="the images that were measured, as `warplca evaluate` takes it"
    )
    args = parser.parse_args()
    model, dataset = load_checkpoint(args.checkpoint), load_dataset(args.data, "test")
    new = module_fingerprint(model)
    for path in args.stores:
        with ResultsStore(path, read_only=True) as store:
            frame = store.to_frame(predictions=True)
        rows = frame[frame["fingerprint"] == args.old]
        if rows.empty:
            print(f"{path}: no row of {args.old}")
            continue
        share = same_predictions(model, dataset, rows)
        if share < SAME:
            raise SystemExit(
                f"{path}: only {share:.2%} of its clean predictions are this network's; nothing changed."
            )
        print(
            f"{path}: {share:.2%} of clean predictions equal, {rekey(path, args.old, new)} rows are now of {new}"
        )


if __name__ == "__main__":
    main()
