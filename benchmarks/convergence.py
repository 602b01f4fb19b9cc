"""How fast and how far each solver gets on CIFAR-10 test images.

Usage: python benchmarks/convergence.py --data cifar10.npz [--frontend cifar10-64x9s2] [--lca-pytorch FOLDER]
       [--images 1000] [--others 250]

Writes convergence-FRONTEND.md, .json and .png to docs/results. Energy, share of active units (l0), PSNR and SSIM
of the reconstruction against iterations and against wall-clock, for plain LCA (cold start, no momentum, eta = 1/L
and tau = 100, lca-pytorch's default), heavy-ball momentum, the accelerated cold start (annealed; each point is a
run planned for so many iterations) and WARP-LCA, all with the front-end's dictionary and threshold; then which
iteration of plain LCA WARP's equals, and l0 at equal PSNR. Intervals are 95 % bootstrap intervals over images.
Finished runs are kept in the --work folder, so that a stopped study goes on; empty it after changes to the solver.
lca-pytorch (https://github.com/lanl/lca-pytorch) is not on the package index: give the folder of a checkout.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import Arrays, parser, resampled, some_images, write, write_json
from convergence_figure import draw
from convergence_report import report
from curves import (
    LONGER,
    PLAIN,
    PRIMED,
    WARP,
    Solver,
    contenders,
    forward_seconds,
    measured,
    milliseconds,
    plain,
    warp,
)
from solver_convergence import lca_pytorch_to
from torch import Tensor

from warplca.frontend import WarpLCA

FACTORS = (0.5, 1.0, 2.0)  # of the front-end's own lam
EQUAL_PSNR = (10, 30, 60, 100)  # cycles at which active units are compared at equal PSNR
SWEEP = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0)


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.add_argument(
        "--others",
        type=int,
        default=250,
        help="images for other solvers and other lambda (default: %(default)s)",
    )
    options.add_argument("--lca-pytorch", type=Path, help="folder of a checkout of lanl/lca-pytorch")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("warplca").setLevel(logging.ERROR)  # other lambda than primed for, on purpose
    images = some_images(arguments.data, "test", arguments.images, arguments.seed, pool=1000)
    lam = float(WarpLCA.from_pretrained(arguments.frontend).lam)
    solvers = contenders(arguments.frontend, lam)
    found = {}
    for solver in solvers:
        count = arguments.images if solver.name in (PLAIN, WARP) else arguments.others
        found[solver.name] = measured(solver, images[:count], arguments.work)
    times = dict(zip(found, milliseconds([solver.layer for solver in solvers], images[:16]), strict=True))
    pairs = at_other_lam(arguments, images[: arguments.others], lam)
    density = at_equal_psnr(arguments, images[: arguments.others], found[PLAIN], lam)
    race = None if arguments.lca_pytorch is None else against_lca_pytorch(arguments, images[:8], lam)
    if race is None:
        print("lca-pytorch is skipped: give the folder of a checkout with --lca-pytorch.")
    facts = figures(found, times, density, race)
    name = f"convergence-{Path(arguments.frontend).name}"
    write_json(arguments.out / f"{name}.json", facts)
    write(arguments.out / f"{name}.md", report(arguments, solvers, found, times, pairs, facts))
    draw(arguments.out / f"{name}.png", solvers, found, times, density)
    print((arguments.out / f"{name}.md").read_text(encoding="utf-8"))


def at_other_lam(
    arguments: argparse.Namespace, images: Tensor, lam: float
) -> list[tuple[float, Arrays, Arrays]]:
    """Plain LCA and WARP-LCA at each of FACTORS: (lam, plain's measures, WARP's)."""
    found = []
    for factor in FACTORS:
        solvers = plain(arguments.frontend, factor * lam), warp(arguments.frontend, factor * lam)
        found.append((factor * lam, *(measured(solver, images, arguments.work) for solver in solvers)))
    return found


def at_equal_psnr(
    arguments: argparse.Namespace, images: Tensor, reference: Arrays, lam: float
) -> dict[int, dict[str, object]]:
    """L0 of WARP-LCA where its PSNR, over lambda, is that of plain LCA's 1,000th iteration at its own lambda."""
    sweep = [
        measured(warp(arguments.frontend, factor * lam, EQUAL_PSNR), images, arguments.work)
        for factor in SWEEP
    ]
    weights = resampled(len(images))
    row = LONGER.index(1000)
    goal, settled = (reference[key][row, : len(images)] for key in ("psnr", "l0"))
    result: dict[int, dict[str, object]] = {}
    for index, cycles in enumerate(EQUAL_PSNR):
        quality = np.stack([part["psnr"][index] for part in sweep])
        density = np.stack([part["l0"][index] for part in sweep])
        everything = np.full((1, len(images)), 1 / len(images))
        saved = [
            np.array([saving(*sample) for sample in zip(
                w @ quality.T, w @ density.T, w @ goal, w @ settled, strict=True
            )])
            for w in (everything, weights)
        ]  # fmt: skip
        result[cycles] = {
            "sparser": float(saved[0][0]),
            "interval": np.quantile(saved[1], (0.025, 0.975)).tolist(),
            "psnr": quality.mean(1).tolist(),
            "l0": density.mean(1).tolist(),
        }
    return result


