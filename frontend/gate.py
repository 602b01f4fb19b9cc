"""Gates: what is not damaged passes untouched.

A gated front-end restores an image, measures the damage that it stands for, and outputs

    image + w (restored - image),    w = clamp((damage - low) / (high - low), 0, 1)

so that w is exactly 0, and the image the very same, wherever the damage is below ``low``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..configs.errors import InputError
from .base import Encoding, Frontend, Setting

Gate = tuple[float, float]
GateMode = Literal["measured", "smooth", "open", "closed"]


def mean_of_image(values: Tensor) -> Tensor:
    """Mean of each image over channels and pixels, (N,), in stages: runtimes that add up naively are more exact so."""
    return values.mean(dim=3).mean(dim=2).mean(dim=1)


def check_gate(gate: Any) -> Gate | None:
    """Return a gate as a pair of numbers; None, or an empty list in YAML, stands for a gate that is always open.

    Raises:
        InputError: If it is no pair 0 <= low < high.
    """
    if gate is None:
        return None
    low, high = gate if isinstance(gate, list | tuple) and len(gate) == 2 else (math.nan, math.nan)
    if not 0.0 <= low < high < math.inf:
        raise InputError(f"gate is {gate!r}; give [low, high] with 0 <= low < high, or null for none.")
    return float(low), float(high)


@dataclass(frozen=True)
class Gated:
    """The decision of a gate.

    Attributes:
        images: The output, (N, C, H, W).
        damage: Estimated damage of each image, (N,).
        opening: w of each image, (N,): 0 where the image passes untouched, 1 where it is replaced.
    """

    images: Tensor
    damage: Tensor
    opening: Tensor

    def figures(self) -> dict[str, Tensor]:
        """Return damage and opening of each image, under the names that reports and `predict` show."""
        return {"damage": self.damage, "gate": self.opening}


def through_gate(
    images: Tensor, restored: Tensor, damage: Tensor, gate: Gate | None, mode: GateMode = "measured"
) -> Gated:
    """Return each image, its restoration, or a mixture of the two.

    Args:
        images: (N, C, H, W).
        restored: The same shape.
        damage: (N,).
        gate: (low, high); None is always open.
        mode: "measured" decides as above. For adaptive attacks: "open" and "closed" whatever the damage; "smooth"
            decides as "measured" does, while the gradient is that of a sigmoid, which no image saturates.
    """
    opening = torch.ones_like(damage)
    if mode == "closed":
        opening = torch.zeros_like(damage)
    elif gate is not None and mode != "open":
        low, high = gate
        opening = ((damage - low) / (high - low)).clamp(0.0, 1.0)
        if mode == "smooth":
            surrogate = torch.sigmoid(4.0 * (damage - 0.5 * (low + high)) / (high - low))
            opening = surrogate + (opening - surrogate).detach()
    share = opening[:, None, None, None]
    # Sums would round: closed gates output the very image, open ones the very restoration.
    mixed = images + share * (restored - images)
    if mode != "smooth":  # torch.where would cut the gradient of closed gates
        mixed = torch.where(share > 0.0, torch.where(share < 1.0, mixed, restored), images)
    return Gated(mixed, damage, opening)


@dataclass(frozen=True)
class Restoration(Encoding):
    """The output of a gated front-end, and the decision behind it.

    Attributes:
        restored: The output that an open gate would give, (N, C, H, W).
        gated: Decision of the gate.
    """

    restored: Tensor
    gated: Gated

    def figures(self) -> dict[str, Tensor]:
        """Return damage and opening of each image."""
        return self.gated.figures()

    def pictures(self) -> dict[str, Tensor]:
        """Return the output."""
        return {"restored": self.output}


class GatedFrontend(Frontend):
    """A front-end that outputs images, behind a gate; its settings have ``gate``. Subclasses write ``restore``.

    Attributes:
        gate_mode: Mode of the gate; see :func:`through_gate`. Only adaptive attacks change it.
    """

    gate = Setting()

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.gate_mode: GateMode = "measured"

    @property
    def figure_names(self) -> tuple[str, ...]:
        """Damage and opening of the gate."""
        return ("damage", "gate")

    @abstractmethod
    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored images (N, C, H, W) and the damage of each (N,)."""

    def encode(self, images: Tensor) -> Restoration:
        """Restore images (N, C, H, W) and let the gate decide."""
        restored, damage = self.restore(images)
        gated = through_gate(images, restored, damage, self._settings.gate, self.gate_mode)
        return Restoration(gated.images, restored, gated)
