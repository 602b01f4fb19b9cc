"""The stages of priming: each a loss, the weights that it moves and a number of steps.

All randomness of a step follows from the seed and the step's number, so that a stage continues where it stopped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...configs.device import sent
from ...configs.errors import InputError
from ...configs.rates import rate_factor, set_rates
from ..sparse.lca import LCA
from ..sparse.operator import ConvOperator
from ..sparse.problem import Problem
from ..sparse.schedule import accelerated_schedule, accelerated_thresholds, plain_schedule
from ..sparse.solver import solve
from ..sparse.warp import WarpLCA
from .preparation import SettledStates, search_schedule

DICTIONARY_CYCLES = 60  # with momentum; annealed codes let the atoms grow alike, see docs/priming.md

SURROGATE_GAMMA = 50.0  # steepness, in units of 1 / lam, at the end of the unrolled stage


@dataclass(frozen=True)
class PrimingPlan:
    """Lengths and settings of the stages of priming.

    Attributes:
        dictionary_steps: Gradient steps on the atoms; 0 keeps the present dictionary.
        target_images: Images whose settled states are computed for the second stage; 0 skips it.
        predictor_steps: Gradient steps on states (second stage).
        unrolled_steps: Gradient steps through the unrolled cycles (third stage).
        unrolled_cycles: Number of unrolled cycles; 0 for as many as the layer has.
        restoring_steps: Gradient steps of the last stage: restore noisy images, all weights learning; see
            :class:`RestoringStage`.
        restoring_rate: Peak learning rate of the last stage.
        search_images: Images on which the schedule is searched between these two; 0 keeps the present schedule.
        batch_size: Images a step.
        solve_cycles: Cycles of a thorough, accelerated solve.
        learning_rate: Peak rate of the third stage.
        seed: Seed of the order of images and of their flips.
    """

    dictionary_steps: int = 300
    target_images: int = 2048
    predictor_steps: int = 300
    unrolled_steps: int = 300
    unrolled_cycles: int = 0
    search_images: int = 64
    restoring_steps: int = 0
    restoring_rate: float = 1e-3
    batch_size: int = 32
    solve_cycles: int = 80
    learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name in ("batch_size", "solve_cycles") else 0
            if not name.endswith("rate") and value < least:
                raise InputError(f"{name} of the priming plan is {value}; give {least} or more.")
        for name in ("learning_rate", "restoring_rate"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(
                    f"{name} of the priming plan is {getattr(self, name)}; give a number above 0."
                )


class Stage(ABC):
    """One stage.

    Args:
        layer: The layer to prime.
        images: (N, C, H, W), pixels in [0, 1].
        plan: Lengths and seed.

    Attributes:
        steps: Number of steps.
        progress: Whether work before the first step shows a bar.
        optimiser: Optimiser of the weights that the stage moves.
    """

    name: str
    number: int
    warm_up = 0.2

    def __init__(self, layer: WarpLCA, images: Tensor, plan: PrimingPlan, steps: int) -> None:
        self.layer, self.images, self.plan, self.steps = layer, images, plan, steps
        self.progress = False
        self.optimiser = self.make_optimiser()

    def prepare(self, check_stop: Callable[[], None]) -> None:  # noqa: B027 - most stages need nothing
        """Compute what steps look at; ``check_stop`` is called now and then, and may raise."""

    def begin(self) -> None:  # noqa: B027 - most stages need nothing
        """Prepare the layer, once, before the first step."""

    @abstractmethod
    def make_optimiser(self) -> torch.optim.Optimizer:
        """Return the optimiser, its rates at their peaks."""

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the loss of a step."""

    def advance(self, step: int) -> float:
        """Do one step and return its loss."""
        set_rates(self.optimiser, rate_factor(step, self.steps, self.warm_up, single_peak=True))
        loss = self.loss(step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss of the priming stage {self.name!r} is not finite at step {step + 1}; lower the plan's "
                "learning_rate, or check the images. The state saved before stays."
            )
        self.optimiser.zero_grad()
        loss.backward()
        for group in self.optimiser.param_groups:  # on its own: few numbers must not drown in many weights
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimiser.step()
        return value

    def batch(self, step: int) -> Tensor:
        """Return the step's images, each flipped with probability one half."""
        generator = self.generator(step)
        chosen = torch.randint(len(self.images), (self.plan.batch_size,), generator=generator)
        batch = self.images[sent(chosen, self.images.device)]
        flip = torch.rand(len(batch), generator=generator) < 0.5
        return torch.where(sent(flip, batch.device)[:, None, None, None], batch.flip(-1), batch)

    def generator(self, step: int) -> torch.Generator:
        """Return the random numbers of a step."""
        return torch.Generator().manual_seed((self.plan.seed * 10 + self.number) * 10_000_000 + step)