def saving(quality: np.ndarray, density: np.ndarray, goal: float, reference: float) -> float:
    """Share of active units saved at PSNR ``goal``, log-linear between lambdas; NaN if none tried brackets it.

    Where several do, the one that saves least counts.
    """
    found = np.nan
    for i in range(len(quality) - 1):
        (q, r), (d, e) = quality[i : i + 2], np.log(density[i : i + 2])
        if min(q, r) <= goal <= max(q, r):
            found = np.fmax(found, np.exp(d + (e - d) * (goal - q) / (r - q)))
    return float(1.0 - found / reference)


def against_lca_pytorch(arguments: argparse.Namespace, images: Tensor, lam: float) -> dict[str, object]:
    """Wall-clock from pixels to the mean energy of plain LCA's 1,000th iteration, predictor included."""
    goal = float(measured(plain(arguments.frontend, lam, (1000,)), images, arguments.work)["energy"].mean())
    layer = WarpLCA.from_pretrained(arguments.frontend)
    ours = None
    for count in range(1, 101):
        reached = measured(Solver(WARP, layer, (count,)), images, arguments.work)["energy"]
        if float(reached.mean()) <= goal:
            times = [forward_seconds(layer, images, count) for _ in range(10)]
            ours = {"iterations": count, "seconds": median(times[1:])}
            break
    operator = layer.dictionary.operator().detached()
    x = layer.standardise(images).images
    other = lca_pytorch_to(goal, operator, x, arguments.lca_pytorch, layer.threshold, lam)
    result: dict[str, object] = {"goal": goal, "images": len(images), "ours": ours, "lca-pytorch": other}
    if ours and other:
        result["ratio"] = float(other["seconds"]) / float(ours["seconds"])
    return result


def equal_iteration(plain_energy: np.ndarray, value: float) -> float:
    """First iteration of plain LCA, between its marks, whose energy is at most ``value``; infinity if none is."""
    below = np.nonzero(plain_energy <= value)[0]
    if not len(below):
        return float("inf")
    last = int(below[0])
    if not last:
        return float(LONGER[0])
    share = (plain_energy[last - 1] - value) / (plain_energy[last - 1] - plain_energy[last])
    return float(np.exp(np.log(LONGER[last - 1]) + share * np.log(LONGER[last] / LONGER[last - 1])))


def ratio(values: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Ratio of the means over the same images, with its 95 % bootstrap interval."""
    weights = resampled(len(values))
    low, high = np.quantile((weights @ values) / (weights @ reference), (0.025, 0.975))
    return float(values.mean() / reference.mean()), float(low), float(high)


def figures(
    found: dict[str, Arrays],
    times: dict[str, tuple[float, float]],
    density: dict[int, dict[str, object]],
    race: dict[str, object] | None,
) -> dict[str, object]:
    """The figures that the report and the requirements speak of."""
    reference, primed = found[PLAIN]["energy"], found[WARP]["energy"]
    weights = resampled(reference.shape[1])
    equal: dict[int, list[float]] = {}
    for cycles in (5, 10, 20, 30):
        value = primed[PRIMED.index(cycles)]
        samples = [equal_iteration(a, b) for a, b in zip(weights @ reference.T, weights @ value, strict=True)]
        equal[cycles] = [
            equal_iteration(reference.mean(1), value.mean()),
            *np.quantile(samples, (0.025, 0.975), method="nearest").tolist(),
        ]
    means = {
        name: {key: array.mean(1).round(5).tolist() for key, array in arrays.items()}
        for name, arrays in found.items()
    }
    return {
        "means": means,
        "equal_plain_iteration": equal,
        "energy_over_plain_2000_at_30": ratio(primed[PRIMED.index(30)], reference[-1]),
        "equal_psnr": density,
        "milliseconds_per_image": times,
        "predictor_in_cycles": (times[WARP][0] - times[PLAIN][0]) / times[PLAIN][1],
        "lca-pytorch": race,
    }


if __name__ == "__main__":
    main()
