"""Images of any size in tiles that overlap, so that memory is bounded by the tile and not by the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ..configs.progress import Bar

OVERLAP = 64  # pixels that neighbouring tiles share
MARGIN = 16  # of these, at a tile's border, have no say, since what lies beyond it is missing most there

T = TypeVar("T")


def in_tiles(
    restore: Callable[[Tensor], tuple[Tensor, T]],
    images: Tensor,
    *,
    tile: int,
    stride: int,
    progress: bool = False,
) -> tuple[Tensor, list[T]]:
    """Restore images tile by tile, blended where tiles overlap.

    Args:
        restore: Maps a tile (N, C, h, w) to its restoration, of the same shape, and what else is known of it.
        images: (N, C, H, W), on any device.
        tile: Side in pixels up to which there is one tile; above :data:`OVERLAP`. Larger sides are cut into tiles of
            at most this much and ``stride`` more.
        stride: Tiles begin at multiples of this.
        progress: Whether to show a progress bar.

    Returns:
        The restored images, on the device of ``images``, and what else ``restore`` returned of each tile.
    """
    height, width = images.shape[2:]
    rows, columns = spans(height, tile, stride), spans(width, tile, stride)
    places = [(down, right) for down in rows for right in columns]
    total, weights, found = torch.zeros_like(images), images.new_zeros(height, width), []
    for down, right in Bar(places, desc="tiles", show=progress and len(places) > 1):
        restored, known = restore(images[:, :, down, right])
        weight = (ramp(down, height)[:, None] * ramp(right, width)).to(images)
        total[:, :, down, right] += weight * restored.to(images.device)
        weights[down, right] += weight
        found.append(known)
    return total / weights, found


def spans(length: int, tile: int, stride: int) -> list[slice]:
    """Cut a side into overlapping tiles of equal length that start on the grid of the atoms."""
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    side = -(-(length + (count - 1) * OVERLAP) // count)
    starts = [(length - side) * i // (count - 1) // stride * stride for i in range(count)]
    return [slice(start, min(start + side + stride, length)) for start in starts]


def ramp(span: slice, length: int) -> Tensor:
    """Weights of a tile along one side: rising and falling inside the overlap, except at the image's border."""
    place = torch.arange(span.start, span.stop, dtype=torch.float32)
    width = OVERLAP - 2 * MARGIN
    rising = (place - span.start + 1 - MARGIN) / width if span.start else torch.ones_like(place)
    falling = (span.stop - place - MARGIN) / width if span.stop < length else torch.ones_like(place)
    return torch.minimum(rising, falling).clamp(0.0, 1.0)
