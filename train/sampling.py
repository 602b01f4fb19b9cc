"""Which images a step takes and how they are shifted, mirrored and made noisy: all from the run's seed and the step.

All draws are made for the whole batch of a step and then cut to a process's share: the images do not depend on the
number of processes, and a resumed run sees the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs.device import sent

DROPOUT, ORDER, PLACEMENT, POLICY, NOISE, CUT, MIRROR = 1, 2, 3, 4, 5, 6, 7
"""Purposes, so that streams of one step differ."""


def mixed_seed(*keys: int) -> int:
    """Mix integers into one seed (splitmix-style), so that neighbouring steps are unrelated."""
    value = 0
    for key in keys:
        value = (value ^ (key + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 31)) * 0x94D049BB133111EB % 2**64
    return value >> 1


def generator(*keys: int) -> torch.Generator:
    """Return a CPU generator seeded by these keys."""
    return torch.Generator().manual_seed(mixed_seed(*keys))


@dataclass(frozen=True)
class Draws:
    """Random numbers for this process's part of something that a whole batch draws.

    Attributes:
        total: Number of images in the whole batch.
        mine: Positions of this process's images among them.
        seed: Seed of these draws.
        device: Device of the images.
    """

    total: int
    mine: slice
    seed: int
    device: torch.device

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers from 0 to below 1, (n, *shape), on the host; the same at each call."""
        host = torch.Generator().manual_seed(self.seed)
        return torch.rand((self.total, *shape), generator=host)[self.mine]

    def normal(self, *shape: int) -> Tensor:
        """Return standard Gaussian numbers, (n, *shape), drawn on the device; the same at each call."""
        there = torch.Generator(self.device).manual_seed(mixed_seed(self.seed, 1))
        return torch.randn((self.total, *shape), generator=there, device=self.device)[self.mine]


class StepOrder:
    """The order of the training images: a new permutation each epoch, from the seed alone.

    A step's batch is the same for any number of processes; each takes a contiguous part of it.

    Args:
        images: Number of training images.
        batch_size: Images a step over all processes.
        seed: Seed of the run.
        process: Number of this process.
        processes: Number of processes.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, *, process: int = 0, processes: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.process, self.processes = process, processes
        # One image left over joins the batch before it: batch norm cannot train on a single one.
        self.steps_per_epoch = max(1, images // batch_size + (images % batch_size > (batch_size > 1)))
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.long)

    def chosen(self, step: int) -> Tensor:
        """Return the positions of the step's images, over all processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = torch.randperm(self.images, generator=generator(self.seed, ORDER, epoch))
        end = None if position == self.steps_per_epoch - 1 else (position + 1) * self.batch_size
        return self._permutation[position * self.batch_size : end]

    def share(self, step: int) -> tuple[Tensor, slice]:
        """Return the positions of this process's images, and where they stand in the batch.

        A process that would get none (the last batch of an epoch may be small) computes the first image,
        which then has no weight: see :meth:`weight`.
        """
        chosen = self.chosen(step)
        rows = self._rows(len(chosen))
        rows = rows if rows.stop > rows.start else slice(0, 1)
        return chosen[rows], rows

    def weight(self, step: int) -> float:
        """Return the factor on this process's mean loss that makes the mean over processes that of the batch."""
        count = len(self.chosen(step))
        rows = self._rows(count)
        return (rows.stop - rows.start) * self.processes / count

    def _rows(self, count: int) -> slice:
        return slice(count * self.process // self.processes, count * (self.process + 1) // self.processes)


@dataclass(frozen=True)
class Placement:
    """Crop and mirroring of each image of a batch.

    Attributes:
        shifts: (2, N, 1) rows and columns, 0 to twice the padding; None for no crop.
        mirrored: (N, 1) booleans; None for no flip.
    """

    shifts: Tensor | None
    mirrored: Tensor | None

    @classmethod
    def draw(cls, count: int, generator: torch.Generator, *, padding: int, flip: bool) -> Placement:
        """Draw placements of ``count`` images; with ``flip`` mirrored with probability one half."""
        shifts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator) if padding else None
        mirrored = torch.rand((count, 1), generator=generator) < 0.5 if flip else None
        return cls(shifts, mirrored)

    def take(self, rows: slice) -> Placement:
        """Return the placements of some images."""
        return Placement(
            None if self.shifts is None else self.shifts[:, rows],
            None if self.mirrored is None else self.mirrored[rows],
        )


def mirrored_in_turn(chosen: Tensor, epoch: int, images: int, seed: int) -> Tensor:
    """Tell which images are mirrored in an epoch: each one in every other, one half of them in the first.

    Args:
        chosen: (N,) positions of the images.
        epoch: Epochs before this one.
        images: Number of training images.
        seed: Seed of the run.

    Returns:
        (N, 1) booleans.
    """
    first = torch.randint(2, (images,), generator=generator(seed, MIRROR))
    return ((first[chosen] + epoch) % 2 == 1)[:, None]


def place(images: Tensor, placement: Placement, *, padding: int) -> Tensor:
    """Shift each image by up to ``padding`` pixels (reflected borders) and mirror those that are drawn.

    Args:
        images: (N, C, H, W), on any device and of any type.
        placement: Drawn with the same padding.
        padding: Largest shift in pixels; 0 for none.
    """
    count, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if placement.shifts is not None:
        shifts = sent(placement.shifts, device)
        images = F.pad(images, (padding, padding, padding, padding), mode="reflect")
        rows, columns = rows + shifts[0], columns + shifts[1]
    if placement.mirrored is not None:
        columns = torch.where(sent(placement.mirrored, device), columns.flip(1), columns)
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)[:, None, :]
    # A gather takes a quarter of the time of indexing with three tensors.
    return images.flatten(2).gather(2, places.expand(-1, channels, -1)).unflatten(2, (height, width))


def draw_noise(
    count: int,
    size: torch.Size | tuple[int, ...],
    seed: int,
    device: torch.device,
    *,
    largest: float,
    share: float,
) -> Tensor:
    """Draw Gaussian noise for ``count`` images of ``size`` (C, H, W).

    Each noisy image has a standard deviation of its own, uniform between 0 and ``largest`` (Ford et al., ICML
    2019); ``share`` of the images are noisy (one half in Rusak et al., ECCV 2020).
    """
    level, chance = torch.rand((2, count), generator=torch.Generator().manual_seed(seed)).unbind()
    # Decided on the host, without asking the device; only these images cost anything.
    noisy = torch.tensor([i for i, value in enumerate(chance.tolist()) if value < share], dtype=torch.long)
    spread = sent((largest * level[noisy])[:, None, None, None], device)
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.zeros((count, *size), device=device)
    noise[sent(noisy, device)] = spread * torch.randn((len(noisy), *size), generator=generator, device=device)
    return noise
