"""AugMix's operations on whole batches (Hendrycks et al., ICLR 2020): each image with parameters of its own.

The paper's list, without what CIFAR-10-C contains (contrast, colour, brightness, sharpness), in the strengths of its
appendix; pixels are rounded to 8 bits after each operation, as by PIL.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs.device import sent
from .sampling import Draws

LEVELS = 10.0
"""The severity at which an operation may be as strong as it gets."""
LARGEST_ANGLE, LARGEST_SHEAR, LARGEST_SHIFT = 30.0, 0.3, 1.0 / 3.0
"""Degrees, slope, and share of the image's side."""
AFFINE = ("rotate", "shear x", "shear y", "translate x", "translate y")


def operations(severity: int) -> tuple:
    """Return the nine operations, the affine ones as one, with their frequencies."""
    return (
        (len(AFFINE), partial(moved, severity=severity)),
        (1, lambda images, draws: stretched(images)),
        (1, lambda images, draws: equalised(images)),
        (1, partial(_posterised, severity=severity)),
        (1, partial(_solarised, severity=severity)),
    )


def strength(uniform: Tensor, severity: int) -> Tensor:
    """Return the share of an operation's range, uniform from 0.01 to ``severity`` / 10."""
    return (0.1 + (severity - 0.1) * uniform) / LEVELS


def moved(images: Tensor, draws: Draws, *, severity: int) -> Tensor:
    """Rotate, shear or shift each image, whatever it draws; to either side alike."""
    kind, uniform, side = draws.uniform(3).unbind(dim=1)
    share = strength(uniform, severity)
    height, width = images.shape[2:]
    kind = (kind * len(AFFINE)).long()
    whole = torch.stack(
        [
            (LARGEST_ANGLE * share).floor(),
            LARGEST_SHEAR * share,
            LARGEST_SHEAR * share,
            (LARGEST_SHIFT * width * share).floor(),
            (LARGEST_SHIFT * height * share).floor(),
        ]
    )
    amount = whole.gather(0, kind[None])[0]
    return warped(images, kind, torch.where(side < 0.5, amount, -amount))


def warped(images: Tensor, kind: Tensor, amount: Tensor) -> Tensor:
    """Apply affine operations; bilinear, black beyond the border.

    Args:
        images: (N, C, H, W), uint8.
        kind: (N,), positions in ``AFFINE``, on the host.
        amount: (N,), degrees counter-clockwise, slopes or pixels, on the host: a pixel at (x, y) of the result is the
            image's at (x + slope * y, y), or at (x + pixels, y).
    """
    height, width = images.shape[2:]
    turn, shear_x, shear_y, shift_x, shift_y = (
        amount * (kind == position) for position in range(len(AFFINE))
    )
    turn = turn * (math.pi / 180.0)
    # From a place in the result to one in the image: x' = a x + b y + c, each from -1 to 1 over its side.
    matrices = torch.stack(
        [
            turn.cos(),
            (shear_x - turn.sin()) * (height / width),
            shear_x * (height / width) + shift_x * (2.0 / width),
            (shear_y + turn.sin()) * (width / height),
            turn.cos(),
            shear_y * (width / height) + shift_y * (2.0 / height),
        ]
    )
    a, b, c, d, e, f = sent(matrices, images.device)[:, :, None, None]
    x, y = (torch.arange(1 - side, side, 2, device=images.device) / side for side in (width, height))
    grid = torch.stack([a * x + (b * y[:, None] + c), d * x + (e * y[:, None] + f)], dim=3)
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)
    return sampled.round_().to(torch.uint8)


def stretched(images: Tensor) -> Tensor:
    """Stretch each channel of each image to the whole range (autocontrast); a flat one stays."""
    levels = images.float()
    low, high = levels.amin(dim=(2, 3), keepdim=True), levels.amax(dim=(2, 3), keepdim=True)
    # torchvision's assigns through a mask.
    return torch.where(high > low, (levels - low) * 255.0 / (high - low), levels).to(torch.uint8)


def equalised(images: Tensor) -> Tensor:
    """Give each channel of each image a flat histogram, by torchvision."""
    from torchvision.transforms.v2.functional import equalize_image

    return equalize_image(images)


def _posterised(images: Tensor, draws: Draws, *, severity: int) -> Tensor:
    return posterised(images, 4 - (4.0 * strength(draws.uniform(), severity)).long())


def posterised(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits (N,), on the host, of each pixel."""
    masks = (256 - 2 ** (8 - bits)).to(torch.uint8)
    return images & sent(masks, images.device)[:, None, None, None]


def _solarised(images: Tensor, draws: Draws, *, severity: int) -> Tensor:
    return solarised(images, 256 - (256.0 * strength(draws.uniform(), severity)).long())


def solarised(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the pixels that reach a threshold (N,), on the host, from 0 to 256."""
    limits = sent(thresholds.to(torch.int16), images.device)[:, None, None, None]
    return torch.where(images >= limits, 255 - images, images)
