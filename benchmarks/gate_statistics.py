"""How well estimates of damage tell corrupted images from clean ones: area under the curve, and quantiles.

Usage: python benchmarks/gate_statistics.py --data cifar10.npz [--frontend cifar10-64x9s2-restore] [--images 300]

On training images: the test set is for figures, not for choices.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import table
from torch import Tensor

from warplca.data import corrupt, load_dataset
from warplca.frontend import WarpLCA, noise_level

FIRST = 45_000
KINDS = (
    *(
        ("gaussian_noise", 1),
        ("shot_noise", 1),
        ("speckle_noise", 1),
        ("impulse_noise", 1),
        ("defocus_blur", 3),
    ),
    *(("jpeg_compression", 3), ("pixelate", 3), ("snow", 3), ("frost", 3), ("brightness", 3)),
)


@torch.no_grad()
def estimates(layer: WarpLCA, images: np.ndarray) -> dict[str, Tensor]:
    """The estimates of each image, (N,) each, in pixels, for uint8 images (N, H, W, 3)."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    left = (layer(pixels) - pixels).square().mean(dim=(1, 2, 3)).sqrt()
    return {"second differences": noise_level(pixels), "what coding leaves out": left}


def area(clean: Tensor, corrupted: Tensor) -> float:
    """Share of pairs in which the corrupted image reads more."""
    return float((corrupted[:, None] > clean).float().mean())


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--frontend", default="cifar10-64x9s2-restore", help="(default: %(default)s)")
    options.add_argument("--images", type=int, default=300, help="(default: %(default)s)")
    arguments = options.parse_args()
    layer = WarpLCA.from_pretrained(arguments.frontend, gate=None)
    images = load_dataset(arguments.data, "train").images[FIRST : FIRST + arguments.images]
    clean = estimates(layer, images)
    rows = [["clean, 50 / 95 / 99 %", *(_quantiles(values) for values in clean.values())]]
    for name, severity in KINDS:
        found = estimates(layer, corrupt(images, name, severity=severity, seed=0))
        rows.append([f"{name} {severity}", *(f"{area(clean[key], found[key]):.3f}" for key in clean)])
    print(table(["images", *clean], rows))


def _quantiles(values: Tensor) -> str:
    found = values.quantile(torch.tensor([0.5, 0.95, 0.99]))
    return " / ".join(f"{value:.4f}" for value in found.tolist())


if __name__ == "__main__":
    main()
