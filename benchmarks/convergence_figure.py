"""The figure of the convergence study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import Arrays, resampled, save_figure
from curves import PLAIN, WARP, Solver

COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")


def draw(
    path: Path,
    solvers: list[Solver],
    found: dict[str, Arrays],
    times: dict[str, tuple[float, float]],
    density: dict[int, dict],
) -> None:
    """Energy, l0, PSNR and SSIM over iterations; energy over time; PSNR over l0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    colours = dict(zip(found, COLOURS, strict=False))
    panels = {
        "energy": ("energy per image", 1.0),
        "l0": ("active units, %", 100.0),
        "psnr": ("PSNR of the reconstruction, dB", 1.0),
        "ssim": ("SSIM of the reconstruction", 1.0),
    }
    for axis, (key, (label, scale)) in zip(axes.flat, panels.items(), strict=False):
        for solver in solvers:
            _line(axis, np.maximum(solver.marks, 0.5), scale * found[solver.name][key], solver.name, colours)
        axis.set(xlabel="iterations (0 is drawn at 0.5)", ylabel=label, xscale="log")
    clock = axes[1, 1]
    for solver in solvers:
        start, cycle = times[solver.name]
        _line(
            clock, start + cycle * np.array(solver.marks), found[solver.name]["energy"], solver.name, colours
        )
    clock.set(xlabel="milliseconds per image, predictor included", ylabel="energy per image", xscale="log")
    for axis in (axes[0, 0], clock):
        lowest = min(float(arrays["energy"].mean(1).min()) for arrays in found.values())
        axis.set(yscale="log", ylim=(0.93 * lowest, 12 * lowest))
        ticks = [
            t
            for t in (20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500)
            if 0.93 * lowest < t < 12 * lowest
        ]
        axis.set_yticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
    _density(axes[1, 2], solvers, found, density, colours)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    save_figure(figure, path)


def _line(axis, x: np.ndarray, values: np.ndarray, name: str, colours: dict[str, str]) -> None:
    """Mean over images with its bootstrap interval."""
    low, high = np.quantile(resampled(values.shape[1])[:500] @ values.T, (0.025, 0.975), axis=0)
    axis.fill_between(x, low, high, color=colours[name], alpha=0.18, linewidth=0)
    width = 2.4 if name == WARP else 1.5
    axis.plot(x, values.mean(1), color=colours[name], label=name, linewidth=width, marker="o", markersize=2.5)


def _density(
    axis, solvers: list[Solver], found: dict[str, Arrays], density: dict[int, dict], colours
) -> None:
    """PSNR over l0: WARP-LCA along lambda, plain LCA along iterations."""
    for (cycles, entry), style in zip(density.items(), (":", "-", "--", "-."), strict=True):
        label = f"WARP-LCA, {cycles} cycles, along lambda"
        x = 100 * np.array(entry["l0"])
        axis.plot(x, entry["psnr"], style, color=colours[WARP], marker="o", markersize=3, label=label)
    marks = next(solver.marks for solver in solvers if solver.name == PLAIN)
    chosen = [marks.index(mark) for mark in (300, 600, 1000, 2000)]
    arrays = found[PLAIN]
    x, y = 100 * arrays["l0"].mean(1)[chosen], arrays["psnr"].mean(1)[chosen]
    axis.plot(
        x, y, "s", color=colours[PLAIN], markersize=4, label="plain LCA, 300, 600, 1,000, 2,000 iterations"
    )
    axis.set(xlabel="active units, %", ylabel="PSNR of the reconstruction, dB")
    axis.legend(frameon=False, fontsize=8, loc="best")
