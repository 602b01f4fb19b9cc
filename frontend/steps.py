"""Step size and momentum of each cycle of WARP-LCA, and the fall of its threshold: learned by priming."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .solver import Schedule, annealed_thresholds

CLASSICAL = 2.0  # eta < 2 (1 + mu) / L is stable whatever the code
CALM = 0.85  # largest mu of preconditioned steps; see Preconditioner
LARGEST_POWER = 2.25  # longer runs anneal from higher, up to this power of the factor


class LearnedSteps(nn.Module):
    """Step sizes and momenta by cycle, kept in range by construction.

    mu = sigmoid(momentum_raw); eta = reach (1 + mu) / L * 0.99 sigmoid(step_raw). Unprimed, ``reach`` is 2, the
    classical bound, and eta = 1 / L. Priming may raise it, because a sparse code bears longer steps; then every
    step is guarded (see ``guard``).

    Args:
        iterations: Number of cycles with a step of their own.
        momentum: Initial mu.

    Attributes:
        reach: Largest eta in units of (1 + mu) / L.
        tail_step: eta L of further cycles, where ``reach`` is above 2.
        tail_momentum: Their mu.
        annealing: The threshold value of a run of ``cycles`` falls from this multiple of lam; 1 for none.
        cycles: Number of cycles that was primed for.
        preconditioned: Whether steps go through the dictionary's preconditioner; L is then that of those dynamics.
    """

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

    def thresholds(self, iterations: int, lam: Tensor | float) -> list[Tensor | float] | None:
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
        if self.preconditioned:  # without it, weights stay what they were before there was a preconditioner
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
        # Weights from before priming could go beyond the classical bound hold none of these numbers.
        state_dict.setdefault(
            f"{prefix}_extra_state",
            torch.tensor([CLASSICAL, 1.0, self.tail_momentum, 1.0, float(self.cycles)], dtype=torch.float64),
        )
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
