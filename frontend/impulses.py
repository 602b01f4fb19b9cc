"""Impulse repair: a switching median for pixels that are stuck at black or white.

Dead pixels and transmission errors leave single values at the ends of the range. Replacing only these by the median of
their sound neighbours leaves the picture alone: the switching median filter of Sun and Neuvo, "Detail-preserving median
based filters in image processing", Pattern Recognition Letters 15 (1994).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs.device import may_look
from ..configs.errors import InputError
from .base import NoTraining, register_frontend
from .gate import Gate, GatedFrontend, check_gate, mean_of_image

END = 0.5 / 255  # a value within half a grey level of the range's end, or beyond it, is at the end


@dataclass(frozen=True)
class ImpulseSettings:
    """Settings of the impulse repair.

    Attributes:
        margin: A value at the end of the range is an impulse where it is further than this from the median of the 3 x 3
            values around it, in pixels.
        gate: Share of values that are impulses at which the gate begins to open, and at which it is open; null repairs
            every impulse.
        in_channels: Image channels.
    """

    margin: float = 0.15
    gate: Gate | None = (0.002, 0.006)
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not 0.0 < self.margin < 1.0:
            raise InputError(f"margin is {self.margin}; give a number between 0 and 1.")
        object.__setattr__(self, "gate", check_gate(self.gate))


@register_frontend("impulse-repair")
class ImpulseRepair(GatedFrontend):
    """Replace values stuck at black or white, channel by channel, by the median of their sound neighbours.

    Arguments are the fields of :class:`ImpulseSettings`. The damage is the share of values that are impulses; Gaussian
    noise that was clipped has some as well.
    """

    Settings = ImpulseSettings
    Training = NoTraining
    damage = (
        "share of values at the ends of the range that differ from their surroundings. Gaussian noise that was clipped "
        "has some, stars and glints too; impulses of other values are not seen."
    )

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return repaired images and the share of impulses, (N,)."""
        at_end = (images <= END) | (images >= 1.0 - END)
        # Few values are at an end: where they may be looked at, only these are worked on.
        few = at_end if images.device.type == "cpu" and may_look(images) else None
        values, around = _picked(images, few), _nine(images, few)
        median = ordered(around)[4]
        impulse = _picked(at_end, few) & ((values - median).abs() > self._settings.margin)
        impulses = _put_back(torch.zeros_like(images), few, impulse.to(images.dtype))
        unsound = torch.stack(_nine(impulses, few))
        # Impulses go to the end of the order, so that the middle of those before them is the median.
        by_size = torch.stack(ordered((torch.stack(around) + 1e3 * unsound).unbind()))
        sound = (1.0 - unsound).sum(0, keepdim=True)
        middle = by_size.gather(0, ((sound - 1.0) / 2.0).clamp_min(0.0).long())[0]
        repair = torch.where(sound[0] > 0.0, middle, median)
        repaired = _put_back(images, few, torch.where(impulse, repair, values))
        return repaired, mean_of_image(impulses)


def _picked(values: Tensor, few: Tensor | None) -> Tensor:
    return values if few is None else values[few]


def _put_back(values: Tensor, few: Tensor | None, changed: Tensor) -> Tensor:
    return changed if few is None else values.masked_scatter(few, changed)


def _nine(values: Tensor, few: Tensor | None) -> list[Tensor]:
    return [_picked(shifted, few) for shifted in neighbourhoods(values)]


def neighbourhoods(images: Tensor) -> list[Tensor]:
    """Return the 3 x 3 values around each as nine tensors (N, C, H, W); borders are repeated."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]


# A sorting network for nine values (25 comparisons, the fewest there can be: Codish, Cruz-Filipe, Frank and
# Schneider-Kamp 2014): four times as fast as torch.sort, and plain minima and maxima in exports.
COMPARISONS = (
    *((0, 3), (1, 7), (2, 5), (4, 8), (0, 7), (2, 4), (3, 8), (5, 6), (0, 2), (1, 3), (4, 5), (7, 8), (1, 4)),
    *((3, 6), (5, 7), (0, 1), (2, 4), (3, 5), (6, 8), (2, 3), (4, 5), (6, 7), (1, 2), (3, 4), (5, 6)),
)


def ordered(values: Sequence[Tensor]) -> list[Tensor]:
    """Sort nine tensors value by value, the smallest first."""
    found = list(values)
    for i, j in COMPARISONS:
        found[i], found[j] = torch.minimum(found[i], found[j]), torch.maximum(found[i], found[j])
    return found
