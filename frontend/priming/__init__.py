"""Priming: learn a dictionary and a predictor from unlabelled images.

Stage one alternates sparse coding with gradient steps on the atoms (Olshausen and Field, Nature 1996).
Stage two teaches the predictor the settled states of a thorough solve. Stage three searches the schedule, then trains
predictor and step sizes through the unrolled cycles, on the energy that those few cycles reach. Where the plan asks
for it, a last stage trains everything to restore noisy images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ...configs.errors import InputError
from ...configs.progress import Bar
from ..sparse.encoding import SparseEncoding
from ..sparse.metrics import active_fraction
from ..sparse.problem import Problem
from ..sparse.schedule import plain_schedule
from ..sparse.solver import solve
from ..sparse.warp import WarpLCA
from .restoring import RestoringStage, measure_restoration
from .stages import DictionaryStage, PrimingPlan, Stage, StatesStage, UnrolledStage, settled_states

HELD_OUT = 64


def prime(layer: WarpLCA, images: Tensor, plan: PrimingPlan, *, progress: bool = True) -> dict[str, float]:
    """Prime a layer in place and leave it in evaluation mode.

    Args:
        layer: The layer; its lam, threshold and number of cycles are what it is primed for.
        images: (N, C, H, W), pixels in [0, 1], unlabelled.
        plan: Lengths of the stages.
        progress: Whether to show progress bars.

    Returns:
        What 64 images left out of priming show; see :func:`measure`.
    """
    held_out, rest = split(layer, images, plan)
    layer.train()
    for stage in make_stages(layer, rest, plan, progress=progress):
        stage.begin()
        with progress_bar(stage, 0, progress) as bar:
            for step in range(stage.steps):
                bar.set_postfix_str(f"loss {stage.advance(step):.3f}")
                bar.update()
    layer.eval()
    return measure(layer, held_out)


def split(layer: WarpLCA, images: Tensor, plan: PrimingPlan) -> tuple[Tensor, Tensor]:
    """Check the images; return those that priming leaves out, for its measurements, and the others."""
    if len(images) < 2 * plan.batch_size + HELD_OUT:
        raise InputError(
            f"priming got {len(images)} images; give at least {2 * plan.batch_size + HELD_OUT} "
            f"for batch_size {plan.batch_size}."
        )
    layer.dictionary.check_size(images)
    return images[:HELD_OUT], images[HELD_OUT:]


def make_stages(
    layer: WarpLCA, images: Tensor, plan: PrimingPlan, *, folder: Path | None = None, progress: bool = True
) -> Iterator[Stage]:
    """Yield the stages that the plan asks for, each made when the one before it is done.

    Args:
        layer: The layer.
        images: Those to prime on.
        plan: Lengths of the stages.
        folder: Folder in which settled states are kept, so that a stopped job need not compute them again.
        progress: Whether their computation shows a progress bar.
    """
    if plan.dictionary_steps:
        yield DictionaryStage(layer, images, plan, plan.dictionary_steps)
    if plan.target_images and plan.predictor_steps:
        stage = StatesStage(layer, images, plan, plan.predictor_steps, folder=folder)
        stage.targets.progress = progress
        yield stage
    if plan.unrolled_steps or plan.search_images:
        unrolled = UnrolledStage(layer, images, plan, plan.unrolled_steps)
        unrolled.progress = progress
        yield unrolled
    if plan.restoring_steps:
        yield RestoringStage(layer, images, plan, plan.restoring_steps)


def progress_bar(stage: Stage, done: int, progress: bool) -> Bar:
    """Return the bar of a stage of which ``done`` steps are done."""
    return Bar(total=stage.steps, initial=done, desc=f"priming: {stage.name}", show=progress)


@torch.no_grad()
def measure(layer: WarpLCA, images: Tensor) -> dict[str, float]:
    """Compare a primed layer with long solves on the same images.

    Returns:
        For a layer whose output is the reconstruction, PSNR; see ``restoring.measure_restoration``. For one whose
        output is the code, ``warp_energy`` after its own cycles and ``warp_energy_30`` after 30,
        ``plain_energy_100``, 300 and 1000 of plain LCA (cold, eta = 1/L), ``settled_energy`` of an accelerated solve
        of 300 cycles, all per image, and the ``active_fraction`` of the layer's code.
    """
    if layer.output == "reconstruction":
        return measure_restoration(layer, images)
    x = layer.standardise(images).images
    problem = Problem(layer.dictionary.operator(), x, layer.threshold, layer.lam)

    def mean_energy(state: Tensor) -> float:
        return float(problem.energy(problem.code(state)).mean())

    def plain(cycles: int, state: Tensor | None) -> Tensor:
        return solve(problem, plain_schedule(problem.operator, cycles), state=state)

    encoding = cast(SparseEncoding, layer.encode(images))  # of the output "code"
    figures = {
        "warp_cycles": float(layer.iterations),
        "warp_energy": mean_energy(encoding.state),
        "warp_energy_30": float(layer.solve(images, iterations=30)[1].energy.mean()),
    }
    state, done = None, 0
    for cycles in (100, 300, 1000):
        state, done = plain(cycles - done, state), cycles
        figures[f"plain_energy_{cycles}"] = mean_energy(state)
    figures["settled_energy"] = mean_energy(settled_states(layer, images, 300))
    figures["active_fraction"] = float(active_fraction(encoding.code, layer.lam).mean())
    return figures
