"""Throughput of certification beside bare forward passes of the same base classifier, in alternating runs.

    python benchmarks/certify_speed.py --copies 1000 --rounds 5

What certification adds is seeded noise, its sum with the image, and votes. The ratio should stay above 0.9.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from warplca.models import create_classifier, smooth
from warplca.models.smoothing.statistics import SamplingPlan


def main() -> None:
    """Print the median ratio for each front-end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--frontends", nargs="+", default=["none", "conv", "warp-lca"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.frontends:
        model = create_classifier(arguments.backbone, name).eval()
        ratios = [ratio(model, arguments.copies) for _ in range(arguments.rounds + 1)][1:]
        print(
            f"{name:<10} certified / bare passes a second: median {statistics.median(ratios):.3f}, "
            f"{min(ratios):.3f} to {max(ratios):.3f}"
        )


def ratio(model: torch.nn.Module, copies: int) -> float:
    """Seconds of bare passes divided by those of certification, for as many copies, in the same batches of 100.

    Process time, so that other processes on the machine do not enter. The image is certain: every copy is drawn.
    """
    smoothed = smooth(model, 1e-3)
    image = torch.rand(1, 3, 32, 32)
    smoothed.check(image)
    batch = image.expand(100, -1, -1, -1).contiguous()
    start = time.process_time()
    with torch.no_grad():
        for _ in range(copies // 100):
            model(batch).argmax(dim=1)
    bare = time.process_time() - start
    plan = SamplingPlan.of(copies, selection=1)
    votes = smoothed.select(image[0], plan, 0)
    start = time.process_time()
    *_, last = smoothed.extend(image[0], votes, plan, 0)
    certified = time.process_time() - start
    if last.samples != copies:
        raise SystemExit(f"{last.samples} of {copies} copies were drawn: the image is not certain enough.")
    return bare / certified


if __name__ == "__main__":
    main()
