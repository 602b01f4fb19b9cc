"""Arrays as pictures that a page can hold: PNG data addresses of photographs, maps, atoms and examples."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...configs.errors import InputError
from ...data import STANDARD_CORRUPTIONS, ImageDataset, corrupt

MAP_COLOURS = "viridis"

_LARGEST_SIDE = 256


@dataclass(frozen=True)
class Example:
    """A row of pictures in the report that belong to one image.

    Attributes:
        title: Title of the row.
        pictures: Captions with pictures: (H, W, 3) float RGB in [0, 1], or an (H, W) map of any range,
            which is drawn in false colours from its smallest to its largest value.
    """

    title: str
    pictures: Sequence[tuple[str, NDArray[np.floating]]]


def difference_picture(
    image: NDArray[np.floating], changed: NDArray[np.floating], *, gain: float = 10.0
) -> NDArray[np.floating]:
    """Difference of two (H, W, 3) images, multiplied by ``gain``, around mid-grey and clipped to [0, 1]."""
    return np.clip(0.5 + gain * (np.asarray(changed, dtype=float) - np.asarray(image, dtype=float)), 0.0, 1.0)


def picture_address(picture: NDArray[np.floating], where: str) -> str:
    """A picture as a ``data:image/png`` address.

    Args:
        picture: Pixels, as in `Example`.
        where: Name of the picture in an error.

    Raises:
        InputError: It has another shape, holds NaN, or an RGB value lies outside [0, 1].
    """
    array = np.asarray(picture, dtype=np.float64)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or array.size == 0:
        raise InputError(f"{where} has shape {array.shape}: expected (height, width, 3) or (height, width).")
    if not np.isfinite(array).all():
        raise InputError(f"{where} holds NaN or infinity: expected finite values.")
    if array.ndim == 2:
        return png_address(_false_colours(array))
    if array.min() < -1e-6 or array.max() > 1 + 1e-6:
        raise InputError(
            f"{where} ranges from {array.min():g} to {array.max():g}: expected RGB in [0, 1]; divide bytes by 255."
        )
    return png_address(array)


def atom_mosaic(atoms: NDArray[np.floating], *, columns: int | None = None) -> str:
    """Dictionary atoms as one picture, each scaled to its own range around mid-grey.

    Args:
        atoms: (M, C, k, k) with C of 1 or 3.
        columns: Atoms in a row; None chooses a wide rectangle.

    Returns:
        A ``data:image/png`` address; the gaps are transparent.

    Raises:
        InputError: The array has another shape or holds NaN.
    """
    array = np.asarray(atoms, dtype=np.float64)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise InputError(f"atoms of shape {array.shape}: expected (atoms, 1 or 3 channels, height, width).")
    if not np.isfinite(array).all():
        raise InputError("the atoms hold NaN or infinity: expected finite values.")
    count, _, height, width = array.shape
    across = columns or _columns(count)
    rows = math.ceil(count / across)
    canvas = np.zeros((rows * (height + 1) - 1, across * (width + 1) - 1, 4))
    largest = np.abs(array).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * array / np.where(largest > 0, largest, 1.0)
    for number, atom in enumerate(scaled):
        top, left = (number // across) * (height + 1), (number % across) * (width + 1)
        tile = canvas[top : top + height, left : left + width]
        tile[..., :3] = np.broadcast_to(atom.transpose(1, 2, 0), (height, width, 3))
        tile[..., 3] = 1.0
    return png_address(canvas)


def _columns(count: int) -> int:
    """Columns of a wide rectangle, without a ragged last row where that can be had."""
    side = math.sqrt(2 * count)
    even = [
        columns for columns in range(1, count + 1) if count % columns == 0 and side <= columns <= 2 * side
    ]
    return even[0] if even else math.ceil(side)


def png_address(pixels: NDArray[np.floating]) -> str:
    """(H, W, 3 or 4) values in [0, 1] as a ``data:image/png`` address."""
    image = Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    if max(image.size) > _LARGEST_SIDE * 4:
        image.thumbnail((_LARGEST_SIDE * 4, _LARGEST_SIDE * 4))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _false_colours(values: NDArray[np.floating]) -> NDArray[np.floating]:
    import matplotlib

    span = np.ptp(values)
    return matplotlib.colormaps[MAP_COLOURS]((values - values.min()) / (span if span > 0 else 1.0))[..., :3]


def corruption_example(
    dataset: ImageDataset,
    position: int,
    corruptions: Iterable[str] = STANDARD_CORRUPTIONS,
    *,
    severity: int = 5,
    seed: int = 0,
) -> Example:
    """One image, clean and under each corruption.

    Args:
        dataset: The data set of the image.
        position: Position of the image in the data set.
        corruptions: Names of corruptions.
        severity: 1 to 5.
        seed: Seed of random corruptions.
    """
    image, index = dataset.images[position : position + 1], dataset.indices[position : position + 1]
    pictures = [("clean", image[0] / 255.0)]
    for name in corruptions:
        changed = corrupt(image, name, severity=severity, seed=seed, indices=index)[0]
        pictures.append((name.replace("_", " "), changed / 255.0))
    label = dataset.class_names[int(dataset.labels[position])]
    return Example(
        f"{label.capitalize()} (image {index[0]}) under each corruption, severity {severity}", pictures
    )
