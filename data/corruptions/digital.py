"""Digital corruptions: elastic transform, JPEG compression and large pixels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

Streams = Sequence[np.random.RandomState]


def elastic_transform(
    images: np.ndarray, streams: Streams, amplitude: float, sigma: float, jitter: float
) -> np.ndarray:
    """Move three points by up to ``jitter`` pixels, then displace all by smoothed noise.

    Args:
        amplitude: Factor on the smoothed displacement, in pixels.
        sigma: Smoothness of the displacement in pixels.
        jitter: Largest move of each of the three points of the affine map, per axis.
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


LIBJPEG_VERSION = "9b"

MAX_JPEG_SIDE = 65500


def jpeg_compression(images: np.ndarray, quality: float) -> np.ndarray:
    """Save as JPEG of this quality and read back.

    With the optional ``jpeglib`` the codec is libjpeg 9b, which made the official files; without
    it Pillow's, whose pixels differ by about one grey level on average, and a warning says so.
    """
    if has_official_jpeg():
        return _libjpeg(images, int(quality))
    warnings.warn(
        "jpeg_compression uses Pillow's codec: close to the official CIFAR-10-C images but not equal to "
        "them. Install jpeglib (pip install 'warplca[corruptions]') for the official ones.",
        stacklevel=2,
    )
    return np.stack([_pillow(image, int(quality)) for image in images])


def has_official_jpeg() -> bool:
    """Whether ``jpeglib``, and with it the codec of the official files, is installed."""
    try:
        import jpeglib  # noqa: F401
    except ImportError:
        return False
    return True


def pixelate(images: np.ndarray, factor: float) -> np.ndarray:
    """Shrink to ``factor`` of the size by averaging, then enlarge again."""
    height, width = images.shape[1:3]
    small = (max(1, int(width * factor)), max(1, int(height * factor)))
    return np.stack(
        [
            np.asarray(
                Image.fromarray(image)
                .resize(small, Image.Resampling.BOX)
                .resize((width, height), Image.Resampling.BOX)
            )
            for image in images
        ]
    )


def _pillow(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def _libjpeg(images: np.ndarray, quality: int) -> np.ndarray:
    import jpeglib

    # libjpeg 9 treats every block of 16 x 16 pixels on its own, so images whose height is a multiple
    # of 16 keep their pixels when they are stacked into one tall sheet; a file for each is 50 times slower.
    height = images.shape[1]
    stacked = MAX_JPEG_SIDE // height if height % 16 == 0 else 1
    decoded = np.empty_like(images)
    with TemporaryDirectory() as folder, jpeglib.version(LIBJPEG_VERSION):
        path = str(Path(folder) / "sheet.jpeg")
        for start in range(0, len(images), stacked):
            part = images[start : start + stacked]
            jpeglib.from_spatial(np.concatenate(part)).write_spatial(
                path, qt=quality, flags=["+FORCE_BASELINE"]
            )
            decoded[start : start + stacked] = np.asarray(jpeglib.read_spatial(path).spatial).reshape(
                part.shape
            )
    return decoded
