"""Preparations of priming's stages: settled states, computed once and kept in files, and the best constant schedule."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...configs.atomic import file_written_whole
from ...configs.progress import Bar
from ..sparse.problem import Problem
from ..sparse.solver import solve
from ..sparse.warp import WarpLCA


class SettledStates:
    """Settled states by image, in half precision.

    Args:
        settle: Maps images (n, C, H, W) to states.
        images: (N, C, H, W).
        batch_size: Images solved at a time.
        folder: Folder to which each batch of states is written once it is solved; None keeps them in memory alone.

    Attributes:
        progress: Whether settling shows a bar.
        check_stop: Called before each batch; may raise, to stop between batches.
    """

    def __init__(
        self, settle: Callable[[Tensor], Tensor], images: Tensor, batch_size: int, folder: Path | None
    ) -> None:
        self.settle, self.images, self.batch_size, self.folder = settle, images, batch_size, folder
        self._states: Tensor | None = None
        self.progress = True
        self.check_stop: Callable[[], None] = lambda: None

    def __call__(self, chosen: Tensor) -> Tensor:
        """Return the states of the images with these numbers, in single precision."""
        return self.states[chosen].float()

    @property
    def variance(self) -> Tensor:
        """Variance of the states of the first images."""
        return self.states[:256].float().var()

    @property
    def states(self) -> Tensor:
        """All states, (N, M, h, w); computed on first use."""
        if self._states is None:
            batches = self.images.split(self.batch_size)
            bar = Bar(batches, desc="priming: settled states", show=self.progress)
            self._states = torch.cat([self._batch(index, batch) for index, batch in enumerate(bar)])
        return self._states

    def _batch(self, index: int, images: Tensor) -> Tensor:
        self.check_stop()
        if self.folder is None:
            return self.settle(images).half()
        file = self.folder / f"{index:05d}.safetensors"
        try:
            return load_file(file)["states"].to(images.device)
        except (OSError, SafetensorError):  # not there yet, or damaged
            states = self.settle(images).half().cpu().contiguous()
        with file_written_whole(file) as target:
            save_file({"states": states}, target)
        return states.to(images.device)


REACH = (
    16.0  # of the steps, in units of (1 + mu) / L: active units of a sparse code have a tenth of L or less
)

STEPS = (2.0, 4.0, 8.0, 12.0, 16.0, 20.0)  # eta L

MOMENTA = (0.25, 0.4, 0.55, 0.7)

ANNEALINGS = (1.25, 1.4, 1.6)  # hardly felt at a few cycles, but longer runs need it

TAIL_MOMENTA = (0.4, 0.55, 0.7, 0.85)


@torch.no_grad()
def search_schedule(layer: WarpLCA, images: Tensor, *, progress: bool = False) -> None:
    """Give a layer the best constant schedule of a grid, and the best tail at three times its cycles.

    Args:
        layer: A layer whose predictor has learned settled states; its steps and annealing are replaced.
        images: (N, C, H, W), pixels in [0, 1]; training images, never test images.
        progress: Whether to show a progress bar.
    """
    steps = layer.steps
    if steps is None:
        return
    x = layer.standardise(images).images
    problem = Problem(layer.dictionary.operator().detached(), x, layer.threshold, layer.lam)
    start = layer.initial_state(x)
    annealings = (1.0,) if layer.threshold.convex else ANNEALINGS

    def with_cycles(preconditioned: bool, step: float, momentum: float, annealing: float) -> float:
        steps.preconditioned, steps.annealing = preconditioned, annealing
        steps.fill(0, step, momentum)
        return _energy(layer, problem, start, layer.iterations)

    def with_tail(step: float, momentum: float) -> float:
        steps.tail_step, steps.tail_momentum = step, momentum
        return _energy(layer, problem, start, 3 * layer.iterations)

    steps.reach = REACH
    choices = list(itertools.product((False, True), STEPS, MOMENTA, annealings))
    tails = list(itertools.product(STEPS, TAIL_MOMENTA))
    with Bar(total=len(choices) + 3 * len(tails), desc="priming: schedule", show=progress) as bar:
        best = min(choices, key=lambda choice: (with_cycles(*choice), bar.update())[0])
        with_cycles(*best)
        with_tail(*min(tails, key=lambda choice: (with_tail(*choice), bar.update(3))[0]))


def _energy(layer: WarpLCA, problem: Problem, start: Tensor | None, cycles: int) -> float:
    state = solve(problem, layer.schedule(problem, cycles), state=start)
    return float(problem.energy(problem.code(state)).mean())
