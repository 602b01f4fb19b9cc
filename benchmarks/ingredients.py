"""Front-ends for the pilots of ``study-ingredients``: what else may stand before a backbone, and its controls.

    python benchmarks/study.py study-ingredients --data cifar10.npz --import benchmarks/ingredients.py

Features have half of the image's height and width: of an image, the four pixels of each square as channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.frontend import Encoding, Frontend, NoTraining, WarpLCA, register_frontend, standardise
from warplca.models.quick_resnet import whitening_of

STRIDE = 2
GATE = (0.012, 0.018)
"""As in the shipped chain."""
PATCH = 4
"""Side of the patches that are whitened, in pixels."""


@dataclass(frozen=True)
class RestorationsSettings:
    """Settings of the restorations.

    Attributes:
        factors: Each image is restored once for each, its lambda so many times the primed one; 0 is the image itself.
        code: Whether the code of the last one stands beside them.
        noise: Root mean square of noise that training adds to each restoration, in pixels.
        noise_on: "code": white noise on the code; "pixels": on the restored image.
    """

    factors: tuple[float, ...] = (1.0,)
    code: bool = False
    noise: float = 0.0
    noise_on: Literal["code", "pixels"] = "code"

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) < 0 or ((self.code or self.noise) and not self.factors[-1]):
            raise InputError(
                f"factors is {self.factors}; give numbers from 0 on, and above 0 the last where it is coded or noisy."
            )


@register_frontend("restorations")
class Restorations(Frontend):
    """One image restored by the shipped WARP-LCA with several lambda, each restoration standardised, side by side."""

    Settings = RestorationsSettings
    Training = NoTraining
    hands_on = "features"
    stride = STRIDE

    def __init__(self, settings: RestorationsSettings | None = None, **options: object) -> None:
        super().__init__(settings, **options)
        self.layers = nn.ModuleDict()
        for factor in self.settings.factors:
            if factor:
                layer = WarpLCA.from_pretrained("cifar10-64x9s2-restore")
                layer.lam, layer.adaptive_lam = layer.lam * factor, layer.adaptive_lam * factor
                layer.gate = GATE
                self.layers[self._name(factor)] = layer.requires_grad_(False)

    @property
    def out_channels(self) -> int:
        """Four for each channel of each restoration, and the code's."""
        last = self.settings.factors[-1]
        coded = self._layer(last).settings.features if self.settings.code else 0
        return len(self.settings.factors) * self.in_channels * STRIDE**2 + coded

    @staticmethod
    def _name(factor: float) -> str:
        return f"{factor:g}".replace(".", "-")

    def encode(self, images: Tensor) -> Encoding:
        """Restore, standardise and stack."""
        coded = [self._layer(factor).encode(images) if factor else None for factor in self.settings.factors]
        parts = [images if one is None else self._noisy(one) for one in coded]
        features = [F.pixel_unshuffle(standardise(part).images, STRIDE) for part in parts]
        if self.settings.code:
            features.append(standardise(coded[-1].code).images)
        return Encoding(torch.cat(features, dim=1))

    def _layer(self, factor: float) -> WarpLCA:
        layer = self.layers[self._name(factor)]
        assert isinstance(layer, WarpLCA)
        return layer

    def _noisy(self, coded: Any) -> Tensor:
        restored = coded.output
        if not self.training or not self.settings.noise:
            return restored
        if self.settings.noise_on == "code":
            noise = coded.operator.synthesise(torch.randn_like(coded.code), restored.shape[2:])
        else:
            noise = torch.randn_like(restored)
        return restored + noise * (self.settings.noise / noise.square().mean().sqrt())


@dataclass(frozen=True)
class LocalContrastSettings:
    """Settings of the local contrast normalisation.

    Attributes:
        reach: Standard deviation of the Gaussian window, in pixels.
        floor: Local standard deviations are not taken as less than this, in pixels.
    """

    reach: float = 2.0
    floor: float = 0.05


@register_frontend("local-contrast")
class LocalContrast(Frontend):
    """Local mean removed and local contrast made even, as before the layer of EVNets (Piper et al. 2024).

    Outputs images: mid grey and a standard deviation of 0.2.
    """

    Settings = LocalContrastSettings
    Training = NoTraining

    def _blurred(self, images: Tensor) -> Tensor:
        reach = round(3 * self.settings.reach)
        places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        window = torch.exp(-0.5 * (places / self.settings.reach) ** 2)
        window = (window / window.sum()).repeat(images.shape[1], 1)
        padded = F.pad(images, [reach] * 4, mode="reflect")
        rows = F.conv2d(padded, window[:, None, :, None], groups=images.shape[1])
        return F.conv2d(rows, window[:, None, None, :], groups=images.shape[1])

    def encode(self, images: Tensor) -> Encoding:
        """Normalise; the contrast is that of all channels together."""
        centred = images - self._blurred(images)
        contrast = (
            self._blurred(centred.square().mean(1, keepdim=True)).clamp_min(self.settings.floor**2).sqrt()
        )
        return Encoding((0.5 + 0.2 * centred / contrast).clamp(0.0, 1.0))


@dataclass(frozen=True)
class WhiteningSettings:
    """The whitening convolution has none."""


@register_frontend("whitening")
class Whitening(Frontend):
    """A fixed convolution whose outputs are uncorrelated on the shipped training images, and their negatives; ReLU."""

    Settings = WhiteningSettings
    Training = NoTraining
    hands_on = "features"
    stride = STRIDE

    def __init__(self, settings: WhiteningSettings | None = None, **options: object) -> None:
        super().__init__(settings, **options)
        images, _ = load_dataset("cifar10-subset", "train").tensors(range(1000))
        rows, _ = whitening_of(standardise(images).images, PATCH)
        self.register_buffer("kernel", rows.float().reshape(-1, 3, PATCH, PATCH))

    @property
    def out_channels(self) -> int:
        """Two for each value of a patch."""
        return 2 * len(self.kernel)

    def encode(self, images: Tensor) -> Encoding:
        """Whiten standardised images."""
        padding = (PATCH - STRIDE) // 2
        white = F.conv2d(standardise(images).images, self.kernel, stride=STRIDE, padding=padding)
        return Encoding(torch.relu(torch.cat([white, -white], dim=1)))
