"""Elastic transform: a random affine map, then a smooth random displacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

Streams = Sequence[np.random.RandomState]


def elastic_transform(
    images: np.ndarray, streams: Streams, amplitude: float, sigma: float, jitter: float
) -> np.ndarray:
    """Move three points by up to ``jitter`` pixels, then displace all by smoothed noise.

    Args:
        amplitude: Factor on the smoothed displacement, in pixels.
        sigma: Its smoothness in pixels.
        jitter: How far each of the three points of the affine map moves at most, per axis.
    """
    height, width = images.shape[1:3]
    shifts = np.stack([stream.uniform(-jitter, jitter, (3, 2)) for stream in streams])
    noise = np.stack([stream.uniform(-1, 1, (2, height, width)) for stream in streams])
    displacement = (
        ndimage.gaussian_filter(noise, (0, 0, sigma, sigma), mode="reflect", truncate=3) * amplitude
    )
    rows, columns = affine_positions(height, width, shifts)
    warped = sample(images / 255.0, rows, columns, "mirror")
    rows, columns = np.mgrid[:height, :width]
    warped = sample(warped, rows + displacement[:, 1], columns + displacement[:, 0], "reflect")
    return np.clip(warped, 0, 1) * 255


def affine_positions(height: int, width: int, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of a map that moves three points by ``shifts`` comes from.

    The points lie a third of the shorter side right of, above and left of the centre.

    Args:
        shifts: (N, 3, 2) in pixels, (x, y).

    Returns:
        Rows and columns, each (N, height, width).
    """
    centre = np.array([width // 2, height // 2])
    third = min(height, width) // 3
    points = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = np.concatenate([points + shifts, np.ones((len(shifts), 3, 1))], axis=2)
    back = np.linalg.solve(moved, np.broadcast_to(points.astype(float), shifts.shape))
    y, x = np.mgrid[:height, :width]
    columns, rows = (
        back[:, 0, axis, None, None] * x + back[:, 1, axis, None, None] * y + back[:, 2, axis, None, None]
        for axis in (0, 1)
    )
    return rows, columns


def sample(
    images: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: Literal["mirror", "reflect"]
) -> np.ndarray:
    """Read images (N, H, W, C) at fractional positions (N, H, W) by linear interpolation.

    Args:
        border: ``"mirror"`` continues ``a b c`` as ``a b c b a``, ``"reflect"`` as ``a b c c b a``.
    """
    count, height, width, channels = images.shape
    flat = images.reshape(-1, channels)
    first = np.arange(count)[:, None, None] * (height * width)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    near_row, far_row = (_fold(top + step, height, border) * width + first for step in (0, 1))
    near_column, far_column = (_fold(left + step, width, border) for step in (0, 1))
    upper = (1 - right) * flat[near_row + near_column] + right * flat[near_row + far_column]
    lower = (1 - right) * flat[far_row + near_column] + right * flat[far_row + far_column]
    return (1 - down) * upper + down * lower


def _fold(index: np.ndarray, length: int, border: Literal["mirror", "reflect"]) -> np.ndarray:
    """Bring positions outside 0 .. length - 1 back inside."""
    if border == "mirror":
        period, last = max(1, 2 * length - 2), 0
    else:
        period, last = 2 * length, 1
    index = index % period
    return np.minimum(index, period - last - index)
