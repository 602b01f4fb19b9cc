"""Per-image standardisation, shared by every arm of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..configs.errors import InputError

STD_FLOOR = 0.01  # pixels: about three grey levels, below any natural image's contrast


@dataclass(frozen=True)
class Standardised:
    """Images of zero mean and unit variance, with what is needed to map them back.

    Attributes:
        images: (N, C, H, W).
        mean: (N, 1, 1, 1) mean pixel, jointly over C, H, W.
        std: (N, 1, 1, 1) standard deviation, not below the floor.
    """

    images: Tensor
    mean: Tensor
    std: Tensor

    def restore(self, images: Tensor) -> Tensor:
        """Map standardised images back to pixel range."""
        return images * self.std + self.mean


def standardise(images: Tensor) -> Standardised:
    """Bring each image to zero mean and unit variance, jointly over C, H, W.

    The standard deviation has a floor of 0.01, so a constant image becomes zero and no division by zero.

    Args:
        images: (N, C, H, W), pixels in [0, 1].
    """
    mean = _mean(images)
    centred = images - mean
    # The square root's slope is infinite at zero: clamp the variance, not its root.
    std = _mean(centred.square()).clamp_min(STD_FLOOR**2).sqrt()
    return Standardised(centred / std, mean, std)


def _mean(images: Tensor) -> Tensor:
    """Mean of each image, (N, 1, 1, 1), in stages: runtimes that add up naively (ONNX) are 20 times as exact so."""
    return images.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True).mean(dim=1, keepdim=True)


def check_finite(images: Tensor) -> None:
    """Refuse NaN and infinite pixels, except while compiling or exporting (no data are looked at there).

    Raises:
        InputError: If a pixel is NaN or infinite.
    """
    if torch.compiler.is_compiling():
        return
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        first = int(torch.nonzero(~finite)[0])
        raise InputError(
            f"image {first} of the batch holds NaN or infinite pixels; expected values in [0, 1]."
        )