class DictionaryStage(Stage):
    """Minimise the energy over atoms, with codes from a momentum solve (Olshausen and Field, Nature 1996)."""

    name, number, warm_up = "dictionary", 1, 0.0

    def make_optimiser(self) -> torch.optim.Optimizer:
        """Adam: with atoms kept at unit norm, its rate means an angle."""
        return torch.optim.Adam([self.layer.dictionary.weight], lr=0.02)

    def loss(self, step: int) -> Tensor:
        """Return the energy of codes that are held fixed."""
        layer = self.layer
        x = layer.standardise(self.batch(step)).images
        problem = Problem(layer.dictionary.operator(), x, layer.threshold, layer.lam)
        with torch.no_grad():
            fixed = replace(problem, operator=problem.operator.detached())
            cycles = min(self.plan.solve_cycles, DICTIONARY_CYCLES)
            code = fixed.code(solve(fixed, plain_schedule(fixed.operator, cycles, momentum=0.9)))
        return problem.energy(code).mean()

    def advance(self, step: int) -> float:
        """Do one step; atoms stay at unit norm, and the bound follows them."""
        loss = super().advance(step)
        weight = self.layer.dictionary.weight
        with torch.no_grad():
            weight /= weight.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        if step == self.steps - 1:
            self.layer.dictionary.refresh()
        return loss


class StatesStage(Stage):
    """Regress the settled states, so that the predictor starts the dynamics near where they end."""

    name, number = "states", 2

    def __init__(
        self, layer: WarpLCA, images: Tensor, plan: PrimingPlan, steps: int, *, folder: Path | None = None
    ) -> None:
        super().__init__(layer, images[: plan.target_images], plan, steps)
        self.targets = SettledStates(self._settle, self.images, plan.batch_size, folder)

    def make_optimiser(self) -> torch.optim.Optimizer:
        """AdamW without decay."""
        return torch.optim.AdamW(self.layer.predictor.parameters(), lr=2e-3, weight_decay=0.0)

    def loss(self, step: int) -> Tensor:
        """Return the share of the states' variance that the prediction leaves unexplained."""
        chosen = torch.randint(len(self.images), (self.plan.batch_size,), generator=self.generator(step))
        chosen = sent(chosen, self.images.device)
        targets = self.targets(chosen)
        predicted = self.layer.predictor(self.layer.standardise(self.images[chosen]).images)
        return (predicted - targets).square().mean() / self.targets.variance

    def prepare(self, check_stop: Callable[[], None]) -> None:
        """Settle the states, unless they lie there already."""
        self.targets.check_stop = check_stop
        _ = self.targets.states

    def _settle(self, images: Tensor) -> Tensor:
        return settled_states(self.layer, images, self.plan.solve_cycles)


class UnrolledStage(Stage):
    """Minimise the energy after the layer's own cycles, over predictor and steps.

    A true step has no gradient at the threshold: the cycles and the cost run with a smooth one, whose
    steepness grows during training.
    """

    name, number = "unrolled", 3

    def begin(self) -> None:
        """Search the schedule from which training starts."""
        if self.plan.search_images:
            search_schedule(self.layer, self.images[: self.plan.search_images], progress=self.progress)

    def make_optimiser(self) -> torch.optim.Optimizer:
        """AdamW without decay; the few step sizes and momenta take ten times the rate."""
        rate = self.plan.learning_rate
        groups: list[dict] = [{"params": list(self.layer.predictor.parameters()), "lr": rate}]
        if self.layer.steps is not None:
            groups.append({"params": list(self.layer.steps.parameters()), "lr": 10 * rate})
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def loss(self, step: int) -> Tensor:
        """Return the energy after all cycles; after half of them at every second step."""
        layer, lam = self.layer, float(self.layer.lam)
        gamma = (10.0 + (SURROGATE_GAMMA - 10.0) * step / self.steps) / lam
        x = layer.standardise(self.batch(step)).images
        operator = layer.dictionary.operator().detached()
        most = self.plan.unrolled_cycles or layer.iterations
        cycles = most if step % 2 == 0 else max(most // 2, 1)
        problem = Problem(operator, x, layer.threshold.surrogate(gamma), lam)
        state = solve(problem, layer.schedule(problem, cycles), state=layer.initial_state(x))
        return smooth_energy(problem, state).mean()


def smooth_energy(problem: Problem, state: Tensor) -> Tensor:
    """E(T(u)), (N,), with a gradient that reaches every unit; see ``Threshold.smooth_cost``."""
    code = problem.code(state)
    cost = problem.threshold.smooth_cost(state, code, problem.lam)
    return 0.5 * problem.residual(code).square().flatten(1).sum(1) + cost


@torch.no_grad()
def settled_states(layer: LCA, images: Tensor, cycles: int) -> Tensor:
    """Solve thoroughly: accelerated and, unless the threshold is soft, annealed."""
    x = layer.standardise(images).images
    return _accelerated(layer, layer.dictionary.operator().detached(), x, cycles)


def _accelerated(layer: LCA, operator: ConvOperator, x: Tensor, cycles: int) -> Tensor:
    lam = layer.lam.detach() if isinstance(layer.lam, Tensor) else layer.lam
    schedule = accelerated_schedule(operator, cycles)
    if not layer.threshold.convex:
        schedule = replace(schedule, levels=accelerated_thresholds(lam, cycles))
    return solve(Problem(operator, x, layer.threshold, lam), schedule)
