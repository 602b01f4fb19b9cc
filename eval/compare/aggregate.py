"""Averages over corruption cells as the literature defines them.

mCE of RobustBench is unnormalised: 100 * (1 - mean accuracy over the 15 standard corruptions and 5
severities); that of Hendrycks & Dietterich (ICLR 2019), relative to a baseline network's errors, is another figure.
Means here cover the standard corruptions only: the others and chains are for choosing models or for checks, and never
enter a benchmark figure.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ...configs.errors import InputError
from ...configs.plan import SEVERITIES
from ...data import CORRUPTIONS, STANDARD_CORRUPTIONS


def category(corruption: str) -> str:
    """``"noise"``, ``"blur"``, ``"weather"`` or ``"digital"`` for the 15 standard corruptions, else ``"extra"``.

    A chain of several corruptions is ``"chain"``.
    """
    if "+" in corruption:
        return "chain"
    return CORRUPTIONS[corruption].category if corruption in STANDARD_CORRUPTIONS else "extra"


def accuracy_table(frame: pd.DataFrame, *, order: Iterable[str] = STANDARD_CORRUPTIONS) -> pd.DataFrame:
    """Accuracy (0 to 1) of one network, a row for each corruption and a column for each severity.

    `data.STANDARD_CORRUPTIONS` is in Hendrycks's order; `data.ROBUSTBENCH_ORDER` holds the other usual one.

    Args:
        frame: Rows of one network, one for each cell.
        order: Corruptions first in the table; others follow in the order they were measured.

    Raises:
        InputError: A cell occurs twice: the rows mix networks, choices of images or sources.
    """
    cells = _corruption_rows(frame)
    if cells.duplicated(["condition", "severity"]).any():
        raise InputError(
            "a corruption cell occurs twice: give the rows of one network on one choice of images, "
            "as `common_cells` selects them."
        )
    table = cells.pivot(index="condition", columns="severity", values="accuracy")
    first = [name for name in order if name in table.index]
    rest = [name for name in dict.fromkeys(cells["condition"]) if name not in first]
    return table.loc[[*first, *rest]]


def corruption_means(frame: pd.DataFrame) -> pd.Series:
    """Mean accuracy (0 to 1) over the standard cells of each network, indexed by (model, model_seed)."""
    return _means(frame, [])["accuracy"]


def category_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of each network, a column for each category."""
    rows = _corruption_rows(frame)
    rows = rows.assign(category=[category(name) for name in rows["condition"]])
    return _means(rows, ["category"])["accuracy"].unstack("category")


def severity_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of each network, a column for each severity."""
    return _means(frame, ["severity"])["accuracy"].unstack("severity")


def is_complete(frame: pd.DataFrame) -> bool:
    """Whether every network has all 15 standard corruptions at all 5 severities."""
    wanted = {(name, severity) for name in STANDARD_CORRUPTIONS for severity in SEVERITIES}
    networks = _corruption_rows(frame).groupby(["model", "model_seed"])
    cells = [set(zip(rows["condition"], rows["severity"], strict=True)) for _, rows in networks]
    return bool(cells) and all(wanted <= found for found in cells)


def mean_corruption_error(frame: pd.DataFrame) -> pd.Series:
    """mCE in % as RobustBench computes it, unnormalised: 100 * (1 - mean accuracy), for each network.

    Raises:
        InputError: Some of the 75 cells are missing: the figure would not be comparable.
    """
    if not is_complete(frame):
        raise InputError(
            "mCE needs the 15 standard corruptions at 5 severities for every network: measure the rest, "
            "or use `corruption_means` and say over which cells."
        )
    return 100.0 * (1.0 - corruption_means(frame))


def _corruption_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["kind"] == "corruption"]


def _means(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean over the standard corruption cells of each network; every cell counts equally."""
    rows = _corruption_rows(frame)
    rows = rows[rows["condition"].isin(STANDARD_CORRUPTIONS)]
    return rows.groupby(["model", "model_seed", *by], sort=False)[["accuracy"]].mean()
