"""Attack on the code itself: push units across the threshold, and see whether the classifier follows.

The objective never looks at the logits, so it finds what a saturated or misleading loss hides.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...configs.errors import InputError
from ..access import CountingModel
from ..checks import NotApplicable
from ..gradient_descent import Objective, ascend
from ..interface import BatchwiseAttack
from ..threat import ThreatModel
from .layers import LayerView, find_iterative_layers


@dataclass(frozen=True, kw_only=True)
class CodeAttack(BatchwiseAttack):
    """Move the layers' codes away from the clean ones, then towards those of images of other classes.

    Attributes:
        steps: Steps of each of the ``targets + 1`` runs.
        targets: Number of images of other classes to approach, nearest in code first.
        check_every: The real prediction is looked at after every so many steps.
    """

    rechecks_alone: ClassVar[bool] = True
    view: ClassVar[LayerView] = LayerView(threshold="smooth")
    steps: int = 40
    targets: int = 3
    check_every: int = 5

    def __post_init__(self) -> None:
        if min(self.steps, self.check_every) < 1 or self.targets < 0:
            raise InputError(
                f"CodeAttack has steps={self.steps}, targets={self.targets}, check_every={self.check_every}; "
                "expected steps and check_every of at least 1 and targets of at least 0."
            )

    @property
    def needs_differentiable_model(self) -> bool:
        """False: the gradient goes through the view."""
        return False

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Run away from the clean code, then towards other codes, on the images that are not broken yet."""
        torch.manual_seed(seed)
        codes_of = _code_reader(model, self.view.surrogate(model, images[:1]))
        with torch.no_grad():
            clean = codes_of(images)
        found, standing = images.clone(), torch.ones(len(images), dtype=torch.bool, device=images.device)
        goals = [(clean, 1.0)] + [(goal, -1.0) for goal in _foreign_codes(clean, labels, self.targets)]
        for goal, sign in goals:
            if not standing.any():
                break
            objective = _distance_objective(codes_of, goal[standing], sign)
            found[standing], broken = self._climb(
                model, objective, images[standing], labels[standing], threat
            )
            standing[standing.clone()] = ~broken
        return found

    def _climb(
        self, model: CountingModel, objective: Objective, x: Tensor, y: Tensor, threat: ThreatModel
    ) -> tuple[Tensor, Tensor]:
        found, broken, candidates = x.clone(), torch.zeros_like(y, dtype=torch.bool), x
        for step, (candidates, _) in enumerate(ascend(objective, x, threat, steps=self.steps), start=1):
            if step % self.check_every and step != self.steps:
                continue
            with torch.no_grad():
                fooled = model(candidates).argmax(dim=1) != y
            update = fooled & ~broken
            found[update], broken = candidates[update], broken | fooled
            if broken.all():
                break
        found[~broken] = candidates[~broken]
        return found, broken


def _code_reader(model: CountingModel, surrogate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Function from images to all layers' outputs in one row per image, differentiable along the view."""
    layers = find_iterative_layers(model.wrapped)

    def codes_of(images: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def record(module: Any, inputs: Any, output: Tensor) -> None:
            outputs.append(output.flatten(1))

        with ExitStack() as stack:
            for layer in layers:
                stack.callback(layer.register_forward_hook(record).remove)  # pyright: ignore[reportAttributeAccessIssue]
            surrogate(images)
        if not outputs:
            raise NotApplicable("the model's iterative layers are not used in its forward pass.")
        return torch.cat(outputs, dim=1)

    return codes_of


def _distance_objective(codes_of: Callable[[Tensor], Tensor], goal: Tensor, sign: float) -> Objective:
    return lambda images: sign * (codes_of(images) - goal).square().sum(dim=1)


def _foreign_codes(codes: Tensor, labels: Tensor, count: int) -> list[Tensor]:
    """For each image the codes of the nearest images of other classes, nearest first; fewer where few are."""
    distances = torch.cdist(codes, codes)
    distances[labels[:, None] == labels[None, :]] = torch.inf
    order = distances.argsort(dim=1)
    available = int((labels[:, None] != labels[None, :]).sum(dim=1).min())
    return [codes[order[:, rank]] for rank in range(min(count, available))]
