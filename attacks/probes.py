"""The measurements on a small sample of images that the masking checks judge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .ascent import ascend, direction
from .ball import project
from .checks import NotApplicable
from .counting import Model
from .masking import (
    MaskingCheck,
    accuracy_falls_to_zero,
    correlation,
    gradients_agree,
    gradients_flow,
    loss_rises,
    many_steps_beat_one,
)
from .seeding import seeded
from .threat import ThreatModel
from .views import carries_gradient

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}

DIRECTIONS = 32
"""Random steps per image for the comparison of gradients with differences."""

STEP_SHARE = 0.25
"""Length of those steps, in epsilons: inside the ball, well above rounding."""

GROWTH = 4.0
"""Factor between the radii of the accuracy curve."""


@dataclass(frozen=True, kw_only=True)
class Prober:
    """A model, images that it classifies rightly, and a threat.

    All measurements use the margin (the true class's logit minus the best other), which does not saturate
    as cross-entropy does on a confident network.

    Attributes:
        model: The model under evaluation.
        images: (N, C, H, W) on the model's device.
        labels: (N,).
        threat: The ball.
        seed: Seeds all probes.
        batch_size: Most images per call.
        steps: Gradient steps of the multi-step attack.
    """

    model: Model
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    seed: int = 0
    batch_size: int = 128
    steps: int = 40

    def checks(self) -> list[MaskingCheck]:
        """All checks that need only the sample; without any gradient the first says it all."""
        count = len(self.images)
        if not self._is_differentiable():
            return [gradients_flow(torch.ones(count), torch.zeros(count))]
        batches = list(
            zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)
        )
        with seeded(self.seed):
            measured = [self._measure(x, y) for x, y in batches]
            margins, reaches, agreements, one_step = (
                torch.cat(parts) for parts in zip(*measured, strict=True)
            )
            climbs = [self._climb(x, y, self.threat) for x, y in batches]
            many_steps = torch.cat([broken for broken, _ in climbs])
            return [
                gradients_flow(margins, reaches),
                gradients_agree(agreements),
                many_steps_beat_one(one_step, many_steps),
                loss_rises(torch.cat([losses for _, losses in climbs], dim=1)),
                self._curve(batches, many_steps),
            ]

    def _is_differentiable(self) -> bool:
        try:
            return carries_gradient(self.model, self.images[:1])
        except NotApplicable:
            return False

    def margin(self, images: Tensor, labels: Tensor) -> Tensor:
        """(N,) logit of the true class minus the best other."""
        logits = self.model(images.clone())
        own = logits.gather(1, labels[:, None]).squeeze(1)
        return own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)

    def _measure(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Margin, its change over the ball by the gradient, agreement with differences, broken in one step."""
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            margin = self.margin(leaf, y)
            (gradient,) = torch.autograd.grad(margin.sum(), leaf)
        slope = torch.linalg.vector_norm(gradient.flatten(1), DUAL[self.threat.norm], dim=1)
        moved = x - self.threat.epsilon * direction(gradient, self.threat.norm)
        stepped = project(x, moved, self.threat).clamp(0.0, 1.0)
        with torch.no_grad():
            one_step = self.margin(stepped, y) < 0
        return margin.detach(), self.threat.epsilon * slope, self._agreement(x, y, gradient), one_step

    @torch.no_grad()
    def _agreement(self, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        """Correlation of the gradient's predictions with central differences along random signs."""
        predicted, measured = [], []
        for _ in range(DIRECTIONS):
            signs = torch.randn_like(x).sign()
            norm = self.threat.distance(signs, torch.zeros_like(signs)).to(x.dtype)
            step = STEP_SHARE * self.threat.epsilon * signs / norm.view(-1, 1, 1, 1)
            predicted.append((gradient * step).flatten(1).sum(dim=1))
            measured.append(self.margin(x + step, y) - self.margin(x - step, y))
        return correlation(torch.stack(predicted), torch.stack(measured))

    def _climb(self, x: Tensor, y: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """Images (N,) broken at any step of an ascent from the clean image, and losses (steps, N)."""
        losses = []
        broken = torch.zeros_like(y, dtype=torch.bool)
        path = ascend(lambda z: -self.margin(z, y), x, threat, steps=self.steps, random_start=False)
        last = x
        for candidates, loss in path:
            losses.append(loss)
            broken |= loss > 0
            last = candidates
        with torch.no_grad():
            broken |= self.margin(last, y) < 0
        return broken, torch.stack(losses)

    def _curve(self, batches: list[tuple[Tensor, Tensor]], broken: Tensor) -> MaskingCheck:
        """Let epsilon grow until nothing is left, or until every image can be turned to plain grey."""
        largest = float(self.threat.distance(self.images, torch.full_like(self.images, 0.5)).max())
        epsilons, accuracies = [self.threat.epsilon], [1 - float(broken.double().mean())]
        while accuracies[-1] > 0 and epsilons[-1] < largest:
            epsilons.append(min(GROWTH * epsilons[-1], max(largest, self.threat.epsilon)))
            threat = ThreatModel(self.threat.norm, epsilons[-1])
            broken = torch.cat([self._climb(x, y, threat)[0] for x, y in batches])
            accuracies.append(1 - float(broken.double().mean()))
        return accuracy_falls_to_zero(epsilons, accuracies)
