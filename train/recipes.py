"""From a recipe to its loss object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..attacks import as_threat
from ..configs import InputError, TrainConfig
from ..configs.recipe import filled
from .adversarial import AdversarialLoss, MartLoss, TradesLoss
from .losses import ConsistencyLoss, Loss, NoisyLoss, StandardLoss
from .perturb import InnerAttack, Start


def build_loss(recipe: TrainConfig, auxiliary: Mapping[str, float] | None = None) -> Loss:
    """Return the loss that a recipe names.

    Args:
        recipe: The recipe.
        auxiliary: Weights of the front-end's auxiliary losses, by name; None for none.

    Raises:
        InputError: If the threat cannot be read, or the recipe has no such norm.
    """
    common = {"label_smoothing": recipe.label_smoothing, "auxiliary": auxiliary}
    return LOSSES[recipe.loss.name](recipe, common)


def _standard(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return StandardLoss(**common)


def _consistency(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return ConsistencyLoss(weight=filled(recipe.loss.beta), **common)


def _gaussian(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return NoisyLoss(sigma=filled(recipe.loss.sigma), **common)


def _noisy_consistency(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return NoisyLoss(sigma=filled(recipe.loss.sigma), weight=filled(recipe.loss.beta), copies=2, **common)


def _madry(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return AdversarialLoss(attack=_attack(recipe), **common)


def _fast(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return AdversarialLoss(attack=_attack(recipe, steps=1, relative=1.25), **common)


def _trades(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return TradesLoss(attack=_attack(recipe, start="near"), beta=filled(recipe.loss.beta), **common)


def _mart(recipe: TrainConfig, common: dict[str, Any]) -> Loss:
    return MartLoss(attack=_attack(recipe, start="near"), beta=filled(recipe.loss.beta), **common)


LOSSES: dict[str, Callable[[TrainConfig, dict[str, Any]], Loss]] = {
    "standard": _standard,
    "jsd": _consistency,
    "gaussian": _gaussian,
    "consistency": _noisy_consistency,
    "pgd": _madry,
    "fast": _fast,
    "trades": _trades,
    "mart": _mart,
}


def _attack(
    recipe: TrainConfig, *, steps: int | None = None, relative: float = 0.25, start: Start = "ball"
) -> InnerAttack:
    threat = as_threat(filled(recipe.loss.threat))
    if threat.norm == "l1":
        raise InputError(
            f"train.loss.threat is {recipe.loss.threat!r}; adversarial training here takes linf or l2."
        )
    return InnerAttack(
        threat=threat,
        steps=filled(recipe.loss.steps) if steps is None else steps,
        step_size=recipe.loss.step_size or relative * threat.epsilon,
        start=start,
        gradient_mode=recipe.loss.gradient_mode,
    )
