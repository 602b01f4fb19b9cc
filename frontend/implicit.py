"""Gradients at a settled state without a memory of the iterations.

A settled state obeys a = T(Phi^T (x - Phi a) + a). With D = T'(u) on the diagonal and G = Phi^T Phi,
the implicit function theorem gives the adjoint equation w - (I - G) D w = g. With z = D w it becomes
symmetric on the active set, (G + 1/D - 1) z = g where D > 0, and conjugate gradients solve it. (Bai,
Kolter, Koltun, "Deep equilibrium models", NeurIPS 2019, for LCA's fixed point.)

The gradient is biased while the state is unsettled, and nothing flows to the initial state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .operator import ConvOperator
from .threshold import Threshold

MAX_ITERATIONS = 100
TOLERANCE = 1e-6
DAMPING = 1e-6  # times L


def implicit_code(
    operator: ConvOperator,
    images: Tensor,
    threshold: Threshold,
    lam: Tensor | float,
    state: Tensor,
    *,
    report: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return the code of a settled state, with the gradient of the fixed point.

    Args:
        operator: Phi; gradients reach its atoms.
        images: Standardised images (N, C, H, W).
        threshold: T.
        lam: The threshold value; receives a gradient if it is a tensor that asks for one.
        state: The settled state (N, M, h, w); treated as a constant.
        report: Called in every backward pass with the relative residual of the adjoint equation, (N,).
    """
    state = state.detach()
    code = threshold(state, lam).detach()
    size = (images.shape[2], images.shape[3])
    mapped = threshold(operator.analyse(images - operator.synthesise(code, size)) + code, lam)
    slope = threshold.derivative(state, lam.detach() if isinstance(lam, Tensor) else lam)
    return _FixedPoint.apply(mapped, code, slope, operator.detached(), size, report)  # type: ignore[no-any-return]


class _FixedPoint(torch.autograd.Function):
    """Pass the settled code forward and the solution of the adjoint equation backward."""

    @staticmethod
    def forward(
        ctx: Any,
        mapped: Tensor,
        code: Tensor,
        slope: Tensor,
        operator: ConvOperator,
        size: tuple[int, int],
        report: Callable[[Tensor], None] | None,
    ) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.operator, ctx.size, ctx.report = operator, size, report
        return code.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        adjoint, residual = solve_adjoint(ctx.operator, slope, gradients[0], ctx.size)
        if ctx.report is not None:
            ctx.report(residual)
        return adjoint, None, None, None, None, None


@torch.no_grad()
def solve_adjoint(
    operator: ConvOperator, slope: Tensor, gradient: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Solve w - (I - G) D w = g for w by damped conjugate gradients on the active set.

    Args:
        operator: Phi.
        slope: D = T'(u), (N, M, h, w).
        gradient: g, same shape.
        size: (H, W) of the images.

    Returns:
        w where D > 0, and zero elsewhere (there the caller multiplies it by D = 0); and the relative residual
        that conjugate gradients stopped at, (N,): at most 1e-6 if it converged.
    """
    active = (slope > 1e-6).to(slope.dtype)
    diagonal = active * (1.0 / slope.clamp_min(1e-6) - 1.0) + DAMPING * operator.lipschitz

    def apply(z: Tensor) -> Tensor:
        return active * operator.analyse(operator.synthesise(z, size)) + diagonal * z

    right = active * gradient
    solution = torch.zeros_like(right)
    residual = right.clone()
    direction = residual.clone()
    square = _dot(residual, residual)
    start = square
    target = TOLERANCE**2 * start
    for _ in range(MAX_ITERATIONS):
        if bool((square <= target).all()):
            break
        image = apply(direction)
        curvature = _dot(direction, image)
        length = torch.where(
            square > target, square / curvature.clamp_min(torch.finfo(square.dtype).tiny), 0.0
        )
        solution += length * direction
        residual -= length * image
        following = _dot(residual, residual)
        direction = residual + following / square.clamp_min(torch.finfo(square.dtype).tiny) * direction
        square = following
    relative = (square / start.clamp_min(torch.finfo(square.dtype).tiny)).sqrt().flatten()
    return active * solution / slope.clamp_min(1e-6), relative


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per image, shape (N, 1, 1, 1)."""
    return (a * b).flatten(1).sum(1)[:, None, None, None]
