"""Photographs of at least 256 x 256 pixels that come with scikit-image's wheel: nothing is downloaded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee")
TEXTURES = ("brick", "grass", "gravel", "page", "text", "coins", "moon", "hubble_deep_field", "ihc")
SIDE = 256


def photographs(names: tuple[str, ...] = PHOTOGRAPHS, side: int = SIDE) -> Tensor:
    """The middle of each image, (N, 3, side, side), pixels in [0, 1]; smaller sides are mirrored.

    Raises:
        ImportError: If scikit-image is not installed.
    """
    import skimage.io
    from skimage.data import data_dir

    found = []
    for name in names:
        suffix = "jpg" if name in ("rocket", "hubble_deep_field") else "png"
        pixels = np.atleast_3d(skimage.io.imread(f"{data_dir}/{name}.{suffix}"))[..., :3]
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        short = [max(side - length, 0) for length in pixels.shape[:2]]
        pixels = np.pad(pixels, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        found.append(torch.from_numpy(pixels[top : top + side, left : left + side].copy()))
    return torch.stack(found).permute(0, 3, 1, 2).float() / 255
