"""Weather: snow, frost, fog and spatter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from ...configs.errors import InputError
from ...configs.integrity import sha256
from .blur import clipped_zoom, smear

Streams = Sequence[np.random.RandomState]

FROST_FOLDER = Path(__file__).parents[1] / "assets" / "frost"
FROST_SHA256 = {
    "frost1.webp": "b1ae01240f6d2e12d4b7e3c71454bd23d41f69fa61bf89e99acf05b3464aa1a2",
    "frost2.webp": "7be438911053fc27bac86b7188525b1ec2469292a27db074cc29d7eb730ea462",
    "frost4.webp": "7651ae09f26cc250bcd73d611a9a279a0aa68c83aea637357e128c3b2a7ea99d",
    "frost5.webp": "b6ef21e3f38d50787d4c067b668d1223f30d6e0763613102e9e8a5c176951d7f",
}
# The official generator draws among five textures of which the third equals the second.
FROST_DRAW = ("frost1.webp", "frost2.webp", "frost2.webp", "frost4.webp", "frost5.webp")
WATER_RGB = (175, 238, 238)
MUD_RGB = (63, 42, 20)


class Flakes(NamedTuple):
    """Parameters of flakes of snow.

    Attributes:
        mean: Mean of the Gaussian noise from which they are made.
        spread: Standard deviation of that noise.
        zoom: By how much it is enlarged.
        threshold: Below this value there is no flake.
        radius: Radius of the kernel that smears them, in pixels.
        sigma: Standard deviation of that kernel.
    """

    mean: float
    spread: float
    zoom: float
    threshold: float
    radius: float
    sigma: float


def snow(images: np.ndarray, streams: Streams, flakes: Flakes, keep: float) -> np.ndarray:
    """Whiten the image and add flakes: enlarged, thresholded noise, smeared downwards, twice."""
    pixels = (images / 255.0).astype(np.float32)
    size = images.shape[1:3]
    noise = np.stack([stream.normal(flakes.mean, flakes.spread, size) for stream in streams], axis=-1)
    angles = [stream.uniform(-135, -45) for stream in streams]
    enlarged = clipped_zoom(noise, flakes.zoom)
    enlarged[enlarged < flakes.threshold] = 0
    layers = (np.clip(enlarged, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)[..., None]
    layers = smear(layers, angles, flakes.radius, flakes.sigma) / 255.0
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    pixels = keep * pixels + (1 - keep) * np.maximum(pixels, grey[..., None] * 1.5 + 0.5)
    return np.clip(pixels + layers + layers[:, ::-1, ::-1], 0, 1) * 255


def frost(
    images: np.ndarray, streams: Streams, image_weight: float, frost_weight: float, stride: int
) -> np.ndarray:
    """Blend with a random part of a photograph of frost, of which every ``stride``-th pixel is used."""
    height, width = images.shape[1:3]
    parts = np.empty(images.shape)
    for part, stream in zip(parts, streams, strict=True):
        texture = frost_texture(FROST_DRAW[stream.randint(5)], stride, height, width)
        top = stream.randint(0, texture.shape[0] - height)
        left = stream.randint(0, texture.shape[1] - width)
        part[:] = texture[top : top + height, left : left + width]
    return np.clip(image_weight * images + frost_weight * parts, 0, 255)


@lru_cache(maxsize=16)
def frost_texture(name: str, stride: int, height: int, width: int) -> np.ndarray:
    """Return a texture, uint8 RGB, larger than ``height`` x ``width``: where it is not, it is enlarged.

    Raises:
        InputError: the file is missing or altered.
    """
    path = FROST_FOLDER / name
    found = sha256(path) if path.exists() else "no file"
    if found != FROST_SHA256[name]:
        raise InputError(f"the frost texture {path} is missing or altered ({found[:16]}); reinstall warplca.")
    texture = Image.open(path).convert("RGB")
    if stride > 1:
        # Bilinear shrinking by an odd factor takes the middle pixel of each block; the size is rounded.
        pixels = np.asarray(texture)[stride // 2 :: stride, stride // 2 :: stride]
        rows, columns = round(texture.height / stride), round(texture.width / stride)
        texture = Image.fromarray(np.ascontiguousarray(pixels[:rows, :columns]))
    enlarge = max((height + 1) / texture.height, (width + 1) / texture.width)
    if enlarge > 1:
        size = (math.ceil(texture.width * enlarge), math.ceil(texture.height * enlarge))
        texture = texture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(texture)


def fog(images: np.ndarray, streams: Streams, amount: float, decay: float) -> np.ndarray:
    """Add a plasma fractal and scale back to the image's own maximum."""
    height, width = images.shape[1:3]
    pixels = images / 255.0
    brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
    side = max(2, 2 ** math.ceil(math.log2(max(height, width))))
    uniforms = np.stack([stream.random_sample(side * side - 1) for stream in streams])
    plasma = diamond_square(uniforms, side, decay)[:, :height, :width, None]
    return np.clip((pixels + amount * plasma) * brightest / (brightest + amount), 0, 1) * 255


