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
from .problem import Problem, energy_of

Number = Tensor | float


def step(
    problem: Problem, code: Tensor, state: Tensor, before: Tensor, step_size: Number, momentum: Number
) -> Tensor:
    """Return the next state; gradients flow.

    Args:
        problem: The problem to minimise.
        code: a = T(u), (N, M, h, w).
        state: u, same shape.
        before: The state one step earlier.
        step_size: eta, a number or a scalar tensor.
        momentum: mu, a number or a scalar tensor.
    """
    following = torch.lerp(state, problem.drive(code), step_size)
    if isinstance(momentum, Tensor):
        return following.addcmul_(state - before, momentum)
    return following.add_(state - before, alpha=momentum) if momentum else following


def step_without_gradient(
    problem: Problem, code: Tensor, state: Tensor, before: Tensor, step_size: float, momentum: float
) -> Tensor:
    """Return the next state as :func:`step` does, in as few passes over memory as there can be.

    The step size is applied to the image, which is smaller than the code, and the sum is built in the memory
    that the analysis returned; no argument is written to.
    """
    following = problem.operator.analyse(problem.residual(code).mul_(step_size))
    following.add_(state, alpha=1.0 - step_size + momentum).add_(code, alpha=step_size)
    if momentum:
        following.add_(before, alpha=-momentum)
    return following


SLACK = (
    1.5  # an energy above this multiple of the lowest so far is taken back; momentum alone seldom doubles it
)

SHORTER = 0.25  # factor on an image's steps each time one is taken back


class Pace(NamedTuple):
    """Step size and limits of a guarded step, numbers or scalar tensors.

    Attributes:
        step_size: eta.
        ahead: 1 + mu.
        floor: The shortest step to which an image's step is cut: 1 / L, or eta where that is less.
        safe: 1 / L; where a step no longer than this led is not judged.
    """

    step_size: Number
    ahead: Number
    floor: Number
    safe: Number


class Accepted(NamedTuple):
    """Facts about each image's last accepted state; the state itself is ``before`` of the next step.

    Attributes:
        direction: Direction in which the dynamics drive that state, (N, M, h, w).
        lowest: Lowest energy of an accepted state so far, (N, 1, 1, 1).
        factor: Factor on the step size, (N, 1, 1, 1), 1 or a power of ``SHORTER``.
        calm: Whether the step from that state is at most 1 / L, so that the next state is not judged, (N, 1, 1, 1).
    """

    direction: Tensor
    lowest: Tensor
    factor: Tensor
    calm: Tensor


def guarded_step(
    problem: Problem,
    level: Number,
    state: Tensor,
    before: Tensor,
    pace: Pace,
    accepted: Accepted | None,
    *,
    preconditioned: bool = False,
) -> tuple[Tensor, Tensor, Accepted]:
    """Judge the state, then take the step from it or from the last accepted one.

    On a GPU each operation here is a launch in every cycle: none is taken whose result follows from another's.

    Args:
        problem: The problem to minimise; its energy judges.
        level: The threshold value of this iteration.
        state: u, (N, M, h, w).
        before: The last accepted state.
        pace: Step size and momentum.
        accepted: What the step before returned; None at the first, where ``state`` must beat the state zero.
        preconditioned: Whether the step goes through the operator's preconditioner.

    Returns:
        The next state, the accepted state, and what is known of the latter.
    """
    operator, images = problem.operator, problem.images
    code = problem.threshold(state, level)
    residual = problem.residual(code)
    energy = energy_of(residual, problem.threshold.total_cost(code, problem.lam))[:, None, None, None]
    if accepted is None:
        # An initial state that is worse than zero, whose energy is 1/2 ||x||^2, is replaced by zero.
        lowest = energy_of(images)[:, None, None, None]
        factor = torch.ones_like(energy)
        sound = energy <= lowest  # NaN is not
        if _worth_choosing(sound):
            state, code = torch.where(sound, state, 0.0), torch.where(sound, code, 0.0)
            residual = torch.where(sound, residual, images)
        before, direction = state, _direction(operator, residual, code, state, preconditioned)
    else:
        factor, lowest = accepted.factor, accepted.lowest
        # The energy may rise by momentum, hence the slack; after a step of at most 1 / L it may rise however much,
        # for there is no shorter step to go back to. Other images return to ``before`` and step from there, shorter.
        sound = (energy <= SLACK * lowest) | accepted.calm
        direction = _direction(operator, residual, code, state, preconditioned)
        if _worth_choosing(sound):
            state = torch.where(sound, state, before)
            direction = torch.where(sound, direction, accepted.direction)
            factor = torch.where(sound, factor, SHORTER * factor)
    # A state that was taken back has no say: its energy is above the lowest, or NaN, which is never the lowest.
    lowest = torch.where(energy < lowest, energy, lowest)  # fmin has no ONNX form
    step = factor * pace.step_size
    following = torch.lerp(before, state, pace.ahead).addcmul_(direction, step.clamp_min(pace.floor))
    return following, state, Accepted(direction, lowest, factor, step <= pace.safe)


def _worth_choosing(sound: Tensor) -> bool:
    """Whether to choose image by image: looking is worth it on a CPU only, elsewhere it would wait for the device."""
    return sound.device.type != "cpu" or torch.compiler.is_compiling() or not bool(sound.all())


def _direction(
    operator: ConvOperator, residual: Tensor, code: Tensor, state: Tensor, preconditioned: bool
) -> Tensor:
    """Phi^T r + a - u, in the memory that the analysis returned; through P where asked."""
    drive = operator.analyse(residual).add_(code).sub_(state)
    return operator.precondition(drive) if preconditioned else drive
