"""Which epoch was best and when to stop, told from the curves alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import TrainConfig

Curves = Sequence[dict[str, float]]
LEAST_TO_LOSE = 0.05  # of a robust accuracy; below it a fall may be chance


def keeps_best(recipe: TrainConfig) -> bool:
    """Whether the weights of the best epoch are kept."""
    return recipe.select.keep == "best" or recipe.loss.name == "fast"


def best_epoch(curves: Curves, recipe: TrainConfig) -> int:
    """Return the position of the best epoch (Rice, Wong and Kolter, ICML 2020).

    Of equally robust ones it is the most accurate, then the first.
    """
    robust = recipe.select.by == "robust" or recipe.loss.name == "fast"
    key = "val_robust" if robust else "val_accuracy"
    return max(range(len(curves)), key=lambda epoch: (curves[epoch][key], curves[epoch]["val_accuracy"]))


def hands_over_best(curves: Curves, recipe: TrainConfig) -> bool:
    """Whether the run's outcome is its best epoch: as chosen, or because fast training broke down."""
    return bool(curves) and (recipe.select.keep == "best" or overfitted(curves, recipe))


def overfitted(curves: Curves, recipe: TrainConfig) -> bool:
    """Tell catastrophic overfitting: fast training's robust accuracy fell far below its best, or to a quarter of it."""
    if recipe.loss.name != "fast" or not curves:
        return False
    best, last = curves[best_epoch(curves, recipe)]["val_robust"], curves[-1]["val_robust"]
    collapsed = best >= LEAST_TO_LOSE and last <= best / 4
    return collapsed or last < best - recipe.select.largest_drop


def stop_reason(curves: Curves, recipe: TrainConfig) -> str:
    """Return why training should stop before its last epoch, or nothing."""
    if overfitted(curves, recipe):
        best = best_epoch(curves, recipe)
        return (
            f"catastrophic overfitting: robust accuracy fell from {curves[best]['val_robust']:.1%} in epoch "
            f"{best + 1} to {curves[-1]['val_robust']:.1%}; the weights of epoch {best + 1} are kept"
        )
    patience = recipe.select.patience
    if patience and curves and len(curves) - 1 - best_epoch(curves, recipe) >= patience:
        return f"no better epoch than {best_epoch(curves, recipe) + 1} in the last {patience}"
    return ""
