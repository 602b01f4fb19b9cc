"""Training images in the device's memory, and the batch of every step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..configs import TrainConfig
from ..data import ImageDataset
from .augment import Placement, draw_noise, place
from .losses import Batch
from .order import StepOrder
from .policy import PolicyImages
from .seeds import NOISE, PLACEMENT, generator, mixed_seed


class Share(NamedTuple):
    """This process's part of a step: the batch, and the weight of its mean loss."""

    batch: Batch
    weight: float


class BatchSource:
    """CIFAR-size sets live in memory as uint8 and are augmented in one go, without worker processes.

    Args:
        dataset: Training images, held-out ones already cut off.
        recipe: How to augment.
        order: Which images a step takes.
        device: Where to keep them.
    """

    def __init__(
        self, dataset: ImageDataset, recipe: TrainConfig, order: StepOrder, device: torch.device
    ) -> None:
        self.recipe, self.order = recipe, order
        images = torch.from_numpy(dataset.images.copy()).permute(0, 3, 1, 2).contiguous()
        self.images = images.to(device)
        self.labels = torch.from_numpy(dataset.labels.copy()).to(device)
        self._seconds = 0.0
        self._policy: PolicyImages | None = None
        if recipe.augment.policy != "none":
            views = 2 if recipe.loss.name == "jsd" else 1
            self._policy = PolicyImages(images, recipe.augment, order, views, recipe.seed)

    def shares(self, first: int, last: int) -> Iterator[Share]:
        """Yield this process's share of the steps from ``first`` to before ``last``."""
        stream = self._policy.stream(first, last, self.recipe.augment.workers) if self._policy else None
        for step in range(first, last):
            started = time.perf_counter()
            share = self._share(step, None if stream is None else next(stream))
            self._seconds += time.perf_counter() - started
            yield share

    def take_seconds(self) -> float:
        """Return the time that making batches took since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def plain_batches(self) -> Iterator[Tensor]:
        """Yield all training images in [0, 1], without augmentation."""
        for images in self.images.split(self.recipe.batch_size):
            yield images.float() / 255.0

    def _share(self, step: int, augmented: Tensor | None) -> Share:
        chosen, rows = self.order.share(step)
        chosen = chosen.to(self.images.device, non_blocking=True)
        recipe, count = self.recipe, len(self.order.chosen(step))
        drawn = Placement.draw(
            count, generator(recipe.seed, PLACEMENT, step), padding=recipe.crop_padding, flip=recipe.flip
        )
        images = self._images(chosen, augmented)
        placed = place(images.flatten(1, 2), drawn.take(rows), padding=recipe.crop_padding)
        views = (placed.float() / 255.0).unflatten(1, images.shape[1:3])
        if recipe.augment.noise:
            views = (views + self._noise(step, count, rows, views)).clamp(0.0, 1.0)
        first, *others = views.unbind(1)
        return Share(Batch(first, self.labels[chosen], tuple(others)), self.order.weight(step))

    def _images(self, chosen: Tensor, augmented: Tensor | None) -> Tensor:
        """Return (n, views, C, H, W): the image, its policy's version, or for "jsd" the image and its versions."""
        plain = self.images[chosen][:, None]
        if augmented is None:
            return plain
        augmented = augmented.to(plain.device, non_blocking=True)
        return torch.cat([plain, augmented], dim=1) if self.recipe.loss.name == "jsd" else augmented

    def _noise(self, step: int, count: int, rows: slice, views: Tensor) -> Tensor:
        seed = mixed_seed(self.recipe.seed, NOISE, step)
        config = self.recipe.augment
        size = views.shape[1:]
        noise = draw_noise(
            count, size[1:], seed, views.device, largest=config.noise, share=config.noise_share
        )
        return noise[rows][:, None]
