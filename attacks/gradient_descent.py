"""One step and many steps along the gradient, through foolbox.

FGSM: Goodfellow et al., ICLR 2015. PGD: Madry et al., ICLR 2018. Sparse l1 descent: Tramèr and Boneh,
NeurIPS 2019, which spends the l1 budget on few pixels where a dense step would waste it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..configs.errors import InputError
from .ball import project
from .base import BatchwiseAttack
from .counting import CountingModel
from .foolbox_model import as_foolbox
from .threat import ThreatModel

if TYPE_CHECKING:
    from foolbox.attacks.gradient_descent_base import BaseGradientDescent

RESTART_STRIDE = 7919
"""Distance between the seeds of successive restarts."""


@dataclass(frozen=True, kw_only=True)
class FGSM(BatchwiseAttack):
    """Fast gradient method: one full step along the sign (linf) or the direction (l2, l1) of the gradient."""

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
        """Descend from each start in turn, on the images that still stand."""
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
