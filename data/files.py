"""Images that stay on disk: for sets beyond memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..configs.errors import InputError
from .pictures import fitted, read_picture

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jxl",
        ".pbm",
    }
    | {".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""Suffixes of pictures; one that this Pillow cannot read is an error, not passed over."""
LITTER = frozenset({"__MACOSX", "__pycache__", "@eaDir"})
THREADS = min(8, os.cpu_count() or 1)


class FileImages:
    """Stands for a uint8 array (N, H, W, 3) whose images are read, scaled and cut out when they are asked for.

    An image is scaled (bicubic) until its shorter side fits and cut out of the middle.

    Args:
        files: Paths of the images.
        size: H and W in pixels.

    Attributes:
        files: Paths of the images, in order.
        shape: (N, H, W, 3).
        dtype: uint8.
        ndim: 4.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Sequence[str], size: tuple[int, int]) -> None:
        self.files = list(files)
        self.shape = (len(self.files), *size, 3)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """Read one image, (H, W, 3), or several, (n, H, W, 3), these with a few threads.

        Raises:
            InputError: If a file cannot be read as an image.
        """
        if isinstance(index, int | np.integer):
            return self._read(int(index))
        positions = np.arange(len(self))[index]
        with ThreadPoolExecutor(THREADS) as threads:
            read = list(threads.map(self._read, positions.tolist()))
        return np.stack(read) if read else np.empty((0, *self.shape[1:]), np.uint8)

    def take(self, positions: np.ndarray) -> FileImages:
        """Return the images at these positions, without reading them."""
        return FileImages([self.files[position] for position in positions.tolist()], self.shape[1:3])

    def whole(self, positions: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Read several images in full and at their own size, each (h, w, 3).

        Raises:
            InputError: If a file cannot be read as an image.
        """
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(read_image, [self.files[position] for position in positions]))

    def identity(self) -> bytes:
        """Return what identifies this choice of images: names of files and folders, and their lengths."""
        names = ("/".join(Path(file).parts[-2:]) for file in self.files)
        return repr(
            [(name, os.path.getsize(file)) for name, file in zip(names, self.files, strict=True)]
        ).encode()

    def _read(self, position: int) -> np.ndarray:
        height, width = self.shape[1:3]
        return read_image(self.files[position], (height, width))


def read_image(file: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as uint8 RGB, (H, W, 3); see :func:`~warplca.data.pictures.read_picture`.

    Args:
        file: Path of the image.
        size: Height and width to which it is scaled and cut; None keeps its own.

    Raises:
        InputError: If it cannot be read.
    """
    pixels = read_picture(file).rgb()
    return pixels if size is None else fitted(pixels, size)


def class_folders(folder: Path) -> list[Path]:
    """Return the folders of classes in a split's folder, in the order of their names as torchvision sorts them."""
    if not folder.is_dir():
        return []
    return sorted((entry for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry)), key=str)


def is_hidden(entry: Path) -> bool:
    """Tell whether a file or folder is another program's litter, as ``.ipynb_checkpoints`` is."""
    return entry.name.startswith(".") or entry.name in LITTER


def list_images(folder: Path) -> list[str]:
    """Return the picture files in a class's folder and in folders inside it, in torchvision's order.

    Files of other kinds are passed over with a warning.

    Raises:
        InputError: If a folder cannot be read.
    """
    found, others, waiting, known = [], [], [folder], set[str]()
    while waiting:
        here = waiting.pop()
        place = os.path.realpath(here)
        if place in known:  # a link that leads back
            continue
        known.add(place)
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise InputError(f"{here} cannot be read: {error.strerror}.") from error
        for entry in entries:
            if is_hidden(entry):
                continue
            if entry.is_dir():
                waiting.append(entry)
            else:
                (found if entry.suffix.lower() in IMAGE_SUFFIXES else others).append(str(entry))
    if others:
        logger.warning(
            "passed over %d files in %s that are no pictures, e.g. %s", len(others), folder, others[0]
        )
    return sorted(found, key=os.path.split)
