"""From a plan to its cells: names checked and images chosen before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..attacks import as_attack, as_threat
from ..configs.errors import InputError, unknown_name
from ..configs.plan import EvaluationPlan
from ..data import CORRUPTIONS, STANDARD_CORRUPTIONS, ImageDataset
from .cells import Condition, ImageSet, choose_images

GROUPS = {"standard": tuple(STANDARD_CORRUPTIONS), "all": tuple(CORRUPTIONS)}


class Cell(NamedTuple):
    """One condition on one choice of images, and where these stand in the data set."""

    condition: Condition
    image_set: ImageSet
    positions: NDArray[np.intp]


def plan_cells(plan: EvaluationPlan, dataset: ImageDataset) -> list[Cell]:
    """All cells of a plan, cheapest kind first: clean, corruptions, attacks; doubles are dropped.

    Raises:
        InputError: A name in the plan is unknown, an attack does not know the threat's norm, or the data set
            has no images or one twice.
    """
    if not len(dataset):
        raise InputError(f"data set {dataset.name!r} holds no images: nothing can be measured.")
    if len(np.unique(dataset.indices)) < len(dataset.indices):
        raise InputError(f"data set {dataset.name!r} holds an image twice: give each image its own index.")
    sets = {count: _image_set(dataset, count, plan.seed) for count in _counts(plan)}
    conditions = [(Condition("clean", "clean"), plan.clean_images)]
    conditions += [(condition, plan.corruption_images) for condition in _corruptions(plan)]
    conditions += [(condition, plan.attack_images) for condition in _attacks(plan)]
    return [Cell(condition, *sets[count or 0]) for condition, count in dict.fromkeys(conditions)]


def _counts(plan: EvaluationPlan) -> set[int]:
    return {count or 0 for count in (plan.clean_images, plan.corruption_images, plan.attack_images)}


def _image_set(dataset: ImageDataset, count: int, seed: int) -> tuple[ImageSet, NDArray[np.intp]]:
    positions = choose_images(dataset.labels, count, seed)
    images = ImageSet(
        dataset.name,
        dataset.fingerprint,
        dataset.indices[positions].astype(np.int32),
        dataset.labels[positions].astype(np.int16),
    )
    return images, positions


def _corruptions(plan: EvaluationPlan) -> Iterator[Condition]:
    for entry in plan.corruptions:
        for name in GROUPS.get(entry, (entry,)):
            _check_chain(name)
            for severity in plan.severities:
                yield Condition("corruption", name, severity, source="generator")


def _check_chain(chain: str) -> None:
    names = chain.split("+")
    for name in names:
        if name not in CORRUPTIONS:
            raise unknown_name("corruption", name, (*CORRUPTIONS, *GROUPS))
    if len(set(names)) < len(names):
        raise InputError(f"the corruption chain {chain!r} names one twice: give different corruptions.")


def _attacks(plan: EvaluationPlan) -> Iterator[Condition]:
    for setting in plan.attacks:
        attack, threat = as_attack(setting.attack), as_threat(setting.threat)
        if threat.norm not in attack.norms:
            raise InputError(
                f"attack {setting.attack!r} knows the norms {', '.join(attack.norms)}, "
                f"the plan asks for {setting.threat!r}: choose another attack or threat."
            )
        yield Condition("attack", setting.attack, threat=str(threat))
