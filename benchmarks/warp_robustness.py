"""Whether the steps of a primed front-end are safe on images and at values of lambda it was not primed for.

Usage: python benchmarks/warp_robustness.py [--frontend cifar10-64x9s2] [--images 64] [--split test] [--out FILE.json]

For each kind of image and lambda: mean energy per image of WARP-LCA and of plain LCA (cold start, no momentum,
eta = 1/L) after the same number of cycles, and the share of single images on which WARP-LCA's is higher. The kinds are
CIFAR-10 images, clean and damaged, drawn ones (flat colours, gratings, noise) and photographs of 256 x 256 pixels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from warplca.data import corrupt, load_dataset
from warplca.frontend import LCA, WarpLCA

CYCLES = (10, 30, 100)
CORRUPTIONS = (
    "gaussian_noise",
    "impulse_noise",
    "defocus_blur",
    "fog",
    "contrast",
    "pixelate",
    "jpeg_compression",
)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frontend", default="cifar10-64x9s2")
    parser.add_argument("--images", type=int, default=64, help="of each kind (photographs: 3)")
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument(
        "--factors", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="on the front-end's lambda"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    print(
        f"{arguments.frontend}: energy per image, WARP-LCA / plain LCA (share of images on which WARP-LCA's is higher)"
    )
    rows = []
    lam = float(WarpLCA.from_pretrained(arguments.frontend).lam)
    for factor in arguments.factors:
        for kind, images in kinds(arguments.images, arguments.split):
            cells = measure(arguments.frontend, factor * lam, images)
            rows += [{"lambda": factor * lam, "images": kind, **cell} for cell in cells]
            figures = "  ".join(
                f"{c['cycles']:>4}: {c['warp']:9.1f} / {c['plain']:9.1f} ({c['worse']:.0%})" for c in cells
            )
            print(f"lambda {factor * lam:5.3g}  {kind:<18} {figures}", flush=True)
    failed = [row for row in rows if not row["warp"] <= row["plain"] * (1 + 1e-5)]
    print(
        f"kinds, lambdas and numbers of cycles with a higher mean energy than plain LCA's: {len(failed)} of {len(rows)}"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


def measure(name: str, lam: float, images: Tensor) -> list[dict[str, float]]:
    """Energies of both after each number of cycles."""
    warp, plain = WarpLCA.from_pretrained(name, lam=lam), LCA.from_pretrained(name, lam=lam)
    _, trace = plain.solve(images, iterations=max(CYCLES), trace=True)
    assert trace.trace is not None
    cells = []
    for cycles in CYCLES:
        _, found = warp.solve(images, iterations=cycles)
        other = trace.trace[cycles]
        worse = found.energy > other * (1 + 1e-4) + 1e-3
        cells.append(
            {
                "cycles": cycles,
                "warp": float(found.energy.mean()),
                "plain": float(other.mean()),
                "worse": float(worse.float().mean()),
            }
        )
    return cells


def kinds(count: int, split: str) -> Iterator[tuple[str, Tensor]]:
    """Name and images (N, 3, H, W) of every kind."""
    dataset = load_dataset("cifar10-subset", "train" if split == "train" else "test")
    clean, _ = dataset.tensors(torch.linspace(0, len(dataset) - 1, count).long().tolist())
    pixels = (clean * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    yield "clean", clean
    for name in CORRUPTIONS:
        damaged = torch.from_numpy(corrupt(pixels, name, severity=5, seed=0))
        yield name, damaged.permute(0, 3, 1, 2).float() / 255
    yield "inverted", 1.0 - clean
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.randperm(clean[0, 0].numel(), generator=generator)
    yield "pixels shuffled", clean.flatten(2)[:, :, shuffled].reshape(clean.shape)
    yield from drawn(count, generator)
    yield "photographs", photographs(256)


def drawn(count: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Images that no camera took."""
    shape = (count, 3, 32, 32)
    yield "uniform noise", torch.rand(shape, generator=generator)
    yield "constant grey", torch.full(shape, 0.3)
    yield "flat colour", torch.rand(count, 3, 1, 1, generator=generator).expand(shape).clone()
    corners = torch.rand(count, 3, 2, 2, generator=generator)
    yield "four flat squares", F.interpolate(corners, size=32, mode="nearest")
    yield "colour ramps", F.interpolate(corners, size=32, mode="bilinear")
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    waves = 3.0 * torch.rand(count, 2, 1, 1, generator=generator)
    stripes = 0.5 + 0.5 * torch.sign(torch.sin(waves[:, 0] * rows + waves[:, 1] * columns))
    yield "gratings", stripes[:, None].expand(shape).clone()
    dot = torch.zeros(shape)
    dot[:, :, 10, 12] = 1.0
    yield "one white pixel", dot


def photographs(size: int) -> Tensor:
    """Photographs that installed packages hold: a portrait (matplotlib) and two of frost (warplca)."""
    import warplca

    frost = Path(warplca.__file__).parent / "data" / "assets" / "frost"
    files = [Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"]
    files += [frost / "frost1.webp", frost / "frost4.webp"]
    pixels = [np.asarray(Image.open(file).convert("RGB").crop((0, 0, size, size))) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
