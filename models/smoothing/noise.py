"""Gaussian noise that belongs to an image: from the seed and the image itself, whatever the order of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

BLOCK = 100
"""Copies drawn by one generator; batches of any size are cut from whole blocks."""


@dataclass(frozen=True)
class NoiseSource:
    """Standard normal noise for one image, the same in every process and batch size.

    Attributes:
        digest: Digest of the image's pixels.
        seed: Seed of the run.
        shape: (C, H, W).
        device: Device on which the noise is drawn; figures of the CPU and of GPUs differ as those of two seeds do.
    """

    digest: str
    seed: int
    shape: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(cls, image: Tensor, seed: int) -> Self:
        """Return the noise of an image (C, H, W)."""
        pixels = image.detach().cpu().float().contiguous().numpy()
        return cls(hashlib.sha256(pixels.tobytes()).hexdigest(), seed, tuple(image.shape), image.device)

    def block(self, purpose: str, number: int) -> Tensor:
        """Return a block of noise, (BLOCK, C, H, W); different purposes and numbers are independent."""
        text = f"{self.seed} {purpose} {number} {self.digest}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn((BLOCK, *self.shape), generator=generator, device=self.device)

    def draws(self, purpose: str, first: int, last: int) -> Tensor:
        """Return draws ``first`` to ``last - 1`` of a purpose."""
        blocks = range(first // BLOCK, (last - 1) // BLOCK + 1)
        whole = torch.cat([self.block(purpose, number) for number in blocks])
        start = first - blocks.start * BLOCK
        return whole[start : start + last - first]
