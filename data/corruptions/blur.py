"""Blurs: defocus, zoom and Gaussian."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import ndimage


def gaussian_blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian of standard deviation ``sigma`` pixels, edges repeated."""
    blurred = ndimage.gaussian_filter(images / 255.0, (0, sigma, sigma, 0), mode="nearest")
    return np.clip(blurred, 0, 1) * 255


def defocus_blur(images: np.ndarray, radius: float, sigma: float) -> np.ndarray:
    """Average over a disc of ``radius`` pixels whose rim is softened by ``sigma``, edges mirrored."""
    kernel = disc_kernel(radius, sigma)[None, :, :, None]
    blurred = ndimage.correlate(images / 255.0, kernel, mode="mirror")
    return np.clip(blurred, 0, 1) * 255


@lru_cache(maxsize=16)
def disc_kernel(radius: float, sigma: float) -> np.ndarray:
    """Return the defocus kernel, float32, summing to 1.

    It is computed in single precision and in OpenCV's order of additions: in double precision
    some of the official pixels come out one grey level off.
    """
    taps = 1 if radius <= 8 else 2
    half = math.ceil(radius) + taps
    squares = np.arange(-half, half + 1) ** 2
    disc = (squares[:, None] + squares <= radius**2).astype(np.float32)
    disc /= disc.sum()
    weights = np.exp(-(np.arange(taps + 1) ** 2) / (2 * sigma**2))
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    for axis in (1, 0):
        smooth = weights[0] * disc
        for distance in range(1, taps + 1):
            smooth += weights[distance] * (np.roll(disc, distance, axis) + np.roll(disc, -distance, axis))
        disc = smooth
    return disc


def zoom_blur(images: np.ndarray, stop: float, step: float) -> np.ndarray:
    """Average the image with enlarged copies of itself, by factors 1, 1 + step, ... below ``stop``."""
    pixels = (images / 255.0).astype(np.float32)
    factors = np.arange(1, stop, step)
    total = np.zeros_like(pixels)
    for factor in factors:
        total += clipped_zoom(pixels, float(factor))
    return np.clip((pixels + total) / (len(factors) + 1), 0, 1) * 255


def clipped_zoom(layers: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the middle of each layer (N, H, W, C) by linear interpolation, keeping H and W."""
    size = layers.shape[1:3]
    crop = [math.ceil(length / factor) for length in size]
    top, left = ((length - part) // 2 for length, part in zip(size, crop, strict=True))
    middle = layers[:, top : top + crop[0], left : left + crop[1]]
    zoomed = np.asarray(ndimage.zoom(middle, (1, factor, factor, 1), order=1))
    top, left = ((zoomed.shape[axis + 1] - size[axis]) // 2 for axis in (0, 1))
    return zoomed[:, top : top + size[0], left : left + size[1]]
