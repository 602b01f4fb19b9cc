"""Every corruption in one table: what it belongs to, how strong it is, which function makes it.

A new corruption is one function in the module of its kind and one entry here. The parameters are
those of the generators of CIFAR-10-C and ImageNet-C (hendrycks/robustness, Apache-2.0), lengths in
pixels of their images (32 and 224 pixels wide).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...configs.errors import unknown_name
from . import blur, digital, pixelwise, weather

Category = Literal["noise", "blur", "weather", "digital"]
Severities = tuple[tuple[float | weather.Flakes, ...], ...]


@dataclass(frozen=True)
class Corruption:
    """One way to corrupt images.

    Attributes:
        category: The group under which reports put it.
        function: ``function(images, *parameters)`` if deterministic, else
            ``function(images, streams, *parameters)``; see the package's description.
        cifar: The parameters of severity 1 to 5 in CIFAR-10-C.
        imagenet: The same in ImageNet-C.
        deterministic: No randomness: reproduces the official bytes.
        standard: One of the 15 that benchmark figures are averaged over; the others are extra,
            meant for choosing models.
    """

    category: Category
    function: Callable[..., np.ndarray]
    cifar: Severities
    imagenet: Severities
    deterministic: bool = False
    standard: bool = True


def _single(*values: float) -> Severities:
    return tuple((value,) for value in values)


# In the order of Hendrycks and Dietterich.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        "noise",
        pixelwise.gaussian_noise,
        cifar=_single(0.04, 0.06, 0.08, 0.09, 0.1),
        imagenet=_single(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": Corruption(
        "noise",
        pixelwise.shot_noise,
        cifar=_single(500, 250, 100, 75, 50),
        imagenet=_single(60, 25, 12, 5, 3),
    ),
    "impulse_noise": Corruption(
        "noise",
        pixelwise.impulse_noise,
        cifar=_single(0.01, 0.02, 0.03, 0.05, 0.07),
        imagenet=_single(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": Corruption(
        "blur",
        blur.defocus_blur,
        cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        deterministic=True,
    ),
    "glass_blur": Corruption(
        "blur",
        blur.glass_blur,
        cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        "blur",
        blur.motion_blur,
        cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        "blur",
        blur.zoom_blur,
        cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        deterministic=True,
    ),
    "snow": Corruption(
        "weather",
        weather.snow,
        cifar=(
            (weather.Flakes(0.1, 0.2, 1, 0.6, 8, 3), 0.95),
            (weather.Flakes(0.1, 0.2, 1, 0.5, 10, 4), 0.9),
            (weather.Flakes(0.15, 0.3, 1.75, 0.55, 10, 4), 0.9),
            (weather.Flakes(0.25, 0.3, 2.25, 0.6, 12, 6), 0.85),
            (weather.Flakes(0.3, 0.3, 1.25, 0.65, 14, 12), 0.8),
        ),
        imagenet=(
            (weather.Flakes(0.1, 0.3, 3, 0.5, 10, 4), 0.8),
            (weather.Flakes(0.2, 0.3, 2, 0.5, 12, 4), 0.7),
            (weather.Flakes(0.55, 0.3, 4, 0.9, 12, 8), 0.7),
            (weather.Flakes(0.55, 0.3, 4.5, 0.85, 12, 8), 0.65),
            (weather.Flakes(0.55, 0.3, 2.5, 0.85, 12, 12), 0.55),
        ),
    ),
    "frost": Corruption(
        "weather",
        weather.frost,
        cifar=((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
        imagenet=((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    ),
    "fog": Corruption(
        "weather",
        weather.fog,
        cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(
        "weather",
        pixelwise.brightness,
        cifar=_single(0.05, 0.1, 0.15, 0.2, 0.3),
        imagenet=_single(0.1, 0.2, 0.3, 0.4, 0.5),
        deterministic=True,
    ),
    "contrast": Corruption(
        "digital",
        pixelwise.contrast,
        cifar=_single(0.75, 0.5, 0.4, 0.3, 0.15),
        imagenet=_single(0.4, 0.3, 0.2, 0.1, 0.05),
        deterministic=True,
    ),
    "elastic_transform": Corruption(
        "digital",
        digital.elastic_transform,
        cifar=((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        imagenet=(
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
    ),
    "pixelate": Corruption(
        "digital",
        digital.pixelate,
        cifar=_single(0.95, 0.9, 0.85, 0.75, 0.65),
        imagenet=_single(0.6, 0.5, 0.4, 0.3, 0.25),
        deterministic=True,
    ),
    "jpeg_compression": Corruption(
        "digital",
        digital.jpeg_compression,
        cifar=_single(80, 65, 58, 50, 40),
        imagenet=_single(25, 18, 15, 10, 7),
        deterministic=True,
    ),
    "speckle_noise": Corruption(
        "noise",
        pixelwise.speckle_noise,
        cifar=_single(0.06, 0.1, 0.12, 0.16, 0.2),
        imagenet=_single(0.15, 0.2, 0.35, 0.45, 0.6),
        standard=False,
    ),
    "gaussian_blur": Corruption(
        "blur",
        blur.gaussian_blur,
        cifar=_single(0.4, 0.6, 0.7, 0.8, 1),
        imagenet=_single(1, 2, 3, 4, 6),
        deterministic=True,
        standard=False,
    ),
    "spatter": Corruption(
        "weather",
        weather.spatter,
        cifar=(
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
        imagenet=(
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
        standard=False,
    ),
    "saturate": Corruption(
        "digital",
        pixelwise.saturate,
        cifar=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        imagenet=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        deterministic=True,
        standard=False,
    ),
}

STANDARD_CORRUPTIONS = tuple(name for name, entry in CORRUPTIONS.items() if entry.standard)
EXTRA_CORRUPTIONS = tuple(name for name, entry in CORRUPTIONS.items() if not entry.standard)
# Short names for many, wherever corruptions are listed.
CORRUPTION_GROUPS = {
    "standard": STANDARD_CORRUPTIONS,
    "extra": EXTRA_CORRUPTIONS,
    "all": tuple(CORRUPTIONS),
}
ROBUSTBENCH_ORDER = (
    "shot_noise",
    "motion_blur",
    "snow",
    "pixelate",
    "gaussian_noise",
    "defocus_blur",
    "brightness",
    "fog",
    "zoom_blur",
    "frost",
    "glass_blur",
    "impulse_noise",
    "contrast",
    "jpeg_compression",
    "elastic_transform",
)
# TensorFlow Datasets calls two of them otherwise.
ALIASES = {"frosted_glass_blur": "glass_blur", "elastic": "elastic_transform"}


def canonical_name(name: str) -> str:
    """Return the name under which a corruption stands in ``CORRUPTIONS``.

    Raises:
        InputError: there is no such corruption.
    """
    known = ALIASES.get(name, name)
    if known not in CORRUPTIONS:
        raise unknown_name("corruption", name, CORRUPTIONS)
    return known


def agreement(name: str) -> Literal["exact", "statistical", "approximate"]:
    """Say how the images relate to the official files, as installed here.

    ``"exact"``: the same bytes. ``"statistical"``: the same distribution; the official files were
    made from random numbers that nobody kept. ``"approximate"``: JPEG by another codec, because
    ``jpeglib`` is absent.
    """
    known = canonical_name(name)
    if not CORRUPTIONS[known].deterministic:
        return "statistical"
    return "exact" if known != "jpeg_compression" or digital.has_official_jpeg() else "approximate"
