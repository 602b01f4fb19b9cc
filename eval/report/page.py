"""The page of the report: one self-contained HTML file, with panels over severity, epsilon and epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...configs.atomic import file_written_whole
from ...configs.errors import InputError
from ...configs.untrusted import file_with
from ..compare.compare import compare
from ..compare.wording import (
    SIGNIFICANT,
    Comparison,
    headline,
    images_sentence,
    lead,
    left_out_sentence,
    scope_sentence,
    trust_line,
    trust_sentences,
)
from ..results.store import ResultsStore
from ..results.suites import bounds_sentence
from .certificates import certificate_section
from .charts import (
    WORST_CASE,
    HeatMap,
    accuracy_maps,
    corruption_accuracies,
    difference_maps,
    epsilon_lines,
    overview_lines,
    readable,
    severity_lines,
)
from .figures import Line, ModelStyle, Panel, line_panel, model_styles
from .pictures import Example, atom_mosaic, picture_address
from .tables import (
    attack_table,
    cell_table,
    check_table,
    gate_table,
    measurement_facts,
    suite_table,
    summary_section,
    test_table,
    worst_table,
)


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


def overview_panel(comparison: Comparison, styles: Mapping[str, ModelStyle]) -> Panel | None:
    """The picture of the first screen: accuracy over severity, else under the worst attack; None without either."""
    lines, label, ticks = overview_lines(comparison), "severity (0: clean)", None
    what = "Mean accuracy over corruptions"
    if not lines:
        attacked = epsilon_lines(comparison)
        if not attacked:
            return None
        (norm, attack), lines = next(iter(attacked.items()))
        label, what = _epsilon_label(norm), f"Accuracy under attack ({attack})"
        ticks = sorted({x for line in lines for x in line.x})
    svg = line_panel(
        lines,
        styles,
        name="overview",
        x_label=label,
        y_label="accuracy, %",
        x_ticks=ticks,
        x_tick_labels=None if ticks is None else _epsilon_ticks(label, ticks),
        y_limits=_limits(lines),
    )
    return Panel(what, _alt(what, lines), svg)


def _epsilon_label(norm: str) -> str:
    return "Linf epsilon, in 1/255" if norm == "linf" else f"{norm.upper()} epsilon"


def _epsilon_ticks(label: str, ticks: Sequence[float]) -> list[str]:
    return [f"{255 * tick:.3g}" if "255" in label else f"{tick:g}" for tick in ticks]


def attack_section(comparison: Comparison, styles: Mapping[str, ModelStyle]) -> dict[str, Any] | None:
    """Panels over epsilon and the table of attacked cells; None without attacks."""
    if not (comparison.cells["kind"] == "attack").any():
        return None
    groups = epsilon_lines(comparison)
    panels = []
    for (norm, attack), lines in groups.items():
        ticks = sorted({x for line in lines for x in line.x})
        label = _epsilon_label(norm)
        svg = line_panel(
            lines,
            styles,
            name=f"epsilon-{norm}-{attack}",
            x_label=label,
            y_label="accuracy, %",
            x_ticks=ticks,
            x_tick_labels=_epsilon_ticks(label, ticks),
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


TEMPLATES = Path(__file__).parent / "templates"

is_report = file_with(b'<meta name="generator" content="warplca">')

_SECTIONS = {
    "words": "In words",
    "verdicts": "Trust",
    "corruptions": "Corruptions",
    "worst": "Worst cells",
    "gates": "Gates",
    "attacks": "Attacks",
    "certificates": "Certificates",
    "examples": "Examples",
    "atoms": "Atoms",
    "training": "Training",
    "measured": "How measured",
}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Parts of a report about the run that made the results, beside the results themselves.

    Attributes:
        facts: Facts about the run, name to text, shown under "How this was measured".
        atoms: Dictionary of each model that has one, (M, C, k, k).
        examples: Rows of pictures.
        curves: Training curves of each model; columns ``epoch`` and any of ``train_loss``, ``val_loss``,
            ``train_accuracy``, ``val_accuracy``, ``active_fraction`` (0 to 1), ``images_per_second``.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    atoms: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def write_report(
    path: str | Path,
    results: ResultsStore | pd.DataFrame | str | Path,
    *,
    baseline: str,
    dataset: str | None = None,
    title: str = "Robustness report",
    run: RunRecord = RunRecord(),
) -> Comparison:
    """Compare the models and write ``report.html``: one file, no network, light and dark, printable.

    Args:
        path: The HTML file to write; it replaces an old report atomically, and no other file.
        results: A store or its rows, as for `compare`.
        baseline: Model that the others are compared with.
        dataset: Name of the data set; needed only if the results hold several.
        title: Heading of the page.
        run: The run that made the results: facts, dictionaries, pictures and training curves.

    Returns:
        The comparison that the page shows.

    Raises:
        InputError: The results cannot be compared, a picture or table has another form, or the file cannot be
            written.
    """
    comparison = compare(results, baseline=baseline, dataset=dataset)
    page = _page(comparison, title, run)
    with file_written_whole(Path(path), ours=is_report) as target:
        target.write_text(page, encoding="utf-8")
    return comparison


def _page(comparison: Comparison, title: str, run: RunRecord) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    models = [
        *comparison.summary["model"],
        *(model for model in run.curves if model not in set(comparison.summary["model"])),
    ]
    styles = model_styles(models)
    sections: dict[str, Any] = {
        "words": True,
        "verdicts": list(trust_sentences(comparison)),
        "corruptions": corruption_section(comparison, styles),
        "worst": worst_table(comparison),
        "gates": gate_table(comparison),
        "attacks": attack_section(comparison, styles),
        "certificates": certificate_section(comparison, styles),
        "examples": [_example(example) for example in run.examples],
        "atoms": [_mosaic(model, values) for model, values in run.atoms.items()],
        "training": curve_panels(run.curves, styles),
        "measured": True,
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        **sections,
        curves=sections["training"],
        title=title,
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        dataset=comparison.dataset,
        baseline=comparison.baseline,
        models=list(comparison.summary["model"]),
        styles=styles,
        overview=overview_panel(comparison, styles),
        trust=trust_line(comparison),
        lead=lead(comparison),
        headline=headline(comparison),
        scope=scope_sentence(comparison),
        left_out=left_out_sentence(comparison) if comparison.left_out else "",
        contents=[(anchor, name) for anchor, name in _SECTIONS.items() if sections[anchor]],
        significant=SIGNIFICANT,
        summary=summary_section(comparison),
        images=images_sentence(comparison.summary),
        facts={**run.facts, **measurement_facts(comparison)},
        cells=cell_table(comparison),
        tests=test_table(comparison),
    )


def _example(example: Example) -> dict[str, Any]:
    pictures = [
        {"caption": caption, "address": picture_address(picture, f"picture {caption!r} of {example.title!r}")}
        for caption, picture in example.pictures
    ]
    return {"title": example.title, "pictures": pictures}


def _mosaic(model: str, values: NDArray[np.floating]) -> dict[str, str]:
    address = atom_mosaic(values)
    count, channels, height, width = np.shape(values)
    what = f"{count} atoms of {height} x {width} pixels{', grey' if channels == 1 else ''}"
    return {"address": address, "caption": f"{model}: {what}", "alt": f"The {what} of {model}"}
