"""How many cycles of plain LCA a primed front-end saves.

Usage: python benchmarks/warp_cycles.py [--images 1000] [--frontend cifar10-64x9s2] [--plain 2000] [--out FILE.json]

Energy per image on CIFAR-10 test images, which priming never saw, evenly spread over the embedded ones: WARP-LCA
after 10 and 30 cycles, and plain LCA (cold start, no momentum, eta = 1/L) with the same dictionary, every 25 cycles.
The predictor's own cost, 4.6 cycles of multiplications for 64 atoms of 9 x 9 at stride 2 and 4.2 for 7 x 7 at
stride 1, comes on top. Intervals are 95 % normal ones over images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from warplca.data import load_dataset
from warplca.frontend import LCA, Problem, WarpLCA, solve
from warplca.frontend.sparse.schedule import plain_schedule

EVERY = 25
WARP_CYCLES = (10, 30)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--frontend", default="cifar10-64x9s2")
    parser.add_argument("--plain", type=int, default=2000, help="cycles of plain LCA")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    test = load_dataset("cifar10-subset", "test")
    images, _ = test.tensors(torch.linspace(0, len(test) - 1, arguments.images).long().tolist())
    layer = WarpLCA.from_pretrained(arguments.frontend)
    batches = images.split(50)
    warp = {
        cycles: torch.cat([layer.solve(batch, iterations=cycles)[1].energy for batch in batches])
        for cycles in WARP_CYCLES
    }
    reference = LCA.from_pretrained(arguments.frontend)
    bar = tqdm(batches, desc="plain LCA", dynamic_ncols=True)
    plain = torch.cat([plain_energies(reference, batch, arguments.plain) for batch in bar], dim=1)
    curve = plain.mean(1)
    print(f"{arguments.frontend}, {arguments.images} test images, energy per image")
    for cycles, energies in warp.items():
        print(
            f"WARP-LCA after {cycles:>2} cycles: {shown(energies)}  = {reached(curve, float(energies.mean()))}"
        )
    for cycles in (100, 300, 1000, 2000):
        if cycles <= arguments.plain:
            print(f"plain LCA after {cycles:>4} cycles: {shown(plain[cycles // EVERY])}")
    for cycles, goal in ((10, 1000), (30, 2000)):
        if goal <= arguments.plain:
            ratio = float(warp[cycles].mean() / curve[goal // EVERY])
            print(f"WARP-LCA after {cycles} over plain LCA after {goal}: {ratio:.3f}")
    if arguments.out:
        facts = {
            "warp": {cycles: float(e.mean()) for cycles, e in warp.items()},
            "plain": {EVERY * row: float(value) for row, value in enumerate(curve)},
        }
        arguments.out.write_text(json.dumps(facts, indent=2) + "\n")


@torch.no_grad()
def plain_energies(layer: LCA, images: Tensor, cycles: int) -> Tensor:
    """Energy of each image every EVERY cycles, (cycles / EVERY + 1, N)."""
    x = layer.standardise(images).images
    operator = layer.dictionary.operator()
    problem = Problem(operator, x, layer.threshold, layer.lam)
    state, rows = None, []
    for count in (0, *[EVERY] * (cycles // EVERY)):
        state = solve(problem, plain_schedule(operator, count), state=state)
        rows.append(problem.energy(problem.code(state)))
    return torch.stack(rows)


def shown(energies: Tensor) -> str:
    """Mean and half the width of its interval."""
    return f"{float(energies.mean()):7.2f} +- {1.96 * float(energies.std()) / len(energies) ** 0.5:.2f}"


def reached(curve: Tensor, value: float) -> str:
    """Say at which cycle of plain LCA its mean energy is as low."""
    below = torch.nonzero(curve <= value).flatten()
    return f"plain LCA's after {EVERY * int(below[0])}" if len(below) else "below all of plain LCA's"


if __name__ == "__main__":
    main()
