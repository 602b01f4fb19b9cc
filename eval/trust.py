"""In words: how far the adversarial figures of each model can be trusted."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from .records import BOUND, UNMEASURED
from .suite_record import NOT_ASSESSED


def trust_of(cells: pd.DataFrame) -> dict[str, str]:
    """For each attacked model its suites' verdicts, or that nothing assessed its figures.

    Args:
        cells: Rows as `ResultsStore.to_frame` gives them.
    """
    attacked = cells[cells["kind"] == "attack"]
    return {str(model): _of_model(rows) for model, rows in attacked.groupby("model", sort=False)}


def suite_rows(cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of suites of attacks that ran at least in part."""
    ran = (cells["kind"] == "attack") & ~cells["status"].isin(UNMEASURED)
    return cells[ran & (cells["verdict"] != NOT_ASSESSED)]


def bounds_sentence(cells: pd.DataFrame) -> str:
    """Which figures a budget cut short; empty if none."""
    rows = cells[cells["status"] == BOUND]
    if rows.empty:
        return ""
    names = dict.fromkeys(f"{row['model']} at {row['threat']}" for row in rows.to_dict("records"))
    return (
        f"The budget ended {len(rows)} suites of attacks early: their figures are bounds so far, which the same "
        f"evaluation without a budget will lower ({', '.join(names)})."
    )


def attack_sentences(cells: pd.DataFrame) -> Iterator[str]:
    """What belongs to the attacked rows of one model: each suite's attribution and verdict, and what did not run."""
    for row in suite_rows(cells).to_dict("records"):
        yield f"{row['condition']} {row['threat']} ({row['status']}): broken by {row['attribution']}"
        yield f"  {row['verdict']}"
    attacked = cells[cells["kind"] == "attack"]
    for row in attacked[attacked["status"].isin(UNMEASURED)].to_dict("records"):
        yield f"{row['condition']} {row['threat']} ({row['status']}): {row['notes']}"
    if len(attacked) and suite_rows(cells).empty:
        yield _of_model(attacked)


def _of_model(rows: pd.DataFrame) -> str:
    suites = suite_rows(rows)
    if suites.empty:
        ran = rows[~rows["status"].isin(UNMEASURED)]
        attacks = ", ".join(dict.fromkeys(ran["condition"])) or "no attacks"
        return (
            f"{NOT_ASSESSED}: only {attacks} were run, without adaptive attacks or checks for gradient masking; "
            "accuracies under attack are upper bounds"
        )
    several = suites["model_seed"].nunique() > 1
    parts = [
        row["threat"]
        + (f", seed {row['model_seed']}" if several else "")
        + f": {row['verdict'].rstrip('.')}"
        + (" (bound so far: the budget ended)" if row["status"] == BOUND else "")
        for row in suites.to_dict("records")
    ]
    return "; ".join(parts)
