"""How many iterations, and how long, until a code is good.

Usage: python benchmarks/solver_convergence.py [--lca-pytorch FOLDER] [--out FILE.json] [--images 32]

1. The hard-threshold energy on CIFAR-10 test images with the shipped dictionary, cold start: plain LCA
   (eta = 1/L) after 1,000 iterations sets the target; how many iterations does each of our schedules need?
2. Wall-clock to that energy against lca-pytorch with its default time constant, tau = 100, from the checkout given.
3. The l1 problem (stride 1, non-negative): wall-clock to 0.1 % above the optimum against sporco's masked, padded
   ConvBPDN, where sporco is installed. The optimum is bounded from below by a dual point.

The schedules were chosen by choose_schedule.py on training images; the images here, the last of the embedded test
images, had no part in it. Energies are computed outside the timed spans. Each library runs alone, one after the
other, on one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from solver_speed import lca_pytorch
from torch import Tensor

from warplca.data import load_dataset
from warplca.frontend import LCA, THRESHOLDS, Problem, Schedule, Threshold, solve
from warplca.frontend.sparse.operator import ConvOperator
from warplca.frontend.sparse.schedule import accelerated_schedule, accelerated_thresholds, plain_schedule
from warplca.frontend.sparse.spectrum import spectral_bound

LAM = 0.5
SIZE = (32, 32)
CHUNK = 50


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lca-pytorch", type=Path, help="folder of a checkout of lanl/lca-pytorch")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--images", type=int, default=32, help="for part 1; the timed parts take at most 8")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    layer = LCA.from_pretrained("cifar10-64x9s2")
    pixels = load_dataset("cifar10-subset", "test").images[-arguments.images :]
    images = layer.standardise(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255).images
    operator = layer.dictionary.operator().detached()
    figures: dict[str, object] = {"hard": hard_energy(operator, images)}
    few = images[:8]
    if arguments.lca_pytorch is None:
        print("\nlca-pytorch is skipped: give the folder of a checkout with --lca-pytorch.")
    else:
        figures["lca-pytorch"] = against_lca_pytorch(operator, few, arguments.lca_pytorch)
    if importlib.util.find_spec("sporco") is None:
        print("\nsporco is skipped: it is not installed.")
    else:
        dense = ConvOperator.from_atoms(operator.atoms, 1, spectral_bound(operator.atoms, 1))
        figures["sporco"] = against_sporco(dense, few[:4])
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def mean_energy(operator: ConvOperator, images: Tensor, code: Tensor, threshold: Threshold) -> float:
    """Mean energy per image."""
    return float(Problem(operator, images, threshold, LAM).energy(code).mean())


def accelerated(operator: ConvOperator, images: Tensor, count: int) -> Tensor:
    """Code after ``count`` accelerated iterations, hard threshold."""
    schedule = replace(accelerated_schedule(operator, count), levels=accelerated_thresholds(LAM, count))
    state = solve(Problem(operator, images, THRESHOLDS["hard"], LAM), schedule)
    return THRESHOLDS["hard"](state, LAM)


def hard_energy(operator: ConvOperator, images: Tensor) -> dict[str, object]:
    """Part 1."""
    hard = THRESHOLDS["hard"]
    target = traced(operator, images, plain_schedule(operator, 1000))
    goal = target[1000]
    print(f"hard-threshold energy, mean of {len(images)} images; plain LCA at 1,000 iterations: {goal:.2f}")
    schedules = {
        "plain LCA, eta = 1/L": target,
        "eta = 1.8/L": traced(operator, images, scaled(operator, 1000, 1.8, 0.0)),
        "momentum 0.95, eta = 1/L": traced(operator, images, scaled(operator, 300, 1.0, 0.95)),
        "momentum 0.9, eta = 3.4/L": traced(operator, images, scaled(operator, 300, 3.4, 0.9)),
    }
    needed = {name: next((i for i, e in enumerate(t) if e <= goal), None) for name, t in schedules.items()}
    reached = {
        count: mean_energy(operator, images, accelerated(operator, images, count), hard)
        for count in (20, 25, 30, 32, 34, 36, 38, 40, 50, 60, 80, 150, 300)
    }
    needed["accelerated (run planned for so many)"] = next((c for c, e in reached.items() if e <= goal), None)
    for name, count in needed.items():
        print(f"  {name:40} reaches it after {count if count is not None else 'more than tried'}")
    print("  accelerated: " + ", ".join(f"{value:.1f} at {count}" for count, value in reached.items()))
    marks = (10, 30, 100, 300, 600, 1000)
    return {
        "target": goal,
        "iterations_needed": needed,
        "accelerated": reached,
        "curves": {name: {m: t[m] for m in marks if m < len(t)} for name, t in schedules.items()},
    }


def scaled(operator: ConvOperator, count: int, share: float, momentum: float) -> Schedule:
    """The constant schedule with eta = share / L."""
    return Schedule.constant(count, share / operator.lipschitz, momentum)


def traced(operator: ConvOperator, images: Tensor, schedule: Schedule) -> list[float]:
    """Mean energy before the first and after every iteration."""
    trace: list[Tensor] = []
    solve(Problem(operator, images, THRESHOLDS["hard"], LAM), schedule, trace=trace)
    return [float(values.mean()) for values in trace]


def against_lca_pytorch(operator: ConvOperator, images: Tensor, folder: Path) -> dict[str, object]:
    """Part 2: lca-pytorch goes on from its own states, ``CHUNK`` iterations at a time."""
    hard = THRESHOLDS["hard"]
    goal = traced(operator, images, plain_schedule(operator, 1000))[1000]
    ours = None
    for count in range(20, 81, 2):
        start = time.perf_counter()
        code = accelerated(operator, images, count)
        seconds = time.perf_counter() - start
        if mean_energy(operator, images, code, hard) <= goal:
            ours = {"iterations": count, "seconds": seconds}
            break
    other = lca_pytorch_to(goal, operator, images, folder, hard, LAM)
    print(f"\nto energy {goal:.2f}, {len(images)} images: ours {ours}, lca-pytorch (tau = 100) {other}")
    if ours is None or other is None:
        return {"target": goal, "ours": ours, "lca-pytorch": other}
    ratio = other["seconds"] / ours["seconds"]
    print(f"  {ratio:.0f} times as fast")
    return {"target": goal, "ours": ours, "lca-pytorch": other, "speedup": ratio}


def lca_pytorch_to(
    goal: float, operator: ConvOperator, images: Tensor, folder: Path, threshold: Threshold, lam: float
) -> dict[str, float] | None:
    """Iterations and seconds that lca-pytorch (tau = 100) needs to a mean energy.

    None if 3,000 iterations do not suffice, or if it diverges.
    """
    layer = lca_pytorch(folder, operator, images, CHUNK, lam, 100.0, ["acts", "states"], threshold)
    state, seconds = None, 0.0
    for count in range(CHUNK, 3001, CHUNK):
        start = time.perf_counter()
        code, state = layer(images, None, state)
        seconds += time.perf_counter() - start
        reached = float(Problem(operator, images, threshold, lam).energy(code).mean())
        if reached <= goal:
            return {"iterations": count, "seconds": seconds}
        if not math.isfinite(reached):
            break
    return None


def against_sporco(operator: ConvOperator, images: Tensor) -> dict[str, object]:
    """Part 3."""
    best, bound = optimum(operator, images)
    goal = 1.001 * best
    print(f"\nl1 objective, {len(images)} images: optimum between {bound:.3f} and {best:.3f} per image")
    soft = THRESHOLDS["soft"]
    ours, other = None, None
    for count in range(100, 801, 25):
        schedule = l1_schedule(operator, count)
        start = time.perf_counter()
        code = soft(solve(Problem(operator, images, soft, LAM), schedule), LAM)
        seconds = time.perf_counter() - start
        if mean_energy(operator, images, code, soft) <= goal:
            ours = {"iterations": count, "seconds": seconds}
            break
    solver = sporco_solver(operator, images)
    seconds = 0.0
    for count in range(20, 1001, 20):
        start = time.perf_counter()
        solver.solve()
        seconds += time.perf_counter() - start
        height, width = SIZE
        found = solver.var_y1()[:height, :width].squeeze(2).transpose(2, 3, 0, 1)
        code = torch.from_numpy(np.ascontiguousarray(found)).float()
        if mean_energy(operator, images, code, soft) <= goal:
            other = {"iterations": count, "seconds": seconds}
            break
    print(f"to 0.1 % above it: ours {ours}, sporco {other}")
    result: dict[str, object] = {"optimum": [bound, best], "ours": ours, "sporco": other}
    if ours and other:
        result["speedup"] = other["seconds"] / ours["seconds"]
        print(f"  {result['speedup']:.1f} times as fast")
    return result


def l1_schedule(operator: ConvOperator, count: int) -> Schedule:
    """Momentum 0.96 and 0.9 of the largest stable step: the l1 problem is convex, annealing does not help."""
    return scaled(operator, count, 0.9 * 2 * 1.96, 0.96)


def optimum(operator: ConvOperator, images: Tensor) -> tuple[float, float]:
    """Upper and lower bound of the smallest l1 objective, from a long run and its scaled dual point."""
    soft = THRESHOLDS["soft"]
    state = solve(Problem(operator, images, soft, LAM), l1_schedule(operator, 12000))
    code = soft(state, LAM)
    residual = images - operator.synthesise(code, SIZE)
    steepest = operator.analyse(residual).flatten(1).amax(1).clamp_min(LAM)
    dual = residual * (LAM / steepest)[:, None, None, None]
    bound = 0.5 * (images.square() - (images - dual).square()).flatten(1).sum(1)
    return mean_energy(operator, images, code, soft), float(bound.mean())


def sporco_solver(operator: ConvOperator, images: Tensor):
    """Pose the same problem to sporco: atoms may overhang the image but be anchored only inside it."""
    from sporco.admm import cbpdn  # pyright: ignore[reportMissingImports]

    kernel = operator.atoms.shape[-1]
    left = (kernel - 1) // 2
    height, width = SIZE
    inside = slice(left, left + height), slice(left, left + width)
    padded = (height + kernel - 1, width + kernel - 1)
    signal = np.zeros((*padded, images.shape[1], len(images)), np.float32)
    signal[inside] = images.permute(2, 3, 1, 0).numpy()
    mask = np.zeros((*padded, 1, 1, 1), np.float32)
    mask[inside] = 1
    weight = np.full((*padded, 1, 1, 1), 1e4, np.float32)
    weight[:height, :width] = 1
    options = {
        "Verbose": False,
        "MaxMainIter": 20,
        "RelStopTol": 1e-9,
        "NonNegCoef": True,
        "L1Weight": weight,
        "AutoRho": {"Enabled": True},
        "FastSolve": True,
    }
    atoms = operator.atoms.permute(2, 3, 1, 0).numpy()
    return cbpdn.ConvBPDNMaskDcpl(atoms, signal, LAM, mask, cbpdn.ConvBPDNMaskDcpl.Options(options), dimK=1)


if __name__ == "__main__":
    main()
