"""What the checks around AutoAttack cost, and that they change no outcome.

Runs AutoAttack's own standard evaluation and `run_attack(..., "autoattack", ...)` in turns on the same images, seed
and batch size, on a small undefended network whose own answers are the labels (small networks show the overhead
most). Prints the ratio of the shortest processor times, which other work on the machine disturbs least (at most
1.05 wanted), and whether every image came out alike.

    python benchmarks/attack_overhead.py --images 32 --rounds 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from warplca.attacks import run_attack
from warplca.attacks.autoattack import AutoAttack as Standard
from warplca.data import load_dataset


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--radius", type=float, default=0.1, help="Linf, in 255ths")
    parser.add_argument(
        "--queries", type=int, default=500, help="of Square, which else takes most of the time"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(768, 10)),
    ).eval()
    images, _ = load_dataset("cifar10-subset", "test").subset(range(options.images)).tensors()
    with torch.no_grad():
        labels = model(images).argmax(dim=1)

    def library() -> Tensor:
        attack = AutoAttack(model, norm="Linf", eps=options.radius / 255, seed=0)
        attack.square.n_queries = options.queries
        _, predictions = attack.run_standard_evaluation(images, labels, batch_size=options.batch_size)
        return predictions != labels

    def ours() -> Tensor:
        attack = Standard(square_queries=options.queries)
        threat = f"linf {options.radius}/255"
        return run_attack(model, images, labels, attack, threat, batch_size=options.batch_size).success

    plain, checked = [], []
    for _ in range(options.rounds):
        plain.append(timed(library))
        checked.append(timed(ours))
    alike = all(torch.equal(a, b) for (_, a), (_, b) in zip(plain, checked, strict=True))
    fastest = [min(seconds for seconds, _ in runs) for runs in (plain, checked)]
    left = 100 * (1 - float(plain[0][1].double().mean()))
    print(f"{options.images} images at linf {options.radius}/255, {left:.0f} % left")
    print(f"processor time: AutoAttack {fastest[0]:.1f} s, warplca {fastest[1]:.1f} s", end="")
    print(f", ratio {fastest[1] / fastest[0]:.3f}; outcomes {'alike' if alike else 'DIFFERENT'}")


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Processor seconds of one run, and which images it broke."""
    started = time.process_time()
    broken = run()
    return time.process_time() - started, broken


if __name__ == "__main__":
    main()
