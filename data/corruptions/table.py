"""Every corruption in one table: what it belongs to, how strong it is, which function makes it.

A new corruption is one function in the module of its kind and one entry here. Parameters are those
of the official CIFAR-10-C generator (hendrycks/robustness, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import blur, coding, colour, noise

Severities = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Corruption:
    """One way to corrupt images.

    Attributes:
        category: ``"noise"``, ``"blur"``, ``"weather"`` or ``"digital"``.
        function: ``function(images, *parameters)`` if deterministic, else
            ``function(images, streams, *parameters)``; see the package's description.
        severities: The parameters of severity 1 to 5 (lengths in pixels of a 32 x 32 image).
        deterministic: No randomness: reproduces the official bytes.
        standard: One of the 15 that benchmark figures are averaged over; the others are extra,
            meant for choosing models.
    """

    category: str
    function: Callable[..., np.ndarray]
    severities: Severities
    deterministic: bool = False
    standard: bool = True


def _single(*values: float) -> Severities:
    return tuple((value,) for value in values)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", noise.gaussian_noise, _single(0.04, 0.06, 0.08, 0.09, 0.1)),
    "shot_noise": Corruption("noise", noise.shot_noise, _single(500, 250, 100, 75, 50)),
    "impulse_noise": Corruption("noise", noise.impulse_noise, _single(0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption(
        "blur",
        blur.defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        deterministic=True,
    ),
    "zoom_blur": Corruption(
        "blur",
        blur.zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        deterministic=True,
    ),
    "brightness": Corruption(
        "weather", colour.brightness, _single(0.05, 0.1, 0.15, 0.2, 0.3), deterministic=True
    ),
    "contrast": Corruption(
        "digital", colour.contrast, _single(0.75, 0.5, 0.4, 0.3, 0.15), deterministic=True
    ),
    "pixelate": Corruption(
        "digital", coding.pixelate, _single(0.95, 0.9, 0.85, 0.75, 0.65), deterministic=True
    ),
    "jpeg_compression": Corruption(
        "digital", coding.jpeg_compression, _single(80, 65, 58, 50, 40), deterministic=True
    ),
    "speckle_noise": Corruption(
        "noise", noise.speckle_noise, _single(0.06, 0.1, 0.12, 0.16, 0.2), standard=False
    ),
    "gaussian_blur": Corruption(
        "blur", blur.gaussian_blur, _single(0.4, 0.6, 0.7, 0.8, 1), deterministic=True, standard=False
    ),
    "saturate": Corruption(
        "digital",
        colour.saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        deterministic=True,
        standard=False,
    ),
}

STANDARD_CORRUPTIONS = tuple(name for name, entry in CORRUPTIONS.items() if entry.standard)
EXTRA_CORRUPTIONS = tuple(name for name, entry in CORRUPTIONS.items() if not entry.standard)
