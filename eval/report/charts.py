"""The numbers of a comparison arranged for the report: coloured tables and lines over severity and epsilon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from ...data import STANDARD_CORRUPTIONS
from ..compare.aggregate import accuracy_table
from ..compare.statistics import Interval, seed_interval, wilson_interval
from ..compare.wording import SEEDS_FOR_METHODS, SIGNIFICANT, Comparison
from .figures import Line

ACCURACY_COLOURS = "cividis"

DIFFERENCE_COLOURS = "RdBu"

WORST_CASE = "worst case"

_LEAST_SPAN = 0.05


@dataclass(frozen=True)
class HeatCell:
    """One coloured entry: its text, background and text colour, and whether the difference is significant."""

    text: str
    background: str
    ink: str
    significant: bool = False


@dataclass(frozen=True)
class HeatMap:
    """A coloured table: severities across, corruptions down."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell]]]


def corruption_accuracies(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Accuracy of each model, a row for each corruption and a column for each severity, mean over seeds."""
    cells = comparison.cells[comparison.cells["kind"] == "corruption"]
    if cells.empty:
        return {}
    means = (
        cells.groupby(["model", "kind", "condition", "severity"], sort=False)["accuracy"].mean().reset_index()
    )
    tables = {model: accuracy_table(rows) for model, rows in means.groupby("model", sort=False)}
    return {str(model): tables[model] for model in comparison.summary["model"]}


def accuracy_maps(tables: Mapping[str, pd.DataFrame]) -> list[HeatMap]:
    """One heat map of accuracies in % for each model, on one colour scale."""
    values = np.concatenate([table.to_numpy().ravel() for table in tables.values()])
    low, high = np.nanmin(values), np.nanmax(values)
    colours = _colour_map(ACCURACY_COLOURS)

    def cell(_name: str, _severity: int, value: float) -> HeatCell:
        return _heat_cell(f"{100 * value:.0f}", colours((value - low) / max(high - low, 1e-9)))

    return [_heat_map(model, table, cell) for model, table in tables.items()]


def difference_maps(comparison: Comparison, tables: Mapping[str, pd.DataFrame]) -> list[HeatMap]:
    """Difference to the baseline in points for each other model, blue where better; significant cells marked."""
    baseline = tables[comparison.baseline]
    differences = {model: table - baseline for model, table in tables.items() if model != comparison.baseline}
    if not differences:
        return []
    span = max(_LEAST_SPAN, *(float(np.nanmax(np.abs(table.to_numpy()))) for table in differences.values()))
    colours = _colour_map(DIFFERENCE_COLOURS)
    tests = comparison.tests[
        (comparison.tests["level"] == "cell") & (comparison.tests["p_holm"] < SIGNIFICANT)
    ]
    significant = set(zip(tests["model"], tests["condition"], tests["severity"], strict=True))

    def cell(model: str, name: str, severity: int, value: float) -> HeatCell:
        # The ends of the scale are too dark to print on: 0.1 to 0.9 of it is used.
        text = f"{round(100 * value):+d}".replace("+0", "0")
        return _heat_cell(text, colours(0.5 + 0.4 * value / span), (model, name, severity) in significant)

    return [
        _heat_map(f"{model} minus {comparison.baseline}", table, partial(cell, model))
        for model, table in differences.items()
    ]


def _heat_map(title: str, table: pd.DataFrame, cell: Callable[[str, int, float], HeatCell]) -> HeatMap:
    rows = []
    for name, values in zip(table.index, table.to_numpy(), strict=True):
        entries = [
            HeatCell("", "transparent", "inherit")
            if np.isnan(value)
            else cell(str(name), int(str(severity)), float(value))
            for severity, value in zip(table.columns, values, strict=True)
        ]
        rows.append((readable(str(name)), entries))
    return HeatMap(title, [str(severity) for severity in table.columns], rows)


def _colour_map(name: str) -> Callable[[float], Sequence[float]]:
    """Red, green, blue and opacity of a value, all 0 to 1."""
    import matplotlib

    return matplotlib.colormaps[name]


def _heat_cell(text: str, colour: Sequence[float], significant: bool = False) -> HeatCell:
    red, green, blue = colour[:3]
    background = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    return HeatCell(text, background, "#fff" if dark else "#111", significant)


def readable(name: str) -> str:
    """A corruption's or a chain's name in words: ``"jpeg compression"``, ``"contrast, then fog"``."""
    return ", then ".join(name.split("+")).replace("_", " ")


def severity_lines(comparison: Comparison) -> dict[str, list[Line]]:
    """For each corruption a line over severity for each model, with Wilson intervals."""
    cells = comparison.cells[comparison.cells["kind"] == "corruption"]
    names = [name for name in STANDARD_CORRUPTIONS if name in set(cells["condition"])]
    names += [name for name in dict.fromkeys(cells["condition"]) if name not in names]
    return {name: _lines(comparison, cells[cells["condition"] == name], "severity") for name in names}


def overview_lines(comparison: Comparison) -> list[Line]:
    """For each model its accuracy over severity, mean over all corruptions; severity 0 is clean, where measured."""
    cells = comparison.cells
    shown = cells[cells["kind"].isin(["corruption", "clean"])]
    if not (shown["kind"] == "corruption").any():
        return []
    lines = []
    for model in comparison.summary["model"]:
        means = shown[shown["model"] == model].groupby("severity")["accuracy"].mean()
        lines.append(Line(model, [float(str(x)) for x in means.index], [100 * y for y in means]))
    return lines


def epsilon_lines(comparison: Comparison) -> dict[tuple[str, str], list[Line]]:
    """For each norm and attack a line over epsilon for each model, from the unattacked images at epsilon 0 on.

    The key's second part is the attack's name, or ``"worst case"`` where several attacks share the norm.
    """
    cells = comparison.cells
    cells = cells[(cells["kind"] == "attack") & cells["accuracy"].notna()].copy()
    cells["norm"] = [threat.split(" ", 1)[0] for threat in cells["threat"]]
    cells["epsilon"] = [epsilon_of(threat) for threat in cells["threat"]]
    lines: dict[tuple[str, str], list[Line]] = {}
    for norm in dict.fromkeys(cells["norm"]):
        of_norm = cells[cells["norm"] == norm]
        attacks = list(dict.fromkeys(of_norm["condition"]))
        if len(attacks) > 1:
            worst = _worst_lines(comparison, of_norm)
            lines |= {(norm, WORST_CASE): worst} if worst else {}
        for attack in attacks:
            rows = of_norm[of_norm["condition"] == attack]
            lines[norm, attack] = _lines(comparison, pd.concat([_unattacked(rows), rows]), "epsilon")
    return lines


def epsilon_of(threat: str) -> float:
    """Epsilon of a threat model's text as a number, e.g. of ``"linf 8/255"``."""
    numerator, _, denominator = threat.split(" ", 1)[1].partition("/")
    return float(numerator) / float(denominator or 1)


def _worst_lines(comparison: Comparison, cells: pd.DataFrame) -> list[Line]:
    """The worst case of all attacks at each epsilon, from the unattacked images on."""
    known = [threat for threat in set(cells["threat"]) if f"worst {threat}" in comparison.summary]
    if not known:
        return []
    threats = sorted(known, key=epsilon_of)
    starts = _lines(comparison, _unattacked(cells), "epsilon")
    lines = []
    for start, row in zip(starts, comparison.summary.to_dict("records"), strict=True):
        worst = [[100 * row[f"worst {threat}{end}"] for threat in threats] for end in ("", " low", " high")]
        y, low, high = (
            [*first, *rest] for first, rest in zip((start.y, start.low, start.high), worst, strict=True)
        )
        lines.append(Line(start.model, [*start.x, *map(epsilon_of, threats)], y, low, high))
    return lines


def _unattacked(rows: pd.DataFrame) -> pd.DataFrame:
    """The same images without attack, as rows at epsilon 0."""
    known = rows[rows["clean_accuracy"].notna()].drop_duplicates(["model", "model_seed"])
    return known.assign(epsilon=0.0, accuracy=known["clean_accuracy"])


def _lines(comparison: Comparison, rows: pd.DataFrame, column: str) -> list[Line]:
    lines = []
    for model in comparison.summary["model"]:
        groups = [(x, group) for x, group in rows[rows["model"] == model].groupby(column)]
        intervals = [
            network_interval(group["accuracy"].tolist(), group["images"].iloc[0]) for _, group in groups
        ]
        lines.append(
            Line(
                model=model,
                x=[float(str(x)) for x, _ in groups],
                y=[100 * interval.mean for interval in intervals],
                low=[100 * interval.low for interval in intervals],
                high=[100 * interval.high for interval in intervals],
            )
        )
    return lines


def network_interval(accuracies: Sequence[float], images: int) -> Interval:
    """Interval of one cell: over seeds from three networks on, else Wilson's over the images."""
    if len(accuracies) >= SEEDS_FOR_METHODS:
        return seed_interval(accuracies)
    return wilson_interval(round(float(np.mean(accuracies)) * images), images)
