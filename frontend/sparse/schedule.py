"""Step size, momentum and threshold value of every cycle: constant, accelerated, or learned by priming."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...configs.errors import InputError
from .dynamics import Number, Pace
from .operator import ConvOperator


@dataclass(frozen=True)
class Schedule:
    """Step sizes, momenta and threshold values, one each per iteration.

    Attributes:
        step_size: (T,) eta of every iteration, above 0.
        momentum: (T,) mu of every iteration, 0 <= mu < 1.
        guarded: Whether steps that raise an image's energy by much are taken back; see ``guard``. Steps beyond
            2 (1 + mu) / L need it.
        preconditioned: Whether steps go through the operator's preconditioner; only guarded ones can.
        plain: Whether it is known, without looking, that there is no momentum.
        levels: The threshold value of every iteration (annealing); None takes the problem's lam throughout.
    """

    step_size: Tensor
    momentum: Tensor
    guarded: bool = False
    preconditioned: bool = False
    plain: bool = False
    levels: Sequence[Number] | None = None

    @classmethod
    def constant(cls, iterations: int, step_size: Tensor, momentum: float) -> Schedule:
        """Use the same step and momentum ``iterations`` times."""
        momenta = step_size.new_full((iterations,), momentum)
        return cls(step_size.expand(iterations), momenta, plain=not momentum)

    def __len__(self) -> int:
        return len(self.step_size)

    def values(self) -> list[tuple[Number, Number]]:
        """Return (eta, mu) of every iteration: plain numbers where reading them costs nothing.

        On a GPU, under ``torch.compile`` and where a gradient is asked for they stay scalar tensors.
        """
        momenta = [0.0] * len(self) if self.plain else self._read(self.momentum)
        return list(zip(self._read(self.step_size), momenta, strict=True))

    @property
    def falling(self) -> int:
        """Number of iterations whose threshold value is not yet the last one."""
        levels = [torch.as_tensor(level) for level in self.levels or ()]
        return sum(bool((level != levels[-1]).any()) for level in levels)

    def paces(self, operator: ConvOperator) -> list[Pace]:
        """Return the same for guarded steps; all is computed for all iterations at once."""
        safe = 1.0 / operator.bound(preconditioned=self.preconditioned)
        floor = torch.minimum(self.step_size, safe)
        columns = (self.step_size, 1.0 + self.momentum, floor, safe.expand_as(floor))
        return [Pace(*row) for row in zip(*map(self._read, columns), strict=True)]

    def _read(self, values: Tensor) -> Sequence[Number]:
        learning = torch.is_grad_enabled() and (self.step_size.requires_grad or self.momentum.requires_grad)
        if values.device.type == "cpu" and not learning and not torch.compiler.is_compiling():
            return values.tolist()
        return values.unbind()


def plain_schedule(
    operator: ConvOperator,
    iterations: int,
    *,
    step_size: float | None = None,
    momentum: float = 0.0,
    bound: float | None = None,
) -> Schedule:
    """Return the constant schedule, eta = 1 / L unless given.

    Args:
        operator: The operator that sets L.
        iterations: Number of steps.
        step_size: eta.
        momentum: mu.
        bound: L as a number, where it was read before; reading it waits for the device.

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
    limit = 2.0 * (1.0 + momentum) / (float(operator.lipschitz) if bound is None else bound)
    if not 0.0 < step_size < limit:
        raise InputError(
            f"step_size {step_size:g} would diverge on this dictionary; give one above 0 and below {limit:.4g} "
            "(2 (1 + momentum) / L), or leave it out to use 1 / L."
        )
    return Schedule.constant(iterations, operator.lipschitz.new_full((), step_size), momentum)


def accelerated_schedule(operator: ConvOperator, iterations: int) -> Schedule:
    """Return the constant schedule that lowers the energy most in ``iterations`` steps from a cold start.

    Momentum remembers a fixed share of the run, 1 / (1 - mu) = T / 7.5, with mu from 0.5 to 0.9, and the step is
    0.95 of the largest stable one, 2 (1 + mu) / L. Where the threshold is not soft it belongs together with
    :func:`accelerated_thresholds`; both were chosen on CIFAR-10 training images for 25 to 80 iterations.
    """
    momentum = min(max(1.0 - 7.5 / max(iterations, 1), 0.5), 0.9)
    return Schedule.constant(iterations, 0.95 * 2.0 * (1.0 + momentum) / operator.lipschitz, momentum)


def accelerated_thresholds(lam: Number, iterations: int) -> list[Number]:
    """Let the threshold fall from 3 lam to lam over the first nine tenths of the iterations."""
    return annealed_thresholds(lam, iterations, factor=3.0, span=max(round(0.9 * iterations), 1))


def annealed_thresholds(lam: Number, iterations: int, *, factor: float, span: int) -> list[Number]:
    """Let the threshold fall geometrically from ``factor`` * lam to lam over ``span`` iterations, then stay."""
    return [lam * factor ** max(0.0, 1.0 - i / span) for i in range(iterations)]


