"""AugMix and RandAugment, drawn for each image by itself, ahead of the training loop where workers are given."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..configs.recipe import AugmentConfig
from .order import StepOrder
from .seeds import POLICY, mixed_seed

Policy = Callable[[Tensor], Tensor]


def make_policy(config: AugmentConfig) -> Policy:
    """Return the augmentation of one uint8 image (C, H, W), from torchvision.

    "augmix" is Hendrycks et al., ICLR 2020, without the operations that overlap with CIFAR-10-C (contrast, colour,
    brightness, sharpness), as in the paper; "randaugment" is Cubuk et al., CVPR workshops 2020. torchvision's
    draw once for a whole batch, so they are applied image by image.
    """
    from torchvision.transforms import v2

    if config.policy == "augmix":
        return v2.AugMix(severity=config.severity, mixture_width=config.width, all_ops=False)
    return v2.RandAugment(num_ops=config.operations, magnitude=config.severity)


class PolicyImages(Dataset):
    """The augmented views of a process's share of every step: item ``step`` is (N, views, C, H, W), uint8.

    Args:
        images: (N, C, H, W), uint8, in memory.
        config: The policy.
        order: Which images a step takes.
        views: Augmented versions of each image.
        seed: Of the run.
    """

    def __init__(
        self, images: Tensor, config: AugmentConfig, order: StepOrder, views: int, seed: int
    ) -> None:
        self.images, self.order, self.views, self.seed = images, order, views, seed
        self.policy = make_policy(config)

    def __getitem__(self, step: int) -> Tensor:
        chosen, rows = self.order.share(step)
        made = [
            self._view(self.images[index], mixed_seed(self.seed, POLICY, step, row, view))
            for index, row in zip(chosen.tolist(), range(rows.start, rows.stop), strict=True)
            for view in range(self.views)
        ]
        return torch.stack(made).unflatten(0, (len(chosen), self.views))

    def _view(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            return self.policy(image)

    def stream(self, first: int, last: int, workers: int) -> Iterator[Tensor]:
        """Yield the steps from ``first`` to before ``last``; the images do not depend on ``workers``."""
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        return iter(loader)


def _leave_signals_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
