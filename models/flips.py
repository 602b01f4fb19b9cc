"""Threshold flips: why a few images' logits differ between backends by more than rounding.

A code unit whose state lies within rounding of the threshold may pass it in one backend and not in the other; a hard
threshold then changes the code by lambda at once, and later cycles carry the difference on. Whether that is what
happened is shown from the states of every cycle: up to the first cycle in which the two codes differ in any unit, the
states agree to a tolerance, and each unit that differs there lies within that tolerance of the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..frontend import LCA, Threshold
from .classifier import Classifier

FLIP_TOLERANCE = (
    1e-3  # in units of the standardised image; states of magnitude 1 to 10 after tens of float32 cycles
)


@dataclass(frozen=True)
class _Recording(Threshold):
    """A threshold that keeps every state it is applied to, relative to its value: |u| - lambda."""

    margins: list[Tensor] = field(default_factory=list)

    def __call__(self, state: Tensor, lam: Tensor | float) -> Tensor:
        size = state if self.rectified else state.abs()
        self.margins.append(size - lam)
        return super().__call__(state, lam)


class ThresholdTrace(nn.Module):
    """Maps images to how far every unit is above the threshold in every cycle, (N, cycles, M, h, w)."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Run the sparse-coding layer and return its states, less the threshold."""
        layer = self.model.frontend
        assert isinstance(layer, LCA)
        plain = layer.threshold
        recording = _Recording(plain.alpha, plain.gamma, plain.rectified)
        layer.threshold = recording
        try:
            layer.encode(images)
        finally:
            layer.threshold = plain
        return torch.stack(recording.margins, dim=1)


def are_flips(expected: NDArray[np.floating], found: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell for each image whether a threshold flip explains that two backends differ.

    Args:
        expected: Margins of :class:`ThresholdTrace` in PyTorch, (N, cycles, ...).
        found: The same from the other backend.

    Returns:
        (N,) True where the codes differ somewhere, the states before agree to :data:`FLIP_TOLERANCE`, and every unit
        that differs first lies within it of the threshold in both.
    """
    return np.array([_is_flip(one, other) for one, other in zip(expected, found, strict=True)], dtype=bool)


def _is_flip(expected: NDArray[np.floating], found: NDArray[np.floating]) -> bool:
    differs = (expected > 0) != (found > 0)
    cycles = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
    if not len(cycles):
        return False
    first = int(cycles[0])
    agreed = np.abs(expected[: first + 1] - found[: first + 1]).max() <= FLIP_TOLERANCE
    units = differs[first]
    near = np.maximum(np.abs(expected[first][units]), np.abs(found[first][units])).max() <= FLIP_TOLERANCE
    return bool(agreed and near)
