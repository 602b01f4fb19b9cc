"""Photographs as files: what is denoised of them, and what is put back untouched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..configs.atomic import file_written_whole
from ..configs.errors import InputError

FORMATS = ("PNG", "JPEG")
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "I;16": "I;16", "I;16B": "I;16"}
PNG_DEPTH = 24  # offset of the bit depth in a PNG file


@dataclass(frozen=True)
class Photograph:
    """One image file in memory.

    Attributes:
        pixels: (C, H, W) in [0, 1]; C is 1 (gray) or 3 (RGB).
        alpha: (H, W) uint8 opacity, handed through; None without.
        peak: Largest value of a channel: 255, or 65,535 for 16-bit gray.
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

    8-bit gray and colour, with or without opacity, palettes, and 16-bit gray are read as they are; 16-bit colour
    is read with 8 bits.

    Raises:
        InputError: If the file is missing, damaged, of another format or of another kind of pixel.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            # A JPEG of several pictures (MPO, as phones write it) begins with the one that is shown.
            if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
                raise InputError(f"{path} is an animation of {file.n_frames} frames; give single images.")  # type: ignore[attr-defined]
            note = "read with 8 of its 16 bits a channel" if _is_deep_colour(path, file.mode) else ""
            profile = file.info.get("icc_profile")
            image = ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise InputError(f"there is no image {path}.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is neither a PNG nor a JPEG image.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    clear = "transparency" in image.info  # one colour or palette entry stands for it
    if image.mode == "P":
        image = image.convert("RGBA" if clear else "RGB")
    elif clear and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode not in MODES:
        raise InputError(f"{path} has pixels of kind {image.mode!r}; convert it to gray or RGB first.")
    return _taken_apart(image.convert(MODES[image.mode]), profile, note)


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


def _taken_apart(image: Image.Image, profile: bytes | None, note: str) -> Photograph:
    values = np.asarray(image)
    peak = 255 if values.dtype == np.uint8 else 65535
    values = values[..., None] if values.ndim == 2 else values
    alpha = values[..., -1].copy() if image.mode in ("LA", "RGBA") else None
    colours = values if alpha is None else values[..., :-1]
    pixels = torch.from_numpy(colours.astype(np.float32) / peak).permute(2, 0, 1)
    return Photograph(pixels, alpha, peak, profile, note)


def _is_deep_colour(path: Path, mode: str) -> bool:
    """Tell whether Pillow reads a PNG of 16 bits with 8: it does for everything but plain gray."""
    with path.open("rb") as file:
        head = file.read(PNG_DEPTH + 1)
    return head.startswith(b"\x89PNG") and head[-1] == 16 and not mode.startswith("I")
