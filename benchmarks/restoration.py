"""What a front-end primed to restore restores: CIFAR-10 test images and photographs of 256 pixels, BM3D beside it.

Usage: python benchmarks/restoration.py --data cifar10.npz [--frontend NAME] [--images 100] [--bm3d 4]

Noise is white and Gaussian, clipped to 8 bits or not. BM3D is given its strength; it runs on the photographs and on as
many CIFAR-10 images as --bm3d says. Times are processor time of one thread, in one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import table
from denoisers import each, trained_convolutions
from photographs import photographs
from torch import Tensor

from warplca.data import load_dataset
from warplca.frontend import WarpLCA
from warplca.frontend.priming.restoring import LEVELS, noisy, psnr


def bm3d(level: int) -> Callable[[Tensor], Tensor]:
    """BM3D for colour, given the noise in grey levels, by its authors' package."""
    from bm3d import bm3d_rgb  # pyright: ignore[reportMissingImports]

    return lambda images: each(images, "BM3D", lambda image: bm3d_rgb(image, level / 255), quiet=True)


@torch.no_grad()
def row(
    name: str, images: Tensor, denoise: Callable[[int], Callable[[Tensor], Tensor]], *, clipped: bool
) -> list[str]:
    """Mean PSNR in dB at each level, and seconds an image."""
    figures, start = [], time.process_time()
    for level in LEVELS:
        seen = noisy(images, level / 255, torch.Generator().manual_seed(level), clipped=clipped)
        figures.append(float(psnr(denoise(level)(seen), images).mean()))
    seconds = (time.process_time() - start) / (len(LEVELS) * len(images))
    kind = "8 bits" if clipped else "unclipped"
    return [name, f"{len(images)}, {kind}", *(f"{figure:.2f}" for figure in figures), f"{seconds:.3f}"]


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--frontend", default="cifar10-64x9s2-restore", help="(default: %(default)s)")
    options.add_argument(
        "--images", type=int, default=100, help="CIFAR-10 test images (default: %(default)s)"
    )
    options.add_argument("--bm3d", type=int, default=0, help="CIFAR-10 images for BM3D; 0 leaves it out")
    options.add_argument("--convolutions", type=Path, help="folder of denoisers that long_denoisers.py wrote")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    layer = WarpLCA.from_pretrained(arguments.frontend).eval()
    small = load_dataset(arguments.data, "test").tensors(list(range(arguments.images)))[0]
    large = photographs()
    lines = [row("restoring", small, lambda _: layer, clipped=clipped) for clipped in (True, False)]
    lines.append(row("restoring, photographs", large, lambda _: layer, clipped=True))
    if arguments.convolutions:
        for name, network in trained_convolutions(arguments.convolutions).items():
            lines.append(row(name, small, lambda _, network=network: network, clipped=True))
            lines.append(row(f"{name}, photographs", large, lambda _, network=network: network, clipped=True))
    if arguments.bm3d:
        lines.append(row("BM3D", small[: arguments.bm3d], bm3d, clipped=True))
        lines.append(row("BM3D, photographs", large, bm3d, clipped=True))
    print(table(["", "images", *(f"sigma {level}" for level in LEVELS), "s an image"], lines))


if __name__ == "__main__":
    main()
