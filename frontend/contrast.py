"""Contrast levelling: pictures of a narrow range of grey levels are stretched to the usual one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..configs.errors import InputError
from .base import NoTraining, register_frontend
from .gate import Gate, GatedFrontend, check_gate, mean_of_image

ENDS = 0.02  # share of the values taken as the darkest, and as the brightest
LEAST = 0.02  # a narrower range is not measured: even images would be stretched without end


@dataclass(frozen=True)
class ContrastSettings:
    """Settings of the contrast levelling.

    Attributes:
        usual: The range that pictures are stretched to, in pixels: that of usual pictures, between the mean of the
            darkest fiftieth of the values and that of the brightest.
        gate: Difference of the range from 1, in pixels, at which the gate begins to open, and at which it is open.
        in_channels: Image channels.
    """

    usual: float = 0.82
    gate: Gate | None = (0.45, 0.55)
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not LEAST < self.usual <= 1.0:
            raise InputError(f"usual is {self.usual}; give a number above {LEAST}, at most 1.")
        object.__setattr__(self, "gate", check_gate(self.gate))


@register_frontend("contrast")
class ContrastLevelling(GatedFrontend):
    """Stretch images of a narrow range about their mean, the same for all channels; wide ones stay as they are.

    Arguments are the fields of :class:`ContrastSettings`. The damage is 1 less the range.
    """

    Settings = ContrastSettings
    Training = NoTraining
    damage = (
        "what the range of grey levels lacks of 1. Pictures that are even by nature, of sky or mist, read as pale; "
        "noise widens the range and hides a loss of contrast."
    )

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return stretched images and what their range lacks of 1, (N,)."""
        values = images.flatten(1)
        count = max(round(ENDS * values.shape[1]), 1)
        brightest = values.topk(count, dim=1).values.mean(1)
        darkest = values.topk(count, dim=1, largest=False).values.mean(1)
        span = brightest - darkest
        gain = (self._settings.usual / span.clamp_min(LEAST)).clamp_min(1.0)[:, None, None, None]
        mean = mean_of_image(images)[:, None, None, None]
        return (mean + gain * (images - mean)).clamp(0.0, 1.0), 1.0 - span
