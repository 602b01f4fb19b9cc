"""One picture: noisy images, what the front-end restores of them, and what an untouched classifier says of each.

Usage: python benchmarks/plugin_picture.py --data cifar10.npz --classifiers DIR [--images 6]

DIR is what plugin.py takes; the classifier is its ResNet-20, the images are the first of test images 1,000 to 1,999
that it knows when they are clean, one a class: chosen before noise is added.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import save_figure
from plugin import FIRST
from plugin_rows import parser, published
from torch import Tensor, nn

from warplca.data import ImageDataset, corrupt, load_dataset
from warplca.models import harden

SEVERITY = 5


@torch.no_grad()
def known(model: nn.Module, dataset: ImageDataset, count: int) -> list[int]:
    """Positions of the first images that the classifier knows, one a class."""
    found: dict[int, int] = {}
    for position in range(FIRST, FIRST + 100):
        images, labels = dataset.tensors([position])
        label = int(labels)
        if label not in found and int(model(images).argmax()) == label and len(found) < count:
            found[label] = position
    return list(found.values())


@torch.no_grad()
def rows(model: nn.Module, images: np.ndarray) -> dict[str, tuple[Tensor, Tensor]]:
    """Pixels (N, 3, H, W) and probabilities (N, classes) of each row."""
    noisy = corrupt(images, "gaussian_noise", severity=SEVERITY, seed=0)
    clean, noisy = (torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255 for pixels in (images, noisy))
    restored = harden(model, "cifar10-64x9s2-restore").frontend(noisy).clamp(0, 1)
    shown = {"clean": clean, f"Gaussian noise, severity {SEVERITY}": noisy, "restored": restored}
    return {name: (pixels, model(pixels).softmax(1)) for name, pixels in shown.items()}


def draw(
    shown: dict[str, tuple[Tensor, Tensor]], labels: np.ndarray, names: tuple[str, ...], path: Path
) -> None:
    """Write the picture: a row for each kind, what the classifier says under each image, wrong answers in red."""
    import matplotlib.pyplot as plt

    count = len(labels)
    figure, axes = plt.subplots(len(shown), count, figsize=(1.55 * count, 1.85 * len(shown)), squeeze=False)
    for line, (kind, (pixels, probabilities)) in zip(axes, shown.items(), strict=True):
        for axis, picture, share, label in zip(line, pixels, probabilities, labels, strict=True):
            axis.imshow(picture.permute(1, 2, 0), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            best = int(share.argmax())
            colour = "black" if best == label else "tab:red"
            axis.set_xlabel(f"{names[best]} {100 * float(share[best]):.0f} %", color=colour, fontsize=9)
        line[0].set_ylabel(kind, fontsize=9)
    figure.tight_layout(pad=0.4)
    save_figure(figure, path)


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=6, help="columns (default: %(default)s)")
    arguments = options.parse_args()
    dataset = load_dataset(arguments.data, "test")
    model = published(arguments.classifiers, "resnet20")
    positions = known(model, dataset, arguments.images)
    shown = rows(model, dataset.images[positions])
    draw(shown, dataset.labels[positions], dataset.class_names, arguments.out / "plugin.png")


if __name__ == "__main__":
    main()
