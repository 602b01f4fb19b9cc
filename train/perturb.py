"""Attacks inside adversarial training, on the very model that learns: on images, and on weights.

Evaluation's attacks (``warplca.attacks``) check every perturbation and count queries; here the loop is bare,
because it runs in every training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..attacks import ThreatModel, iterative_settings
from ..attacks.threat import direction, project, random_direction
from ..configs import InputError
from ..models import Classifier
from .losses import LossResult
from .optim import statistics_kept

Objective = Callable[[Tensor], Tensor]
Start = Literal["ball", "near", "beyond", "corner"]
NEAR = 0.001
"""Standard deviation of TRADES's starting noise: its objective has no gradient at the image itself."""


@dataclass(frozen=True, kw_only=True)
class InnerAttack:
    """Gradient ascent inside a ball, through the front-end with the gradient mode of choice.

    Batch norm, statistics of front-ends and dropout are frozen meanwhile: the attack is on the function that the
    images will meet, and must not move running statistics.

    Attributes:
        threat: The ball.
        steps: Gradient steps.
        step_size: Length of a step in the threat's norm, in pixels.
        start: "ball" (anywhere in it), "near" (Gaussian noise of 0.001), "corner" (noise of half the radius, for linf
            in every pixel) or "beyond" (noise of twice the radius, and nothing is projected back onto the ball).
        gradient_mode: "unroll" or "implicit"; None takes the layer's own.
    """

    threat: ThreatModel
    steps: int
    step_size: float
    start: Start = "ball"
    gradient_mode: str | None = None

    def __call__(self, model: nn.Module, images: Tensor, objective: Objective) -> Tensor:
        """Return images (N, C, H, W) in [0, 1], in the ball unless the start is beyond, on which ``objective`` is high.

        Args:
            model: The model that ``objective`` calls.
            images: (N, C, H, W) centres.
            objective: Images to a scalar, summed over images.

        Raises:
            InputError: If the front-end hands no gradient to its input.
        """
        with frozen_statistics(model), iterative_settings(model, gradient_mode=self.gradient_mode) as layers:
            if self.gradient_mode is not None and not layers:
                raise InputError(
                    f"train.loss.gradient_mode is {self.gradient_mode!r}, and this front-end runs no cycles; leave it "
                    "out."
                )
            if any(layer.gradient_mode == "detach" for layer in layers):
                raise InputError(
                    'gradient_mode is "detach": no attack can see through the front-end, which would look like '
                    "robustness; set train.loss.gradient_mode: unroll."
                )
            return self._climb(images.detach(), objective)

    def _climb(self, images: Tensor, objective: Objective) -> Tensor:
        current = self._within(images, images + self._offset(images))
        for _ in range(self.steps):
            leaf = current.requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(objective(leaf), leaf)
            moved = leaf.detach() + self.step_size * direction(gradient.detach(), self.threat.norm)
            current = self._within(images, moved)
        return current.detach()

    def _offset(self, images: Tensor) -> Tensor:
        if self.start == "near":
            return NEAR * torch.randn_like(images)
        if self.start == "corner":
            return 0.5 * self.threat.epsilon * direction(torch.randn_like(images), self.threat.norm)
        offset = random_direction(images, self.threat)
        return 2.0 * offset if self.start == "beyond" else offset

    def _within(self, images: Tensor, moved: Tensor) -> Tensor:
        if self.start != "beyond":
            moved = project(images, moved, self.threat)
        return moved.clamp(0.0, 1.0)


def cross_entropy_ascent(model: nn.Module, labels: Tensor) -> Objective:
    """Return the objective of untargeted attacks: the cross entropy, summed over images."""
    return lambda images: F.cross_entropy(model(images).float(), labels, reduction="sum")


class _Judged(nn.Module):
    """A model and what is asked of it, as one module whose weights can be replaced."""

    def __init__(self, model: Classifier, judge: Callable[[Classifier], LossResult]) -> None:
        super().__init__()
        self.model, self.judge = model, judge

    def forward(self) -> LossResult:
        return self.judge(self.model)


def at_worse_weights(
    model: Classifier, judge: Callable[[Classifier], LossResult], share: float
) -> LossResult:
    """Return a loss where the backbone's weights are moved along its gradient; the weights themselves stay.

    Adversarial weight perturbation (Wu et al., NeurIPS 2020): each weight of two or more dimensions moves by ``share``
    of its norm. The loss's gradient by the weights is that at the moved ones. Batch norm's running statistics see
    the second pass alone. A process moves them by the gradient of its own share of the batch.

    Args:
        model: The model.
        judge: From a model to its loss.
        share: Length of the move over the weight's norm.
    """
    judged = _Judged(model, judge)
    running = {
        f"{place}.{name}": value.clone()
        for place, part in judged.named_modules()
        if isinstance(part, _BatchNorm)
        for name, value in part.named_buffers()
    }
    weights = {
        f"model.backbone.{name}": weight
        for name, weight in model.backbone.named_parameters()
        if weight.ndim > 1 and weight.requires_grad
    }
    with statistics_kept(model):
        loss = functional_call(judged, running, ()).loss
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    moved = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if gradient is not None:
            length = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
            moved[name] = weight + share * weight.detach().norm() / length * gradient
    return functional_call(judged, moved, ())


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Put batch norm, dropout and stochastic depth in evaluation mode for the block, and keep front-ends' statistics.

    The rest stays in training mode: evaluation mode would check pixel ranges, and wait for the device to do so.
    timm's networks drop features by a ``drop_rate`` of their own, without a module for it.
    """
    kinds = (_BatchNorm, _DropoutNd, DropPath)
    parts = [
        part
        for part in model.modules()
        if part.training and (isinstance(part, kinds) or getattr(part, "drop_rate", 0.0))
    ]
    try:
        for part in parts:
            part.training = False  # of this module alone, not of those inside it
        with statistics_kept(model):
            yield
    finally:
        for part in parts:
            part.training = True
