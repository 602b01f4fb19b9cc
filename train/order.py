"""Which images a step takes, and its random numbers: both follow from the run's seed and the step alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DROPOUT, ORDER, PLACEMENT, POLICY, NOISE, CUT = 1, 2, 3, 4, 5, 6
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


class StepOrder:
    """The order of the training images: a new permutation each epoch, from the seed alone.

    A step's batch is the same for any number of processes; each takes a contiguous part of it.

    Args:
        images: Number of training images.
        batch_size: Images a step over all processes.
        seed: Of the run.
        process: Number of this process.
        processes: How many there are.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, *, process: int = 0, processes: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.process, self.processes = process, processes
        self.steps_per_epoch = math.ceil(images / batch_size)
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.long)

    def chosen(self, step: int) -> Tensor:
        """Return the positions of the step's images, over all processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = torch.randperm(self.images, generator=generator(self.seed, ORDER, epoch))
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]

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
