"""A labelled set of equally sized RGB images, in memory or on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..configs.device import sent
from ..configs.errors import InputError, check_class_names
from .files import FileImages

if TYPE_CHECKING:
    import torch

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with labels, checked when they are put together.

    Attributes:
        name: Short name that tables and file names show.
        images: uint8, shape (N, H, W, 3), RGB, 0 to 255; or images that stay on disk until they are indexed.
        labels: int64, shape (N,), each in 0 .. ``len(class_names) - 1``.
        class_names: One name for each class, in label order.
        indices: int64, shape (N,): where each image stands in the set it came from. Random
            corruptions are keyed by it, so a subset is corrupted exactly as the full set is.
            0 .. N-1 unless given.
        source: The argument of ``load_dataset`` that read it, if it was read so.

    Raises:
        InputError: an array has another dtype, shape or range, or the class names are no list of different names.
    """

    name: str
    images: np.ndarray | FileImages = field(repr=False)
    labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]
    indices: np.ndarray = field(default=None, repr=False)  # type: ignore[assignment]  # filled in below
    source: str = ""

    def __post_init__(self) -> None:
        _check_images(self.name, self.images)
        indices = np.arange(len(self.images)) if self.indices is None else self.indices
        object.__setattr__(self, "class_names", check_class_names(self.class_names, self.name))
        count = len(self.images)
        for what, array in (("labels", self.labels), ("indices", indices)):
            if not np.issubdtype(array.dtype, np.integer) or array.shape != (count,):
                raise InputError(
                    f"{self.name}: {what} have dtype {array.dtype} and shape {array.shape}; "
                    f"expected integers of shape ({count},), one for each image."
                )
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise InputError(
                f"{self.name}: labels run from {self.labels.min()} to {self.labels.max()} but there are "
                f"{len(self.class_names)} class names; expected 0 to {len(self.class_names) - 1}."
            )
        if count and indices.min() < 0:
            raise InputError(f"{self.name}: indices contain {indices.min()}; expected 0 or more.")
        if isinstance(self.images, np.ndarray):
            _freeze(self, "images", self.images)
        _freeze(self, "labels", self.labels.astype(np.int64))
        _freeze(self, "indices", indices.astype(np.int64))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of shape, pixels, labels and indices.

        Images on disk enter by names and lengths of their files.
        """
        digest = hashlib.sha256(repr(self.images.shape).encode())
        images = self.images
        digest.update(images.tobytes() if isinstance(images, np.ndarray) else images.identity())
        for array in (self.labels, self.indices):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def subset(self, indices: Indices, name: str | None = None) -> ImageDataset:
        """Return the images at these positions, in this order.

        Raises:
            InputError: a position is no integer or outside 0 .. N-1.
        """
        chosen = self._positions(indices)
        return ImageDataset(
            name or self.name,
            self.images[chosen] if isinstance(self.images, np.ndarray) else self.images.take(chosen),
            self.labels[chosen],
            self.class_names,
            self.indices[chosen],
            self.source,
        )

    def tensors(
        self, indices: Indices | None = None, device: torch.device | str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 images, shape (n, 3, H, W), in [0, 1], and int64 labels, shape (n,)."""
        # Imported here: processes that only corrupt images need a quarter of the memory without it.
        import torch

        chosen = np.arange(len(self)) if indices is None else self._positions(indices)
        where = torch.device(device or "cpu")
        images = sent(torch.from_numpy(self.images[chosen]), where)
        images = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return images.div_(255), sent(torch.from_numpy(self.labels[chosen]), where)

    def split(self, n_held_out: int, seed: int) -> tuple[ImageDataset, ImageDataset]:
        """Cut off a held-out set in which every class has its share; both keep the order of the images.

        A class gets its proportional number of held-out images, rounded so that the total is
        exact: with equally large classes the held-out set is balanced to within one image.

        Returns:
            ``(rest, held_out)``.

        Raises:
            InputError: ``n_held_out`` is not between 1 and N - 1.
        """
        if not 1 <= n_held_out < len(self):
            raise InputError(
                f"{self.name}: cannot hold out {n_held_out} of {len(self)} images; "
                f"expected 1 to {len(self) - 1}."
            )
        generator = np.random.default_rng(seed)
        members = [np.flatnonzero(self.labels == label) for label in range(len(self.class_names))]
        quotas = _shares(np.array([len(rows) for rows in members]), n_held_out)
        drawn = [
            generator.choice(rows, size=quota, replace=False)
            for rows, quota in zip(members, quotas, strict=True)
        ]
        held_out = np.zeros(len(self), dtype=bool)
        held_out[np.concatenate(drawn)] = True
        return self.subset(np.flatnonzero(~held_out)), self.subset(np.flatnonzero(held_out))

    def _positions(self, indices: Indices) -> np.ndarray:
        chosen = np.asarray(indices)
        if chosen.size == 0:
            return np.zeros(0, dtype=np.int64)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise InputError(
                f"{self.name}: positions have dtype {chosen.dtype} and shape {chosen.shape}; "
                "expected a list of integers."
            )
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise InputError(
                f"{self.name}: positions run from {chosen.min()} to {chosen.max()}; "
                f"expected 0 to {len(self) - 1}."
            )
        return chosen


def _check_images(name: str, images: np.ndarray | FileImages) -> None:
    if images.dtype != np.uint8:
        raise InputError(
            f"{name}: images have dtype {images.dtype}; expected uint8 with values 0 to 255. "
            "Convert them with (pixels * 255).round().astype('uint8') if they are in [0, 1]."
        )
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise InputError(
            f"{name}: images have shape {images.shape}; expected (N, height, width, 3), "
            "RGB with the channels last."
        )


def _freeze(dataset: ImageDataset, attribute: str, array: np.ndarray) -> None:
    # A read-only view: the fingerprint is cached and must stay true.
    view = array.view()
    view.flags.writeable = False
    object.__setattr__(dataset, attribute, view)


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Split ``total`` in proportion to ``counts`` by largest remainder."""
    exact = counts * total / counts.sum()
    shares = np.floor(exact).astype(int)
    largest = np.argsort(shares - exact, kind="stable")
    shares[largest[: total - shares.sum()]] += 1
    return shares
