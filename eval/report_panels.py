"""The drawn parts of the report: panels with captions, over severity, epsilon and epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..configs.errors import InputError
from .compare import Comparison
from .figures import Line, line_panel
from .palette import ModelStyle
from .report_tables import attack_table, check_table, suite_table
from .tables import (
    WORST_CASE,
    HeatMap,
    accuracy_maps,
    corruption_accuracies,
    difference_maps,
    epsilon_lines,
    readable,
    severity_lines,
)
from .trust import bounds_sentence


@dataclass(frozen=True)
class Panel:
    """A drawn figure with its caption and its description for those who cannot see it."""

    caption: str
    alt: str
    svg: str


def corruption_section(comparison: Comparison, styles: Mapping[str, ModelStyle]) -> dict[str, Any] | None:
    """Panels over severity and heat maps; None without corruptions."""
    tables = corruption_accuracies(comparison)
    if not tables:
        return None
    lines = severity_lines(comparison)
    limits = _limits([line for group in lines.values() for line in group])
    panels = []
    for name, group in lines.items():
        ticks = group[0].x
        svg = line_panel(
            group,
            styles,
            name=f"severity-{name}",
            x_label="severity",
            y_label="accuracy, %",
            x_ticks=ticks,
            x_tick_labels=[f"{tick:.0f}" for tick in ticks],
            y_limits=limits,
        )
        panels.append(
            Panel(readable(name), _alt(f"Accuracy under {readable(name)} over severity", group), svg)
        )
    accuracy: list[HeatMap] = accuracy_maps(tables)
    return {"panels": panels, "accuracy": accuracy, "difference": difference_maps(comparison, tables)}


def attack_section(comparison: Comparison, styles: Mapping[str, ModelStyle]) -> dict[str, Any] | None:
    """Panels over epsilon and the table of attacked cells; None without attacks."""
    if not (comparison.cells["kind"] == "attack").any():
        return None
    groups = epsilon_lines(comparison)
    panels = []
    for (norm, attack), lines in groups.items():
        ticks = sorted({x for line in lines for x in line.x})
        levels = norm == "linf"
        svg = line_panel(
            lines,
            styles,
            name=f"epsilon-{norm}-{attack}",
            x_label=f"{norm} perturbation{', in 255ths' if levels else ''}",
            y_label="accuracy, %",
            x_ticks=ticks,
            x_tick_labels=[f"{255 * tick:.3g}" if levels else f"{tick:g}" for tick in ticks],
            y_limits=(-3.0, max(10.0, _limits(lines)[1])),
        )
        caption = f"{norm}, {'worst of all attacks' if attack == WORST_CASE else attack}"
        panels.append(Panel(caption, _alt(f"Accuracy over epsilon, {caption}", lines), svg))
    tables = (attack_table(comparison), suite_table(comparison))
    return {
        "panels": panels,
        "tables": [table for table in tables if table],
        "checks": check_table(comparison),
        "bounds": bounds_sentence(comparison.cells),
    }


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    values = [value for line in lines for bound in (line.low, line.high, line.y) for value in bound]
    return max(-2.0, min(values) - 4.0), min(102.0, max(values) + 4.0)


def _alt(what: str, lines: Sequence[Line], unit: str = " %") -> str:
    parts = [f"{line.model} from {line.y[0]:.3g} to {line.y[-1]:.3g}{unit}" for line in lines if len(line.y)]
    return f"{what}: {', '.join(parts)}."


def curve_panels(curves: Mapping[str, pd.DataFrame], styles: Mapping[str, ModelStyle]) -> list[Panel]:
    """Training curves: loss, accuracy, share of active units, speed, each where it was recorded.

    Raises:
        InputError: A table has no column ``epoch``.
    """
    for model, table in curves.items():
        if "epoch" not in table.columns:
            raise InputError(
                f"the training curves of {model!r} have no column 'epoch': give the table of the training run."
            )
    wanted = (
        ("Loss", "loss", ("val_loss", "train_loss"), 1.0),
        ("Accuracy, %", "accuracy, %", ("val_accuracy", "train_accuracy"), 100.0),
        ("Active units, %", "active, %", ("active_fraction",), 100.0),
        ("Training speed, images/s", "images/s", ("images_per_second",), 1.0),
    )
    panels = []
    for caption, label, columns, scale in wanted:
        lines = [
            line for model, table in curves.items() for line in _curve_lines(model, table, columns, scale)
        ]
        if lines:
            name = f"curve-{columns[0]}"
            limits = None if label == "loss" else (0.0, None)
            svg = line_panel(lines, styles, name=name, x_label="epoch", y_label=label, y_limits=limits)
            panels.append(
                Panel(caption, _alt(f"{caption} over epochs", [x for x in lines if not x.faint], ""), svg)
            )
    return panels


def _curve_lines(model: str, table: pd.DataFrame, columns: Sequence[str], scale: float) -> list[Line]:
    lines = []
    for column in columns:
        known = table[table[column].notna()] if column in table.columns else table.iloc[:0]
        if len(known):
            faint = bool(lines)
            lines.append(Line(model, known["epoch"].tolist(), (scale * known[column]).tolist(), faint=faint))
    return lines
