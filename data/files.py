"""Images that stay on disk: for sets beyond memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..configs.errors import InputError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
THREADS = min(8, os.cpu_count() or 1)


class FileImages:
    """Stands for a uint8 array (N, H, W, 3) whose images are read, scaled and cut out when they are asked for.

    An image is scaled (bicubic) until its shorter side fits and cut out of the middle.

    Args:
        files: Paths of the images.
        size: H and W in pixels.

    Attributes:
        files: As given.
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
        """Return the images at these positions, still unread."""
        return FileImages([self.files[position] for position in positions.tolist()], self.shape[1:3])

    def whole(self, positions: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Read several images in full and at their own size, each (h, w, 3).

        Raises:
            InputError: If a file cannot be read as an image.
        """
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(read_image, [self.files[position] for position in positions]))

    def identity(self) -> bytes:
        """Return what tells this choice of images from another: names of files and folders, and their lengths."""
        names = ("/".join(Path(file).parts[-2:]) for file in self.files)
        return repr(
            [(name, os.path.getsize(file)) for name, file in zip(names, self.files, strict=True)]
        ).encode()

    def _read(self, position: int) -> np.ndarray:
        height, width = self.shape[1:3]
        return read_image(self.files[position], (width, height))


def read_image(file: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as uint8 RGB, (H, W, 3).

    Args:
        file: Its path.
        size: Width and height to which it is scaled and cut; None keeps its own.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with Image.open(file) as image:
            pixels = image.convert("RGB")
            return np.asarray(
                pixels if size is None else ImageOps.fit(pixels, size, Image.Resampling.BICUBIC)
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read as an image ({error}); replace or remove it.") from error


def find_files(folder: Path) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """Return the image files under a folder, their labels and the names of the classes, by timm's reader.

    Raises:
        InputError: If there is none.
    """
    from timm.data.readers.reader_factory import create_reader

    try:
        reader = create_reader("", str(folder), input_key=";".join(sorted(IMAGE_SUFFIXES)))
    except (RuntimeError, AssertionError, OSError) as error:
        raise InputError(f"{folder} holds no images; expected one folder of images a class.") from error
    files, labels = zip(*reader.samples, strict=True)  # type: ignore[attr-defined]
    numbers: dict[str, int] = reader.class_to_idx  # type: ignore[attr-defined]
    names = sorted(numbers)  # as of sets in memory; the reader sorts class10 behind class2
    order = {numbers[name]: place for place, name in enumerate(names)}
    return list(files), np.array([order[label] for label in labels]), tuple(names)
