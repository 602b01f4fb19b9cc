"""One picture: noisy images, what the front-end restores of them, and what an untouched classifier says of each.

Usage: python benchmarks/plugin_picture.py --data cifar10.npz --classifiers DIR [--images 6]

DIR is what plugin.py takes; the classifier is its ResNet-20, the images are the first of test images 1,000 to 1,999
that it knows when they are clean, one a class: chosen before noise is added.
"""

from __future__ import annotations

import numpy as np
import torch
from plugin import FIRST
from plugin_rows import parser, published
from torch import Tensor, nn

from warplca.data import corrupt, load_dataset
from warplca.models import harden
from warplca.pipeline.first_look import draw_rows, known_images

SEVERITY = 5


@torch.no_grad()
def rows(model: nn.Module, images: np.ndarray) -> dict[str, tuple[Tensor, Tensor]]:
    """Pixels (N, 3, H, W) and probabilities (N, classes) of each row."""
    noisy = corrupt(images, "gaussian_noise", severity=SEVERITY, seed=0)
    clean, noisy = (torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255 for pixels in (images, noisy))
    restored = harden(model, "cifar10-64x9s2-restore").frontend(noisy).clamp(0, 1)
    shown = {"clean": clean, f"Gaussian noise, severity {SEVERITY}": noisy, "restored": restored}
    return {name: (pixels, model(pixels).softmax(1)) for name, pixels in shown.items()}


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=6, help="columns (default: %(default)s)")
    arguments = options.parse_args()
    dataset = load_dataset(arguments.data, "test")
    model = published(arguments.classifiers, "resnet20")
    positions = known_images(model, dataset, range(FIRST, FIRST + 100), arguments.images)
    shown = rows(model, dataset.images[positions])
    draw_rows(shown, dataset.labels[positions], dataset.class_names, arguments.out / "plugin.png")


if __name__ == "__main__":
    main()