def diamond_square(uniforms: np.ndarray, side: int, decay: float) -> np.ndarray:
    """Make plasma fractals on a periodic grid, scaled to run from 0 to 1.

    Each new point is the mean of its four neighbours plus ``wobble`` times a uniform number within
    ``+- wobble``; ``wobble`` starts at 100 and shrinks by ``decay`` from level to level.

    Args:
        uniforms: (N, side * side - 1) numbers in [0, 1), in the order of use: on every level first the
            middles of squares, then of horizontal, then of vertical edges.
        side: A power of two.

    Returns:
        (N, side, side).
    """
    plasma = np.zeros((len(uniforms), side, side))
    used, wobble, step = 0, 100.0, side
    while step >= 2:
        half, cells = step // 2, side // step
        count = cells * cells
        shares = uniforms[:, used : used + 3 * count].reshape(-1, 3, cells, cells)
        jitter = wobble * (2 * wobble * shares - wobble)
        corners = plasma[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        middles = (pairs + np.roll(pairs, -1, axis=2)) / 4 + jitter[:, 0]
        plasma[:, half::step, half::step] = middles
        across = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        down = middles + np.roll(middles, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        plasma[:, ::step, half::step] = across / 4 + jitter[:, 1]
        plasma[:, half::step, ::step] = down / 4 + jitter[:, 2]
        used, wobble, step = used + 3 * count, wobble / decay, half
    plasma -= plasma.min(axis=(1, 2), keepdims=True)
    return plasma / plasma.max(axis=(1, 2), keepdims=True)


def spatter(
    images: np.ndarray,
    streams: Streams,
    mean: float,
    spread: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> np.ndarray:
    """Add drops of water, or cover with splashes of mud, where smoothed noise passes a threshold."""
    pixels = (images / 255.0).astype(np.float32)
    noise = np.stack([stream.normal(mean, spread, images.shape[1:3]) for stream in streams])
    liquid = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="nearest")
    if mud:
        cover = (liquid > threshold).astype(np.float32)
        cover = ndimage.gaussian_filter(cover, (0, strength, strength), mode="nearest")[..., None]
        cover[cover < 0.8] = 0
        return np.clip(pixels * (1 - cover) + cover * (np.array(MUD_RGB) / 255), 0, 1) * 255
    liquid[liquid < threshold] = 0
    drops = np.stack([_drops(layer) for layer in np.asarray(liquid * 255, dtype=np.uint8)])[..., None]
    return np.clip(pixels + strength * drops * (np.array(WATER_RGB) / 255), 0, 1) * 255


def _drops(liquid: np.ndarray) -> np.ndarray:
    """Turn one layer of liquid (H, W), uint8, into drops with bright rims, float32 in [0, 1]."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "the corruption 'spatter' needs OpenCV, which is not installed; type "
            "pip install 'warplca[corruptions]' or leave spatter out."
        ) from error
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    rim = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    rim = cv2.filter2D(cv2.equalizeHist(rim), cv2.CV_8U, kernel)
    drops = liquid * cv2.blur(rim, (3, 3)).astype(np.float32)
    # No drop at all: the generator would divide by zero.
    return drops / max(drops.max(), 1)
