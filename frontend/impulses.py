"""Impulse repair: a switching median for pixels that are stuck at black or white.

Dead pixels and transmission errors leave single values at the ends of the range. Replacing only these by the median of
their sound neighbours leaves the picture alone: the switching median filter of Sun and Neuvo, "Detail-preserving median
based filters in image processing", Pattern Recognition Letters 15 (1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

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

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return repaired images and the share of impulses, (N,)."""
        around = _neighbourhoods(images)
        median = around.sort(dim=1).values[:, around.shape[1] // 2]
        at_end = (images <= END) | (images >= 1.0 - END)
        impulse = (at_end & ((images - median).abs() > self._settings.margin)).to(images.dtype)
        unsound = _neighbourhoods(impulse)
        # Impulses go to the end of the order, so that the middle of those before them is the median.
        ordered = torch.where(unsound > 0.0, around + 1e3, around).sort(dim=1).values
        sound = (1.0 - unsound).sum(1, keepdim=True)
        middle = ordered.gather(1, ((sound - 1.0) / 2.0).clamp_min(0.0).long())[:, 0]
        repair = torch.where(sound[:, 0] > 0.0, middle, median)
        return torch.where(impulse > 0.0, repair, images), mean_of_image(impulse)


def _neighbourhoods(images: Tensor) -> Tensor:
    """Return the 3 x 3 values around each, (N, 9, C, H, W); borders are repeated."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    shifts = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifts, dim=1)
