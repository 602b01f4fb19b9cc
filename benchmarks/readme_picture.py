"""The README's picture: a noisy image, its sparse code, the restored image, and what a classifier says of both images.

Usage: python benchmarks/readme_picture.py --data cifar10.npz --classifiers DIR [--out docs]

Image and classifier are the first ones of plugin_picture.py. The code is that of the shipped restoring front-end; the
sixteen atoms that are most active in it are shown, each where and how strongly it is active.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import save_figure
from plugin import FIRST
from plugin_picture import SEVERITY
from plugin_rows import RESTORE, parser, published
from torch import nn

from warplca.data import ImageDataset, corrupt, load_dataset
from warplca.models import harden
from warplca.pipeline.first_look import known_images

MAPS = 16
TITLES = ("noisy image", "sparse code", "restored image")
RIGHT, WRONG, GREY = "#009E73", "#D55E00", "#444444"


@dataclass(frozen=True)
class Scene:
    """What is drawn: pictures (H, W, 3), maps (16, h, w), the share of active units, class and probability of both."""

    noisy: np.ndarray
    maps: np.ndarray
    active: float
    restored: np.ndarray
    bare: tuple[str, float]
    hardened: tuple[str, float]
    truth: str


@torch.no_grad()
def scene(model: nn.Module, dataset: ImageDataset, position: int) -> Scene:
    """Add noise to one image, restore it, and classify it both ways."""
    noisy = corrupt(dataset.images[[position]], "gaussian_noise", severity=SEVERITY, seed=0)
    pixels = torch.tensor(noisy).permute(0, 3, 1, 2).float() / 255
    hardened = harden(model, RESTORE)
    encoding = hardened.frontend.encode(pixels)
    code = encoding.code[0].abs()
    strongest = code.sum((1, 2)).topk(MAPS).indices

    def answer(network: nn.Module) -> tuple[str, float]:
        share = network(pixels)[0].softmax(0)
        return dataset.class_names[int(share.argmax())], float(share.max())

    return Scene(
        noisy[0] / 255,
        code[strongest].numpy(),
        float(encoding.active),
        encoding.output[0].clamp(0, 1).permute(1, 2, 0).numpy(),
        answer(model),
        answer(hardened),
        dataset.class_names[int(dataset.labels[position])],
    )


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Sixteen maps as one picture with a line between them, each relative to the strongest of all."""
    padded = np.pad(maps / maps.max(), ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    count, height, width = padded.shape
    side = int(count**0.5)
    return padded.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, side * width)


def draw(found: Scene, path: Path) -> None:
    """Write the picture: three panels with arrows between them, and an answer below each image."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), gridspec_kw={"wspace": 0.4}, facecolor="white")
    pictures = (found.noisy, mosaic(found.maps), found.restored)
    below = (
        f"classifier alone: {found.bare[0]} {100 * found.bare[1]:.0f} %",
        f"{100 * found.active:.1f} % of the units are active",
        f"the same classifier: {found.hardened[0]} {100 * found.hardened[1]:.0f} %",
    )
    answers = (found.bare[0], None, found.hardened[0])
    for axis, picture, title, text, answer in zip(axes, pictures, TITLES, below, answers, strict=True):
        axis.imshow(picture, cmap="magma", interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=13)
        colour = GREY if answer is None else RIGHT if answer == found.truth else WRONG
        axis.set_xlabel(text, color=colour, fontsize=12, labelpad=8)
    figure.draw_without_rendering()  # settles the square panels, between which the arrows lie
    for number, step in enumerate(("encode", "decode")):
        start, end = axes[number].get_position(), axes[number + 1].get_position()
        middle = (start.y0 + start.y1) / 2
        ends = ((start.x1 + 0.012, middle), (end.x0 - 0.012, middle))
        figure.add_artist(
            FancyArrowPatch(
                *ends,
                transform=figure.transFigure,
                arrowstyle="-|>",
                mutation_scale=22,
                linewidth=2,
                color=GREY,
            )
        )
        figure.text((start.x1 + end.x0) / 2, middle + 0.05, step, ha="center", fontsize=11, color=GREY)
    save_figure(figure, path)


def main() -> None:
    """Run from the command line."""
    arguments = parser(__doc__).parse_args()
    dataset = load_dataset(arguments.data, "test")
    model = published(arguments.classifiers, "resnet20")
    (position,) = known_images(model, dataset, range(FIRST, FIRST + 100), 1)
    draw(scene(model, dataset, position), arguments.out / "front-end.png")


if __name__ == "__main__":
    main()
