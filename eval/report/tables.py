"""The written parts of the report: tables of text, and facts about the measurement."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from ...attacks.suite.catalogue import SUITE_PREFIX
from ..compare.wording import Comparison, figures_of, headline_figures, headline_tests, judgement, pvalue_text
from ..measure.gates import read_shares
from ..results.records import BOUND, UNMEASURED
from ..results.suites import SuiteRecord, suite_rows
from .charts import network_interval, readable

WORST_CELLS = 12

PGD = ("fgsm", "pgd-10")
"""The plain attacks, with which suites begin, that each suite's figure stands beside."""

_PACKAGES = ("warplca", "torch", "torchvision", "timm", "foolbox", "pyautoattack", "numpy")


@dataclass(frozen=True)
class TextTable:
    """A plain table; the first column names the rows; with ``wrapped`` the last one may fill several lines."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wrapped: bool = False


def summary_section(comparison: Comparison) -> dict[str, Any]:
    """The comparison table: accuracies with intervals, differences with their significance."""
    figures = headline_figures(comparison.summary)
    extra = {"clean ece": "ECE", "mce": "mCE %"}
    extra = {column: name for column, name in extra.items() if column in comparison.summary.columns}
    rows = []
    for row in comparison.summary.to_dict("records"):
        tests = {test["label"]: test for test in headline_tests(comparison, row["model"]).to_dict("records")}
        entries = [_summary_entry(row, figure, tests.get(figure)) for figure in figures]
        entries += [
            _plain_entry(f"{row[column]:.3f}" if column == "clean ece" else f"{row[column]:.1f}")
            for column in extra
        ]
        rows.append(
            {"model": row["model"], "baseline": row["model"] == comparison.baseline, "entries": entries}
        )
    return {"columns": [*figures, *extra.values()], "rows": rows}


def _summary_entry(row: Mapping[Any, Any], figure: str, test: Mapping[Any, Any] | None) -> dict[str, str]:
    mean, low, high = (100 * float(row[name]) for name in (figure, f"{figure} low", f"{figure} high"))
    entry = _plain_entry(f"{mean:.1f}") | {"interval": f"[{low:.1f}, {high:.1f}]"}
    if test is not None:
        text = f"{100 * float(test['difference']):+.1f}, {pvalue_text(float(test['p_holm']))}"
        entry |= {"difference": text, "judgement": judgement(test)}
    return entry


def _plain_entry(value: str) -> dict[str, str]:
    return {"value": value, "interval": "", "difference": "", "judgement": ""}


def attack_table(comparison: Comparison) -> TextTable:
    """Accuracy of every model under each attack."""
    cells = comparison.cells[comparison.cells["kind"] == "attack"]
    models = list(comparison.summary["model"])
    rows = []
    for (attack, threat), group in cells.groupby(["condition", "threat"], sort=False):
        entries = [_attack_entry(group[group["model"] == model]) for model in models]
        rows.append([f"{attack}, {threat}", str(int(group["images"].iloc[0])), *entries])
    return TextTable(
        "Accuracy in % under each attack, with 95 % intervals", ["attack", "images", *models], rows
    )


def _attack_entry(own: pd.DataFrame) -> str:
    """Accuracy with its interval, or why there is none."""
    states = set(own["status"])
    if not states.isdisjoint(UNMEASURED):
        return ", ".join(sorted(states))
    interval = network_interval(own["accuracy"].tolist(), int(own["images"].iloc[0]))
    text = f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{text}, {BOUND}" if BOUND in states else text


def suite_table(comparison: Comparison) -> TextTable | None:
    """The worst case of each suite beside plain PGD's, and which attack broke how many; None without suites."""
    columns = ["model", "seed", "suite, threat", "images", PGD[-1], "worst case", "status", "broken by"]
    rows = []
    for row in suite_rows(comparison.cells).to_dict("records"):
        rows.append(
            [
                row["model"],
                str(row["model_seed"]),
                f"{row['condition'].removeprefix(SUITE_PREFIX)}, {row['threat']}",
                str(row["images"]),
                _after_pgd(row),
                f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
                row["status"],
                row["attribution"],
            ]
        )
    caption = (
        "Worst case per image over all attacks of a suite, in %, with Wilson's 95 % interval; beside it what PGD "
        "alone, of ten steps, leaves of the same images (after one step of FGSM)"
    )
    return TextTable(caption, columns, rows, wrapped=True) if rows else None


def _after_pgd(row: Mapping[Any, Any]) -> str:
    """What PGD, and FGSM before it, left of the same images, in %; empty where neither ran."""
    left = SuiteRecord.from_text(row["details"]).left_by(PGD)
    return "" if left is None else f"{100 * left / row['images']:.1f}"


def check_table(comparison: Comparison) -> TextTable | None:
    """Every masking check with its evidence, and what each suite left out; None without suites."""
    rows = []
    for row in suite_rows(comparison.cells).to_dict("records"):
        record = SuiteRecord.from_text(row["details"])
        entries = [
            (name, "passed" if passed else "FAILED", evidence) for name, passed, evidence in record.checks
        ]
        entries += [(name, "left out", why) for name, why in record.skipped.items()]
        rows += [[row["model"], row["threat"], *entry] for entry in entries]
    columns = ["model", "threat", "check or attack", "outcome", "evidence or reason"]
    return (
        TextTable("Checks for gradient masking, and attacks left out", columns, rows, wrapped=True)
        if rows
        else None
    )


