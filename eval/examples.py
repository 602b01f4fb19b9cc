"""Example rows for the report."""

from __future__ import annotations

from collections.abc import Iterable

from ..data import STANDARD_CORRUPTIONS, ImageDataset, corrupt
from .pictures import Example


def corruption_example(
    dataset: ImageDataset,
    position: int,
    corruptions: Iterable[str] = STANDARD_CORRUPTIONS,
    *,
    severity: int = 5,
    seed: int = 0,
) -> Example:
    """One image, clean and under each corruption.

    Args:
        dataset: Where the image stands.
        position: Its position.
        corruptions: Names of corruptions.
        severity: 1 to 5.
        seed: Seed of random corruptions.
    """
    image, index = dataset.images[position : position + 1], dataset.indices[position : position + 1]
    pictures = [("clean", image[0] / 255.0)]
    for name in corruptions:
        changed = corrupt(image, name, severity=severity, seed=seed, indices=index)[0]
        pictures.append((name.replace("_", " "), changed / 255.0))
    label = dataset.class_names[int(dataset.labels[position])]
    return Example(
        f"{label.capitalize()} (image {index[0]}) under each corruption, severity {severity}", pictures
    )
