"""Compare models with a baseline: intervals, paired tests, and words that claim no more than they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...configs.errors import InputError, unknown_name
from ..results.certificates import CERTIFICATE
from ..results.store import ResultsStore
from .aggregate import category, is_complete
from .paired import CellId, Outcomes, common_cells, one_dataset
from .statistics import (
    Interval,
    cluster_bootstrap,
    cluster_permutation,
    exact_interval,
    holm,
    mcnemar_exact,
    paired_interval,
    seed_interval,
    welch,
    wilson_interval,
)
from .wording import PROVEN, SEEDS_FOR_METHODS, Comparison

PROVEN_AT = ("l2 0.25", "l2 0.5")
"""Balls in which a certificate is a headline figure; the other radii are single cells."""


FEW = 30
"""Images behind a mean or a difference below which a bootstrap covers too seldom, and exact intervals stand instead."""


@dataclass(frozen=True)
class Aggregate:
    """Several cells read as one figure.

    Attributes:
        label: Name in tables, e.g. ``"corruption mean"``.
        cells: The cells.
        level: Family of tests it belongs to: ``"cell"``, ``"headline"`` or ``"category"``.
        worst: Whether an image counts by its worst cell (attacks) or by the mean over cells.
    """

    label: str
    cells: tuple[CellId, ...]
    level: str
    worst: bool = False


def compare(
    results: ResultsStore | pd.DataFrame | str | Path, *, baseline: str, dataset: str | None = None
) -> Comparison:
    """Compare every model in the results with a baseline.

    Only cells that every network has, on the same images, take part. Within a cell of single networks the
    exact McNemar test is used; over several cells or seeds a permutation test clustered by image; with at least
    three training seeds on both sides Welch's t over seeds as well. Holm's adjustment runs over all models in
    each family (column ``level``): ``"cell"``; ``"headline"`` (clean, corruption mean, worst case per threat, proven);
    ``"category"``; ``"seeds"``.

    Args:
        results: A store, its path, or a table from ``to_frame(predictions=True)``.
        baseline: Name of the model to compare with.
        dataset: Name of the data set; needed only if the results hold several.

    Raises:
        InputError: The baseline or data set is unknown, the models share no cell, or a table has no
            predictions.
    """
    frame = one_dataset(_with_predictions(results), dataset)
    models = list(dict.fromkeys(frame["model"]))
    if baseline not in models:
        raise unknown_name("baseline model", baseline, models, where="the results")
    selected = common_cells(frame)
    if selected.frame.empty:
        raise InputError(
            "the models share no cell measured on the same images: "
            "evaluate all of them with the same plan and data."
        )
    outcomes = Outcomes.from_frame(selected.frame)
    others = [model for model in outcomes.seeds if model != baseline]
    tests = [row for model in others for row in _tests_of(outcomes, model, baseline)]
    return Comparison(
        baseline=baseline,
        dataset=str(frame["dataset"].iloc[0]),
        summary=_summary(outcomes, selected.frame, [baseline, *others]),
        tests=_adjusted(tests),
        cells=_without_arrays(selected.frame, outcomes),
        left_out=(*selected.left_out, *_without_attack(outcomes)),
        seeds=min(len(seeds) for seeds in outcomes.seeds.values()),
    )


def aggregates(outcomes: Outcomes) -> list[Aggregate]:
    """The figures of a summary: clean, mean over the standard corruptions, per category, worst per threat."""
    by_category: dict[str, list[CellId]] = {}
    for cell in outcomes.select(kind="corruption"):
        by_category.setdefault(category(cell.condition), []).append(cell)
    standard = [
        cell for name, cells in by_category.items() if name not in ("extra", "chain") for cell in cells
    ]
    found = [Aggregate("clean", (cell,), "headline") for cell in outcomes.select(kind="clean")]
    if standard:
        found.append(Aggregate("corruption mean", tuple(standard), "headline"))
    for name, cells in by_category.items():
        alone = name == "extra" and not standard  # then it is what the comparison is about
        found.append(Aggregate(f"{name} mean", tuple(cells), "headline" if alone else "category"))
    for threat in outcomes.threats:
        cells = tuple(outcomes.select(kind="attack", threat=threat))
        found.append(Aggregate(f"worst {threat}", cells, "headline", worst=True))
    for cell in outcomes.select(kind=CERTIFICATE):
        if cell.threat in PROVEN_AT:
            found.append(Aggregate(f"{PROVEN} {cell.threat} ({cell.condition})", (cell,), "headline"))
    return found


def _without_attack(outcomes: Outcomes) -> list[str]:
    threats = dict.fromkeys(cell.threat for cell in outcomes.select(kind="attack"))
    missing = ((threat, outcomes.without_attack(threat)) for threat in threats)
    return [f"worst {threat} (no attack ran on {', '.join(models)})" for threat, models in missing if models]


def _with_predictions(results: ResultsStore | pd.DataFrame | str | Path) -> pd.DataFrame:
    if isinstance(results, pd.DataFrame):
        if "predictions" not in results.columns:
            raise InputError(
                "the table holds no predictions, which the paired tests need: "
                "compare the results store itself, or a table made with to_frame(predictions=True)."
            )
        return results
    if isinstance(results, ResultsStore):
        return results.to_frame(predictions=True)
    with ResultsStore(results, read_only=True) as store:
        return store.to_frame(predictions=True)


def _without_arrays(frame: pd.DataFrame, outcomes: Outcomes) -> pd.DataFrame:
    keys = frame[["model", "model_seed", *CellId._fields]].itertuples(index=False, name=None)
    clean = [outcomes.clean_accuracy(model, seed, CellId(*cell)) for model, seed, *cell in keys]
    arrays = ["predictions", "confidences", "indices", "labels"]
    return frame.drop(columns=arrays).assign(clean_accuracy=clean)


def _summary(outcomes: Outcomes, frame: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    ece = frame[frame["kind"] == "clean"].groupby("model")["ece"].mean()
    rows = []
    for model in models:
        row: dict[str, object] = {"model": model, "seeds": len(outcomes.seeds[model])}
        for figure in aggregates(outcomes):
            means = outcomes.image_means(model, figure.cells, worst=figure.worst)
            interval = _accuracy_interval(means)
            row |= {
                figure.label: interval.mean,
                f"{figure.label} low": interval.low,
                f"{figure.label} high": interval.high,
                f"{figure.label} images": means.shape[1],
            }
        if is_complete(frame):
            row["mce"] = 100.0 * (1.0 - float(str(row["corruption mean"])))
        if model in ece.index:
            row["clean ece"] = float(ece[model])
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracy_interval(means: NDArray[np.float64]) -> Interval:
    """Over seeds from three on; else over images: Wilson's, or the bootstrap's where some are right in part."""
    if len(means) >= SEEDS_FOR_METHODS:
        return seed_interval(means.mean(axis=1).tolist())
    scores = means.mean(axis=0)
    if np.isin(scores, (0.0, 1.0)).all():
        return wilson_interval(int(scores.sum()), scores.size)
    if min(scores.sum(), scores.size - scores.sum()) < FEW:
        return exact_interval(float(scores.sum()), scores.size)
    return cluster_bootstrap(scores)


def _tests_of(outcomes: Outcomes, model: str, baseline: str) -> list[dict[str, object]]:
    rows = []
    for cell in outcomes.measured:
        figure = Aggregate(cell.label, (cell,), "cell")
        rows.append(_test(outcomes, figure, model, baseline) | cell._asdict())
    figures = aggregates(outcomes)
    rows += [_test(outcomes, figure, model, baseline) for figure in figures]
    if min(len(outcomes.seeds[model]), len(outcomes.seeds[baseline])) >= SEEDS_FOR_METHODS:
        rows += [_seed_test(outcomes, figure, model, baseline) for figure in figures]
    return rows


def _test(outcomes: Outcomes, figure: Aggregate, model: str, baseline: str) -> dict[str, object]:
    """Paired test of these trained networks on the images they share."""
    mine = outcomes.image_means(model, figure.cells, worst=figure.worst).mean(axis=0)
    theirs = outcomes.image_means(baseline, figure.cells, worst=figure.worst).mean(axis=0)
    differences = mine - theirs
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    binary = bool(np.isin(np.concatenate([mine, theirs]), (0.0, 1.0)).all())
    few = binary or gained + lost < FEW
    interval = paired_interval(differences) if few else cluster_bootstrap(differences)
    return {
        "model": model,
        "level": figure.level,
        "label": figure.label,
        "images": differences.size,
        "cells": len(figure.cells),
        "baseline_accuracy": float(theirs.mean()),
        "accuracy": float(mine.mean()),
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "gained": gained,
        "lost": lost,
        "test": "exact McNemar" if binary else "permutation by image",
        "p": mcnemar_exact(gained, lost) if binary else cluster_permutation(differences),
    }


def _seed_test(outcomes: Outcomes, figure: Aggregate, model: str, baseline: str) -> dict[str, object]:
    """Welch's t over training seeds: a claim about the methods."""
    mine = outcomes.image_means(model, figure.cells, worst=figure.worst)
    theirs = outcomes.image_means(baseline, figure.cells, worst=figure.worst)
    scores, reference = mine.mean(axis=1), theirs.mean(axis=1)
    interval, pvalue = welch(scores.tolist(), reference.tolist())
    return {
        "model": model,
        "level": "seeds",
        "label": figure.label,
        "images": mine.shape[1],
        "cells": len(figure.cells),
        "baseline_accuracy": float(reference.mean()),
        "accuracy": float(scores.mean()),
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "test": "Welch t over seeds",
        "p": pvalue,
    }


def _adjusted(rows: list[dict[str, object]]) -> pd.DataFrame:
    columns = ["model", "level", "label", *CellId._fields, "images", "cells", "baseline_accuracy", "accuracy"]
    columns += ["difference", "low", "high", "gained", "lost", "test", "p"]
    tests = pd.DataFrame(rows, columns=pd.Index(columns))
    tests["p_holm"] = np.nan
    for level in tests["level"].unique():
        family = tests["level"] == level
        tests.loc[family, "p_holm"] = holm(tests.loc[family, "p"])
    return tests
