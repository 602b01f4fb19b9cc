"""The dynamics of the Locally Competitive Algorithm as a plain function.

    u <- u + eta * (Phi^T (x - Phi T(u)) + T(u) - u) + mu * (u - u_before)

in residual form, which never builds the lateral Gram tensor (Rozell et al. 2008, equation 3.1;
heavy-ball momentum mu after Polyak 1964). Without momentum the iteration is stable for
eta < 2 / L, with L = ||Phi^T Phi||_2; with momentum mu, for eta < 2 (1 + mu) / L.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..configs.errors import InputError
from .dynamics import Number, step, step_without_gradient
from .functional import state_size
from .guard import Accepted, guarded_step
from .metrics import active_fraction, energy, fixed_point_residual
from .operator import ConvOperator
from .threshold import Threshold


@dataclass(frozen=True)
class Schedule:
    """Step sizes and momenta, one each per iteration.

    Attributes:
        step_size: (T,) eta of every iteration, above 0.
        momentum: (T,) mu of every iteration, 0 <= mu < 1.
        guarded: Whether steps that raise an image's energy by much are taken back; see ``guard``. Steps beyond
            2 (1 + mu) / L need it.
        preconditioned: Whether steps go through the operator's preconditioner; only guarded ones can.
    """

    step_size: Tensor
    momentum: Tensor
    guarded: bool = False
    preconditioned: bool = False

    @classmethod
    def constant(cls, iterations: int, step_size: Tensor, momentum: float) -> Schedule:
        """Use the same step and momentum ``iterations`` times."""
        return cls(step_size.expand(iterations), step_size.new_full((iterations,), momentum))

    def __len__(self) -> int:
        return len(self.step_size)

    def values(self) -> list[tuple[Number, Number]]:
        """Return (eta, mu) of every iteration: plain numbers where reading them costs nothing.

        On a GPU, under ``torch.compile`` and where a gradient is asked for they stay scalar tensors.
        """
        learning = torch.is_grad_enabled() and (self.step_size.requires_grad or self.momentum.requires_grad)
        if self.step_size.device.type == "cpu" and not learning and not torch.compiler.is_compiling():
            return list(zip(self.step_size.tolist(), self.momentum.tolist(), strict=True))
        return list(zip(self.step_size.unbind(), self.momentum.unbind(), strict=True))


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


def plain_schedule(
    operator: ConvOperator, iterations: int, *, step_size: float | None = None, momentum: float = 0.0
) -> Schedule:
    """Return the constant schedule, eta = 1 / L unless given.

    Raises:
        InputError: If the step would diverge: eta >= 2 (1 + momentum) / L.
    """
    if iterations < 0:
        raise InputError(f"iterations is {iterations}; give 0 or more.")
    if not 0.0 <= momentum < 1.0:
        raise InputError(f"momentum is {momentum}; give a number from 0 to below 1.")
    if step_size is None:
        return Schedule.constant(iterations, 1.0 / operator.lipschitz, momentum)
    if torch.compiler.is_compiling():  # no data are looked at there
        return Schedule.constant(iterations, operator.lipschitz.new_tensor(step_size), momentum)
    limit = 2.0 * (1.0 + momentum) / float(operator.lipschitz)
    if not 0.0 < step_size < limit:
        raise InputError(
            f"step_size {step_size:g} would diverge on this dictionary; give one above 0 and below {limit:.4g} "
            "(2 (1 + momentum) / L), or leave it out to use 1 / L."
        )
    return Schedule.constant(iterations, operator.lipschitz.new_tensor(step_size), momentum)


def accelerated_schedule(operator: ConvOperator, iterations: int) -> Schedule:
    """Return the constant schedule that lowers the energy most in ``iterations`` steps from a cold start.

    Momentum remembers a fixed share of the run, 1 / (1 - mu) = T / 7.5, with mu from 0.5 to 0.9, and the step is
    0.95 of the largest stable one, 2 (1 + mu) / L. Where the threshold is not soft it belongs together with
    :func:`accelerated_thresholds`; both were chosen on CIFAR-10 training images for 25 to 80 iterations.
    """
    momentum = min(max(1.0 - 7.5 / max(iterations, 1), 0.5), 0.9)
    return Schedule.constant(iterations, 0.95 * 2.0 * (1.0 + momentum) / operator.lipschitz, momentum)


def accelerated_thresholds(lam: Tensor | float, iterations: int) -> list[Tensor | float]:
    """Let the threshold fall from 3 lam to lam over the first nine tenths of the iterations."""
    return annealed_thresholds(lam, iterations, factor=3.0, span=annealing_span(iterations))


def annealing_span(iterations: int) -> int:
    """Number of iterations during which :func:`accelerated_thresholds` fall."""
    return max(round(0.9 * iterations), 1)


def annealed_thresholds(
    lam: Tensor | float, iterations: int, *, factor: float, span: int
) -> list[Tensor | float]:
    """Let the threshold fall geometrically from ``factor`` * lam to lam over ``span`` iterations, then stay."""
    return [lam * factor ** max(0.0, 1.0 - i / span) for i in range(iterations)]


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
    values = schedule.values()
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
                    *values[i],
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
    """Refuse a state that float16 could not hold, except while compiling or exporting.

    Raises:
        InputError: If the convolutions computed in float16 and the state is NaN or infinite.
    """
    if operator.dtype_for(state) != torch.float16 or torch.compiler.is_compiling():
        return
    if not bool(torch.isfinite(state).all()):
        raise InputError(
            "the sparse code overflowed float16 (values beyond 65504); compute the convolutions in bfloat16 or float32."
        )


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
