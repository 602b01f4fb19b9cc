"""Stop each image when it has settled, instead of after a number of iterations chosen beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from ..configs.errors import InputError
from .dynamics import step
from .guard import Accepted, guarded_step
from .operator import ConvOperator
from .solver import Schedule, cold_start
from .threshold import Threshold, of_images


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
    final, before = state.clone(), state
    used = torch.full((len(images),), len(schedule), device=images.device)
    rows = torch.arange(len(images), device=images.device)
    accepted: Accepted | None = None
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
                step_size,
                momentum,
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


def falling(thresholds: list[Tensor | float] | None) -> int:
    """Return the number of iterations whose threshold value is not yet the last one."""
    if not thresholds:
        return 0
    last = thresholds[-1]
    return sum(bool((torch.as_tensor(value) != torch.as_tensor(last)).any()) for value in thresholds)


def _norm(values: Tensor) -> Tensor:
    """Euclidean norm per image, (N,)."""
    return values.flatten(1).norm(dim=1)
