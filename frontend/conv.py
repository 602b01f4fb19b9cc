"""The fair baseline: a trained convolution with the geometry of a sparse code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Encoding, Frontend, HandsOn, register_frontend
from .image_statistics import standardise
from .sparse.functional import left_padding, synthesis_kernel, synthesise
from .sparse.settings import Output


@dataclass(frozen=True)
class ConvSettings:
    """Settings of the convolution.

    Attributes:
        in_channels: Image channels.
        features: Output channels.
        kernel_size: Side of the kernel.
        stride: Pixels between outputs.
        output: "code" for the features; "reconstruction" for the image plus what a transposed convolution of the same
            size makes of them, which is nothing at the start: for backbones that were trained on images.
    """

    in_channels: int = 3
    features: int = 64
    kernel_size: int = 9
    stride: int = 2
    output: Output = "code"


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
        if s.output == "reconstruction":
            self.synthesis = nn.Parameter(torch.zeros_like(self.conv.weight))

    @property
    def hands_on(self) -> HandsOn:
        """Features, (N, features, ceil(H/stride), ceil(W/stride)), or images."""
        return "images" if self._settings.output == "reconstruction" else "features"

    def encode(self, images: Tensor) -> Encoding:
        """Map pixels in [0, 1], (N, C, H, W), to features or to images."""
        standardised = standardise(images)
        padded = F.pad(standardised.images, (0, self.overhang, 0, self.overhang))
        code = torch.relu(self.norm(self.conv(padded)))
        s = self._settings
        if s.output == "code":
            return Encoding(code)
        # A pixel is a sum of so many terms: so scaled, the whole layer learns at the rate of the rest.
        terms = s.features * (s.kernel_size / s.stride) ** 2
        kernel = synthesis_kernel(self.synthesis / terms**0.5, s.stride)
        size = (images.shape[2], images.shape[3])
        change = synthesise(code, kernel, s.kernel_size, s.stride, size)
        return Encoding(images + change * standardised.std)
