"""The attack inside adversarial training: projected gradient steps on the very model that learns.

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
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..attacks import ThreatModel, iterative_settings
from ..attacks.threat import direction, project, random_direction
from ..configs import InputError
from .optim import statistics_kept

Objective = Callable[[Tensor], Tensor]
Start = Literal["ball", "near", "beyond"]
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
        start: "ball" (anywhere in it), "near" (Gaussian noise of 0.001) or "beyond" (noise of twice the radius, and
            nothing is projected back onto the ball).
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
        offset = (
            NEAR * torch.randn_like(images) if self.start == "near" else random_direction(images, self.threat)
        )
        if self.start == "beyond":
            offset = 2.0 * offset
        current = self._within(images, images + offset)
        for _ in range(self.steps):
            leaf = current.requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(objective(leaf), leaf)
            moved = leaf.detach() + self.step_size * direction(gradient.detach(), self.threat.norm)
            current = self._within(images, moved)
        return current.detach()

    def _within(self, images: Tensor, moved: Tensor) -> Tensor:
        if self.start != "beyond":
            moved = project(images, moved, self.threat)
        return moved.clamp(0.0, 1.0)


def cross_entropy_ascent(model: nn.Module, labels: Tensor) -> Objective:
    """Return the objective of untargeted attacks: the cross entropy, summed over images."""
    return lambda images: F.cross_entropy(model(images).float(), labels, reduction="sum")


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
