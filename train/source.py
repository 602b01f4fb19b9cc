"""Training images in the device's memory or on disk, and the batch of every step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..configs import InputError, RunConfig, TrainConfig
from ..configs.device import sent
from ..configs.errors import in_one_line
from ..configs.recipe import filled
from ..data import ImageDataset
from ..data.files import FileImages
from ..models import Classifier
from .losses import Batch
from .mixture import Mixture
from .policy import PreparedImages
from .sampling import (
    NOISE,
    PLACEMENT,
    POLICY,
    Placement,
    StepOrder,
    draw_noise,
    generator,
    mirrored_in_turn,
    mixed_seed,
    place,
)

MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


class Share(NamedTuple):
    """This process's part of a step: the batch, the weight of its mean loss, and the smallest part of any process."""

    batch: Batch
    weight: float
    smallest: int


class BatchSource:
    """CIFAR-size sets live in memory as uint8 and are augmented in one go, without worker processes.

    Images on disk, and those of a random cut or RandAugment, are made one by one, by ``augment.workers`` processes
    ahead of their step.

    Args:
        dataset: Training images, held-out ones already cut off.
        recipe: The recipe, for augmentation.
        order: The images of each step.
        device: Device to keep them on.
    """

    def __init__(
        self, dataset: ImageDataset, recipe: TrainConfig, order: StepOrder, device: torch.device
    ) -> None:
        self.recipe, self.order, self.device = recipe, order, device
        self.stored, self.images = dataset.images, torch.empty(0)
        one_by_one = isinstance(self.stored, FileImages) or recipe.augment.smallest_area < 1.0
        if isinstance(self.stored, np.ndarray):
            self.images = torch.from_numpy(self.stored.copy()).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(dataset.labels.copy()).to(device)
        self._seconds = 0.0
        self._mixture = Mixture.of(recipe.augment)
        self._prepared: PreparedImages | None = None
        views = recipe.loss_class.views if recipe.augment.policy == "randaugment" else 0
        plain = one_by_one and views != 1
        if views or one_by_one:
            self._prepared = PreparedImages(
                dataset.images, recipe.augment, order, plain=plain, views=views, seed=recipe.seed
            )
        self._adds_plain = views == 2 and not plain

    def shares(self, first: int, last: int) -> Iterator[Share]:
        """Yield this process's share of the steps from ``first`` to before ``last``."""
        made = self._prepared
        stream = None if made is None else made.stream(first, last, self.recipe.augment.workers)
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
        size = self.recipe.batch_size
        for start in range(0, len(self.stored), size):
            images = torch.from_numpy(self.stored[start : start + size].copy()).permute(0, 3, 1, 2)
            yield sent(images.contiguous(), self.device).float() / 255.0

    def _share(self, step: int, augmented: Tensor | None) -> Share:
        chosen, rows = self.order.share(step)
        recipe, count = self.recipe, len(self.order.chosen(step))
        drawn = Placement.draw(
            count,
            generator(recipe.seed, PLACEMENT, step),
            padding=recipe.crop_padding,
            flip=recipe.flip is True,
        )
        if recipe.flip == "alternating":
            epoch = step // self.order.steps_per_epoch
            turns = mirrored_in_turn(self.order.chosen(step), epoch, self.order.images, recipe.seed)
            drawn = replace(drawn, mirrored=turns)
        chosen = sent(chosen, self.device)
        images = self._images(chosen, augmented)
        placed = place(images.flatten(1, 2), drawn.take(rows), padding=recipe.crop_padding)
        placed = placed.unflatten(1, images.shape[1:3])
        if self._mixture is None:
            views = placed.float() / 255.0
        else:
            views = self._mixed(self._mixture, placed[:, 0], step, count, rows)
        if recipe.augment.noise:
            views = (views + self._noise(step, count, rows, views)).clamp(0.0, 1.0)
        first, *others = views.unbind(1)
        smallest = max(count // self.order.processes, 1)
        clean = placed[:, 0].float() / 255.0 if recipe.loss_class.has_teacher else None
        batch = Batch(first, self.labels[chosen], tuple(others), clean)
        return Share(batch, self.order.weight(step), smallest)

    def _images(self, chosen: Tensor, augmented: Tensor | None) -> Tensor:
        """Return (n, views, C, H, W): the image, its policy's version, or for "jsd" the image and its versions."""
        if augmented is None:
            return self.images[chosen][:, None]
        augmented = sent(augmented, self.device)
        return torch.cat([self.images[chosen][:, None], augmented], dim=1) if self._adds_plain else augmented

    def _mixed(self, mixture: Mixture, images: Tensor, step: int, count: int, rows: slice) -> Tensor:
        """Return (n, views, C, H, W) in [0, 1]: a mixture, or for losses on several views the image and mixtures."""
        views = self.recipe.loss_class.views
        seed = mixed_seed(self.recipe.seed, POLICY, step)
        made = mixture(images, views=views, seed=seed, count=count, rows=rows)
        return made if views == 1 else torch.cat([images[:, None].float() / 255.0, made], dim=1)

    def _noise(self, step: int, count: int, rows: slice, views: Tensor) -> Tensor:
        seed = mixed_seed(self.recipe.seed, NOISE, step)
        config = self.recipe.augment
        size = views.shape[1:]
        noise = draw_noise(
            count, size[1:], seed, views.device, largest=config.noise, share=filled(config.noise_share)
        )
        return noise[rows][:, None]


def check_data(config: RunConfig, dataset: ImageDataset, processes: int) -> None:
    """Refuse images that do not fit the model or the recipe, and more processes than images.

    Raises:
        InputError: What came, what was expected, what to do.
    """
    recipe = config.train
    if len(dataset.class_names) != config.model.classes:
        raise InputError(
            f"{dataset.name} has {len(dataset.class_names)} classes, the model has num_classes "
            f"{config.model.classes}; make them equal, or leave model.num_classes out."
        )
    if min(dataset.size) <= recipe.crop_padding:
        raise InputError(
            f"{dataset.name} has images of {dataset.size[0]} x {dataset.size[1]} pixels, too small for "
            f"crop_padding {recipe.crop_padding}; set train.crop_padding below {min(dataset.size)}."
        )
    images = min(len(dataset) - recipe.validation_images, recipe.batch_size)
    if processes > images > 0:
        raise InputError(
            f"{processes} processes share batches of {images} images; start at most {images} processes, or raise "
            "train.batch_size."
        )


@torch.no_grad()
def probe(model: Classifier, source: BatchSource) -> None:
    """Show a model two images before it is trained, so that what cannot take their size fails in a sentence.

    Raises:
        InputError: If the model cannot take them.
    """
    shown = torch.from_numpy(source.stored[:2].copy()).permute(0, 3, 1, 2).contiguous()
    images = shown.to(source.device).float() / 255.0
    training = model.training
    model.eval()
    try:
        model(images)
    except InputError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        if any(sign in str(error).lower() for sign in MEMORY_SIGNS):
            raise  # the first step explains it
        raise InputError(
            f"the backbone {model.config.backbone!r} does not take images of {images.shape[2]} x {images.shape[3]} "
            f"pixels ({in_one_line(error)}); choose another, or give it the size if it knows that option "
            f"(model.backbone_options={{img_size: {images.shape[2]}}})."
        ) from error
    finally:
        model.train(training)
