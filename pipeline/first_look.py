"""A first look at the front-end, within a minute: the shipped classifier on noisy photographs, alone and behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..configs import EvaluationPlan
from ..configs.atomic import file_written_whole
from ..data import ImageDataset, corrupt, load_dataset
from ..eval import Execution, ResultsStore, evaluate
from ..models import Classifier, harden, load_checkpoint

CLASSIFIER, CHAIN = "cifar10-quick", "cifar10"
NOISES, SEVERITY = ("gaussian_noise", "shot_noise", "impulse_noise"), 5
RIGHT, WRONG = "#009E73", "#D55E00"


@torch.no_grad()
def known_images(model: nn.Module, dataset: ImageDataset, positions: Sequence[int], count: int) -> list[int]:
    """Positions of the first images that a classifier knows as they are, one a class."""
    images, labels = dataset.tensors(positions)
    found: dict[int, int] = {}
    for position, label, answer in zip(
        positions, labels.tolist(), model(images).argmax(1).tolist(), strict=True
    ):
        if answer == label and label not in found and len(found) < count:
            found[label] = position
    return list(found.values())


def draw_rows(
    rows: Mapping[str, tuple[Tensor, Tensor]], labels: np.ndarray, names: Sequence[str], path: Path
) -> None:
    """Write a picture: a row for each kind of image, and what the classifier says under each.

    Args:
        rows: Name of each row, its pixels (N, 3, H, W) in [0, 1] and the probabilities (N, classes) of its images.
        labels: (N,) true classes; other answers are marked.
        names: Names of the classes.
        path: PNG file.
    """
    from matplotlib.figure import Figure

    count = len(labels)
    figure = Figure(figsize=(1.55 * count, 1.85 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (kind, (pixels, probabilities)) in zip(axes, rows.items(), strict=True):
        for axis, picture, share, label in zip(line, pixels, probabilities, labels, strict=True):
            axis.imshow(picture.permute(1, 2, 0), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            best = int(share.argmax())
            mark, colour = ("✓", RIGHT) if best == label else ("✗", WRONG)
            axis.set_xlabel(
                f"{mark} {names[best]} {100 * float(share[best]):.0f} %", color=colour, fontsize=9
            )
        line[0].set_ylabel(kind, fontsize=9)
    with file_written_whole(path) as target:
        figure.savefig(target, format="png", dpi=100)


def first_look(
    out: str | Path,
    *,
    images: int = 200,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure the shipped classifier alone and behind the shipped chain, and draw a few noisy photographs.

    Args:
        out: Folder for ``first-look.sqlite``, the results, and ``first-look.png``; finished cells are kept.
        images: Test images in each cell, class-balanced.
        say: Receives the figures, line by line.
        progress: Whether to show signs of life.

    Returns:
        Accuracy (0 to 1) of each condition: columns ``alone`` and ``with front-end``.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    test = load_dataset("cifar10-subset", "test")
    alone = load_checkpoint(CLASSIFIER)
    networks = {"alone": alone, "with front-end": cast(Classifier, harden(alone, CHAIN))}
    plan = EvaluationPlan(
        corruptions=NOISES, severities=(SEVERITY,), corruption_images=images, clean_images=images
    )
    with ResultsStore(out / "first-look.sqlite") as store:
        found = pd.concat(
            evaluate(network, test, plan, results=store, name=name, execution=Execution(progress=progress))
            for name, network in networks.items()
        )
    table = found.pivot(index="condition", columns="model", values="accuracy").loc[["clean", *NOISES]]
    intervals = {(row["condition"], row["model"]): row for row in found.to_dict("records")}
    say(f"{CLASSIFIER} on {images} photographs that it never saw, severity {SEVERITY}, % correct:")
    say(f"  {'':<15} {'alone':<19} behind {CHAIN}")
    for condition in table.index:
        shown = [_figure(intervals[condition, name]) for name in networks]
        say(f"  {condition.replace('_', ' '):<15} {shown[0]:<19} {shown[1]}")
    _draw(networks, test, out / "first-look.png")
    say(f"pictures:    {out / 'first-look.png'}")
    return table[list(networks)]


def _figure(row: Mapping[Any, Any]) -> str:
    accuracy, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
    return f"{accuracy:4.1f} [{low:.1f}, {high:.1f}]"


@torch.no_grad()
def _draw(networks: Mapping[str, Classifier], test: ImageDataset, path: Path) -> None:
    alone, hardened = networks.values()
    chosen = known_images(alone, test, range(40), 6)
    clean = test.images[chosen]
    noisy = corrupt(clean, NOISES[-1], severity=SEVERITY, seed=0)
    clean, noisy = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 for pixels in (clean, noisy))
    restored = noisy
    stages = cast(nn.ModuleList, hardened.frontend.stages)
    for stage in list(stages)[: hardened.config.hardened]:
        restored = stage(restored)
    rows = {
        "clean": (clean, alone(clean).softmax(1)),
        "impulse noise": (noisy, alone(noisy).softmax(1)),
        "behind the front-end": (restored.clamp(0, 1), hardened(noisy).softmax(1)),
    }
    draw_rows(rows, test.labels[chosen], test.class_names, path)
