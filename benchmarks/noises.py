"""Noise as a file would hold it: clipped to [0, 1] and rounded to 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

IMPULSE_SHARE = 0.05
GAUSSIAN = {"sigma 10": 10.0, "sigma 25": 25.0, "sigma 50": 50.0}
IMPULSE = "impulse 5 %"
KINDS = (*GAUSSIAN, IMPULSE)


def gaussian(images: Tensor, sigma: float, seed: int) -> Tensor:
    """White noise of standard deviation ``sigma`` of 255 grey levels on each channel."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return stored(images + sigma / 255 * noise)


def impulse(images: Tensor, share: float, seed: int) -> Tensor:
    """Replace a share of the values by 0 or 1, as likely one as the other, each channel for itself."""
    generator = torch.Generator().manual_seed(seed)
    hit = torch.rand(images.shape, generator=generator) < share
    return torch.where(hit, torch.randint(0, 2, images.shape, generator=generator).to(images), images)


def spoilt(images: Tensor, kind: str, seed: int) -> Tensor:
    """Images with one of KINDS."""
    return impulse(images, IMPULSE_SHARE, seed) if kind == IMPULSE else gaussian(images, GAUSSIAN[kind], seed)


def stored(images: Tensor) -> Tensor:
    """Clip and round to 8 bits."""
    return (images.clamp(0, 1) * 255).round() / 255
