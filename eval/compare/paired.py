"""Networks on the same images: which rows may be set beside each other, and who is right on which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...configs.errors import InputError, unknown_name
from ..results.records import UNMEASURED, cell_label

CELL_COLUMNS = ["kind", "condition", "severity", "threat"]

NETWORK_COLUMNS = ["model", "model_seed"]

_MEASUREMENT_COLUMNS = [*CELL_COLUMNS, "source", "seed", "image_set"]


class Selection(NamedTuple):
    """Rows that every network has, and the labels of the cells that were left out because some lack them."""

    frame: pd.DataFrame
    left_out: tuple[str, ...]


def one_dataset(frame: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """Rows of one data set.

    Args:
        frame: Rows as `ResultsStore.to_frame` gives them.
        dataset: Name of the data set; None takes the only one.

    Raises:
        InputError: There are no rows, the name is unknown, or there are several and none is named.
    """
    names = list(dict.fromkeys(frame["dataset"]))
    if not names:
        raise InputError("the results hold no finished cells: run `evaluate` first.")
    if dataset is None:
        if len(names) > 1:
            raise InputError(f"the results hold several data sets ({', '.join(names)}): name one.")
        return frame
    if dataset not in names:
        raise unknown_name("data set", dataset, names, where="the results")
    return frame[frame["dataset"] == dataset]


def common_cells(frame: pd.DataFrame) -> Selection:
    """One row for each network and cell, measured on the same images in the same way for all networks.

    Where a cell was measured on several choices of images, the one with the most images is kept; official
    files go before the generator, and the later evaluation before the earlier one.

    Args:
        frame: Rows of one data set.

    Returns:
        The kept rows in their old order, and the labels of cells that not every network has.
    """
    networks = len(frame[NETWORK_COLUMNS].drop_duplicates())
    counts = frame.groupby(_MEASUREMENT_COLUMNS)["model"].transform("size")
    shared = frame[counts == networks]
    ranked = shared.assign(position=range(len(shared))).sort_values(
        ["images", "source", "position"], ascending=[False, True, False], kind="stable"
    )
    best = ranked.drop_duplicates(CELL_COLUMNS)[_MEASUREMENT_COLUMNS]
    kept = shared.merge(best, on=_MEASUREMENT_COLUMNS, how="inner")
    have = set(map(tuple, kept[CELL_COLUMNS].itertuples(index=False, name=None)))
    cells = frame[CELL_COLUMNS].drop_duplicates().itertuples(index=False, name=None)
    return Selection(kept, tuple(cell_label(*cell) for cell in cells if tuple(cell) not in have))


class CellId(NamedTuple):
    """A condition at one severity or under one threat."""

    kind: str
    condition: str
    severity: int
    threat: str

    @property
    def label(self) -> str:
        """Short readable name, e.g. ``"shot_noise 3"``."""
        return cell_label(*self)


class Outcome(NamedTuple):
    """(n,) positions in the data set, ascending, and (n,) whether each image is classified rightly."""

    indices: NDArray[np.int32]
    correct: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of every network in every cell.

    Attributes:
        cells: The cells, in the order they were measured.
        seeds: Training seeds of each model, in ascending order.
        table: Outcome by (model, training seed, cell).
        unattacked: Keys of the table where no attack ran (not applicable, or beyond the budget): the outcome there is
            that of the clean images, and proves nothing.
    """

    cells: tuple[CellId, ...]
    seeds: dict[str, tuple[int, ...]]
    table: dict[tuple[str, int, CellId], Outcome]
    unattacked: frozenset[tuple[str, int, CellId]] = frozenset()

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Outcomes:
        """Collect outcomes from rows with predictions, one row for each network and cell."""
        table: dict[tuple[str, int, CellId], Outcome] = {}
        seeds: dict[str, set[int]] = {}
        unattacked = set()
        for row in frame.to_dict("records"):
            cell = CellId(row["kind"], row["condition"], int(row["severity"]), row["threat"])
            key = (row["model"], int(row["model_seed"]), cell)
            if key in table:
                raise InputError(
                    f"cell {cell.label!r} of {row['model']!r} occurs twice: select one choice of images."
                )
            order = np.argsort(row["indices"], kind="stable")
            table[key] = Outcome(row["indices"][order], (row["predictions"] == row["labels"])[order])
            seeds.setdefault(row["model"], set()).add(key[1])
            if row["status"] in UNMEASURED:
                unattacked.add(key)
        cells = tuple(dict.fromkeys(cell for _, _, cell in table))
        ordered = {model: tuple(sorted(found)) for model, found in seeds.items()}
        return cls(cells, ordered, table, frozenset(unattacked))

    def select(self, *, kind: str, threat: str | None = None) -> list[CellId]:
        """Cells of one kind, and under one threat where it is given."""
        return [cell for cell in self.cells if cell.kind == kind and threat in (None, cell.threat)]

    @property
    def measured(self) -> list[CellId]:
        """Cells that were measured for every network."""
        missing = {cell for _, _, cell in self.unattacked}
        return [cell for cell in self.cells if cell not in missing]

    @property
    def threats(self) -> list[str]:
        """Threat models under which some attack ran on every network, in the order they were measured."""
        named = dict.fromkeys(cell.threat for cell in self.cells if cell.kind == "attack")
        return [threat for threat in named if not self.without_attack(threat)]

    def without_attack(self, threat: str) -> list[str]:
        """Models of which some network met no attack at all under a threat."""
        cells = self.select(kind="attack", threat=threat)
        return [
            model
            for model, seeds in self.seeds.items()
            if any(all((model, seed, cell) in self.unattacked for cell in cells) for seed in seeds)
        ]

    def scores(self, model: str, seed: int, cells: Sequence[CellId]) -> NDArray[np.float64]:
        """(n, cells) 1 where right, 0 where wrong, on the images that all these cells share."""
        outcomes = [self.table[model, seed, cell] for cell in cells]
        shared = reduce(np.intersect1d, [outcome.indices for outcome in outcomes])
        if not len(shared):
            raise InputError("the cells share no images: evaluate them with one plan.")
        columns = [outcome.correct[np.isin(outcome.indices, shared)] for outcome in outcomes]
        return np.stack(columns, axis=1).astype(np.float64)

    def clean_accuracy(self, model: str, seed: int, cell: CellId) -> float:
        """Accuracy without corruption or attack on the images of a cell; NaN where not all were measured."""
        outcome = self.table[model, seed, cell]
        for clean in self.select(kind="clean"):
            reference = self.table[model, seed, clean]
            same = np.isin(reference.indices, outcome.indices)
            if same.sum() == len(outcome.indices):
                return float(reference.correct[same].mean())
        return float("nan")

    def image_means(self, model: str, cells: Sequence[CellId], *, worst: bool = False) -> NDArray[np.float64]:
        """(seeds, n) score of each image: its mean over the cells, or with ``worst`` its minimum.

        With ``worst`` an image counts as right only where no attack among the cells broke it.
        """
        scores = [
            self.scores(model, seed, [cell for cell in cells if (model, seed, cell) not in self.unattacked])
            for seed in self.seeds[model]
        ]
        return np.stack([values.min(axis=1) if worst else values.mean(axis=1) for values in scores])
