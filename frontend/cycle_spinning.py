"""Cycle spinning: average what a strided code restores over every place of its grid."""

from __future__ import annotations

from itertools import product

import torch.nn.functional as F
from torch import Tensor, nn

from .lca import LCA


class CycleSpinning(nn.Module):
    """Mean reconstruction over all shifts of the image against the atoms' grid (Coifman and Donoho 1995).

    At stride s a code depends on where its grid lies; the errors of the s^2 reconstructions partly cancel. At stride 1
    there is one shift, and this is the layer itself.

    Args:
        layer: Any LCA layer; ``output`` must be "reconstruction".
        iterations: Cycles in all, shared equally among the shifts, rounded down, at least one each.
    """

    def __init__(self, layer: LCA, iterations: int) -> None:
        super().__init__()
        self.layer = layer
        self.shifts = tuple(product(range(layer.dictionary.stride), repeat=2))
        layer.iterations = max(1, iterations // len(self.shifts))

    def forward(self, images: Tensor) -> Tensor:
        """Restore images, (N, C, H, W), pixels in [0, 1]; the result has the same shape and is not clipped."""
        return self.restore(images)[0]

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` gives, and the lambda of the image that is not shifted."""
        restored = []
        for down, right in self.shifts:
            encoding = self.layer.encode(F.pad(images, (right, 0, down, 0), mode="replicate"))
            restored.append((encoding.output[..., down:, right:], encoding.lam))
        output = sum(part for part, _ in restored[1:]) + restored[0][0]
        return output / len(restored), restored[0][1]
