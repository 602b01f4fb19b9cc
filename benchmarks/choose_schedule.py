"""Choose the constants of the accelerated schedule, and the momentum for l1 problems, on training images.

Usage: python benchmarks/choose_schedule.py [--out FILE.json] [--images 32]

Every combination of the grid solves the same images from a cold start for runs of several lengths. Its score is the
mean over the lengths of energy over the lowest energy that any combination reached in that length; the lowest score is
what ``accelerated_schedule`` and ``accelerated_thresholds`` hold. Test images play no part.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import torch
from solver_convergence import LAM, mean_energy, scaled
from torch import Tensor
from tqdm import tqdm

from warplca.data import load_dataset
from warplca.frontend import LCA, THRESHOLDS, Problem, solve
from warplca.frontend.sparse.operator import ConvOperator
from warplca.frontend.sparse.schedule import annealed_thresholds
from warplca.frontend.sparse.spectrum import spectral_bound

LENGTHS = (25, 30, 40, 60, 80)
GRID = {
    "memory": (5.0, 7.5, 10.0),  # 1 / (1 - mu) = length / memory
    "largest": (0.9, 0.93, 0.95),  # cap of mu
    "share": (0.8, 0.9, 0.95),  # of the largest stable step
    "factor": (2.0, 3.0, 4.0),  # lam falls from so many times its value
    "span": (0.7, 0.8, 0.9),  # over this share of the run
}
L1_LENGTHS = (200, 300)
L1_MOMENTA = (0.93, 0.95, 0.96, 0.97, 0.98)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    layer = LCA.from_pretrained("cifar10-64x9s2")
    pixels, _ = load_dataset("cifar10-subset", "train").tensors(range(arguments.images))
    images = layer.standardise(pixels).images
    operator = layer.dictionary.operator().detached()
    hard = scores({combination: hard_energies(operator, images, combination) for combination in grid()})
    print(f"hard threshold, {len(images)} training images, runs of {', '.join(map(str, LENGTHS))} iterations")
    for combination, score in list(hard.items())[:8]:
        named = ", ".join(f"{name} {value:g}" for name, value in zip(GRID, combination, strict=True))
        print(f"  {named}: {score:.4f}")
    dense = ConvOperator.from_atoms(operator.atoms, 1, spectral_bound(operator.atoms, 1))
    few = images[:4]
    l1 = scores({(momentum,): l1_energies(dense, few, momentum) for momentum in tqdm(L1_MOMENTA, desc="l1")})
    print(f"l1 at stride 1, {len(few)} training images, runs of {', '.join(map(str, L1_LENGTHS))} iterations")
    for (momentum,), score in l1.items():
        print(f"  momentum {momentum:g}: {score:.5f}")
    if arguments.out:
        figures = {"hard": [[*c, s] for c, s in hard.items()], "l1": [[*c, s] for c, s in l1.items()]}
        arguments.out.write_text(json.dumps({"grid": list(GRID), **figures}, indent=2) + "\n")


def grid() -> tqdm:
    """Every combination of ``GRID``."""
    return tqdm(list(itertools.product(*GRID.values())), desc="hard")


def scores(energies: dict[tuple[float, ...], list[float]]) -> dict[tuple[float, ...], float]:
    """Mean over the lengths of energy over the lowest of that length, best first."""
    lowest = [min(column) for column in zip(*energies.values(), strict=True)]
    found = {
        combination: sum(e / low for e, low in zip(values, lowest, strict=True)) / len(lowest)
        for combination, values in energies.items()
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def hard_energies(operator: ConvOperator, images: Tensor, combination: tuple[float, ...]) -> list[float]:
    """Mean energy after runs of every length, hard threshold."""
    memory, largest, share, factor, span = combination
    hard = THRESHOLDS["hard"]
    energies = []
    for length in LENGTHS:
        momentum = min(max(1.0 - memory / length, 0.5), largest)
        schedule = scaled(operator, length, share * 2.0 * (1.0 + momentum), momentum)
        levels = annealed_thresholds(LAM, length, factor=factor, span=round(span * length))
        state = solve(Problem(operator, images, hard, LAM), replace(schedule, levels=levels))
        energies.append(mean_energy(operator, images, hard(state, LAM), hard))
    return energies


def l1_energies(operator: ConvOperator, images: Tensor, momentum: float) -> list[float]:
    """Mean l1 objective after runs of every length."""
    soft = THRESHOLDS["soft"]
    energies = []
    for length in L1_LENGTHS:
        schedule = scaled(operator, length, 0.9 * 2.0 * (1.0 + momentum), momentum)
        energies.append(
            mean_energy(
                operator, images, soft(solve(Problem(operator, images, soft, LAM), schedule), LAM), soft
            )
        )
    return energies


if __name__ == "__main__":
    main()
