"""Corruptions of each pixel by itself: Gaussian, shot, impulse and speckle noise; brightness, contrast, saturation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Streams = Sequence[np.random.RandomState]


def gaussian_noise(images: np.ndarray, streams: Streams, sigma: float) -> np.ndarray:
    """Add normal noise of standard deviation ``sigma`` (pixels in [0, 1])."""
    noise = _draw(images, streams, lambda stream, shape: stream.normal(0, sigma, shape))
    return _to_bytes(images / 255.0 + noise)


def speckle_noise(images: np.ndarray, streams: Streams, sigma: float) -> np.ndarray:
    """Add normal noise in proportion to the pixel value."""
    pixels = images / 255.0
    noise = _draw(images, streams, lambda stream, shape: stream.normal(0, sigma, shape))
    return _to_bytes(pixels + pixels * noise)


def shot_noise(images: np.ndarray, streams: Streams, photons: float) -> np.ndarray:
    """Replace every value by a Poisson count of ``photons`` times the value, scaled back."""
    pixels = images / 255.0
    counts = [stream.poisson(image * photons) for image, stream in zip(pixels, streams, strict=True)]
    return _to_bytes(np.stack(counts) / photons)


def impulse_noise(images: np.ndarray, streams: Streams, amount: float) -> np.ndarray:
    """Set a share ``amount`` of all channel values to 0 or 255, each half the time."""
    flipped = _draw(images, streams, lambda stream, shape: stream.random_sample(shape)) < amount
    salted = _draw(images, streams, lambda stream, shape: stream.random_sample(shape)) < 0.5
    return np.where(flipped, np.where(salted, np.uint8(255), np.uint8(0)), images)


def _draw(
    images: np.ndarray,
    streams: Streams,
    draw: Callable[[np.random.RandomState, tuple[int, ...]], np.ndarray],
) -> np.ndarray:
    return np.stack([draw(stream, images.shape[1:]) for stream in streams])


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 1) * 255


def brightness(images: np.ndarray, shift: float) -> np.ndarray:
    """Add ``shift`` to the value (of hue, saturation, value)."""
    hue, saturation, value = rgb_to_hsv(images / 255.0)
    return hsv_to_rgb(hue, saturation, np.clip(value + shift, 0, 1)) * 255


def saturate(images: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """Scale the saturation by ``factor`` and add ``shift``."""
    hue, saturation, value = rgb_to_hsv(images / 255.0)
    return hsv_to_rgb(hue, np.clip(saturation * factor + shift, 0, 1), value) * 255


def contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Shrink every pixel's distance to its channel's mean by ``factor``."""
    pixels = images / 255.0
    means = pixels.mean(axis=(1, 2), keepdims=True)
    return np.clip((pixels - means) * factor + means, 0, 1) * 255


def rgb_to_hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn RGB (..., 3) in [0, 1] into hue, saturation and value, each (...) in [0, 1]."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    value = pixels.max(axis=-1)
    spread = value - pixels.min(axis=-1)
    grey = spread == 0
    divisor = np.where(grey, 1, spread)
    hue = np.select(
        [value == blue, value == green],
        [4 + (red - green) / divisor, 2 + (blue - red) / divisor],
        (green - blue) / divisor,
    )
    hue = np.where(grey, 0, (hue / 6) % 1)
    saturation = np.where(grey, 0, spread / np.where(value == 0, 1, value))
    return hue, saturation, value


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Turn hue, saturation and value, each (...) in [0, 1], into RGB (..., 3) in [0, 1]."""
    sector = np.floor(hue * 6)
    fraction = hue * 6 - sector
    low = value * (1 - saturation)
    falling = value * (1 - fraction * saturation)
    rising = value * (1 - (1 - fraction) * saturation)
    sector = sector.astype(np.uint8) % 6
    red = np.choose(sector, [value, falling, low, low, rising, value])
    green = np.choose(sector, [rising, value, value, falling, low, low])
    blue = np.choose(sector, [low, low, rising, value, value, falling])
    return np.stack([red, green, blue], axis=-1)
