"""Measures of a sparse code, one number per image."""

from __future__ import annotations

from torch import Tensor

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
    return 0.5 * residual.square().flatten(1).sum(1) + threshold.cost(code, lam).flatten(1).sum(1)


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
