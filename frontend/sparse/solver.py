"""The dynamics of the Locally Competitive Algorithm as a plain function.

    u <- u + eta * (Phi^T (x - Phi T(u)) + T(u) - u) + mu * (u - u_before)

in residual form, which never builds the lateral Gram tensor (Rozell et al. 2008, equation 3.1;
heavy-ball momentum mu after Polyak 1964). Without momentum the iteration is stable for
eta < 2 / L, with L = ||Phi^T Phi||_2; with momentum mu, for eta < 2 (1 + mu) / L. It runs for a
number of iterations, or until each image has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...configs.device import may_look
from ...configs.errors import InputError
from .dynamics import Accepted, Number, guarded_step, step, step_without_gradient
from .operator import ConvOperator
from .problem import Problem
from .schedule import Schedule
from .threshold import of_images


def solve(
    problem: Problem,
    schedule: Schedule,
    *,
    state: Tensor | None = None,
    trace: list[Tensor] | None = None,
    checkpoint_every: int | None = None,
) -> Tensor:
    """Run ``len(schedule)`` iterations of the dynamics.

    Args:
        problem: The problem to minimise.
        schedule: Step size, momentum and threshold value of every iteration.
        state: The initial state (N, M, h, w); None for a cold start at zero. It is not written to.
        trace: A list to which the energy (N,) is appended before the first and after every iteration.
        checkpoint_every: Keep only every so many-th state for the backward pass and compute those between
            again (activation checkpointing): less memory, one more forward pass. Not together with ``trace``.

    Returns:
        The final state u, (N, M, h, w); the code is ``problem.code(u)``. Gradients flow through all iterations if
        autograd is on.
    """
    if checkpoint_every is not None and (checkpoint_every < 1 or trace is not None):
        raise InputError(
            f"checkpoint_every is {checkpoint_every}; give 1 or more, and leave it out where a trace is recorded."
        )
    state = problem.operator.arranged(problem.cold_start() if state is None else state)
    cycle = _Cycle(problem.prepared(), schedule)

    def cycles(
        first: int, last: int, state: Tensor, before: Tensor, accepted: Accepted | None
    ) -> tuple[Tensor, Tensor, Accepted | None]:
        for i in range(first, last):
            state, before, accepted = cycle(i, state, before, accepted)
            if trace is not None:
                trace.append(problem.energy(problem.code(before)))
        return state, before, accepted

    if checkpoint_every is None or not torch.is_grad_enabled():
        state, _, _ = cycles(0, len(schedule), state, state, None)
    else:
        before, accepted = state, None
        for first in range(0, len(schedule), checkpoint_every):
            last = min(first + checkpoint_every, len(schedule))
            state, before, accepted = checkpoint(
                cycles, first, last, state, before, accepted, use_reentrant=False
            )
    if trace is not None:
        trace.append(problem.energy(problem.code(state)))
    return state


class _Cycle:
    """One iteration after the other, of the images that are left."""

    def __init__(self, problem: Problem, schedule: Schedule) -> None:
        self.problem, self.schedule = problem, schedule
        self.levels: Sequence[Number] = schedule.levels or [problem.lam] * len(schedule)
        self.paces = schedule.paces(problem.operator) if schedule.guarded else []
        self.values = [] if schedule.guarded else schedule.values()
        numbers = all(isinstance(value, float) for pair in self.values for value in pair)
        in_place = numbers and not torch.is_grad_enabled()
        self.step: Callable[..., Tensor] = step_without_gradient if in_place else step

    def keep(self, left: Tensor) -> None:
        """Go on with these images only; ``left`` is a mask."""
        self.problem = self.problem.of(left)
        self.levels = [of_images(level, left) for level in self.levels]

    def __call__(
        self, i: int, state: Tensor, before: Tensor, accepted: Accepted | None
    ) -> tuple[Tensor, Tensor, Accepted | None]:
        """Do iteration i."""
        level, problem = self.levels[i], self.problem
        if self.schedule.guarded:
            return guarded_step(
                problem,
                level,
                state,
                before,
                self.paces[i],
                accepted,
                preconditioned=self.schedule.preconditioned,
            )
        code = problem.threshold(state, level)
        return self.step(problem, code, state, before, *self.values[i]), state, None


def check_overflow(operator: ConvOperator, state: Tensor) -> None:
    """Refuse a state that float16 could not hold, where it may be looked at.

    Raises:
        InputError: If the convolutions computed in float16 and the state is NaN or infinite.
    """
    if operator.dtype_for(state) != torch.float16 or not may_look(state):
        return
    if not bool(torch.isfinite(state).all()):
        raise InputError(
            "the sparse code overflowed float16 (values beyond 65504); compute the convolutions in bfloat16 or float32."
        )


@torch.no_grad()
def solve_until(
    problem: Problem, schedule: Schedule, *, tolerance: float, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the dynamics until ||u - u_before|| <= tolerance * ||u||, for each image on its own.

    Settled images leave the batch, so that the others go on faster; none counts as settled before the threshold has
    its last value. Nothing here has a gradient.

    Args:
        problem: The problem to minimise.
        schedule: Step size, momentum and threshold value; its length is the largest number of iterations.
        tolerance: Largest relative change in one iteration that counts as settled, above 0.
        state: The initial state (N, M, h, w); None for a cold start.

    Returns:
        The final states (N, M, h, w) and the number of iterations that each image took, (N,) int64.
    """
    if not tolerance > 0.0:
        raise InputError(f"tolerance is {tolerance}; give a number above 0, or leave it out.")
    state = problem.operator.arranged(problem.cold_start() if state is None else state)
    cycle, falling = _Cycle(problem.prepared(), schedule), schedule.falling
    final, before = state.clone(), state
    used = torch.full((len(state),), len(schedule), device=state.device)
    rows = torch.arange(len(state), device=state.device)
    accepted: Accepted | None = None
    for i in range(len(schedule)):
        state, before, accepted = cycle(i, state, before, accepted)
        if i + 1 < falling:
            continue
        settled = _norm(state - before) <= tolerance * _norm(state)
        if bool(settled.any()):
            final[rows[settled]], used[rows[settled]] = state[settled], i + 1
            cycle.keep(~settled)
            rows, state, before = (v[~settled] for v in (rows, state, before))
            if accepted is not None:
                accepted = Accepted(*(v[~settled] for v in accepted))
            if not len(rows):
                break
    final[rows] = state
    return final, used


def _norm(values: Tensor) -> Tensor:
    """Euclidean norm per image, (N,)."""
    return values.flatten(1).norm(dim=1)
