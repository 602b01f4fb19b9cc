"""How many cycles of plain LCA a primed front-end saves.

Usage: python benchmarks/warp_cycles.py [--images 125] [--frontend cifar10-64x9s2] [--out FILE.json]

Energy per image on CIFAR-10 test images, which priming never saw, evenly spread over the embedded ones: WARP-LCA
after each of its cycles, and plain LCA (cold start, no momentum, eta = 1/L) with the same dictionary. The predictor's
own cost, about 4.6 cycles of multiplications for 64 atoms of 9 x 9 at stride 2, comes on top.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from warplca.data import load_dataset
from warplca.frontend import LCA, WarpLCA

PLAIN_CYCLES = 1000


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=125)
    parser.add_argument("--frontend", default="cifar10-64x9s2")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    test = load_dataset("cifar10-subset", "test")
    images, _ = test.tensors(torch.linspace(0, len(test) - 1, arguments.images).long().tolist())
    warp = mean_trace(WarpLCA.from_pretrained(arguments.frontend), images)
    plain = mean_trace(LCA.from_pretrained(arguments.frontend, iterations=PLAIN_CYCLES), images)
    print(f"{arguments.frontend}, {arguments.images} test images, energy per image")
    for cycle, energy in enumerate(warp):
        reached = next((count for count, value in enumerate(plain) if value <= energy), None)
        told = (
            f"plain LCA's after {reached}"
            if reached is not None
            else f"below plain LCA's after {PLAIN_CYCLES}"
        )
        print(f"WARP-LCA after {cycle:>2} cycles: {energy:7.2f}  = {told}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"warp": warp, "plain": plain}, indent=2) + "\n")


def mean_trace(layer: LCA, images: torch.Tensor) -> list[float]:
    """Mean energy before the first and after every cycle."""
    _, statistics = layer.solve(images, trace=True)
    assert statistics.trace is not None
    return statistics.trace.mean(dim=1).tolist()


if __name__ == "__main__":
    main()
