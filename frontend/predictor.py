"""The network that predicts LCA's states from an image (Kasenbacher et al., arXiv 2410.18794)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import left_padding


class StatePredictor(nn.Module):
    """A small fully convolutional network from standardised images to membrane potentials.

    One strided convolution with the dictionary's geometry, then residual blocks at code resolution (He et
    al., CVPR 2016), then a pointwise head. Depthwise convolutions would take fewer weights but, on CPUs, three
    times the time. It predicts states, not activations: a state below the threshold carries how far below.

    Args:
        in_channels: Image channels C.
        features: Number of atoms M.
        kernel_size: Side of the first convolution, the atoms' side.
        stride: The dictionary's stride.
        width: Channels inside.
        depth: Number of residual blocks.
        lam: The threshold value whose states it predicts; saved with the weights.
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        kernel_size: int,
        stride: int,
        *,
        width: int = 96,
        depth: int = 3,
        lam: float = 0.5,
    ) -> None:
        super().__init__()
        self.overhang = 1 - kernel_size % 2  # as in functional.analyse: even kernels need one more pixel
        padding = left_padding(kernel_size)
        self.stem = nn.Conv2d(in_channels, width, kernel_size, stride=stride, padding=padding)
        self.blocks = nn.Sequential(*[_Block(width) for _ in range(depth)])
        self.head = nn.Conv2d(width, features, 1)
        self.lam = lam

    def forward(self, images: Tensor) -> Tensor:
        """Map standardised images (N, C, H, W) to states (N, M, ceil(H/s), ceil(W/s))."""
        if self.overhang:
            images = F.pad(images, (0, 1, 0, 1))
        return self.head(self.blocks(self.stem(images)))

    def get_extra_state(self) -> Tensor:
        """Return ``lam`` as a tensor, to be saved with the weights."""
        return torch.tensor(self.lam, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take back what ``get_extra_state`` gave."""
        self.lam = float(state)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        # Older weights do not say which lam they are for: the layer's own.
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


class _Block(nn.Module):
    """x + pointwise(relu(3x3 convolution(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(torch.relu(self.convolve(x)))
