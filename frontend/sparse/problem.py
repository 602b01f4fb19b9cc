"""The problem of sparse coding: images, dictionary, threshold and lambda as one object.

The dynamics, the solver, the schedules and the implicit gradient all work on a :class:`Problem`. Another data term is
another ``residual``, ``drive`` and ``energy``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .functional import state_size
from .operator import ConvOperator
from .threshold import Threshold, of_images


@dataclass(frozen=True)
class Problem:
    """Minimise E(a) = 1/2 ||x - Phi a||^2 + sum C(a) over codes a, image by image.

    Attributes:
        operator: Phi and its bound L.
        images: Standardised images x, (N, C, H, W).
        threshold: T, whose cost is C.
        lam: The threshold value, above 0: a number, a scalar tensor, or one per image, (N, 1, 1, 1).
    """

    operator: ConvOperator
    images: Tensor
    threshold: Threshold
    lam: Tensor | float

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return self.images.shape[2], self.images.shape[3]

    def code(self, state: Tensor) -> Tensor:
        """a = T(u), (N, M, h, w)."""
        return self.threshold(state, self.lam)

    def residual(self, code: Tensor) -> Tensor:
        """x - Phi a, (N, C, H, W)."""
        return self.images - self.operator.synthesise(code, self.size)

    def drive(self, code: Tensor) -> Tensor:
        """Phi^T (x - Phi a) + a, (N, M, h, w): the state at which the dynamics would rest with this code."""
        return self.operator.analyse(self.residual(code)).add_(code)

    def energy(self, code: Tensor) -> Tensor:
        """E(a) of each image, (N,)."""
        return energy_of(self.residual(code), self.threshold.total_cost(code, self.lam))

    def fixed_point_residual(self, state: Tensor) -> Tensor:
        """||Phi^T (x - Phi T(u)) + T(u) - u|| / ||u||, (N,): zero at a settled state."""
        step = self.drive(self.code(state)) - state
        return step.flatten(1).norm(dim=1) / state.flatten(1).norm(dim=1).clamp_min(1e-30)

    def cold_start(self) -> Tensor:
        """Return the state zero, (N, M, h, w)."""
        height, width = state_size(self.size, self.operator.stride)
        atoms = len(self.operator.atoms)  # len() of images would fix the batch in exports
        return self.images.new_zeros(self.images.shape[0], atoms, height, width)

    def prepared(self) -> Problem:
        """Return the same with the atoms prepared once for the convolutions of many iterations."""
        return replace(self, operator=self.operator.cast_for(self.images))

    def of(self, rows: Tensor) -> Problem:
        """Return the problem of some of the images; rows are numbers or a mask."""
        return replace(self, images=self.images[rows], lam=of_images(self.lam, rows))


def energy_of(residual: Tensor, cost: Tensor | None = None) -> Tensor:
    """1/2 ||r||^2 of each image, and its code's cost where there is one, (N,)."""
    norm = vector_norm(residual, dim=(1, 2, 3))
    return 0.5 * norm.square() if cost is None else torch.addcmul(cost, norm, norm, value=0.5)
