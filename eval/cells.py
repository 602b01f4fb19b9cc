"""The cells of an evaluation: which images, under which condition."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

KINDS = ("clean", "corruption", "attack")


@dataclass(frozen=True)
class ImageSet:
    """A choice of images from one data set, with their labels.

    Attributes:
        dataset: Name of the data set.
        fingerprint: Fingerprint of the whole data set's contents.
        indices: (n,) where each image stands in the set it came from (`ImageDataset.indices`), int32.
        labels: (n,) true classes, int16.
    """

    dataset: str
    fingerprint: str
    indices: NDArray[np.int32]
    labels: NDArray[np.int16]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(f"{self.dataset}\0{self.fingerprint}\0".encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i4").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i2").tobytes())
        object.__setattr__(self, "key", digest.hexdigest()[:32])


@dataclass(frozen=True)
class Condition:
    """One condition under which a set of images is classified.

    Attributes:
        kind: ``"clean"``, ``"corruption"`` or ``"attack"``.
        name: ``"clean"``, the corruption (or a chain joined by ``+``) or the attack.
        severity: 1 to 5 for a corruption, otherwise 0.
        threat: The threat model of an attack, otherwise empty.
        source: Where corrupted images came from, e.g. ``"generator"`` or ``"official files"``; else empty.
    """

    kind: str
    name: str
    severity: int = 0
    threat: str = ""
    source: str = ""

    @property
    def label(self) -> str:
        """Short readable name, e.g. ``"shot_noise 3"`` or ``"pgd-10 linf 8/255"``."""
        return " ".join(str(part) for part in (self.name, self.severity or self.threat) if part)


def choose_images(labels: NDArray[np.integer], count: int | None, seed: int) -> NDArray[np.intp]:
    """First ``count`` of a seeded class-balanced permutation of the images.

    Classes take turns in random order, so every prefix is balanced to within one image (until a class is used
    up), and a smaller choice is a part of a larger one.

    Args:
        labels: (n,) class of each image.
        count: Number of images at most; 0 or None means all.
        seed: Seed of the permutation.

    Returns:
        (n,) positions.
    """
    total = len(labels)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(total)
    turn = np.empty(total, dtype=np.int64)
    for value in np.unique(labels):
        members = shuffled[labels[shuffled] == value]
        turn[members] = np.arange(members.size)
    order = np.lexsort((rng.random(total), turn))
    return order[: count or total]
