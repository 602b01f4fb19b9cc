"""Photographs as files: what is denoised of them, and what is put back untouched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..configs.atomic import file_written_whole
from ..configs.errors import InputError
from ..data.pictures import read_picture

FORMATS = ("PNG", "JPEG")
RESTORED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B")
"""Kinds of pixels that are written as they were read; palettes as the colours that they stand for."""


@dataclass(frozen=True)
class Photograph:
    """One image file in memory.

    Attributes:
        pixels: (C, H, W) in [0, 1]; C is 1 (grey) or 3 (RGB).
        alpha: (H, W) uint8 opacity, handed through; None without.
        peak: Largest value of a channel: 255, or 65,535 for 16-bit grey.
        profile: ICC colour profile, handed through; None without.
        note: A sentence for the user about what reading lost; empty mostly.
    """

    pixels: Tensor
    alpha: np.ndarray | None = None
    peak: int = 255
    profile: bytes | None = None
    note: str = ""


def read_photograph(path: Path) -> Photograph:
    """Read a PNG or JPEG file, turned upright as its EXIF data say.

    8-bit grey and colour, with or without opacity, palettes, and 16-bit grey are read as they are; 16-bit colour
    is read with 8 bits.

    Raises:
        InputError: If the file is missing, damaged, of another format or of another kind of pixel.
    """
    picture = read_picture(path, formats=FORMATS)
    if picture.mode not in RESTORED:
        raise InputError(f"{path} has pixels of kind {picture.mode!r}; convert it to grey or RGB first.")
    with Image.open(path, formats=FORMATS) as file:
        # A JPEG of several pictures (MPO, as phones write it) begins with the one that is shown.
        if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
            raise InputError(f"{path} is an animation of {file.n_frames} frames; give single images.")  # type: ignore[attr-defined]
    pixels = torch.from_numpy(picture.values.astype(np.float32) / picture.peak).permute(2, 0, 1)
    return Photograph(pixels, picture.alpha, int(picture.peak), picture.profile, picture.note)


def write_photograph(path: Path, pixels: Tensor, like: Photograph) -> None:
    """Write pixels (C, H, W) as a PNG file, whole or not at all, with the opacity and profile of the original."""
    values = (pixels.clamp(0, 1) * like.peak).round().permute(1, 2, 0).cpu().numpy()
    if like.peak > 255:
        image = Image.fromarray(values[..., 0].astype(np.uint16))
    else:
        bands = [*np.moveaxis(values.astype(np.uint8), 2, 0)]
        bands += [] if like.alpha is None else [like.alpha]
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(bands)]
        image = Image.merge(mode, [Image.fromarray(np.ascontiguousarray(band)) for band in bands])
    with file_written_whole(path) as temporary:
        image.save(temporary, format="PNG", icc_profile=like.profile)
