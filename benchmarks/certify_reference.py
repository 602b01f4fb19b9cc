"""Our certificates beside those of the published code of Cohen, Rosenfeld and Kolter, image by image, same counts.

    python benchmarks/certify_reference.py --reference DIR

DIR holds ``core.py`` of github locuslab/smoothing (it needs statsmodels) and, as far as wanted, the files of its
``data/certify/cifar10`` as ``sigma_0.12.tsv`` and so on. Its sampling is replaced by ours, its statistics are kept. Two
functions that scipy renamed are lent to it under their old names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import torch

from warplca.data import load_dataset
from warplca.models import load_checkpoint, smooth
from warplca.models.smoothing.statistics import majority


def main() -> None:
    """Print how many images agree, and the largest difference of radii."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--checkpoint", default="cifar10-slim-warp-lca")
    parser.add_argument("--sigma", type=float, default=0.06)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--images", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scipy.stats.binom_test = lambda k, n, p: scipy.stats.binomtest(int(k), int(n), p).pvalue  # type: ignore[attr-defined]
    sys.path.insert(0, str(arguments.reference))
    import core

    images, _ = load_dataset("cifar10-subset", "test").tensors(range(arguments.images))
    ours = smooth(load_checkpoint(arguments.checkpoint), arguments.sigma)
    proven = ours.certify(images, samples=arguments.samples)
    differences, same = [], 0
    for number, image in enumerate(images):
        with torch.no_grad():  # drawn to the end, also where ours gave the image up
            counts = [
                ours._votes(image, 0, "select", 100),
                ours._votes(image, 0, "certify", arguments.samples),
            ]
        theirs = replayed(core.Smooth, counts, arguments.sigma)
        label, radius = theirs.certify(None, 100, arguments.samples, 0.001, 100)
        same += label == int(proven.label[number])
        differences.append(abs(radius - float(proven.radius[number])))
    print(
        f"certify: {same} of {len(images)} classes agree, largest difference of radii {max(differences):.1e}"
    )
    sure = int((proven.label >= 0).sum())
    print(f"proven: {sure} of {len(images)}, radii up to {proven.radius.max():.3f}")
    rng = np.random.default_rng(0)
    votes = [rng.multinomial(200, rng.dirichlet(np.full(10, 0.4))) for _ in range(1000)]
    predicted = [replayed(core.Smooth, [counts], 1.0).predict(None, 200, 0.001, 1) for counts in votes]
    agree = sum(majority(counts, 0.001) == label for counts, label in zip(votes, predicted, strict=True))
    print(f"predict: {agree} of 1000 simulated votes agree, {predicted.count(-1)} abstentions")
    for path in sorted(arguments.reference.glob("sigma_*.tsv")):
        rows = pd.read_csv(path, sep="\t")
        shares = [((rows["radius"] >= r) & (rows["correct"] == 1)).mean() for r in (0.25, 0.5, 0.75, 1.0)]
        print(
            f"published, ResNet-110, {path.stem}, {len(rows)} images, at 0.25 / 0.5 / 0.75 / 1: {np.round(shares, 3)}"
        )


def replayed(kind: Any, counts: list[Any], sigma: float) -> Any:
    """Their object, whose sampling hands out these counts in turn."""
    left = iter(counts)

    class Replayed(kind):
        def _sample_noise(self, *_: Any) -> Any:
            return next(left)

    return Replayed(torch.nn.Identity(), len(counts[0]), sigma)


if __name__ == "__main__":
    main()
