"""Gradients at a settled state without a memory of the iterations.

A settled state obeys a = T(Phi^T (x - Phi a) + a). With D = T'(u) on the diagonal and G = Phi^T Phi,
the implicit function theorem gives the adjoint equation w - (I - G) D w = g. With z = D w it becomes
symmetric, (1 - D + D^1/2 G D^1/2) y = D^1/2 g with y = D^1/2 w: G on the active set, one elsewhere. (Bai, Kolter,
Koltun, "Deep equilibrium models", NeurIPS 2019, for LCA's fixed point.) A smooth threshold is steeper than one near
lam and then the system may be indefinite, where conjugate gradients break down; hence MINRES.

The gradient is biased while the state is unsettled, and nothing flows to the initial state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.device import precisely
from .operator import ConvOperator
from .problem import Problem
from .spectrum import at_least_single

MAX_ITERATIONS = 300

LOOK = 30  # iterations between looks at the residuals where each look waits for the device

DAMPING = 1e-6  # times L

SHIFT = 1.0  # between 0.1 and 3 it makes no difference


def implicit_code(
    problem: Problem, state: Tensor, *, report: Callable[[Tensor], None] | None = None
) -> Tensor:
    """Return the code of a settled state, with the gradient of the fixed point.

    Args:
        problem: What was minimised; gradients reach its images, atoms and, where it is a tensor that asks for one, lam.
        state: The settled state (N, M, h, w); treated as a constant.
        report: Called in every backward pass with the relative residual of the adjoint equation, (N,).
    """
    state, lam = state.detach(), problem.lam
    code = problem.code(state).detach()
    mapped = problem.code(problem.drive(code))
    slope = problem.threshold.derivative(state, lam.detach() if isinstance(lam, Tensor) else lam)
    return _FixedPoint.apply(mapped, code, slope, problem.operator.detached(), problem.size, report)  # type: ignore[no-any-return]


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
        with precisely(slope):
            adjoint, residual = solve_adjoint(ctx.operator, slope, gradients[0], ctx.size)
        if ctx.report is not None:
            ctx.report(residual)
        return adjoint, None, None, None, None, None


@torch.no_grad()
def solve_adjoint(
    operator: ConvOperator, slope: Tensor, gradient: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Solve w - (I - G) D w = g for w by damped, preconditioned MINRES.

    Args:
        operator: Phi.
        slope: D = T'(u), (N, M, h, w), not negative.
        gradient: g, same shape.
        size: (H, W) of the images.

    Returns:
        w, and the relative residual at which the iteration stopped, (N,): about the square root of the machine's
        precision if it converged.
    """
    root = slope.sqrt()

    def apply(z: Tensor) -> Tensor:
        return (1.0 + DAMPING * operator.lipschitz - slope) * z + root * operator.analyse(
            operator.synthesise(root * z, size)
        )

    right = root * gradient
    solution = _minres(apply, right, _preconditioner(operator, slope))
    tiny = torch.finfo(slope.dtype).tiny
    relative = (_norm(right - apply(solution)) / _norm(right).clamp_min(tiny)).flatten()
    through = root * solution
    return gradient + through - operator.analyse(operator.synthesise(through, size)), relative


def _minres(
    apply: Callable[[Tensor], Tensor], right: Tensor, precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """Solve a symmetric system A z = b, indefinite perhaps, image by image.

    The preconditioned Lanczos process builds, column by column, a basis in which A is tridiagonal, with alpha on the
    diagonal and beta beside it. Plane rotations turn that matrix into an upper triangular one with three bands, and
    the same rotations applied to ||b|| e_1 leave the norm of the residual in its last entry. The directions are the
    basis times the inverse of the triangular matrix, so that each new column adds one multiple of one new direction.

    Source: Paige, Saunders, "Solution of sparse indefinite systems of linear equations", SIAM J. Numer. Anal. 12
    (1975), with a positive definite preconditioner.

    Args:
        apply: z -> A z.
        right: b, (N, M, h, w).
        precondition: r -> P r, an approximate inverse of A, positive definite.
    """
    tiny = torch.finfo(right.dtype).tiny
    tolerance = torch.finfo(right.dtype).eps ** 0.5
    solution, vector_before, direction, direction_before = (torch.zeros_like(right) for _ in range(4))
    # ``vector`` is the Lanczos vector before scaling, ``image`` the same through P; beta is its norm under P.
    vector, image = right, precondition(right)
    beta = start = residual = _dot(image, vector).sqrt()
    beta_before = cosine_before = cosine = torch.ones_like(beta)
    sine_before = sine = torch.zeros_like(beta)
    for iteration in range(MAX_ITERATIONS):
        going = residual.abs() > tolerance * start
        # One more iteration adds nothing to what has settled.
        looks = right.device.type == "cpu" or iteration % LOOK == LOOK - 1
        if looks and not bool(going.any()):
            break
        # Lanczos: A times the newest basis vector, made orthogonal to the last two, is the next one.
        scale = beta.clamp_min(tiny)
        image = image / scale
        following = apply(image)
        alpha = _dot(following, image)
        following.sub_(alpha / scale * vector).sub_(beta / beta_before * vector_before)
        vector_before, vector = vector, following
        # The new column (beta, alpha, next beta) of the tridiagonal matrix under the last two rotations: ``top`` and
        # ``above`` are final entries of the triangular matrix, ``pivot`` still has the next beta below it.
        pivot = cosine * alpha - cosine_before * sine * beta
        above = sine * alpha + cosine_before * cosine * beta
        top = sine_before * beta
        following = precondition(vector)
        beta_before, beta = scale, _dot(following, vector).clamp_min(0.0).sqrt()
        # A new rotation moves that beta into the pivot, whose length is the diagonal entry.
        length = torch.hypot(pivot, beta).clamp_min(tiny)
        cosine_before, sine_before, cosine, sine = cosine, sine, pivot / length, beta / length
        # Back substitution of the one new column, then a step that takes its share of the residual away.
        image.sub_(top * direction_before).sub_(above * direction).div_(length)
        direction_before, direction = direction, image
        solution.add_(torch.where(going, cosine * residual * direction, 0.0))
        residual = torch.where(going, -sine * residual, residual)
        image = following
    return solution


def _preconditioner(operator: ConvOperator, slope: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the inverse of how active atoms at the same place compete.

    It costs a tenth of an application of G and saves three quarters of the iterations on learned dictionaries,
    as much as exact blocks per place or the inverse of all of G would.
    """
    atoms = at_least_single(operator.atoms.detach().flatten(1))
    gram = atoms @ atoms.T
    shifted = gram + SHIFT * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse = torch.linalg.inv_ex(shifted).inverse.to(
        slope.dtype
    )  # positive definite: there is nothing to check
    share = slope.clamp(0.0, 1.0)
    root = share.sqrt()
    return lambda z: root * F.conv2d(root * z, inverse[:, :, None, None]) + (1.0 - share) * z


def _norm(a: Tensor) -> Tensor:
    """Euclidean norm per image, shape (N, 1, 1, 1)."""
    return _dot(a, a).sqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per image, shape (N, 1, 1, 1)."""
    return (a * b).flatten(1).sum(1)[:, None, None, None]