def gate_table(comparison: Comparison) -> TextTable | None:
    """Share of each cell's images that every gate let through untouched, over training seeds; None without gates."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    cells = comparison.cells[comparison.cells["kind"].isin(["clean", "corruption"])]
    for row in cells[cells["details"] != ""].to_dict("records"):
        label = readable(" ".join(str(part) for part in (row["condition"], row["severity"]) if part))
        found.setdefault((row["model"], label), []).append(read_shares(row["details"]))
    gates = list(dict.fromkeys(name for shares in found.values() for seed in shares for name in seed))
    rows = [
        [model, label, *(_share([seed[name] for seed in shares if name in seed]) for name in gates)]
        for (model, label), shares in found.items()
    ]
    caption = "Images that each gate let through untouched, in %"
    return TextTable(caption, ["model", "cell", *gates], rows) if rows else None


def _share(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.1f}" if values else ""


def worst_table(comparison: Comparison) -> TextTable | None:
    """The cells where a model loses most against the baseline; None where none does."""
    cells = comparison.tests[comparison.tests["level"] == "cell"]
    lost = cells[cells["difference"] < 0].sort_values("difference", kind="stable").head(WORST_CELLS)
    if lost.empty:
        return None
    caption = f"The {len(lost)} cells where a model loses most against {comparison.baseline}; accuracies in %"
    columns = ["cell", "model", comparison.baseline, "accuracy", "difference", "p (Holm)", "images"]
    rows = [
        [
            readable(row["label"]),
            row["model"],
            f"{100 * row['baseline_accuracy']:.1f}",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]",
            _short_p(row["p_holm"]),
            str(row["images"]),
        ]
        for row in lost.to_dict("records")
    ]
    return TextTable(caption, columns, rows)


def cell_table(comparison: Comparison) -> TextTable:
    """Every cell of every network."""
    columns = ["cell", "model", "seed", "source", "images", "accuracy", "95 %", "confidence", "ECE"]
    columns += ["seconds", "gradients"]
    rows = [
        [
            readable(
                " ".join(str(part) for part in (row["condition"], row["severity"] or row["threat"]) if part)
            ),
            row["model"],
            str(row["model_seed"]),
            row["source"],
            str(row["images"]),
            *_accuracy_entries(row),
            f"{100 * row['mean_confidence']:.1f}",
            f"{row['ece']:.3f}",
            f"{row['seconds']:.1f}",
            str(row["gradients"]) if row["gradients"] else "",
        ]
        for row in comparison.cells.to_dict("records")
    ]
    return TextTable("Every cell; accuracy and mean confidence in %", columns, rows)


def _accuracy_entries(row: Mapping[Any, Any]) -> tuple[str, str]:
    if row["status"] in UNMEASURED:
        return row["status"], ""
    return f"{100 * row['accuracy']:.1f}", f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _short_p(value: float) -> str:
    return pvalue_text(value).removeprefix("p ").removeprefix("= ")


def test_table(comparison: Comparison) -> TextTable:
    """Every test against the baseline."""
    columns = ["figure", "model", "family", "test", "images", "difference", "95 %", "p", "p (Holm)"]
    rows = [
        [
            readable(row["label"]),
            row["model"],
            row["level"],
            row["test"],
            str(row["images"]),
            f"{100 * row['difference']:+.2f}",
            f"[{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]",
            _short_p(row["p"]),
            _short_p(row["p_holm"]),
        ]
        for row in comparison.tests.to_dict("records")
    ]
    return TextTable(f"Every test against {comparison.baseline}; differences in points", columns, rows)


def measurement_facts(comparison: Comparison) -> dict[str, str]:
    """Image counts, seeds, sources, attack effort, remarks and versions, from the rows themselves."""
    cells = comparison.cells
    summary = comparison.summary
    facts = {
        "Images": ", ".join(
            f"{name}: {int(summary[f'{name} images'].iloc[0])}" for name in figures_of(summary)
        ),
        "Seed of the evaluation": _listed(cells["seed"]),
        "Training seeds": ", ".join(f"{row['model']}: {row['seeds']}" for row in summary.to_dict("records")),
        "Corrupted images from": _listed(cells.loc[cells["source"] != "", "source"]) or "none",
        "Measuring time": ", ".join(
            f"{model} {seconds:.0f} s"
            for model, seconds in cells.groupby("model", sort=False)["seconds"].sum().items()
        ),
        "Intervals": "95 %. Wilson within a cell; bootstrap clustered by image over several cells; exact (Clopper and "
        "Pearson) for paired differences within a cell and wherever fewer than 30 images count; Student's t over "
        "training seeds from three seeds on; accuracies stay within 0 and 100",
        "Tests": "exact McNemar within a cell, permutation clustered by image over several, "
        "Holm-adjusted in each family",
        "Versions": ", ".join(f"{name} {number}" for name, number in _versions().items()),
        "Python": platform.python_version(),
    }
    remarks = (
        cells[cells["notes"] != ""].groupby(["model", "notes"], sort=False).size().reset_index(name="cells")
    )
    if len(remarks):
        facts["Remarks"] = " ".join(
            f"{row['model']} ({row['cells']} cells): {row['notes']}" for row in remarks.to_dict("records")
        )
    return facts


def _listed(values: pd.Series) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
