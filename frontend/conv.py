"""The fair baseline: a trained convolution with the front-end's geometry."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import standardise
from .sparse.functional import left_padding


class ConvFrontend(nn.Module):
    """Strided convolution + batch norm + ReLU on standardised images, of the same output size as LCA's code.

    Args:
        in_channels: Image channels.
        features: Output channels.
        kernel_size: Side of the kernel.
        stride: Pixels between outputs.
    """

    def __init__(
        self, in_channels: int = 3, features: int = 64, kernel_size: int = 9, stride: int = 2
    ) -> None:
        super().__init__()
        padding = left_padding(kernel_size)
        self.overhang = 1 - kernel_size % 2  # as in the dictionary: even kernels need one more pixel
        self.conv = nn.Conv2d(in_channels, features, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, images: Tensor) -> Tensor:
        """Map pixels in [0, 1], (N, C, H, W), to (N, features, ceil(H/stride), ceil(W/stride))."""
        images = F.pad(standardise(images).images, (0, self.overhang, 0, self.overhang))
        return torch.relu(self.norm(self.conv(images)))
