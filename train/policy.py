"""Images that are made one by one: read from disk, AugMix, RandAugment; ahead of training where workers are given."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..configs.recipe import AugmentConfig
from ..data.files import FileImages
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


class PreparedImages(Dataset):
    """The views of a process's share of every step: item ``step`` is (N, views, C, H, W), uint8.

    Args:
        images: (N, H, W, C), uint8, in memory or on disk.
        config: The policy, which may be "none".
        order: Which images a step takes.
        plain: Whether the first view is the image itself.
        views: Further views, augmented by the policy.
        seed: Of the run.
    """

    def __init__(
        self,
        images: np.ndarray | FileImages,
        config: AugmentConfig,
        order: StepOrder,
        *,
        plain: bool,
        views: int,
        seed: int,
    ) -> None:
        self.images, self.order, self.plain, self.views, self.seed = images, order, plain, views, seed
        self.policy = make_policy(config) if views else None

    def __getitem__(self, step: int) -> Tensor:
        chosen, rows = self.order.share(step)
        images = torch.from_numpy(self.images[chosen.numpy()]).permute(0, 3, 1, 2).contiguous()
        made = [images] if self.plain else []
        for view in range(self.views):
            numbered = zip(images, range(rows.start, rows.stop), strict=True)
            seeded = [
                self._view(one, mixed_seed(self.seed, POLICY, step, row, view)) for one, row in numbered
            ]
            made.append(torch.stack(seeded))
        return torch.stack(made, dim=1)

    def _view(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            return self.policy(image)  # type: ignore[misc]  # there is one where there are views

    def stream(self, first: int, last: int, workers: int) -> Iterator[Tensor]:
        """Yield the steps from ``first`` to before ``last``; the images do not depend on ``workers``."""
        if multiprocessing.current_process().daemon:
            workers = 0  # one of several runs at once may have no processes of its own
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
