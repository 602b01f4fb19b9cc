"""The study's figure: accuracy over severity in each category of corruption (or corruption), and over epsilon."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from common import save_figure

from warplca.eval import Comparison
from warplca.eval.compare.aggregate import category
from warplca.eval.report.charts import WORST_CASE, epsilon_lines, epsilon_of
from warplca.eval.report.figures import ModelStyle, model_styles

MOST_INSIDE = 6
"""Largest number of arms whose legend leaves room for the curves within a panel."""


def draw(path: Path, found: Comparison) -> bool:
    """Write the figure as PNG; False where there is nothing to draw."""
    from matplotlib.figure import Figure

    cells = found.cells[found.cells["kind"] == "corruption"]
    cells = cells.assign(panel=[category(str(name)) for name in cells["condition"]])
    if cells["panel"].nunique() == 1:
        cells = cells.assign(panel=cells["condition"])
    panels_of_cells = list(dict.fromkeys(cells["panel"]))
    attacks = _attack_lines(found)
    styles = model_styles(found.summary["model"])
    count = len(panels_of_cells) + len(attacks)
    if not count:
        return False
    figure = Figure(figsize=(3.2 * count, 3.4), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axis, name in zip(panels, panels_of_cells, strict=False):
        _severities(axis, found, cells[cells["panel"] == name], styles)
        axis.set(title=name, xlabel="severity (0: clean)")
    for axis, (norm, lines) in zip(panels[len(panels_of_cells) :], attacks.items(), strict=True):
        for line in lines:
            x = [255 * value if norm == "linf" else value for value in line.x]
            _line(axis, x, line.y, line.low, line.high, line.model, styles[line.model])
        axis.set(title=f"{norm} attacks", xlabel="epsilon, in 1/255" if norm == "linf" else "epsilon")
    panels[0].set_ylabel("correct, %")
    if len(styles) > MOST_INSIDE:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    else:
        panels[0].legend(fontsize=8)
    for axis in panels:
        axis.grid(alpha=0.3)
    save_figure(figure, path)
    return True


def _attack_lines(found: Comparison) -> dict:
    """The worst case where there is one, else the only attack, for norms with several radii."""
    radii = found.cells[found.cells["kind"] == "attack"]["threat"].unique()
    norms = [threat.split(" ")[0] for threat in radii if epsilon_of(threat)]
    lines = epsilon_lines(found)
    chosen = {}
    for norm in dict.fromkeys(norm for norm in norms if norms.count(norm) > 1):
        attacks = [attack for known, attack in lines if known == norm]
        chosen[norm] = lines[norm, WORST_CASE if WORST_CASE in attacks else attacks[0]]
    return chosen


def _severities(axis, found: Comparison, cells: pd.DataFrame, styles: dict[str, ModelStyle]) -> None:
    clean = found.cells[found.cells["kind"] == "clean"].groupby("model")["accuracy"].mean()
    for model, style in styles.items():
        own = cells[cells["model"] == model].groupby("severity")["accuracy"].mean()
        x = [0, *map(int, own.index)]
        y = [100 * clean[model], *(100 * own)]
        _line(axis, x, y, y, y, model, style)


def _line(axis, x, y, low, high, model: str, style: ModelStyle) -> None:
    axis.plot(x, y, style.dashes, color=style.colour, marker=style.marker, markersize=4, label=model)
    axis.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
