"""Misclassified images from which a boundary attack can walk in."""

from __future__ import annotations

import torch
from torch import Tensor

from .counting import CountingModel
from .threat import ThreatModel

NOISE_DRAWS = 50


def starting_points(
    model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel
) -> tuple[Tensor, Tensor]:
    """Find for each image the nearest misclassified one among its batch, or uniform noise where none is.

    foolbox's own search draws noise only, which many networks put into one class, and raises if a single
    image finds none.

    Args:
        model: The model behind its counter.
        images: (N, C, H, W).
        labels: (N,) true classes.
        threat: Its norm measures nearness.

    Returns:
        Starting points, and (N,) whether each is misclassified (the others are the clean images).
    """
    with torch.no_grad():
        predictions = model(images).argmax(dim=1)
        starts, fooled = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
        for index, label in enumerate(labels):
            others = images[predictions != label]
            if len(others):
                nearest = threat.distance(others, images[index : index + 1].expand_as(others)).argmin()
                starts[index], fooled[index] = others[nearest], True
        for _ in range(NOISE_DRAWS):
            if fooled.all():
                break
            noise = torch.rand_like(images)
            hit = (model(noise).argmax(dim=1) != labels) & ~fooled
            starts[hit], fooled = noise[hit], fooled | hit
    return starts, fooled
