"""The convergence study in words and tables."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import Arrays, command, shown, table
from curves import LONG, MEASURES, PLAIN, PRIMED, WARP, Solver

SHOWN = {PLAIN: (10, 30, 100, 300, 1000, 2000), WARP: (0, 5, 10, 20, 30, 60, 100)}
DIGITS = {"energy": 2, "l0": 2, "psnr": 2, "ssim": 4}
HEAD = ("energy", "active, %", "PSNR, dB", "SSIM")


def report(
    arguments: argparse.Namespace,
    solvers: list[Solver],
    found: dict[str, Arrays],
    times: dict[str, tuple[float, float]],
    pairs: list[tuple[float, Arrays, Arrays]],
    facts: dict,
) -> str:
    """The study in words and tables."""
    layer = solvers[-1].layer
    name = Path(arguments.frontend).name
    lines = [
        f"# Convergence: `{name}`",
        "",
        command("convergence", arguments),
        f"Threshold {layer.threshold_name}, lambda {float(layer.lam):g}, L = {float(layer.dictionary.lipschitz):.0f}; "
        f"{arguments.images} CIFAR-10 test images (seed {arguments.seed}), the first {arguments.others} of them "
        "for all but plain LCA at eta = 1/L and WARP-LCA.",
        "Means with half the width of their 95 % bootstrap intervals over images.",
        "Time per image on one thread, batches of 16, predictor included.",
        "",
        f"![Curves](convergence-{name}.png)",
        "",
        curves(solvers, found, times),
        f"The predictor takes {times[WARP][0] - times[PLAIN][0]:.2f} ms an image, as long as "
        f"{facts['predictor_in_cycles']:.1f} cycles of plain LCA; iterations are counted without it, times with it.",
        "",
        "## Which iteration of plain LCA it equals",
        "",
        equalities(facts["equal_plain_iteration"]),
        f"At 30 cycles the mean energy is {facts['energy_over_plain_2000_at_30'][0]:.3f} times that of plain LCA's "
        "2,000th iteration.",
        "",
        "## Other lambda",
        "",
        f"The first {arguments.others} of the images; the predictor was primed for lambda {float(layer.lam):g}.",
        "",
        other_lam(pairs),
        "## Active units at equal PSNR",
        "",
        "WARP-LCA with lambda chosen so that its mean PSNR is that of plain LCA's 1,000th iteration at its own "
        f"lambda, on the first {arguments.others} images.",
        "",
        *[
            f"- {cycles} cycles: {100 * entry['sparser']:.1f} % fewer active units "
            f"({100 * entry['interval'][0]:.1f} to {100 * entry['interval'][1]:.1f})."
            for cycles, entry in facts["equal_psnr"].items()
        ],
        "",
        *race(facts["lca-pytorch"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def curves(solvers: list[Solver], found: dict[str, Arrays], times: dict[str, tuple[float, float]]) -> str:
    """Table of every solver at some of its marks."""
    rows = []
    for solver in solvers:
        start, cycle = times[solver.name]
        for mark in (
            mark for mark in solver.marks if mark in SHOWN.get(solver.name, (10, 30, 100, 300, 1000))
        ):
            arrays = found[solver.name]
            cells = measures(arrays, solver.marks.index(mark))
            rows.append((solver.name, mark, arrays["energy"].shape[1], *cells, f"{start + mark * cycle:.2f}"))
    return table(("solver", "iterations", "images", *HEAD, "ms"), rows)


def measures(arrays: Arrays, row: int) -> list[str]:
    """Cells for one mark."""
    values = {key: arrays[key][row] * (100 if key == "l0" else 1) for key in MEASURES}
    return [shown(values[key], DIGITS[key]) for key in MEASURES]


def equalities(equal: dict[int, list[float]]) -> str:
    """Table of equal iterations."""

    def number(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else "beyond 2,000"

    head = ("WARP-LCA after", "energy of plain LCA's iteration", "95 % interval")
    return table(head, [(k, number(v[0]), f"{number(v[1])} to {number(v[2])}") for k, v in equal.items()])


def other_lam(pairs: list[tuple[float, Arrays, Arrays]]) -> str:
    """Table of both solvers at several lambda."""
    rows = []
    for lam, cold, primed in pairs:
        rows += [(f"{lam:g}", PLAIN, mark, *measures(cold, LONG.index(mark))) for mark in (10, 30, 1000)]
        rows += [(f"{lam:g}", WARP, mark, *measures(primed, PRIMED.index(mark))) for mark in (10, 30)]
    return table(("lambda", "solver", "iterations", *HEAD), rows)


def race(found: dict | None) -> list[str]:
    """What the comparison with lca-pytorch gave."""
    if found is None:
        return []
    lines = ["## Wall-clock against lca-pytorch", ""]
    ours, other = found["ours"], found["lca-pytorch"]
    lines += [
        f"To the mean energy {found['goal']:.2f} of plain LCA's 1,000th iteration, {found['images']} images:"
    ]
    reached = (
        f"{ours['iterations']} cycles, {ours['seconds']:.4f} s" if ours else "not within 100 cycles"
    ) + "."
    lines += ["", f"- WARP-LCA, from pixels to code, predictor included: {reached}"]
    reached = (
        f"{other['iterations']} iterations, {other['seconds']:.2f} s"
        if other
        else "not within 3,000 iterations"
    )
    lines += [f"- lca-pytorch, tau = 100: {reached}."]
    if "ratio" in found:
        lines += [f"- **{found['ratio']:.0f} times as fast.**"]
    return [
        *lines,
        "",
        "lca-pytorch's lateral tensor ignores the image border, so near it both minimise slightly different energies;",
        "ours is the one measured.",
    ]
