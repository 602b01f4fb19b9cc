"""What WARP-LCA's denoising is compared with: each maps noisy images (N, 3, H, W) to denoised ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from noises import GAUSSIAN
from safetensors.torch import load_model
from scipy.ndimage import median_filter
from torch import Tensor, nn
from tqdm import tqdm

TV_WEIGHTS = (0.02, 0.04, 0.06, 0.09, 0.13, 0.2, 0.3, 0.45)


def each(
    images: Tensor, name: str, denoise: Callable[[np.ndarray], np.ndarray], *, quiet: bool = False
) -> Tensor:
    """Apply a function of one (H, W, 3) array to every image; ``quiet`` shows no bar."""
    arrays = images.permute(0, 2, 3, 1).numpy()
    found = [
        np.asarray(denoise(array)) for array in tqdm(arrays, desc=name, disable=quiet, dynamic_ncols=True)
    ]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()


def wavelet(images: Tensor, kind: str, *, known: bool) -> Tensor:
    """scikit-image's wavelet shrinkage (BayesShrink, in YCbCr), with the noise known or estimated by it."""
    from skimage.restoration import denoise_wavelet

    sigma = GAUSSIAN[kind] / 255 if known else None
    options = {"sigma": sigma, "channel_axis": -1, "convert2ycbcr": True, "rescale_sigma": True}
    return each(images, "wavelet", lambda image: denoise_wavelet(image, **options))


def total_variation(images: Tensor, weight: float) -> Tensor:
    """scikit-image's total variation (Chambolle)."""
    from skimage.restoration import denoise_tv_chambolle

    return each(images, "total variation", lambda image: denoise_tv_chambolle(image, weight, channel_axis=-1))


def bm3d(images: Tensor, kind: str) -> Tensor:
    """BM3D for colour with the noise known, by its authors' package."""
    from bm3d import bm3d_rgb  # pyright: ignore[reportMissingImports]

    return each(images, "BM3D", lambda image: bm3d_rgb(image, GAUSSIAN[kind] / 255))


def median(images: Tensor) -> Tensor:
    """Median of 3 x 3 pixels."""
    return each(images, "median", lambda image: median_filter(image, (3, 3, 1)))


def installed(module: str, name: str) -> bool:
    """Tell whether an optional package is there, and the user if it is not."""
    there = importlib.util.find_spec(module) is not None
    if not there:
        print(f"{name} is left out: {module} is not installed.")
    return there


class Residual(nn.Module):
    """A residual convolutional denoiser: DnCNN without batch norm (Zhang et al., IEEE TIP 2017).

    Args:
        width: Channels inside.
        depth: Number of 3 x 3 convolutions.
        fold: Side of the blocks of pixels that become channels, as in FFDNet (Zhang et al., IEEE TIP 2018).
    """

    def __init__(self, width: int, depth: int, fold: int = 1) -> None:
        super().__init__()
        channels, self.fold = 3 * fold**2, fold
        widths = [channels, *[width] * (depth - 1), channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))

    def forward(self, images: Tensor) -> Tensor:
        """Restore images (N, 3, H, W) of even sides."""
        x = F.pixel_unshuffle(images, self.fold)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return images - F.pixel_shuffle(self.layers[-1](x), self.fold)


CONVOLUTIONS: dict[str, Callable[[], Residual]] = {
    "equal weights": lambda: Residual(66, 6),
    "equal multiply-adds": lambda: Residual(84, 6, fold=2),
}
"""Residual networks of as many weights, or as many multiply-adds, as the restoring WARP-LCA."""


def trained_convolutions(folder: Path) -> dict[str, Residual]:
    """The networks that long_denoisers.py wrote into a folder, by name and steps."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        name = path.stem.split(", ")[0]
        found[f"convolutions, {path.stem}"] = CONVOLUTIONS[name]().eval()
        load_model(found[f"convolutions, {path.stem}"], path)
    return found
