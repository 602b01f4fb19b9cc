"""One step of the dynamics, plain or guarded.

    u <- u + eta * (Phi^T (x - Phi a) + a - u) + mu * (u - u_before)

Guarded steps are long ones that are taken back where they raise an image's energy.
The spectral bound L belongs to all atoms at once, but only active units interact: on the active set of a sparse code
the largest eigenvalue of Phi^T Phi is some fifteen times smaller, and steps may be as much longer. Whether they may is
a property of the image and the moment. So every state is judged before it is used, by the energy of its code (the
residual is computed anyway): if that is far above the lowest energy the image has had, the image goes back to its last
accepted state and takes shorter steps from then on, down to 1 / L. This is the sufficient-decrease test of
descent methods (Nocedal, Wright, "Numerical Optimization", 2006, chapter 3) with slack for momentum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .operator import ConvOperator
from .threshold import Threshold

Number = Tensor | float


def step(
    operator: ConvOperator,
    images: Tensor,
    code: Tensor,
    state: Tensor,
    before: Tensor,
    step_size: Number,
    momentum: Number,
) -> Tensor:
    """Return the next state; gradients flow.

    Args:
        operator: Phi.
        images: Standardised images x, (N, C, H, W).
        code: a = T(u), (N, M, h, w).
        state: u, same shape.
        before: The state one step earlier.
        step_size: eta, a number or a scalar tensor.
        momentum: mu, a number or a scalar tensor.
    """
    drive = operator.analyse(images - operator.synthesise(code, (images.shape[2], images.shape[3])))
    return torch.lerp(state, drive + code, step_size) + momentum * (state - before)


def step_without_gradient(
    operator: ConvOperator,
    images: Tensor,
    code: Tensor,
    state: Tensor,
    before: Tensor,
    step_size: float,
    momentum: float,
) -> Tensor:
    """Return the next state as :func:`step` does, in as few passes over memory as there can be.

    The step size is applied to the image, which is smaller than the code, and the sum is built in the memory
    that the analysis returned; no argument is written to.
    """
    error = operator.synthesise(code, (images.shape[2], images.shape[3]))
    torch.sub(images, error, out=error).mul_(step_size)
    following = operator.analyse(error)
    following.add_(state, alpha=1.0 - step_size + momentum).add_(code, alpha=step_size)
    if momentum:
        following.add_(before, alpha=-momentum)
    return following


SLACK = (
    1.5  # an energy above this multiple of the lowest so far is taken back; momentum alone seldom doubles it
)

SHORTER = 0.25  # factor on an image's steps each time one is taken back


class Accepted(NamedTuple):
    """What is known of each image's last accepted state; the state itself is ``before`` of the next step.

    Attributes:
        code: T(u), (N, M, h, w).
        residual: x - Phi T(u), (N, C, H, W).
        lowest: Lowest energy of an accepted state so far, (N,).
        factor: Factor on the step size, (N, 1, 1, 1), 1 or a power of ``SHORTER``.
        long: Whether the step from that state was longer than 1 / L, so that where it led is to be judged, (N,).
    """

    code: Tensor
    residual: Tensor
    lowest: Tensor
    factor: Tensor
    long: Tensor


def cold(images: Tensor, state: Tensor) -> Accepted:
    """Return what is known of the state zero: the initial state is held against it."""
    everyone = images.new_ones(images.shape[0])
    return Accepted(
        torch.zeros_like(state), images, _half_square(images), everyone[:, None, None, None], everyone > 0.0
    )


def guarded_step(
    operator: ConvOperator,
    images: Tensor,
    threshold: Threshold,
    lam: Tensor | float,
    level: Tensor | float,
    state: Tensor,
    before: Tensor,
    step_size: Number,
    momentum: Number,
    accepted: Accepted | None,
    *,
    preconditioned: bool = False,
) -> tuple[Tensor, Tensor, Accepted]:
    """Judge the state, then take the step from it or from the last accepted one.

    Args:
        operator: Phi.
        images: Standardised images x, (N, C, H, W).
        threshold: T.
        lam: The threshold value of the energy.
        level: The threshold value of this iteration.
        state: u, (N, M, h, w).
        before: The last accepted state.
        step_size: eta, a number or a scalar tensor.
        momentum: mu, a number or a scalar tensor.
        accepted: What the step before returned; None at the first, where ``state`` must beat the state zero.
        preconditioned: Whether the step goes through the operator's preconditioner.

    Returns:
        The next state, the accepted state, and what is known of the latter.
    """
    code = threshold(state, level)
    residual = images - operator.synthesise(code, (images.shape[2], images.shape[3]))
    energy = _half_square(residual) + threshold.cost(code, lam).flatten(1).sum(1)
    if accepted is None:
        accepted, shorter, slack = cold(images, state), 1.0, 1.0
        before, last = state, torch.zeros_like(state)
    else:
        shorter, slack, last = SHORTER, SLACK, before
    factor = accepted.factor
    bad = ~(energy <= slack * accepted.lowest)  # NaN is bad
    bad &= accepted.long  # after a safe step an energy that rises is the dynamics' own way
    # Looking is worth it on a CPU only: elsewhere it would wait for the device.
    if bad.device.type != "cpu" or torch.compiler.is_compiling() or bool(bad.any()):
        back = bad[:, None, None, None]
        state, before = torch.where(back, last, state), torch.where(back, last, before)
        code = torch.where(back, accepted.code, code)
        residual = torch.where(back, accepted.residual, residual)
        factor = torch.where(back, shorter * factor, factor)
    long = (factor * step_size * operator.bound(preconditioned=preconditioned) > 1.0).flatten()
    # A state that was taken back has no say: its energy is above the lowest, or NaN.
    lowest = torch.where(energy < accepted.lowest, energy, accepted.lowest)  # NaN is never the lowest
    accepted = Accepted(code, residual, lowest, factor, long)
    following = _advance(operator, accepted, state, before, step_size, momentum, preconditioned)
    return following, state, accepted


def _advance(
    operator: ConvOperator,
    accepted: Accepted,
    state: Tensor,
    before: Tensor,
    step_size: Number,
    momentum: Number,
    preconditioned: bool,
) -> Tensor:
    safe = 1.0 / operator.bound(preconditioned=preconditioned)
    step = torch.where(accepted.factor < 1.0, torch.maximum(accepted.factor * step_size, safe), step_size)
    if torch.is_grad_enabled():
        drive = operator.analyse(accepted.residual) + accepted.code
        if preconditioned:
            return state + step * operator.precondition(drive - state) + momentum * (state - before)
        return torch.lerp(state, drive, step) + momentum * (state - before)
    # As in dynamics.step_without_gradient: few passes over memory, into the memory that the analysis returned.
    if preconditioned:
        change = operator.analyse(accepted.residual).add_(accepted.code).sub_(state)
        following = operator.precondition(change).mul_(step)
        return following.add_(state * (1.0 + momentum)).sub_(momentum * before)
    following = operator.analyse(step * accepted.residual)
    following.addcmul_(state, 1.0 + momentum - step).addcmul_(accepted.code, step)
    return following.sub_(momentum * before)


def _half_square(residual: Tensor) -> Tensor:
    """1/2 ||r||^2 per image, (N,)."""
    return 0.5 * residual.square().flatten(1).sum(1)
