"""Attacks that follow a gradient step by step: the library's FGSM and PGD, and a loop for any objective.

FGSM: Goodfellow et al., ICLR 2015. PGD: Madry et al., ICLR 2018. Sparse l1 descent: Tramèr and Boneh,
NeurIPS 2019, which spends the l1 budget on few pixels where a dense step would waste it. All three through foolbox;
:func:`ascend` is projected gradient ascent for objectives that the libraries do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..configs.errors import InputError
from .access import CountingModel, as_foolbox
from .interface import PLAIN_GRADIENTS, BatchwiseAttack
from .threat import ThreatModel, direction, project, random_direction

if TYPE_CHECKING:
    from foolbox.attacks.gradient_descent_base import BaseGradientDescent


Objective = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to values (N,) that the attacker wants high."""

MOMENTUM = 0.75

STEP_SHRINKAGE = 0.05
"""Length of the last step of an ascent, in lengths of the first."""


def ascend(
    objective: Objective, images: Tensor, threat: ThreatModel, *, steps: int, random_start: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Climb the objective inside the ball, with momentum and a step that shrinks from epsilon to epsilon / 20.

    Args:
        objective: The function to maximise.
        images: (N, C, H, W) centres in [0, 1].
        threat: The ball.
        steps: Number of steps.
        random_start: Begin at a random point instead of the centre.

    Yields:
        After each step the candidates (N, C, H, W), inside ball and pixel range, and the objective (N,)
        where the step began.
    """
    start = images + random_direction(images, threat) if random_start else images
    current = project(images, start, threat).clamp(0.0, 1.0)
    before = current
    for step in range(steps):
        length = threat.epsilon * STEP_SHRINKAGE ** (step / max(steps - 1, 1))
        leaf = current.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        before, current = current, step_uphill(images, current, before, gradient, length, threat)
        yield current.detach(), value.detach()


def step_uphill(
    images: Tensor,
    current: Tensor,
    before: Tensor,
    gradient: Tensor,
    length: Tensor | float,
    threat: ThreatModel,
) -> Tensor:
    """One step with momentum along a gradient, back inside ball and pixel range.

    Args:
        images: (N, C, H, W) centres.
        current: The point at which the step begins.
        before: The point at which the last step began.
        gradient: At ``current``, of any scale.
        length: In the ball's norm; one number, or (N, 1, 1, 1).
        threat: The ball.
    """
    moved = project(images, current + length * direction(gradient, threat.norm), threat).clamp(0.0, 1.0)
    blended = current + MOMENTUM * (moved - current) + (1 - MOMENTUM) * (current - before)
    return project(images, blended, threat).clamp(0.0, 1.0)


RESTART_STRIDE = 7919
"""Distance between the seeds of successive restarts."""


@dataclass(frozen=True, kw_only=True)
class FGSM(BatchwiseAttack):
    """Fast gradient method: one full step along the sign (linf) or the direction (l2, l1) of the gradient."""

    @property
    def kind(self) -> str:
        """Plain gradients."""
        return PLAIN_GRADIENTS

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Take the step."""
        from foolbox.attacks import fast_gradient_method as attacks

        kinds = {
            "linf": attacks.LinfFastGradientAttack,
            "l2": attacks.L2FastGradientAttack,
            "l1": attacks.L1FastGradientAttack,
        }
        return kinds[threat.norm]().run(as_foolbox(model, images), images, labels, epsilon=threat.epsilon)


@dataclass(frozen=True, kw_only=True)
class PGD(BatchwiseAttack):
    """Projected gradient descent with random restarts; an image once broken is left alone.

    Attributes:
        steps: Gradient steps per restart.
        restarts: Random starts.
        relative_step: Step length divided by epsilon; ``None`` means ``2.5 / steps``.
        random_start: Whether the first restart begins at a random point of the ball; the others always do.
    """

    steps: int = 40
    restarts: int = 1
    relative_step: float | None = None
    random_start: bool = True

    @property
    def kind(self) -> str:
        """Plain gradients."""
        return PLAIN_GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise InputError(
                f"PGD has steps={self.steps}, restarts={self.restarts}; expected at least 1 each."
            )
        if self.relative_step is not None and self.relative_step <= 0:
            raise InputError(
                f"PGD has relative_step={self.relative_step}; expected a number above 0 or None."
            )

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Descend from each start in turn, on the images that are not broken yet."""
        candidates = images.clone()
        standing = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            torch.manual_seed(seed + RESTART_STRIDE * restart)
            method = self._method(threat.norm, random_start=self.random_start or restart > 0)
            tried = method.run(
                as_foolbox(model, images), images[standing], labels[standing], epsilon=threat.epsilon
            )
            candidates[standing] = tried
            if restart + 1 < self.restarts:
                with torch.no_grad():
                    standing = standing[model(tried).argmax(dim=1) == labels[standing]]
                if len(standing) == 0:
                    break
        return candidates

    def _method(self, norm: str, *, random_start: bool) -> BaseGradientDescent:
        from foolbox.attacks import projected_gradient_descent as attacks

        kinds: dict[str, Any] = {
            "linf": attacks.LinfProjectedGradientDescentAttack,
            "l2": attacks.L2ProjectedGradientDescentAttack,
            "l1": _sparse_l1_descent(),
        }
        step = 2.5 / self.steps if self.relative_step is None else self.relative_step
        return kinds[norm](rel_stepsize=step, steps=self.steps, random_start=random_start)


@cache
def _sparse_l1_descent() -> type[BaseGradientDescent]:
    """foolbox's attack with an exact projection.

    foolbox 3.3.4 inflates the perturbations that lie inside the ball whenever another one of the same
    batch lies outside.
    """
    from eagerpy.astensor import astensor
    from eagerpy.tensor.tensor import Tensor as EagerTensor
    from foolbox.attacks.sparse_l1_descent_attack import SparseL1DescentAttack

    class ExactSparseL1Descent(SparseL1DescentAttack):
        def project(self, x: EagerTensor, x0: EagerTensor, epsilon: float) -> EagerTensor:
            return astensor(project(x0.raw, x.raw, ThreatModel("l1", epsilon)))

    return ExactSparseL1Descent
