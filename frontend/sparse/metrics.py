"""Measures of a sparse code, one number per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .operator import ConvOperator
from .threshold import Threshold, is_active


def energy(
    images: Tensor, code: Tensor, operator: ConvOperator, threshold: Threshold, lam: Tensor | float
) -> Tensor:
    """E(a) = 1/2 ||x - Phi a||^2 + sum C(a), shape (N,).

    Args:
        images: Standardised images (N, C, H, W).
        code: (N, M, h, w).
        operator: Phi.
        threshold: Whose cost C is summed.
        lam: The threshold value.
    """
    residual = images - operator.synthesise(code, (images.shape[2], images.shape[3]))
    return energy_of(residual, threshold.total_cost(code, lam))


def energy_of(residual: Tensor, cost: Tensor | None = None) -> Tensor:
    """1/2 ||r||^2 of each image, and its code's cost where there is one, (N,)."""
    norm = vector_norm(residual.flatten(1), dim=1)
    return 0.5 * norm.square() if cost is None else torch.addcmul(cost, norm, norm, value=0.5)


def active_fraction(code: Tensor, lam: Tensor | float) -> Tensor:
    """Share of active units (the l0 fraction), shape (N,), 0 to 1."""
    return is_active(code, lam).to(code.dtype).flatten(1).mean(1)


def fixed_point_residual(
    images: Tensor, state: Tensor, operator: ConvOperator, threshold: Threshold, lam: Tensor | float
) -> Tensor:
    """||Phi^T (x - Phi T(u)) + T(u) - u|| / ||u||, shape (N,): zero at a settled state."""
    code = threshold(state, lam)
    step = (
        operator.analyse(images - operator.synthesise(code, (images.shape[2], images.shape[3])))
        + code
        - state
    )
    return step.flatten(1).norm(dim=1) / state.flatten(1).norm(dim=1).clamp_min(1e-30)


@dataclass(frozen=True)
class SolveStatistics:
    """What a solve did, per image.

    Attributes:
        iterations: Number of iterations done, at most.
        energy: (N,) E(a) at the end.
        residual: (N,) fixed-point residual at the end; see ``metrics.fixed_point_residual``.
        active_fraction: (N,) share of active units, 0 to 1.
        iterations_used: (N,) iterations that each image took; all alike without a tolerance.
        trace: (T + 1, N) energy before the first and after every iteration, or None.
    """

    iterations: int
    energy: Tensor
    residual: Tensor
    active_fraction: Tensor
    iterations_used: Tensor
    trace: Tensor | None = None


@torch.no_grad()
def statistics(
    operator: ConvOperator,
    images: Tensor,
    threshold: Threshold,
    lam: Tensor | float,
    state: Tensor,
    iterations_used: Tensor,
    trace: list[Tensor] | None = None,
) -> SolveStatistics:
    """Measure a final state after (N,) ``iterations_used``; other arguments as for :func:`solve`."""
    code = threshold(state, lam)
    return SolveStatistics(
        iterations=int(iterations_used.max()) if len(iterations_used) else 0,
        energy=energy(images, code, operator, threshold, lam),
        residual=fixed_point_residual(images, state, operator, threshold, lam),
        active_fraction=active_fraction(code, lam),
        iterations_used=iterations_used,
        trace=torch.stack(trace) if trace else None,
    )