CLASSICAL = 2.0  # eta < 2 (1 + mu) / L is stable whatever the code

CALM = 0.85  # largest mu of preconditioned steps; see Preconditioner

LARGEST_POWER = 2.25  # longer runs anneal from higher, up to this power of the factor


class LearnedSteps(nn.Module):
    """Step sizes and momenta by cycle, kept in range by construction.

    mu = sigmoid(momentum_raw); eta = reach (1 + mu) / L * 0.99 sigmoid(step_raw). Unprimed, ``reach`` is 2, the
    classical bound, and eta = 1 / L. Priming may raise it, because a sparse code allows longer steps; then every
    step is guarded (see ``guard``).

    Args:
        iterations: Number of cycles with a step of their own.
        momentum: Initial mu.

    Attributes:
        any_length: Loading takes any number of steps.
        reach: Largest eta in units of (1 + mu) / L.
        tail_step: eta L of further cycles, where ``reach`` is above 2.
        tail_momentum: mu of further cycles.
        annealing: The threshold value of a run of ``cycles`` falls from this multiple of lam; 1 for none.
        cycles: Number of cycles that was primed for.
        preconditioned: Whether steps go through the dictionary's preconditioner; L is then that of those dynamics.
    """

    any_length = True

    def __init__(self, iterations: int, momentum: float) -> None:
        super().__init__()
        self.momentum_raw = nn.Parameter(torch.zeros(iterations))
        self.step_raw = nn.Parameter(torch.zeros(iterations))
        self.reach, self.annealing, self.cycles = CLASSICAL, 1.0, iterations
        self.tail_step, self.tail_momentum = 1.0, momentum
        self.preconditioned = False
        self.fill(0, 1.0, momentum)

    @property
    def guarded(self) -> bool:
        """Whether steps go beyond what is stable for every code."""
        return self.reach > CLASSICAL

    @torch.no_grad()
    def fill(self, first: int, step: float, momentum: float) -> None:
        """Give all cycles from ``first`` on the same eta L and mu."""
        mu = min(max(momentum, 0.01), 0.99)
        share = min(max(step / (self.reach * (1.0 + mu) * 0.99), 0.001), 0.999)
        self.momentum_raw[first:] = math.log(mu / (1.0 - mu))
        self.step_raw[first:] = math.log(share / (1.0 - share))

    def forward(self, lipschitz: Tensor) -> Schedule:
        """Return the schedule for dynamics with spectral bound ``lipschitz``."""
        momentum = torch.sigmoid(self.momentum_raw)
        if self.preconditioned:
            momentum = momentum.clamp(max=CALM)
        step = self.reach * (1.0 + momentum) * 0.99 * torch.sigmoid(self.step_raw) / lipschitz
        return Schedule(step, momentum, self.guarded, self.guarded and self.preconditioned)

    def tail(self, lipschitz: Tensor, iterations: int) -> Schedule:
        """Return the schedule of cycles beyond the learned ones."""
        return Schedule.constant(iterations, self.tail_step / lipschitz, self.tail_momentum)

    def thresholds(self, iterations: int, lam: Number) -> list[Number] | None:
        """Return the threshold value of each cycle; None for lam throughout.

        It falls over four fifths of the run. The longer the run, the higher it starts: as many times lam as
        ``annealing`` to the power of iterations / cycles, at most 2.25.
        """
        if self.annealing == 1.0:
            return None
        factor = self.annealing ** min(iterations / max(self.cycles, 1), LARGEST_POWER)
        return annealed_thresholds(lam, iterations, factor=factor, span=max(round(0.8 * iterations), 1))

    def extra_repr(self) -> str:
        """Describe the steps in ``print(module)``."""
        conditioned = "preconditioned=True, " if self.preconditioned else ""
        return (
            f"{conditioned}reach={self.reach!r}, annealing={self.annealing!r}, tail_step={self.tail_step!r}, "
            f"tail_momentum={self.tail_momentum!r}, cycles={self.cycles}"
        )

    def get_extra_state(self) -> Tensor:
        """Return the plain numbers as a tensor, to be saved with the weights."""
        numbers = [self.reach, self.tail_step, self.tail_momentum, self.annealing, float(self.cycles)]
        if self.preconditioned:
            numbers.append(1.0)
        return torch.tensor(numbers, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what ``get_extra_state`` gave."""
        self.reach, self.tail_step, self.tail_momentum, self.annealing, cycles, *newer = state.tolist()
        self.cycles = int(cycles)
        self.preconditioned = any(newer)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        # As many steps as were saved: a layer's cycles may have been changed since it was built.
        for name in ("momentum_raw", "step_raw"):
            own, saved = getattr(self, name), state_dict.get(prefix + name)
            if saved is not None and saved.shape != own.shape:
                setattr(self, name, nn.Parameter(own.new_zeros(saved.shape)))
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
