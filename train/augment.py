"""Augmentation, vectorised over the batch and seeded by the step, so that a resumed run sees the same images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_and_flip(images: Tensor, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Shift each image by up to ``padding`` pixels (reflected borders) and mirror half of them.

    Args:
        images: (N, C, H, W), on any device.
        generator: CPU generator that draws shifts and flips.
        padding: Largest shift in pixels; 0 for none.
        flip: Whether to mirror with probability one half.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if padding:
        shifts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator).to(device)
        images = F.pad(images, (padding, padding, padding, padding), mode="reflect")
        rows, columns = rows + shifts[0], columns + shifts[1]
    if flip:
        mirrored = torch.rand((count, 1), generator=generator).to(device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    index = torch.arange(count, device=device)[:, None, None]
    # advanced indices around a slice come first: (N, H, W, C)
    return images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
