"""Priming: learn a dictionary and a predictor from unlabelled images.

Stage one alternates sparse coding with gradient steps on the atoms (Olshausen and Field, Nature 1996).
Stage two teaches the predictor the settled states of a thorough solve. Stage three trains predictor and
step sizes through the unrolled cycles, on the energy that those few cycles reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from ..configs.errors import InputError
from .lca import LCA
from .metrics import active_fraction, energy
from .operator import ConvOperator
from .solver import annealed_thresholds, plain_schedule, solve
from .threshold import Threshold
from .warp import WarpLCA


@dataclass(frozen=True)
class PrimingPlan:
    """How long and how to prime.

    Attributes:
        dictionary_steps: Gradient steps on the atoms; 0 keeps the present dictionary.
        target_images: Images whose settled states are computed for stage two; 0 skips it.
        predictor_steps: Gradient steps on states (stage two).
        unrolled_steps: Gradient steps through the unrolled cycles (stage three).
        batch_size: Images a step.
        solve_cycles: Momentum cycles of a thorough solve.
        seed: Of the order of images and of their flips.
    """

    dictionary_steps: int = 300
    target_images: int = 2048
    predictor_steps: int = 300
    unrolled_steps: int = 300
    batch_size: int = 32
    solve_cycles: int = 150
    seed: int = 0


def prime(layer: WarpLCA, images: Tensor, plan: PrimingPlan, *, progress: bool = True) -> dict[str, float]:
    """Prime a layer in place and leave it in evaluation mode.

    Args:
        layer: The layer; its lam, threshold and number of cycles are what it is primed for.
        images: (N, C, H, W), pixels in [0, 1], unlabelled.
        plan: Lengths of the stages.
        progress: Whether to show progress bars.

    Returns:
        Mean energies and active fraction on 64 images left out of priming; see :func:`measure`.
    """
    if len(images) < 2 * plan.batch_size + 64:
        raise InputError(
            f"priming got {len(images)} images; give at least {2 * plan.batch_size + 64} "
            f"for batch_size {plan.batch_size}."
        )
    layer.dictionary.check_size(images)
    held_out, rest = images[:64], images[64:]
    layer.train()
    if plan.dictionary_steps:
        learn_dictionary(layer, rest, plan, progress=progress)
    if plan.target_images and plan.predictor_steps:
        learn_states(layer, rest, plan, progress=progress)
    if plan.unrolled_steps:
        learn_unrolled(layer, rest, plan, progress=progress)
    layer.eval()
    return measure(layer, held_out)


def learn_dictionary(layer: LCA, images: Tensor, plan: PrimingPlan, *, progress: bool = True) -> None:
    """Stage one: minimise the energy over atoms, with codes from a momentum solve."""
    weight = layer.dictionary.weight
    optimiser = torch.optim.Adam([weight], lr=0.02)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.dictionary_steps)
    cycles = min(plan.solve_cycles, 60)
    bar = _bar("dictionary", plan.dictionary_steps, progress)
    for batch in _batches(images, plan, plan.dictionary_steps):
        x = layer.standardise(batch).images
        operator = layer.dictionary.operator()
        with torch.no_grad():
            fixed = operator.detached()
            schedule = plain_schedule(fixed, cycles, momentum=0.9)
            code = layer.threshold(solve(fixed, x, layer.threshold, layer.lam, schedule), layer.lam)
        loss = energy(x, code, operator, layer.threshold, layer.lam).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
        _renormalise(weight)
        bar.set_postfix_str(f"energy {loss.item():.1f}")
        bar.update()
    layer.dictionary.refresh()
    bar.close()


@torch.no_grad()
def settled_states(layer: LCA, images: Tensor, cycles: int) -> Tensor:
    """Solve thoroughly: momentum 0.95, the threshold falling from 4 lam over the first two thirds."""
    operator = layer.dictionary.operator()
    schedule = plain_schedule(operator, cycles, momentum=0.95)
    span = max(2 * cycles // 3, 1)
    lam = layer.lam.detach() if isinstance(layer.lam, Tensor) else layer.lam
    thresholds = annealed_thresholds(lam, cycles, factor=4.0, span=span)
    standardised = layer.standardise(images).images
    return solve(operator, standardised, layer.threshold, lam, schedule, thresholds=thresholds)


def learn_states(layer: WarpLCA, images: Tensor, plan: PrimingPlan, *, progress: bool = True) -> None:
    """Stage two: regress the settled states."""
    images = images[: plan.target_images]
    targets = []
    bar = _bar("settled states", len(images), progress)
    for batch in images.split(plan.batch_size):
        targets.append(settled_states(layer, batch, plan.solve_cycles))
        bar.update(len(batch))
    bar.close()
    target = torch.cat(targets)
    variance = target.var()
    optimiser, decay = _optimiser(layer, plan.predictor_steps, 2e-3)
    generator = torch.Generator().manual_seed(plan.seed + 1)
    bar = _bar("predictor", plan.predictor_steps, progress)
    for _ in range(plan.predictor_steps):
        chosen = torch.randint(len(images), (plan.batch_size,), generator=generator)
        predicted = layer.predictor(layer.standardise(images[chosen]).images)
        loss = (predicted - target[chosen]).square().mean() / variance
        _step(layer, loss, optimiser, decay)
        bar.set_postfix_str(f"unexplained {loss.item():.3f}")
        bar.update()
    bar.close()


def learn_unrolled(layer: WarpLCA, images: Tensor, plan: PrimingPlan, *, progress: bool = True) -> None:
    """Stage three: minimise the energy after the layer's own cycles, over predictor and steps.

    A true step has no gradient at the threshold: the cycles and the cost run with a smooth one, whose
    steepness grows during training.
    """
    optimiser, decay = _optimiser(layer, plan.unrolled_steps, 1e-3)
    operator = layer.dictionary.operator().detached()
    exact = layer.threshold
    bar = _bar("unrolled", plan.unrolled_steps, progress)
    for step, batch in enumerate(_batches(images, plan, plan.unrolled_steps)):
        lam = float(layer.lam)
        gamma = (10.0 + 40.0 * step / plan.unrolled_steps) / lam
        smooth = replace(exact, gamma=gamma) if exact.alpha < 1.0 else exact
        x = layer.standardise(batch).images
        # Every second step runs half the cycles, so that stopping early is good as well.
        cycles = layer.iterations if step % 2 == 0 else max(layer.iterations // 2, 1)
        schedule = layer.schedule(operator, cycles)
        state = solve(operator, x, smooth, lam, schedule, state=layer.initial_state(x))
        loss = smooth_energy(x, state, operator, smooth, lam).mean()
        _step(layer, loss, optimiser, decay)
        bar.set_postfix_str(f"energy {loss.item():.1f}")
        bar.update()
    bar.close()


def smooth_energy(
    images: Tensor, state: Tensor, operator: ConvOperator, threshold: Threshold, lam: float
) -> Tensor:
    """E(T(u)) with the count of active units replaced by a sigmoid of the state, shape (N,)."""
    code = threshold(state, lam)
    residual = images - operator.synthesise(code, (images.shape[2], images.shape[3]))
    magnitude = state if threshold.rectified else state.abs()
    gamma = threshold.gamma if math.isfinite(threshold.gamma) else 20.0 / lam
    count = torch.sigmoid(gamma * (magnitude - lam))
    cost = 0.5 * (1.0 - threshold.alpha) ** 2 * lam**2 * count + threshold.alpha * lam * code.abs()
    return 0.5 * residual.square().flatten(1).sum(1) + cost.flatten(1).sum(1)


@torch.no_grad()
def measure(layer: WarpLCA, images: Tensor) -> dict[str, float]:
    """Compare a primed layer with long solves on the same images.

    Returns:
        ``warp_energy`` after the layer's own cycles, ``plain_energy_100`` and ``plain_energy_300`` of plain LCA
        (cold, eta = 1/L), ``settled_energy`` of an annealed momentum solve, all per image, and the
        ``active_fraction`` of the layer's code.
    """
    x = layer.standardise(images).images
    operator = layer.dictionary.operator()

    def mean_energy(state: Tensor) -> float:
        code = layer.threshold(state, layer.lam)
        return float(energy(x, code, operator, layer.threshold, layer.lam).mean())

    encoding = layer.encode(images)
    plain: list[Tensor] = []
    solve(operator, x, layer.threshold, layer.lam, plain_schedule(operator, 300), trace=plain)
    return {
        "warp_cycles": float(layer.iterations),
        "warp_energy": mean_energy(encoding.state),
        "plain_energy_100": float(plain[100].mean()),
        "plain_energy_300": float(plain[300].mean()),
        "settled_energy": mean_energy(settled_states(layer, images, 300)),
        "active_fraction": float(active_fraction(encoding.code, layer.lam).mean()),
    }


def _batches(images: Tensor, plan: PrimingPlan, steps: int) -> Iterator[Tensor]:
    """Yield random batches, each image flipped with probability one half."""
    generator = torch.Generator().manual_seed(plan.seed)
    for _ in range(steps):
        chosen = torch.randint(len(images), (plan.batch_size,), generator=generator)
        batch = images[chosen]
        flip = torch.rand(len(batch), generator=generator) < 0.5
        yield torch.where(flip[:, None, None, None].to(batch.device), batch.flip(-1), batch)


def _optimiser(
    layer: WarpLCA, steps: int, rate: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups: list[dict] = [{"params": list(layer.predictor.parameters()), "lr": rate}]
    if layer.steps is not None:
        groups.append({"params": list(layer.steps.parameters()), "lr": 10 * rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    rates = [group["lr"] for group in groups]
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.2)


def _step(
    layer: WarpLCA,
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    decay: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    optimiser.step()
    decay.step()


@torch.no_grad()
def _renormalise(weight: Tensor) -> None:
    """Keep raw atoms at unit norm, so that the learning rate means an angle."""
    weight /= weight.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]


def _bar(name: str, total: int, progress: bool) -> tqdm:
    return tqdm(total=total, desc=f"priming: {name}", disable=not progress, dynamic_ncols=True)
