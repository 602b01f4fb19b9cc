"""Images made one by one: read, cut out at random, RandAugment; ahead of training where workers are given."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..configs.recipe import AugmentConfig, filled
from ..data.files import FileImages
from .sampling import CUT, POLICY, StepOrder, mixed_seed

Policy = Callable[[Tensor], Tensor]
SHAPES = (3.0 / 4.0, 4.0 / 3.0)  # of random cuts, width to height (Szegedy et al., CVPR 2015)


def make_policy(config: AugmentConfig) -> Policy:
    """Return RandAugment (Cubuk et al., CVPR workshops 2020) of one uint8 image (C, H, W), from torchvision.

    torchvision's draws once for a whole batch, so it is applied image by image.
    """
    from torchvision.transforms.v2 import RandAugment

    return RandAugment(num_ops=filled(config.operations), magnitude=filled(config.severity))


def cut_out(image: np.ndarray, size: tuple[int, int], smallest_area: float, seed: int) -> np.ndarray:
    """Cut a random part out of an image and scale it; the part depends on the image's size and ``seed`` only.

    Args:
        image: (h, w, 3), uint8, of any size.
        size: Height and width of the result.
        smallest_area: Smallest share of the area, above 0 to 1.
        seed: Seed of this image in this step.

    Returns:
        (height, width, 3), uint8, bicubic.
    """
    from torchvision.transforms.v2 import RandomResizedCrop

    height, width = size
    draw = RandomResizedCrop(size, scale=(smallest_area, 1.0), ratio=SHAPES)
    with _seeded(seed):
        part = draw.make_params([torch.empty((3, *image.shape[:2]), device="meta")])
    box = (part["left"], part["top"], part["left"] + part["width"], part["top"] + part["height"])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torchvision draws from torch's global generator; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class PreparedImages(Dataset):
    """The views of a process's share of every step: item ``step`` is (N, views, C, H, W), uint8.

    Args:
        images: (N, H, W, C), uint8, in memory or on disk.
        config: Random cuts, which may be off, and the policy, which may be "none".
        order: The images of each step.
        plain: Whether the first view is the image itself.
        views: Further views, augmented by the policy.
        seed: Seed of the run.
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
        self.smallest_area = config.smallest_area
        self.policy = make_policy(config) if views else None

    def __getitem__(self, step: int) -> Tensor:
        chosen, rows = self.order.share(step)
        images = torch.from_numpy(self._cut(chosen.numpy(), rows, step)).permute(0, 3, 1, 2).contiguous()
        made = [images] if self.plain else []
        for view in range(self.views):
            numbered = zip(images, range(rows.start, rows.stop), strict=True)
            seeded = [
                self._view(one, mixed_seed(self.seed, POLICY, step, row, view)) for one, row in numbered
            ]
            made.append(torch.stack(seeded))
        return torch.stack(made, dim=1)

    def _cut(self, chosen: np.ndarray, rows: slice, step: int) -> np.ndarray:
        """Return images (N, H, W, C), cut out at random where that is asked for."""
        if self.smallest_area == 1.0:
            return self.images[chosen]
        stored, size = self.images, self.images.shape[1:3]
        originals = stored.whole(chosen) if isinstance(stored, FileImages) else stored[chosen]
        seeds = (mixed_seed(self.seed, CUT, step, row) for row in range(rows.start, rows.stop))
        return np.stack(
            [
                cut_out(image, size, self.smallest_area, seed)
                for image, seed in zip(originals, seeds, strict=True)
            ]
        )

    def _view(self, image: Tensor, seed: int) -> Tensor:
        with _seeded(seed):
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
    # Launchers send it to the whole group: a worker that died of it would take the parent along before it has saved.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
