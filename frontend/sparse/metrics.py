"""Measures of a sparse code, one number per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .problem import Problem
from .threshold import is_active


def active_fraction(code: Tensor, lam: Tensor | float) -> Tensor:
    """Share of active units (the l0 fraction), shape (N,), 0 to 1."""
    return is_active(code, lam).to(code.dtype).flatten(1).mean(1)


@dataclass(frozen=True)
class SolveStatistics:
    """Statistics of a solve, per image.

    Attributes:
        iterations: Number of iterations done, at most.
        energy: (N,) E(a) at the end.
        residual: (N,) fixed-point residual at the end; see ``Problem.fixed_point_residual``.
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
    problem: Problem, state: Tensor, iterations_used: Tensor, trace: list[Tensor] | None = None
) -> SolveStatistics:
    """Measure a final state after (N,) ``iterations_used``; ``trace`` is that of :func:`solve`."""
    code = problem.code(state)
    return SolveStatistics(
        iterations=int(iterations_used.max()) if len(iterations_used) else 0,
        energy=problem.energy(code),
        residual=problem.fixed_point_residual(state),
        active_fraction=active_fraction(code, problem.lam),
        iterations_used=iterations_used,
        trace=torch.stack(trace) if trace else None,
    )
