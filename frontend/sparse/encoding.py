"""Results of one forward pass of a sparse-coding layer, and its threshold decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Encoding
from ..gate import Gated
from ..image_statistics import Standardised
from .metrics import active_fraction
from .operator import ConvOperator
from .threshold import Threshold


@dataclass(frozen=True)
class SparseEncoding(Encoding):
    """All that one forward pass of a sparse-coding layer computes.

    Attributes:
        output: The code, or the reconstruction in pixel range.
        code: (N, M, ceil(H/s), ceil(W/s)).
        state: The final state, same shape.
        initial_state: The state before the first iteration; None for a cold start.
        standardised: The images as the solver saw them.
        operator: The dictionary used.
        lam: The threshold value used; one per image, (N, 1, 1, 1), where it is adaptive.
        gated: Decision of the gate; None without one.
    """

    code: Tensor
    state: Tensor
    initial_state: Tensor | None
    standardised: Standardised
    operator: ConvOperator
    lam: Tensor | float
    gated: Gated | None = None

    @property
    def reconstruction(self) -> Tensor:
        """Images from the code, (N, C, H, W) in pixel range."""
        height, width = self.standardised.images.shape[2:]
        return self.standardised.restore(self.operator.synthesise(self.code, (height, width)))

    @property
    def active(self) -> Tensor:
        """Share of active units, (N,)."""
        return active_fraction(self.code, self.lam)

    def figures(self) -> dict[str, Tensor]:
        """Return the share of active units of each code, and what the gate decided of each image."""
        figures = {"active_fraction": self.active}
        return figures if self.gated is None else figures | self.gated.figures()

    def pictures(self) -> dict[str, Tensor]:
        """Return what the codes restore and where they are active."""
        return {"reconstruction": self.reconstruction, "activity": self.code.abs().sum(1)}


class Recording:
    """Stands in for a threshold and keeps the margin of every state to which it is applied."""

    def __init__(self, threshold: Threshold) -> None:
        self.threshold, self.margins = threshold, list[Tensor]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.threshold, name)

    def __call__(self, state: Tensor, lam: Tensor | float) -> Tensor:
        """Keep the margin, and return the threshold's result."""
        self.margins.append(self.threshold.margin(state, lam))
        return self.threshold(state, lam)

    def stacked(self) -> Tensor:
        """Return the margins, (N, calls, units); units that a smaller tile does not have are zero."""
        flat = [margin.flatten(1) for margin in self.margins]
        units = max(margin.shape[1] for margin in flat)
        return torch.stack([F.pad(margin, (0, units - margin.shape[1])) for margin in flat], dim=1)
