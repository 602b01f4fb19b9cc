"""Settled states of many images, computed once and kept in files, so that a stopped job need not repeat them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..configs.atomic import file_written_whole


class SettledStates:
    """Settled states by image, in half precision.

    Args:
        settle: Maps images (n, C, H, W) to states.
        images: (N, C, H, W).
        batch_size: Images solved at a time.
        folder: Where each batch of states is written once it is solved; None keeps them in memory alone.

    Attributes:
        progress: Whether settling shows a bar.
        check_stop: Called before each batch; may raise, to stop between batches.
    """

    def __init__(
        self, settle: Callable[[Tensor], Tensor], images: Tensor, batch_size: int, folder: Path | None
    ) -> None:
        self.settle, self.images, self.batch_size, self.folder = settle, images, batch_size, folder
        self._states: Tensor | None = None
        self.progress = True
        self.check_stop: Callable[[], None] = lambda: None

    def __call__(self, chosen: Tensor) -> Tensor:
        """Return the states of the images with these numbers, in single precision."""
        return self.states[chosen].float()

    @property
    def variance(self) -> Tensor:
        """Variance of the states of the first images."""
        return self.states[:256].float().var()

    @property
    def states(self) -> Tensor:
        """All states, (N, M, h, w); computed on first use."""
        if self._states is None:
            batches = self.images.split(self.batch_size)
            bar = tqdm(batches, desc="priming: settled states", disable=not self.progress, dynamic_ncols=True)
            self._states = torch.cat([self._batch(index, batch) for index, batch in enumerate(bar)])
        return self._states

    def _batch(self, index: int, images: Tensor) -> Tensor:
        self.check_stop()
        if self.folder is None:
            return self.settle(images).half()
        file = self.folder / f"{index:05d}.safetensors"
        try:
            return load_file(file)["states"].to(images.device)
        except (OSError, SafetensorError):  # not there yet, or damaged
            states = self.settle(images).half().cpu().contiguous()
        with file_written_whole(file) as target:
            save_file({"states": states}, target)
        return states.to(images.device)
