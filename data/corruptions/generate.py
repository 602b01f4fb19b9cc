"""Corrupting images, each with a random stream of its own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ...configs.errors import InputError, unknown_name
from .table import CORRUPTIONS, canonical_name

Scale = Literal["cifar", "imagenet"]
SCALES: tuple[Scale, ...] = ("cifar", "imagenet")
SEVERITIES = (1, 2, 3, 4, 5)
LARGEST_CIFAR_SIDE = 64
BLOCK_VALUES = 2**20


def corrupt(
    images: np.ndarray,
    name: str,
    *,
    severity: int,
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    scale: Scale | None = None,
) -> np.ndarray:
    """Return corrupted copies of the images.

    The randomness of an image depends on ``seed``, corruption, severity and the image's index, on
    nothing else: any subset, order or batch size gives the same images.

    Args:
        images: uint8, shape (N, H, W, 3), RGB.
        name: A key of ``CORRUPTIONS``.
        severity: 1 (mild) to 5.
        seed: 0 or more.
        indices: Position of each image in its data set (``dataset.indices``); 0 .. N-1 unless given.
        scale: ``"cifar"`` for the strengths of CIFAR-10-C, ``"imagenet"`` for those of ImageNet-C.
            Unless given, images of up to 64 pixels a side get the first, larger ones the second.

    Returns:
        uint8, the shape of ``images``.

    Raises:
        InputError: images of another form, an unknown corruption or scale, a severity outside 1 to 5,
            or an optional package that the corruption needs is absent.
    """
    name = canonical_name(name)
    _check(images, severity, seed, scale)
    places = np.arange(len(images)) if indices is None else np.asarray(indices)
    if places.shape != (len(images),):
        raise InputError(f"there are {places.size} indices for {len(images)} images; expected one for each.")
    entry = CORRUPTIONS[name]
    parameters = getattr(entry, scale or default_scale(images.shape[1:3]))[severity - 1]
    result = np.empty_like(images)
    block = max(1, BLOCK_VALUES // max(1, images[:1].size))
    for start in range(0, len(images), block):
        rows = slice(start, start + block)
        if entry.deterministic:
            corrupted = entry.function(images[rows], *parameters)
        else:
            streams = [random_stream(seed, name, severity, int(place)) for place in places[rows]]
            corrupted = entry.function(images[rows], streams, *parameters)
        # The official generator truncates; rounding would brighten every image by half a grey level.
        result[rows] = corrupted.astype(np.uint8)
    return result


def default_scale(size: tuple[int, ...]) -> Scale:
    """Return the benchmark whose strengths suit images of this height and width."""
    return "cifar" if max(size) <= LARGEST_CIFAR_SIDE else "imagenet"


def check_severity(severity: int) -> None:
    """Raise ``InputError`` unless ``severity`` is a whole number from 1 to 5."""
    if severity not in SEVERITIES:
        raise InputError(f"the severity is {severity!r}; expected a whole number from 1 (mild) to 5.")


def random_stream(seed: int, name: str, severity: int, index: int) -> np.random.RandomState:
    """Return the random numbers of one image under one corruption.

    ``RandomState`` rather than ``Generator``: numpy promises that its distributions never change,
    so the images stay the same with every version of numpy.
    """
    key = (zlib.crc32(name.encode()), severity, index)
    return np.random.RandomState(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def _check(images: np.ndarray, severity: int, seed: int, scale: Scale | None) -> None:
    if scale is not None and scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    check_severity(severity)
    if seed < 0:
        raise InputError(f"the seed is {seed}; expected 0 or more.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"cannot corrupt an array of dtype {images.dtype} and shape {images.shape}; expected uint8 RGB "
            "images of shape (N, height, width, 3) with values 0 to 255."
        )
