"""The fair baseline: a trained convolution with the geometry of a sparse code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Encoding, Frontend, HandsOn, register_frontend
from .image_statistics import standardise
from .sparse.functional import left_padding


@dataclass(frozen=True)
class ConvSettings:
    """Settings of the convolution.

    Attributes:
        in_channels: Image channels.
        features: Output channels.
        kernel_size: Side of the kernel.
        stride: Pixels between outputs.
    """

    in_channels: int = 3
    features: int = 64
    kernel_size: int = 9
    stride: int = 2


@register_frontend("conv")
class ConvFrontend(Frontend):
    """Strided convolution + batch norm + ReLU on standardised images, of the same output size as LCA's code.

    Arguments are the fields of :class:`ConvSettings`.
    """

    Settings = ConvSettings

    def __init__(self, settings: ConvSettings | None = None, **options: Any) -> None:
        super().__init__(settings, **options)
        s = self._settings
        self.overhang = 1 - s.kernel_size % 2  # as in the dictionary: even kernels need one more pixel
        padding = left_padding(s.kernel_size)
        self.conv = nn.Conv2d(s.in_channels, s.features, s.kernel_size, s.stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(s.features)

    @property
    def hands_on(self) -> HandsOn:
        """Features, (N, features, ceil(H/stride), ceil(W/stride))."""
        return "features"

    def encode(self, images: Tensor) -> Encoding:
        """Map pixels in [0, 1], (N, C, H, W), to features."""
        images = F.pad(standardise(images).images, (0, self.overhang, 0, self.overhang))
        return Encoding(torch.relu(self.norm(self.conv(images))))
