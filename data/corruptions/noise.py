"""Noise: Gaussian, shot, impulse and speckle."""

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
