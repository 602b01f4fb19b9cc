"""Whether WARP-LCA ever ends at a higher energy than plain LCA after as many cycles.

Usage: python benchmarks/schedule_robustness.py --data cifar10.npz [--frontend cifar10-64x9s2] [--images 100]

Writes robustness-FRONTEND.md to docs/results: for noisy, corrupted (severity 5), constant, artificial, out-of-
distribution and larger images, and lambda from half to twice the one it was primed for, the mean energy of both
after 10 and 30 cycles, the share of images for which WARP-LCA's is higher, and how many energies are not finite.
Plain LCA starts cold, without momentum, at eta = 1/L, with the same dictionary. Larger and textured images come from
scikit-image; without it they are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from noises import gaussian, impulse, stored
from photographs import TEXTURES, photographs
from study import command, parser, some_images, table, write
from torch import Tensor
from tqdm import tqdm

from warplca.data import CORRUPTION_GROUPS, corrupt
from warplca.frontend import LCA, WarpLCA

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
CYCLES = (10, 30)
TOLERANCE = 1e-4  # relative: below it two energies are equal in float32


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.set_defaults(images=100)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("warplca").setLevel(logging.ERROR)  # other lambda than primed for, on purpose
    clean = some_images(arguments.data, "test", arguments.images, arguments.seed)
    own = float(WarpLCA.from_pretrained(arguments.frontend).lam)
    rows, worst = [], []
    for condition, images in tqdm(list(conditions(clean, arguments.seed)), dynamic_ncols=True):
        for factor in FACTORS:
            for cycles in CYCLES:
                found = compared(arguments.frontend, factor * own, images, cycles)
                worst.append((condition, factor, cycles, *found))
                if factor == 1.0:
                    rows.append(_cells(condition, len(images), cycles, *found))
    name = Path(arguments.frontend).name
    path = arguments.out / f"robustness-{name}.md"
    write(path, report(arguments, own, rows, worst))
    print(path.read_text(encoding="utf-8"))


def conditions(clean: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Every kind of image, (N, 3, H, W), by name."""
    yield "clean", clean
    yield "white noise, sigma 25", gaussian(clean, 25, seed)
    yield "white noise, sigma 50", gaussian(clean, 50, seed)
    yield "impulses, 10 %", impulse(clean, 0.1, seed)
    pixels = (clean * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for name in CORRUPTION_GROUPS["standard"]:
        spoilt = corrupt(pixels, name, severity=5, seed=seed)
        yield f"{name}, severity 5", torch.from_numpy(spoilt).permute(0, 3, 1, 2).float() / 255
    generator = torch.Generator().manual_seed(seed)
    yield "nothing but noise", torch.rand(clean.shape, generator=generator)
    yield "inverted", 1 - clean
    yield "contrast 5 %", stored(0.5 + 0.05 * (clean - 0.5))
    colours = torch.rand(6, 3, 1, 1, generator=generator)
    constant = torch.cat([torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), colours])
    yield "constant", constant.expand(-1, -1, 32, 32).contiguous()
    yield "patterns", patterns()
    yield "odd size, 45 x 37", torch.nn.functional.interpolate(clean, (45, 37), mode="bicubic").clamp(0, 1)
    if importlib.util.find_spec("skimage") is None:
        print("larger and textured images are left out: scikit-image is not installed.")
        return
    yield "photographs, 256 x 256", photographs()
    textures = photographs(TEXTURES)
    yield "textures and text, 256 x 256", textures
    cut = textures.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 32)
    yield "textures and text, 32 x 32", cut[:: len(cut) // len(clean) or 1]


def patterns() -> Tensor:
    """Checkerboards, stripes, a step, a single pixel, a disc and a gradient, (8, 3, 32, 32)."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    found = [
        (x + y) % 2,
        (x // 4 + y // 4) % 2,
        x % 2,
        (y // 3) % 2,
        (x > 15).float(),
        ((x == 9) & (y == 22)).float(),
        ((x - 16) ** 2 + (y - 13) ** 2 < 80).float(),
        x / 31,
    ]
    return torch.stack(found)[:, None].expand(-1, 3, -1, -1).contiguous()


def compared(frontend: str, lam: float, images: Tensor, cycles: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies of WARP-LCA and of plain LCA after so many cycles, (N,) each."""
    found = []
    for kind in (WarpLCA, LCA):
        layer = kind.from_pretrained(frontend, lam=lam)
        parts = [layer.solve(batch, iterations=cycles)[1].energy for batch in images.split(25)]
        found.append(torch.cat(parts).numpy())
    return found[0], found[1]


def higher(warp: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Where WARP-LCA's energy is higher, or not finite."""
    return ~(warp <= plain * (1 + TOLERANCE) + 1e-3)


def _cells(
    condition: str, count: int, cycles: int, warp: np.ndarray, plain: np.ndarray
) -> tuple[object, ...]:
    share = f"{100 * higher(warp, plain).mean():.1f}"
    return condition, count, cycles, f"{warp.mean():.2f}", f"{plain.mean():.2f}", share


def report(arguments: argparse.Namespace, own: float, rows: list, worst: list) -> str:
    """Tables: every condition at the lambda of priming, then over lambda, then the failures."""
    over_lam = []
    for factor in FACTORS:
        for cycles in CYCLES:
            chosen = [entry for entry in worst if entry[1:3] == (factor, cycles)]
            failed = [
                entry[0]
                for entry in chosen
                if not entry[3].mean() <= entry[4].mean() * (1 + TOLERANCE) + 1e-3
            ]
            share = np.concatenate([higher(*entry[3:]) for entry in chosen]).mean()
            broken = sum(int((~np.isfinite(entry[3])).sum()) for entry in chosen)
            told = ", ".join(failed) or "none"
            over_lam.append((f"{factor * own:g}", cycles, f"{100 * share:.2f}", broken, told))
    head = ("images", "count", "cycles", "WARP-LCA", "plain LCA", "higher, % of images")
    lines = [
        f"# Robustness of the schedule: `{Path(arguments.frontend).name}`",
        "",
        command("schedule_robustness", arguments),
        "Energy per image of WARP-LCA and of plain LCA (cold start, eta = 1/L) after as many cycles, with the same",
        "dictionary and lambda; the predictor's own time is not counted here.",
        "",
        "## Lambda from half to twice",
        "",
        f"Primed for lambda {own:g}; all kinds of images below together.",
        "",
        table(
            ("lambda", "cycles", "higher, % of images", "not finite", "kinds with a higher mean"), over_lam
        ),
        f"## At lambda {own:g}",
        "",
        table(head, rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
