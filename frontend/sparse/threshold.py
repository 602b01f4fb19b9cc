"""Rozell's family of threshold functions and the costs they minimise.

Source: Rozell, Johnson, Baraniuk, Olshausen, "Sparse coding via thresholding and local competition in
neural circuits", Neural Computation 20 (2008), equations 3.2 and 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from ...configs.errors import InputError, unknown_name


@dataclass(frozen=True)
class Threshold:
    """T(u) = max(u - alpha lam, 0) * sigmoid(gamma (u - lam)), rectified or signed by odd symmetry.

    At gamma = infinity the threshold minimises (u - a)^2 / 2 + C(a) with the cost
    C(a) = (1 - alpha)^2 lam^2 / 2 per active unit + alpha lam |a|: alpha = 0 is hard (an l0 penalty),
    alpha = 1 soft (l1).

    Attributes:
        alpha: Share of lam by which an active unit is shrunk, 0 to 1.
        gamma: Steepness of the step, above 0; infinity for a true step.
        rectified: Whether only positive states pass.
    """

    alpha: float = 0.0
    gamma: float = math.inf
    rectified: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(
                f"alpha of the threshold is {self.alpha}; give a number from 0 (hard) to 1 (soft)."
            )
        if not self.gamma > 0.0:
            raise InputError(f"gamma of the threshold is {self.gamma}; give a number above 0, or infinity.")

    @property
    def differentiable_in_lam(self) -> bool:
        """Whether lam receives a gradient that is not zero almost everywhere."""
        return self.alpha > 0.0 or math.isfinite(self.gamma)

    @property
    def convex(self) -> bool:
        """Whether the cost is convex; then its minimum is the only one, and annealing finds no better."""
        return self.alpha == 1.0

    def __call__(self, state: Tensor, lam: Tensor | float) -> Tensor:
        """Turn a state into a code.

        Args:
            state: Any shape.
            lam: The threshold value, above 0; a number or a tensor that broadcasts to the state.
        """
        if self.rectified:
            return self._positive_part(state, lam)
        return torch.sign(state) * self._positive_part(state.abs(), lam)

    def cost(self, code: Tensor, lam: Tensor | float) -> Tensor:
        """Return C(a) of every unit, in the code's shape (exact at gamma = infinity)."""
        count = 0.5 * (1.0 - self.alpha) ** 2 * lam**2 * is_active(code, lam).to(code.dtype)
        return count + self.alpha * lam * code.abs()

    def total_cost(self, code: Tensor, lam: Tensor | float) -> Tensor:
        """Return the sum of C(a) over the units of each image, (N,); lam is a number or (N, 1, 1, 1).

        Few operations, since cycles ask for it: a term that is zero is left out, and true steps leave true zeros.
        """
        units, level = tuple(range(1, code.ndim)), lam.flatten() if isinstance(lam, Tensor) else lam
        size = self.alpha * level * vector_norm(code, 1, dim=units) if self.alpha else None
        if self.alpha == 1.0:
            return size  # pyright: ignore[reportReturnType]
        active = (
            vector_norm(code, 0, dim=units) if math.isinf(self.gamma) else is_active(code, lam).sum(units)
        )
        count = (0.5 * (1.0 - self.alpha) ** 2 * level**2) * active
        return count if size is None else count + size

    def margin(self, state: Tensor, lam: Tensor | float) -> Tensor:
        """Return how far every unit is above the threshold value, |u| - lam or, rectified, u - lam."""
        return (state if self.rectified else state.abs()) - lam

    def surrogate(self, gamma: float) -> Threshold:
        """Return a threshold to train through: the step, if there is one, of steepness ``gamma``."""
        return self if self.convex else replace(self, gamma=gamma)

    def smooth_cost(self, state: Tensor, code: Tensor, lam: Tensor | float) -> Tensor:
        """Return the sum of C(T(u)) over the units of each image, (N,), with a gradient that reaches every unit.

        The count of active units is replaced by a sigmoid of the state.
        """
        gamma = self.gamma if math.isfinite(self.gamma) else 20.0 / lam
        count = torch.sigmoid(gamma * self.margin(state, lam))
        cost = 0.5 * (1.0 - self.alpha) ** 2 * lam**2 * count + self.alpha * lam * code.abs()
        return cost.flatten(1).sum(1)

    def derivative(self, state: Tensor, lam: Tensor | float) -> Tensor:
        """Return dT/du elementwise."""
        with torch.enable_grad():
            leaf = state.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(leaf, lam).sum(), leaf)
        return slope

    def _positive_part(self, state: Tensor, lam: Tensor | float) -> Tensor:
        if math.isfinite(self.gamma):
            gate = (state - lam).mul_(self.gamma).sigmoid_()
            return torch.relu(state - self.alpha * lam if self.alpha else state) * gate
        if self.alpha == 1.0:
            return (state - lam).relu_()
        if self.alpha == 0.0 and not isinstance(lam, Tensor):
            return torch.nn.functional.threshold(state, lam, 0.0)
        return torch.where(state > lam, state - self.alpha * lam, 0.0)


THRESHOLDS: dict[str, Threshold] = {
    "hard": Threshold(alpha=0.0),
    "soft": Threshold(alpha=1.0),
    "smooth": Threshold(alpha=0.0, gamma=20.0),
    "hard-signed": Threshold(alpha=0.0, rectified=False),
    "soft-signed": Threshold(alpha=1.0, rectified=False),
}


def get_threshold(threshold: str | Threshold) -> Threshold:
    """Look a threshold up by name; a :class:`Threshold` passes through."""
    if isinstance(threshold, Threshold):
        return threshold
    if threshold not in THRESHOLDS:
        raise unknown_name("threshold", threshold, THRESHOLDS)
    return THRESHOLDS[threshold]


def is_active(code: Tensor, lam: Tensor | float) -> Tensor:
    """Tell which units are active: |a| above one hundredth of lam.

    Hard and soft codes hold true zeros; the tolerance is for smooth thresholds, whose tail never ends.
    """
    return code.abs() > 0.01 * lam


def of_images(lam: Tensor | float, images: Tensor | slice) -> Tensor | float:
    """Return the threshold value for some images of a batch: a part of it if there is one per image, else all."""
    return lam[images] if isinstance(lam, Tensor) and lam.ndim else lam


def positive(value: float) -> nn.Parameter:
    """Return the parameter whose softplus is ``value``, above 0: how lambda is learned."""
    return nn.Parameter(torch.tensor(math.log(math.expm1(value))))
