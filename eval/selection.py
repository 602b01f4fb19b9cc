"""Which rows of a results table may be set beside each other."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from ..configs.errors import InputError, unknown_name

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
        dataset: Its name; None takes the only one there is.

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


def cell_label(kind: str, condition: str, severity: int, threat: str) -> str:
    """Short readable name of a cell, e.g. ``"shot_noise 3"`` or ``"pgd-10 linf 8/255"``."""
    return " ".join(str(part) for part in (condition, severity or threat) if part)
