"""The embedded CIFAR-10 subset: one file with a lossless WebP sheet of images for each split.

WebP's lossless mode needs 8.5 MB where PNG needs 10.8 MB, and decodes in a fifth of a second.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..configs.atomic import file_written_whole
from ..configs.errors import InputError
from ..configs.integrity import sha256
from .dataset import ImageDataset

SUBSET_NAME = "cifar10-subset"
SUBSET_FILE = Path(__file__).parent / "assets" / "cifar10_subset.npz"
SUBSET_SHA256 = "23c5d127c5ba7f4066328082a1fd3a02f0a46832ea3ec88b00732c8859ff5245"
COLUMNS = 50


def read_subset(split: str) -> ImageDataset:
    """Read one split of the embedded subset; its ``indices`` are positions in the full CIFAR-10.

    Raises:
        InputError: the file is missing or altered, or this Pillow cannot read WebP.
    """
    try:
        content = SUBSET_FILE.read_bytes()
    except OSError as error:
        raise InputError(
            f"the embedded data set {SUBSET_FILE} cannot be read ({error.strerror}); reinstall warplca."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != SUBSET_SHA256:
        raise InputError(
            f"the embedded data set {SUBSET_FILE} was altered: sha256 {found[:16]}..., "
            f"expected {SUBSET_SHA256[:16]}...; reinstall warplca."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        labels, indices = file[f"{split}_labels"], file[f"{split}_indices"]
        sheet, class_names = file[f"{split}_webp"], tuple(file["class_names"])
    try:
        pixels = np.asarray(Image.open(io.BytesIO(sheet.tobytes())).convert("RGB"))
    except UnidentifiedImageError as error:
        raise InputError(
            "this build of Pillow cannot read WebP, in which the embedded data set is stored; "
            "install Pillow from its official wheels."
        ) from error
    return ImageDataset(f"{SUBSET_NAME}-{split}", _cut(pixels, len(labels)), labels, class_names, indices)


def write_subset(path: Path, train: ImageDataset, test: ImageDataset) -> str:
    """Write both splits losslessly to one file, atomically.

    Returns:
        The file's SHA-256, to be put into ``SUBSET_SHA256``.
    """
    arrays: dict[str, np.ndarray] = {"class_names": np.array(train.class_names)}
    for split, dataset in (("train", train), ("test", test)):
        stream = io.BytesIO()
        Image.fromarray(_tile(dataset.images[:])).save(stream, "WEBP", lossless=True, quality=75, method=4)
        arrays[f"{split}_webp"] = np.frombuffer(stream.getvalue(), dtype=np.uint8)
        arrays[f"{split}_labels"] = dataset.labels.astype(np.uint8)
        arrays[f"{split}_indices"] = dataset.indices.astype(np.uint16)
    with file_written_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return sha256(path)


def _tile(images: np.ndarray) -> np.ndarray:
    """Lay (N, H, W, 3) out as one sheet with 50 images a row, the last row filled up with black."""
    count, height, width, channels = images.shape
    rows = -(-count // COLUMNS)
    filled = np.zeros((rows * COLUMNS, height, width, channels), dtype=np.uint8)
    filled[:count] = images
    grid = filled.reshape(rows, COLUMNS, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, COLUMNS * width, channels)


def _cut(sheet: np.ndarray, count: int) -> np.ndarray:
    """Undo ``_tile`` for images of 32 x 32 pixels."""
    rows = sheet.shape[0] // 32
    grid = sheet.reshape(rows, 32, COLUMNS, 32, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(-1, 32, 32, 3)[:count])
