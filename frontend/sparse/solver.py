"""The dynamics of the Locally Competitive Algorithm as a plain function.

    u <- u + eta * (Phi^T (x - Phi T(u)) + T(u) - u) + mu * (u - u_before)

in residual form, which never builds the lateral Gram tensor (Rozell et al. 2008, equation 3.1;
heavy-ball momentum mu after Polyak 1964). Without momentum the iteration is stable for
eta < 2 / L, with L = ||Phi^T Phi||_2; with momentum mu, for eta < 2 (1 + mu) / L. It runs for a
number of iterations, or until each image has settled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...configs.device import may_look
from ...configs.errors import InputError
from .dynamics import Accepted, guarded_step, step, step_without_gradient
from .functional import state_size
from .metrics import energy
from .operator import ConvOperator
from .schedule import Schedule
from .threshold import Threshold, of_images


def solve(
    operator: ConvOperator,
    images: Tensor,
    threshold: Threshold,
    lam: Tensor | float,
    schedule: Schedule,
    *,
    state: Tensor | None = None,
    thresholds: list[Tensor | float] | None = None,
    trace: list[Tensor] | None = None,
    checkpoint_every: int | None = None,
) -> Tensor:
    """Run ``len(schedule)`` iterations of the dynamics.

    Args:
        operator: Phi and its bound L.
        images: Standardised images (N, C, H, W).
        threshold: T.
        lam: The threshold value, above 0; a number or broadcastable to (N, M, h, w).
        schedule: Step size and momentum of every iteration.
        state: The initial state (N, M, h, w); None for a cold start at zero. It is not written to.
        thresholds: One lam per iteration in place of ``lam`` (annealing).
        trace: A list to which the energy (N,) is appended before the first and after every iteration.
        checkpoint_every: Keep only every so many-th state for the backward pass and compute those between
            again (activation checkpointing): less memory, one more forward pass. Not together with ``trace``.

    Returns:
        The final state u, (N, M, h, w); the code is ``threshold(u, lam)``. Gradients flow through all
        iterations if autograd is on.
    """
    if checkpoint_every is not None and (checkpoint_every < 1 or trace is not None):
        raise InputError(
            f"checkpoint_every is {checkpoint_every}; give 1 or more, and leave it out where a trace is recorded."
        )
    state = cold_start(operator, images) if state is None else state
    operator = operator.cast_for(images)
    values = schedule.values()
    paces = schedule.paces(operator) if schedule.guarded else []
    numbers = all(isinstance(value, float) for pair in values for value in pair)
    in_place = numbers and not torch.is_grad_enabled()
    advance: Callable[..., Tensor] = step_without_gradient if in_place else step

    def cycles(
        first: int, last: int, state: Tensor, before: Tensor, accepted: Accepted | None
    ) -> tuple[Tensor, Tensor, Accepted | None]:
        for i in range(first, last):
            level = lam if thresholds is None else thresholds[i]
            if schedule.guarded:
                state, before, accepted = guarded_step(
                    operator,
                    images,
                    threshold,
                    lam,
                    level,
                    state,
                    before,
                    paces[i],
                    accepted,
                    preconditioned=schedule.preconditioned,
                )
            else:
                code = threshold(state, level)
                state, before = advance(operator, images, code, state, before, *values[i]), state
            if trace is not None:
                trace.append(energy(images, threshold(before, lam), operator, threshold, lam))
        return state, before, accepted

    if checkpoint_every is None or not torch.is_grad_enabled():
        state, _, _ = cycles(0, len(values), state, state, None)
    else:
        before, accepted = state, None
        for first in range(0, len(values), checkpoint_every):
            last = min(first + checkpoint_every, len(values))
            state, before, accepted = checkpoint(
                cycles, first, last, state, before, accepted, use_reentrant=False
            )
    if trace is not None:
        trace.append(energy(images, threshold(state, lam), operator, threshold, lam))
    return state


def cold_start(operator: ConvOperator, images: Tensor) -> Tensor:
    """Return the state zero for these images, (N, M, h, w)."""
    height, width = state_size((images.shape[2], images.shape[3]), operator.stride)
    return images.new_zeros(
        images.shape[0], len(operator.atoms), height, width
    )  # len() would fix the batch in exports


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
    operator: ConvOperator,
    images: Tensor,
    threshold: Threshold,
    lam: Tensor | float,
    schedule: Schedule,
    *,
    tolerance: float,
    state: Tensor | None = None,
    thresholds: list[Tensor | float] | None = None,
    earliest: int = 0,
) -> tuple[Tensor, Tensor]:
    """Run the dynamics until ||u - u_before|| <= tolerance * ||u||, for each image on its own.

    Settled images leave the batch, so that the others go on faster. Nothing here has a gradient.

    Args:
        operator: Phi and its bound L.
        images: Standardised images (N, C, H, W).
        threshold: T.
        lam: The threshold value: a number, a scalar tensor, or one per image, (N, 1, 1, 1).
        schedule: Step size and momentum; its length is the largest number of iterations.
        tolerance: Largest relative change in one iteration that counts as settled, above 0.
        state: The initial state (N, M, h, w); None for a cold start.
        thresholds: One lam per iteration in place of ``lam``.
        earliest: Iterations before which no image counts as settled (while the threshold still falls).

    Returns:
        The final states (N, M, h, w) and the number of iterations that each image took, (N,) int64.
    """
    if not tolerance > 0.0:
        raise InputError(f"tolerance is {tolerance}; give a number above 0, or leave it out.")
    state = cold_start(operator, images) if state is None else state
    operator = operator.cast_for(images)
    final, before = state.clone(), state
    used = torch.full((len(images),), len(schedule), device=images.device)
    rows = torch.arange(len(images), device=images.device)
    accepted: Accepted | None = None
    paces = schedule.paces(operator) if schedule.guarded else []
    for i, (step_size, momentum) in enumerate(schedule.values()):
        level = of_images(lam if thresholds is None else thresholds[i], rows)
        if schedule.guarded:
            state, before, accepted = guarded_step(
                operator,
                images,
                threshold,
                of_images(lam, rows),
                level,
                state,
                before,
                paces[i],
                accepted,
                preconditioned=schedule.preconditioned,
            )
        else:
            code = threshold(state, level)
            state, before = step(operator, images, code, state, before, step_size, momentum), state
        if i + 1 < earliest:
            continue
        settled = _norm(state - before) <= tolerance * _norm(state)
        if bool(settled.any()):
            final[rows[settled]], used[rows[settled]] = state[settled], i + 1
            rows, state, before, images = (v[~settled] for v in (rows, state, before, images))
            if accepted is not None:
                accepted = Accepted(*(v[~settled] for v in accepted))
            if not len(rows):
                break
    final[rows] = state
    return final, used


def _norm(values: Tensor) -> Tensor:
    """Euclidean norm per image, (N,)."""
    return values.flatten(1).norm(dim=1)
