"""Results as a pandas table that prints the most important columns."""

from __future__ import annotations

import html
from collections.abc import Callable

import pandas as pd

from .records import COMPLETE, UNMEASURED
from .suites import attack_sentences, note_sentences

LEADING = ["model", "condition", "severity", "threat", "accuracy", "low", "high", "images", "status"]
"""Columns that stand first."""

_HEADS = ("model", "condition", "accuracy", "95 % interval", "images", "")


class Evaluation(pd.DataFrame):
    """Rows of measured cells; a pandas ``DataFrame`` whose ``print`` shows name, condition, accuracy and interval.

    Whatever pandas makes of it, a selection for instance, is a plain ``DataFrame``.
    """

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return all columns as a plain table, the leading ones first; see `ResultsStore.to_frame`."""
        rest = [name for name in self.columns if name not in LEADING]
        return pd.DataFrame(self[[*LEADING, *rest]])

    def __str__(self) -> str:
        """One line a cell, the mean over several corruptions, and sentences on attacks."""
        rows = [_HEADS, *self._lines()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            first = [entry.ljust(width) for entry, width in zip(row[:2], widths[:2], strict=True)]
            figures = [entry.rjust(width) for entry, width in zip(row[2:5], widths[2:5], strict=True)]
            lines.append("  ".join([*first, *figures, row[5]]).rstrip())
        attacks = [line for _, rows in self._by_model() for line in attack_sentences(rows)]
        return "\n".join([*lines, *attacks, *note_sentences(self)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same, for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def _by_model(self) -> list[tuple[str, pd.DataFrame]]:
        return [(str(name), rows) for name, rows in self.groupby("model", sort=False)]

    def _lines(self) -> list[tuple[str, ...]]:
        lines = []
        for name, rows in self._by_model():
            lines += [_line(row) for row in rows.to_dict("records")]
            cells = rows[rows["kind"] == "corruption"]
            if len(cells) > 1:
                what = f"mean of {len(cells)} corrupted cells"
                lines.append((name, what, _percent(cells["accuracy"].mean()), "", "", ""))
        return lines


def _line(row: dict) -> tuple[str, ...]:
    severity = str(row["severity"]) if row["severity"] else ""
    condition = " ".join(filter(None, (row["condition"], severity, row["threat"])))
    status = "" if row["status"] == COMPLETE else row["status"]
    if row["status"] in UNMEASURED:
        return row["model"], condition, "-", "", str(row["images"]), status
    interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
    return row["model"], condition, _percent(row["accuracy"]), interval, str(row["images"]), status


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
