"""A front-end of your own: a bank of Gabor filters (Daugman, JOSA A 1985) with a learned gain and bias for each.

warplca train --import examples/gabor_frontend.py --config none --out runs/gabor model.frontend=gabor
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from warplca.configs import InputError
from warplca.frontend import Encoding, Frontend, register_frontend, standardise


@dataclass(frozen=True)
class GaborSettings:
    """Settings of the Gabor front-end; ``warplca config --import`` lists what "Attributes" says of them.

    Attributes:
        in_channels: Channels of the images.
        features: Number of filters, of evenly spaced orientations.
        kernel_size: Side of a filter in pixels; odd.
        stride: Pixels from one place of a filter to the next.
        wavelength: Wavelength of the filters, in pixels.
    """

    in_channels: int = 3
    features: int = 16
    kernel_size: int = 9
    stride: int = 2
    wavelength: float = 4.0

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size of gabor is {self.kernel_size}; give an odd number of pixels.")


@register_frontend("gabor")
class Gabor(Frontend):
    """|<image, filter>| at each place, for filters of evenly spaced orientations and two phases."""

    Settings = GaborSettings
    hands_on = "features"  # (N, features, ceil(H / stride), ceil(W / stride)); "images" is the default

    def __init__(self, settings: GaborSettings | None = None, **options: object) -> None:
        super().__init__(settings, **options)
        s = self.settings
        reach = torch.arange(s.kernel_size).float() - s.kernel_size // 2
        y, x = torch.meshgrid(reach, reach, indexing="ij")
        angle = torch.arange(s.features)[:, None, None] * math.pi / s.features
        phase = torch.arange(s.features)[:, None, None] % 2 * math.pi / 2
        wave = torch.cos(2 * math.pi / s.wavelength * (x * angle.cos() + y * angle.sin()) + phase)
        bank = wave * torch.exp(-(x**2 + y**2) / (2 * (s.kernel_size / 5) ** 2))
        bank = (bank - bank.mean((1, 2), keepdim=True))[:, None].repeat(1, s.in_channels, 1, 1)
        self.register_buffer("bank", bank / bank.flatten(1).norm(dim=1)[:, None, None, None])
        self.gain = nn.Parameter(torch.ones(s.features, 1, 1))
        self.bias = nn.Parameter(torch.zeros(s.features, 1, 1))

    def encode(self, images: Tensor) -> Encoding:
        """Filter standardised images."""
        padding, stride = self.settings.kernel_size // 2, self.settings.stride
        response = F.conv2d(standardise(images).images, self.bank, stride=stride, padding=padding)
        return Encoding(self.gain * response.abs() + self.bias)
