"""Measures of a code along the iterations of each solver, per image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import Arrays, fingerprint, kept, psnr, ssim
from torch import Tensor
from tqdm import tqdm

from warplca.configs import InputError
from warplca.frontend import LCA, Problem, WarpLCA, active_fraction, solve

MEASURES = ("energy", "l0", "psnr", "ssim")
BATCH = 25  # images that are solved together, and whose run is kept as one file
PLAIN, TAU100, MOMENTUM, ACCELERATED, WARP = (
    "plain LCA, eta = 1/L",
    "plain LCA, tau = 100",
    "LCA, momentum 0.95",
    "LCA, accelerated (annealed)",
    "WARP-LCA",
)
LONG = (
    1,
    2,
    3,
    5,
    7,
    10,
    15,
    20,
    30,
    45,
    60,
    80,
    100,
    130,
    170,
    200,
    250,
    300,
    400,
    500,
    600,
    700,
    800,
    900,
    1000,
)
LONGER = (*LONG, 1200, 1400, 1600, 1800, 2000)
SHORT = (3, 5, 10, 15, 20, 30, 40, 60, 100, 200, 300)
PRIMED = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 60, 100)


@dataclass(frozen=True)
class Solver:
    """A layer and the iterations after which it is measured.

    Attributes:
        name: For tables and figures.
        layer: The layer; its lam and threshold define the energy.
        marks: Iterations at which to measure, increasing.
        restarts: Whether each mark is a run of its own (where momentum or a plan for the whole run forbid going on).
    """

    name: str
    layer: LCA
    marks: tuple[int, ...]
    restarts: bool = True


def plain(frontend: str, lam: float, marks: tuple[int, ...] = LONG) -> Solver:
    """Plain LCA with a front-end's dictionary: cold start, no momentum, eta = 1/L."""
    return Solver(PLAIN, like(frontend, lam=lam), marks, restarts=False)


def warp(frontend: str, lam: float, marks: tuple[int, ...] = PRIMED) -> Solver:
    """The front-end itself, at another lam perhaps than it was primed for."""
    return Solver(WARP, WarpLCA.from_pretrained(frontend, lam=lam), marks)


def contenders(frontend: str, lam: float) -> list[Solver]:
    """Every solver of the study."""
    solvers = [plain(frontend, lam, LONGER)]
    tau = like(frontend, lam=lam, step_size=0.01)
    try:
        tau.schedule(tau.problem(torch.zeros(1, 3, 32, 32), lam), 1)
    except InputError as error:
        print(f"{TAU100} is left out: {error}")
    else:
        solvers.append(Solver(TAU100, tau, LONG, restarts=False))
    return [
        *solvers,
        Solver(MOMENTUM, like(frontend, lam=lam, momentum=0.95), SHORT),
        Solver(ACCELERATED, like(frontend, lam=lam, accelerated=True), SHORT),
        warp(frontend, lam),
    ]


def like(frontend: str, **options: object) -> LCA:
    """Cold LCA with the dictionary of a front-end."""
    return LCA.from_pretrained(frontend, **options)


def measured(solver: Solver, images: Tensor, work: Path) -> Arrays:
    """Measure a solver on images (N, 3, H, W): an array (marks, N) for each of MEASURES."""
    parts = []
    for batch in tqdm(images.split(BATCH), desc=solver.name, dynamic_ncols=True):
        key = fingerprint(solver.layer, solver.marks, solver.restarts, batch)
        parts.append(kept(work, key, lambda batch=batch: _measure(solver, batch)))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in MEASURES}


def _measure(solver: Solver, images: Tensor) -> Arrays:
    rows = [along(solver.layer, images, code) for code in codes(solver, images)]
    return {name: torch.stack([row[i] for row in rows]).numpy() for i, name in enumerate(MEASURES)}


@torch.no_grad()
def codes(solver: Solver, images: Tensor) -> Iterator[Tensor]:
    """Yield the code at each mark."""
    layer = solver.layer
    if solver.restarts:
        yield from (layer.solve(images, iterations=mark)[0] for mark in solver.marks)
        return
    problem, state, done = layer.problem(layer.standardise(images).images, layer.lam), None, 0
    for mark in solver.marks:
        state, done = solve(problem, layer.schedule(problem, mark - done), state=state), mark
        yield problem.code(state)


@torch.no_grad()
def along(layer: LCA, images: Tensor, code: Tensor) -> Tensor:
    """The measures of a code, (measures, N)."""
    x, operator = layer.standardise(images), layer.dictionary.operator()
    restored = x.restore(operator.synthesise(code, (images.shape[2], images.shape[3])))
    return torch.stack(
        [
            Problem(operator, x.images, layer.threshold, layer.lam).energy(code),
            active_fraction(code, layer.lam),
            psnr(restored, images),
            ssim(restored, images),
        ]
    )


@torch.no_grad()
def milliseconds(layers: Sequence[LCA], images: Tensor, *, rounds: int = 9) -> list[tuple[float, float]]:
    """Time before the first cycle, per image, and per cycle: medians over rounds in which all layers take turns."""
    starts: list[list[float]] = [[] for _ in layers]
    cycles: list[list[float]] = [[] for _ in layers]
    for number in range(rounds + 1):
        for index, layer in enumerate(layers):
            start, whole = (forward_seconds(layer, images, count) for count in (0, 20))
            if number:  # the first round warms up
                starts[index].append(1e3 * start / len(images))
                cycles[index].append(1e3 * (whole - start) / 20 / len(images))
    return [(median(a), median(b)) for a, b in zip(starts, cycles, strict=True)]


@torch.no_grad()
def forward_seconds(layer: LCA, images: Tensor, iterations: int) -> float:
    """Time of one forward pass from pixels to code with so many cycles."""
    own, layer.iterations = layer.iterations, iterations
    start = time.perf_counter()
    layer(images)
    seconds = time.perf_counter() - start
    layer.iterations = own
    return seconds
