"""Blurs: Gaussian, defocus, frosted glass, motion and zoom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

Streams = Sequence[np.random.RandomState]


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
    half = max(8, math.ceil(radius))
    squares = np.arange(-half, half + 1) ** 2
    disc = (squares[:, None] + squares <= radius**2).astype(np.float32)
    disc /= disc.sum()
    taps = 1 if radius <= 8 else 2
    weights = np.exp(-(np.arange(taps + 1) ** 2) / (2 * sigma**2))
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    for _ in ("rows", "columns"):
        padded = np.pad(disc, ((0, 0), (taps, taps)), mode="reflect")
        smooth = weights[0] * disc
        for distance in range(1, taps + 1):
            left = padded[:, taps - distance : padded.shape[1] - taps - distance]
            right = padded[:, taps + distance : padded.shape[1] - taps + distance]
            smooth += weights[distance] * (left + right)
        disc = smooth.T
    return disc


def glass_blur(images: np.ndarray, streams: Streams, sigma: float, reach: int, rounds: int) -> np.ndarray:
    """Blur, replace every pixel by a near neighbour's in turn, and blur again."""
    height, width = images.shape[1:3]
    shape = (max(0, height - 2 * reach), max(0, width - 2 * reach), 2)
    pixels = gaussian_blur(images, sigma).astype(np.uint8)
    for _ in range(rounds):
        drawn = np.stack([stream.randint(-reach, reach, shape) for stream in streams])
        steps = drawn[:, ::-1, ::-1]  # drawn in the order of the visits, which is backwards
        origins = shuffled_origins(height, width, reach, steps)
        flat = pixels.reshape(len(pixels), -1, 3)
        pixels = np.take_along_axis(flat, origins[:, :, None], axis=1).reshape(images.shape)
    return gaussian_blur(pixels, sigma)


def shuffled_origins(height: int, width: int, reach: int, steps: np.ndarray) -> np.ndarray:
    """Say where each pixel's value comes from after one round of glass blur.

    The round visits the pixels from the last to the first in reading order, leaving out the first
    ``reach + 1`` and last ``reach - 1`` rows and columns, and overwrites each by the pixel ``(dx, dy)``
    away. (The official generator swaps two numpy views, which copies; the files show that.)
    A pixel that took its value from one visited before it has that one's new value, so origins
    are followed to their end instead of looping over pixels.

    Args:
        steps: int, (N, height - 2 reach, width - 2 reach, 2): the ``(dx, dy)`` of the visited pixels.

    Returns:
        int, (N, height * width): flat positions in the image before the round.
    """
    count = len(steps)
    home = np.arange(height * width)
    visited = np.zeros((height, width), dtype=bool)
    visited[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    visited = visited.ravel()
    source = np.tile(home, (count, 1))
    source[:, visited] += (steps[..., 1] * width + steps[..., 0]).reshape(count, -1)
    follow = np.where((source > home) & visited[source], source, home)
    while True:
        further = np.take_along_axis(follow, follow, axis=1)
        if np.array_equal(further, follow):
            return np.take_along_axis(source, follow, axis=1)
        follow = further


def motion_blur(images: np.ndarray, streams: Streams, radius: float, sigma: float) -> np.ndarray:
    """Smear along a random direction within 45 degrees of the horizontal."""
    angles = [stream.uniform(-45, 45) for stream in streams]
    return smear(images, angles, radius, sigma)


def smear(layers: np.ndarray, angles: Sequence[float], radius: float, sigma: float) -> np.ndarray:
    """Average uint8 layers (N, H, W, C) along one direction, as ImageMagick 6 (Q16) does.

    One-sided Gaussian weights over ``2 ceil(radius) + 1`` steps of one pixel, edges repeated, the
    sum rounded to 16 bits and then truncated to 8.

    Args:
        angles: Direction of each layer's smear in degrees.
    """
    height, width = layers.shape[1:3]
    reach = 2 * math.ceil(radius)
    steps = np.arange(reach + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(layers, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge").astype(np.float64)
    blurred = np.zeros(layers.shape)
    for layer, result, angle in zip(padded, blurred, np.deg2rad(angles), strict=True):
        columns = reach + np.ceil(steps * np.cos(angle) - 0.5).astype(int)
        rows = reach + np.ceil(steps * np.sin(angle) - 0.5).astype(int)
        for weight, row, column in zip(weights, rows, columns, strict=True):
            result += weight * layer[row : row + height, column : column + width]
    return (np.floor(257 * blurred + 0.5) // 257).astype(np.uint8)


def zoom_blur(images: np.ndarray, stop: float, step: float) -> np.ndarray:
    """Average the image with enlarged copies of itself, by factors 1, 1 + step, ... below ``stop``."""
    pixels = np.ascontiguousarray((images / 255.0).astype(np.float32).transpose(1, 2, 0, 3))
    layers = pixels.astype(np.float64)
    factors = np.arange(1, stop, step)
    total = np.zeros_like(pixels)
    for factor in factors:
        # Summed in single precision, as the official files are.
        total += clipped_zoom(layers, float(factor)).astype(np.float32)
    blurred = np.clip((pixels + total) / (len(factors) + 1), 0, 1) * 255
    return blurred.transpose(2, 0, 1, 3)


def clipped_zoom(layers: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the middle of each layer, shape (H, W, ...), linearly by ``factor``, keeping H and W."""
    height, width = layers.shape[:2]
    flat = layers.reshape(height, -1)
    rows = (zoom_matrix(height, factor) @ flat).reshape(height, width, -1)
    return (zoom_matrix(width, factor) @ rows).reshape(layers.shape)


@lru_cache(maxsize=128)
def zoom_matrix(length: int, factor: float) -> np.ndarray:
    """Return the matrix (length, length) that crops, enlarges linearly and trims along one axis."""
    crop = math.ceil(length / factor)
    start = (length - crop) // 2
    zoomed = np.asarray(ndimage.zoom(np.eye(crop), (factor, 1), order=1))
    trim = (len(zoomed) - length) // 2
    matrix = np.zeros((length, length))
    matrix[:, start : start + crop] = zoomed[trim : trim + length]
    return matrix
