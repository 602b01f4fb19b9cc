"""One reader of picture files for every command: upright, in every kind of pixel, looked at before it is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..configs.errors import InputError, in_one_line
from ..configs.untrusted import plain_file

MOST_PIXELS = 120_000_000
KINDS = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "PA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
    "I;16": "I;16",
    "I;16L": "I;16",
    "I;16B": "I;16",
    "I;16N": "I;16",
    "I": "I",
    "F": "F",
}
"""Kinds of pixels by Pillow's names, and as what they are read; palettes become RGB or RGBA."""

PNG_DEPTH = 24  # offset of the bit depth in a PNG file


@dataclass(frozen=True)
class Picture:
    """One picture in memory.

    Attributes:
        values: (H, W, C), uint8, uint16 or float32; C is 1 (grey) or 3 (RGB).
        peak: The value of white: 255, 65,535 or 1.
        mode: The file's kind of pixel, by Pillow's name.
        alpha: (H, W) uint8 opacity; None without.
        profile: ICC colour profile; None without.
        note: A sentence for the user about what reading lost; empty mostly.
    """

    values: np.ndarray
    peak: float
    mode: str
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    note: str = ""

    def rgb(self) -> np.ndarray:
        """Return uint8 RGB, (H, W, 3); what is transparent shows white, whatever colour it hides."""
        values = self.values
        if values.dtype != np.uint8:
            values = np.rint(values.astype(np.float32) * (255.0 / self.peak)).astype(np.uint8)
        if self.alpha is not None and not (self.alpha == 255).all():
            share = self.alpha[..., None].astype(np.float32) / 255.0
            values = np.rint(values * share + 255.0 * (1.0 - share)).astype(np.uint8)
        return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def read_picture(path: str | Path, *, formats: Sequence[str] | None = None) -> Picture:
    """Read a picture file, turned upright as its EXIF data say; of several frames the first.

    Args:
        path: The file.
        formats: Pillow's names of the formats that are taken; None for all.

    Raises:
        InputError: If the file is missing, damaged, too large, of another format or of no known kind of pixel.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no image {path}.")
    plain_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused below, and of odd metadata
            with Image.open(path, formats=None if formats is None else list(formats)) as file:
                width, height = file.size
                if width * height > MOST_PIXELS:
                    raise InputError(
                        f"{path} has {width} x {height} pixels; at most {MOST_PIXELS // 10**6} million are read. Scale "
                        "it down first."
                    )
                note = "read with 8 of its 16 bits a channel" if _is_deep_colour(path, file.mode) else ""
                profile = file.info.get("icc_profile")
                mode = file.mode
                image = ImageOps.exif_transpose(file)
            return _taken_apart(_known(image, path), mode, profile, note, path)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        known = "a picture" if formats is None else f"a {' or '.join(formats)} picture"
        raise InputError(
            f"{path} cannot be read as an image: it is not {known}; replace or remove it."
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise InputError(
            f"{path} cannot be read as an image ({in_one_line(error)}); replace or remove it."
        ) from error


def fitted(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale (bicubic) uint8 RGB until the shorter side fits and cut it out of the middle.

    Args:
        rgb: (H, W, 3).
        size: Height and width of the result.
    """
    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(ImageOps.fit(Image.fromarray(rgb), (size[1], size[0]), Image.Resampling.BICUBIC))


def _known(image: Image.Image, path: Path) -> Image.Image:
    """Bring a picture to one of the kinds that are taken apart."""
    clear = "transparency" in image.info  # one colour or palette entry stands for it
    if image.mode == "P":
        return image.convert("RGBA" if clear else "RGB")
    if clear and image.mode in ("1", "L", "RGB"):
        return image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode not in KINDS:
        raise InputError(f"{path} has pixels of kind {image.mode!r}; convert it to grey or RGB first.")
    kind = KINDS[image.mode]
    # Premultiplied opacity has no direct way to greys and colours.
    image = image.convert(image.mode.upper()) if image.mode in ("La", "RGBa") else image
    return image if image.mode == kind else image.convert(kind)


def _taken_apart(image: Image.Image, mode: str, profile: bytes | None, note: str, path: Path) -> Picture:
    values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values
    if image.mode in ("I", "F"):
        values = _scaled(values, path)
    alpha = values[..., -1].copy() if image.mode in ("LA", "RGBA") else None
    colours = values if alpha is None else values[..., :-1]
    peak = {"u1": 255, "u2": 65535, "f4": 1.0}[colours.dtype.str[1:]]
    return Picture(colours, peak, mode, alpha, profile, note)


def _scaled(values: np.ndarray, path: Path) -> np.ndarray:
    """Return 32-bit grey as 16 bits, or floating-point grey as it is; no file says what stands for white."""
    low, high = float(values.min()), float(values.max())
    most = 65535.0 if values.dtype.kind == "i" else 1.0
    if not (low >= 0.0 and high <= most):
        raise InputError(
            f"{path} has grey values from {low:g} to {high:g} in 32 bits, of which 0 to {most:g} are read; convert it "
            "to 8 or 16 bits first."
        )
    return values.astype(np.uint16 if values.dtype.kind == "i" else np.float32)


def _is_deep_colour(path: Path, mode: str) -> bool:
    """Tell whether Pillow reads a PNG of 16 bits with 8: it does for everything but plain grey."""
    with path.open("rb") as file:
        head = file.read(PNG_DEPTH + 1)
    return head.startswith(b"\x89PNG") and head[-1] == 16 and not mode.startswith("I")
