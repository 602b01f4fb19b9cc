"""Measurements behind the checks of :mod:`.masking`, on small samples of images, and what they break on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..access import CountingModel, Model, seeded
from ..adaptive.views import carries_gradient
from ..checks import NotApplicable
from ..margin import ANY, Walks, ascend_margins, lead
from ..threat import ThreatModel, direction, project, random_direction
from . import masking
from .masking import MaskingCheck

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}

DIRECTIONS = 16
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
        worst: (N, C, H, W), the images with those that a probe inside the ball broke as it broke them.
        safe: The model as attacks see it: what it writes into its input changes no image.
    """

    model: Model
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    seed: int = 0
    batch_size: int = 128
    steps: int = 40
    worst: Tensor = field(init=False)
    safe: CountingModel = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "worst", self.images.clone())
        object.__setattr__(self, "safe", CountingModel(self.model, self.images.dtype))

    def checks(self) -> list[MaskingCheck]:
        """All checks of a sample that the suite did not choose; without any gradient the first says it all."""
        count = len(self.images)
        if not self._is_differentiable():
            return [masking.gradients_flow(torch.ones(count), torch.zeros(count))]
        with seeded(self.seed):
            measured = [self._measure(part) for part in self._batches()]
            margins, reaches, agreements, one_step = (
                torch.cat(parts) for parts in zip(*measured, strict=True)
            )
            walks = self._climb(self.images, self.labels, self.threat)
            self._keep(slice(None), walks.found, walks.broken)
            return [
                masking.gradients_flow(margins, reaches),
                masking.gradients_agree(agreements),
                masking.many_steps_beat_one(one_step, walks.broken),
                masking.loss_rises(walks.risen),
                self._curve(walks.broken),
            ]

    def checks_of_standing(self) -> list[MaskingCheck]:
        """The checks of images that a suite left standing, which are what could inflate its figure."""
        if not self._is_differentiable():
            return []
        with seeded(self.seed):
            parts = [self._step(part) for part in self._batches()]
        predicted, realised, slopes = (torch.cat(part) for part in zip(*parts, strict=True))
        return [
            masking.steps_do_what_gradients_say(predicted, realised),
            masking.cross_entropy_is_felt(slopes),
        ]

    def _batches(self) -> list[slice]:
        starts = range(0, len(self.images), self.batch_size)
        return [slice(start, start + self.batch_size) for start in starts]

    def _is_differentiable(self) -> bool:
        try:
            return carries_gradient(self.safe, self.images[:1])
        except NotApplicable:
            return False

    def margin(self, images: Tensor, labels: Tensor) -> Tensor:
        """(N,) logit of the true class minus the best other."""
        return -lead(self.safe(images), labels, torch.full_like(labels, ANY))

    def _slope(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Margin (N,) and its gradient."""
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            margin = self.margin(leaf, y)
            (gradient,) = torch.autograd.grad(margin.sum(), leaf)
        return margin.detach(), gradient

    def _reach(self, gradient: Tensor) -> Tensor:
        """(N,) by how much a gradient says that the ball can change the margin."""
        dual = torch.linalg.vector_norm(gradient.flatten(1), DUAL[self.threat.norm], dim=1)
        return self.threat.epsilon * dual

    def _inside(self, x: Tensor, shift: Tensor) -> Tensor:
        return project(x, x + shift, self.threat).clamp(0.0, 1.0)

    def _keep(self, part: slice, points: Tensor, broken: Tensor) -> None:
        self.worst[part][broken] = points[broken].to(self.worst.dtype)

    def _measure(self, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Margin, its change over the ball by the gradient, agreement with differences, broken in one step."""
        x, y = self.images[part], self.labels[part]
        margin, gradient = self._slope(x, y)
        elsewhere = self._slope(self._inside(x, random_direction(x, self.threat)), y)[1]
        reach = torch.minimum(self._reach(gradient), self._reach(elsewhere))
        stepped = self._inside(x, -self.threat.epsilon * direction(gradient, self.threat.norm))
        with torch.no_grad():
            one_step = self.margin(stepped, y) < 0
        self._keep(part, stepped, one_step)
        return margin, reach, self._agreement(part, gradient), one_step

    @torch.no_grad()
    def _agreement(self, part: slice, gradient: Tensor) -> Tensor:
        """Correlation of the gradient's predictions with central differences along random signs."""
        x, y = self.images[part], self.labels[part]
        predicted, measured = [], []
        for _ in range(DIRECTIONS):
            signs = torch.randn_like(x).sign()
            norm = self.threat.distance(signs, torch.zeros_like(signs)).to(x.dtype)
            step = STEP_SHARE * self.threat.epsilon * signs / norm.view(-1, 1, 1, 1)
            up, down = (x + step).clamp(0.0, 1.0), (x - step).clamp(0.0, 1.0)
            margins = [self.margin(point, y) for point in (up, down)]
            predicted.append((gradient * (up - down)).flatten(1).sum(dim=1))
            measured.append(margins[0] - margins[1])
            for margin, point in zip(margins, (up, down), strict=True):
                self._keep(part, point, margin < 0)
        return masking.correlation(torch.stack(predicted), torch.stack(measured))

    def _step(self, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted and realised change of the margin along the attack's own step; slope of the cross entropy."""
        x, y = self.images[part], self.labels[part]
        margin, gradient = self._slope(x, y)
        length = STEP_SHARE * self.threat.epsilon
        stepped = self._inside(x, -length * direction(gradient, self.threat.norm))
        with torch.no_grad():
            realised = self.margin(stepped, y) - margin
        self._keep(part, stepped, realised < -margin)
        predicted = (gradient * (stepped - x)).flatten(1).sum(dim=1)
        leaf = self._inside(x, random_direction(x, self.threat)).requires_grad_()
        with torch.enable_grad():
            loss = functional.cross_entropy(self.safe(leaf), y, reduction="sum")
            (felt,) = torch.autograd.grad(loss, leaf)
        return predicted, realised, felt.flatten(1).abs().amax(dim=1)

    def _climb(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Walks:
        """Walks from the clean images away from their classes, until they are broken."""
        goals = torch.full_like(y[:, None], ANY)
        return ascend_margins(
            self.safe, x, y, threat, goals, steps=self.steps, batch_size=self.batch_size, random_start=False
        )

    def _curve(self, broken: Tensor) -> MaskingCheck:
        """Let epsilon grow until nothing is left, or until every image can be turned to plain grey.

        An image broken in a smaller ball is broken in every larger one.
        """
        largest = float(self.threat.distance(self.images, torch.full_like(self.images, 0.5)).max())
        epsilons, accuracies = [self.threat.epsilon], [1 - float(broken.double().mean())]
        broken = broken.clone()
        while accuracies[-1] > 0 and epsilons[-1] < largest:
            epsilons.append(min(GROWTH * epsilons[-1], max(largest, self.threat.epsilon)))
            left = ~broken
            threat = ThreatModel(self.threat.norm, epsilons[-1])
            broken[left] = self._climb(self.images[left], self.labels[left], threat).broken
            accuracies.append(1 - float(broken.double().mean()))
        return masking.accuracy_falls_to_zero(epsilons, accuracies)
