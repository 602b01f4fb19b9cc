"""PRIME's three random primitives on whole batches: filters, colour curves and diffeomorphisms.

Modas et al., ECCV 2022: transformations of maximal entropy among those of a given smoothness and strength, with the
strengths that the paper took for CIFAR-10. Each image draws its own smoothness and strength.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs.device import sent
from .sampling import Draws

KERNEL_SIZE, LARGEST_FILTER = 3, 4.0
"""Side of a random filter, and the largest standard deviation of its entries."""
HIGHEST = 100
"""The highest frequency of a colour curve and of a displacement."""
LARGEST_CURVE = 0.01
"""The largest variance of a colour curve's coefficients."""
STEPS = 2 * 255
"""A colour curve is computed at 0, 1 / STEPS, ..., 1, so at every 8-bit value; between, it is linear."""


def operations() -> tuple:
    """Return the three primitives, equally frequent."""
    return ((1, _filtered), (1, _recoloured), (1, _deformed))


def _filtered(images: Tensor, draws: Draws) -> Tensor:
    spread = sent(LARGEST_FILTER * draws.uniform(), images.device)
    return filtered(images, spread[:, None, None] * draws.normal(KERNEL_SIZE, KERNEL_SIZE))


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Add to each image its convolution with a kernel: the frequency response is 1 plus the kernel's.

    Args:
        images: (N, C, H, W) in [0, 1].
        kernels: (N, k, k), k odd, the same for all channels; beyond the border the image is black.
    """
    size = kernels.shape[1]
    height, width = images.shape[2:]
    padded = F.pad(images, [size // 2] * 4)
    result = images.clone()
    for row in range(size):
        for column in range(size):
            part = padded[:, :, row : row + height, column : column + width]
            result.addcmul_(part, kernels[:, row, column, None, None, None])
    return result.clamp_(0.0, 1.0)


def _recoloured(images: Tensor, draws: Draws) -> Tensor:
    smoothness, strength = draws.uniform(2).unbind(dim=1)
    highest = 1 + (HIGHEST * smoothness).long()
    spread = (LARGEST_CURVE * strength).sqrt()[:, None] * (torch.arange(HIGHEST) < highest[:, None])
    return recoloured(images, sent(spread, images.device)[:, None] * draws.normal(images.shape[1], HIGHEST))


def recoloured(images: Tensor, coefficients: Tensor) -> Tensor:
    """Send each pixel value v through the curve v + sum over k of coefficient k times sin(pi k v), clipped.

    Args:
        images: (N, C, H, W) in [0, 1].
        coefficients: (N, C, K), k from 1 to K, a curve for each channel.
    """
    # Image by image, and a number of columns that keeps rows aligned: the same bits in a batch of any size.
    waves = sines(STEPS + 1, coefficients.shape[2], images.device, columns=STEPS + 2)
    curves = coefficients.bmm(waves.expand(len(images), -1, -1))
    places = images.flatten(2) * STEPS
    below = places.floor().clamp_(max=STEPS - 1)
    index = below.long()
    low, high = curves.gather(2, index), curves.gather(2, index + 1)
    change = torch.lerp(low, high, places - below)
    return (images + change.view_as(images)).clamp_(0.0, 1.0)


def _deformed(images: Tensor, draws: Draws) -> Tensor:
    limit, smoothness, strength = draws.uniform(3).unbind(dim=1)
    # The limit is uniform from 3 to the highest frequency; the others have the arcsine distribution, Beta(1/2, 1/2).
    most = 3 + ((HIGHEST - 2) * limit).floor()
    arcsine = (math.pi / 2.0 * smoothness).sin().square()
    highest = (2 + (most - 1) * arcsine).floor().clamp_(max=most)
    mildest, strongest = temperatures(highest, max(images.shape[2:]))
    temperature = mildest + (math.pi / 2.0 * strength).sin().square() * (strongest - mildest)
    table = amplitudes(*images.shape[2:], images.device)
    chosen = table[sent(highest.long() - 2, images.device)]
    scale = sent(temperature.sqrt(), images.device)[:, None, None, None]
    return deformed(images, scale * chosen[:, None] * draws.normal(2, *table.shape[1:]))


def temperatures(highest: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the variances of displacements between which PRIME draws, (N,) each.

    Petrini et al., NeurIPS 2021: the smaller moves the middle of an image by half a pixel, the larger is the largest at
    which a displacement typically stays one-to-one; where it is the smaller of the two, that is taken.

    Args:
        highest: Highest frequency, 2 or more.
        side: Pixels of the image.
    """
    log = highest.log()
    mildest = 1.0 / (math.pi * side**2 * log)
    return mildest, torch.maximum(mildest, 4.0 / (math.pi**3 * highest**2 * log))


