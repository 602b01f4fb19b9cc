"""The part of the report on smoothed classifiers: certified accuracy over radius, the bracket as a band, the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..compare.wording import Comparison
from ..results.certificates import Bracket, brackets, meaning_sentence
from ..results.records import CERTIFICATE, SMOOTHED
from .charts import network_interval
from .figures import Line, ModelStyle, Panel, line_panel
from .tables import TextTable

_POINTS = 101


def certificate_section(comparison: Comparison, styles: Mapping[str, ModelStyle]) -> dict[str, Any] | None:
    """A panel for each smoothing and the table of brackets; None without certificates."""
    cells = comparison.cells
    if not (cells["kind"] == CERTIFICATE).any():
        return None
    panels = []
    for condition, lines in bracket_lines(comparison).items():
        svg = line_panel(
            lines,
            styles,
            name=f"certificate-{condition}",
            x_label="L2 radius, in pixels of [0, 1]",
            y_label="accuracy, %",
            x_ticks=np.arange(0.0, lines[0].x[-1] + 0.01, 0.25).tolist(),
            y_limits=(-2.0, 102.0),
        )
        ranges = ", ".join(f"{line.model} from {line.y[0]:.0f} to {line.y[-1]:.0f} %" for line in lines)
        panels.append(Panel(condition, f"Certified accuracy over L2 radius, {condition}: {ranges}.", svg))
    return {"panels": panels, "table": bracket_table(comparison), "meaning": meaning_sentence(cells)}


def bracket_lines(comparison: Comparison) -> dict[str, list[Line]]:
    """For each smoothing a line over radius for each model: proven below, left by the attack above."""
    found: dict[str, dict[str, list[Bracket]]] = {}
    for row, bracket in brackets(comparison.cells):
        found.setdefault(row["condition"], {}).setdefault(row["model"], []).append(bracket)
    lines = {}
    for condition, models in found.items():
        every = [bracket for group in models.values() for bracket in group]
        end = max([0.25, *(max(bracket.proven) for bracket in every)])
        radii = np.linspace(0.0, end, _POINTS)
        lines[condition] = [
            _line(model, models[model], radii) for model in comparison.summary["model"] if model in models
        ]
    return lines


def _line(model: str, group: list[Bracket], radii: np.ndarray) -> Line:
    proven = 100 * np.mean([bracket.certified(radii) for bracket in group], axis=0)
    left = 100 * np.mean([bracket.withstood(radii) for bracket in group], axis=0)
    attacked = any(bracket.attacked for bracket in group)
    return Line(model, radii.tolist(), proven.tolist(), top=left.tolist() if attacked else ())


def bracket_table(comparison: Comparison) -> TextTable:
    """Proven and attacked accuracy of every model at each radius."""
    cells = comparison.cells[comparison.cells["kind"].isin(SMOOTHED)]
    models = list(comparison.summary["model"])
    rows = []
    for (condition, threat), group in cells.groupby(["condition", "threat"], sort=False):
        entries = [_entry(group[group["model"] == model]) for model in models]
        images = group.loc[group["kind"] == CERTIFICATE, "images"]
        rows.append([str(condition), str(threat) or "l2 0", str(int(images.max())), *entries])
    caption = (
        "Proven accuracy in % with its 95 % interval; after the arrow, what the attack on the same one left"
    )
    return TextTable(caption, ["smoothed with", "radius", "images", *models], rows)


def _entry(rows: pd.DataFrame) -> str:
    parts = []
    for kind in SMOOTHED:
        own = rows[rows["kind"] == kind]
        if own.empty:
            continue
        interval = network_interval(own["accuracy"].tolist(), int(own["images"].iloc[0]))
        text = f"{100 * interval.mean:.1f}"
        if kind == CERTIFICATE:
            text += f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
        parts.append(text)
    return " \u2192 ".join(parts)
