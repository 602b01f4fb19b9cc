"""A comparison as one plain table, for other programs."""

from __future__ import annotations

import pandas as pd

from .wording import Comparison, headline_figures, headline_tests, judgement


def headline_frame(comparison: Comparison) -> pd.DataFrame:
    """One row for each model and headline figure: accuracy with interval, and the test against the baseline.

    Columns: ``model``, ``figure``, ``accuracy``, ``low``, ``high``, ``images``, ``difference``, ``difference_low``,
    ``difference_high``, ``p_holm``, ``judgement``; those of the test are empty for the baseline.
    """
    rows = []
    for row in comparison.summary.to_dict("records"):
        tests = {test["label"]: test for test in headline_tests(comparison, row["model"]).to_dict("records")}
        for figure in headline_figures(comparison.summary):
            entry = {"model": row["model"], "figure": figure, "accuracy": row[figure]}
            entry |= {"low": row[f"{figure} low"], "high": row[f"{figure} high"]}
            entry["images"] = int(row[f"{figure} images"])
            test = tests.get(figure)
            entry |= {
                "difference": test["difference"] if test else None,
                "difference_low": test["low"] if test else None,
                "difference_high": test["high"] if test else None,
                "p_holm": test["p_holm"] if test else None,
                "judgement": judgement(test) if test else "",
            }
            rows.append(entry)
    return pd.DataFrame(rows)
