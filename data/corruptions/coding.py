"""Losses of coding: JPEG compression and large pixels."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

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