def deformed(images: Tensor, coefficients: Tensor) -> Tensor:
    """Move each pixel by a smooth displacement that is zero on the border; bilinear.

    Args:
        images: (N, C, H, W) in [0, 1].
        coefficients: (N, 2, I, J) of sin(pi i y) sin(pi j x) with y and x from 0 to 1, in the displacement to the right
            and the one downwards, in sides of the image.
    """
    height, width = images.shape[2:]
    rows, columns = coefficients.shape[2:]
    along_y = sines(height, rows, images.device).T.expand(2 * len(images), -1, -1)
    along_x = sines(width, columns, images.device).expand(2 * len(images), -1, -1)
    fields = along_y.bmm(coefficients.flatten(0, 1)).bmm(along_x)
    x = torch.linspace(-1.0, 1.0, width, device=images.device)
    y = torch.linspace(-1.0, 1.0, height, device=images.device)
    right, down = fields.unflatten(0, (-1, 2)).unbind(dim=1)
    grid = torch.stack([x - right * _steps(width), y[:, None] - down * _steps(height)], dim=3)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _steps(points: int) -> float:
    """Return a side of so many pixels in units in which the first and the last are 2 apart."""
    return 2.0 * points / max(points - 1, 1)


@lru_cache(maxsize=16)
def sines(points: int, highest: int, device: torch.device, *, columns: int | None = None) -> Tensor:
    """Return sin(pi k v), (highest, points): k from 1, v from 0 to 1, or to beyond where more columns are asked for."""
    v = torch.arange(columns or points, dtype=torch.float64) / max(points - 1, 1)
    k = torch.arange(1, highest + 1, dtype=torch.float64)
    return sent((math.pi * k[:, None] * v).sin().float(), device)


@lru_cache(maxsize=4)
def amplitudes(height: int, width: int, device: torch.device) -> Tensor:
    """Return the standard deviations of a displacement's coefficients at unit temperature, (HIGHEST - 1, I, J).

    Entry n is for the highest frequency n + 2, in which those of (i, j) are 1 / sqrt(i^2 + j^2) up to there and zero
    beyond. On a grid of n points a sine faster than n - 2 coincides with a slower one, up to its sign: their variances
    are added, which is the same random field from fewer numbers.
    """
    k = torch.arange(1, HIGHEST + 1, dtype=torch.float64)
    radius = (k[:, None].square() + k.square()).sqrt()
    highest = torch.arange(2, HIGHEST + 1, dtype=torch.float64)[:, None, None]
    variances = torch.where(radius < highest + 0.5, radius**-2.0, 0.0)
    return sent((folding(height) @ variances @ folding(width).T).sqrt().float(), device)


def folding(points: int) -> Tensor:
    """Return which sine on a grid of points each of those up to ``HIGHEST`` is, (modes, HIGHEST) of 0 and 1."""
    period = 2 * max(points - 1, 1)
    rest = torch.arange(1, HIGHEST + 1) % period
    mirrored = torch.minimum(rest, period - rest)  # 0 and points - 1 vanish on the grid
    modes = torch.arange(1, min(HIGHEST, max(points - 2, 0)) + 1)
    return (mirrored == modes[:, None]).double()
