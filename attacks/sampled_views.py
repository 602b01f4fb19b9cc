"""Views for models whose gradient exists but tells little: averaged over, or estimated from, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..configs.errors import InputError
from .counting import CountingModel, Model
from .views import View, replace_backward


@dataclass(frozen=True, kw_only=True)
class SmoothedView(View):
    """Gradient averaged over noisy copies of the image; the value is the clean one's.

    Attributes:
        sigma: Standard deviation of the noise, in pixel units.
        samples: Copies per image.
    """

    sigma: float = 8 / 255
    samples: int = 10

    def __post_init__(self) -> None:
        _check_positive(self.sigma, self.samples)

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in with the averaged gradient."""

        def call(images: Tensor) -> Tensor:
            logits = model(images)
            if not torch.is_grad_enabled():
                return logits
            copies = [model(images + self.sigma * torch.randn_like(images)) for _ in range(self.samples)]
            return replace_backward(logits, torch.stack(copies).mean(dim=0))

        return call


@dataclass(frozen=True, kw_only=True)
class EstimatedView(View):
    """Gradient estimated from values alone, by antithetic random differences.

    Natural evolution strategies as in Ilyas et al., ICML 2018; SPSA as in Uesato et al., ICML 2018.

    Attributes:
        sigma: Length of the differences, in pixel units: coarse enough to look over hidden steps.
        samples: Pairs of queries per image and gradient.
    """

    sigma: float = 4 / 255
    samples: int = 50

    def __post_init__(self) -> None:
        _check_positive(self.sigma, self.samples)

    @property
    def uses_gradients(self) -> bool:
        """False."""
        return False

    def surrogate(self, model: CountingModel, image: Tensor) -> Model:
        """Stand-in with the estimated gradient."""
        return lambda images: _Differences.apply(images, model, self.sigma, self.samples)


class _Differences(torch.autograd.Function):
    """The model's values forward, random differences backward."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: Model, sigma: float, samples: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.images, ctx.model, ctx.sigma, ctx.samples = images.detach(), model, sigma, samples
        return model(images.detach()).detach().clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, total = ctx.images, torch.zeros_like(ctx.images)
        with torch.no_grad():
            for _ in range(ctx.samples):
                direction = torch.randn_like(images).sign()
                shift = ctx.sigma * direction
                rise = ctx.model(images + shift) - ctx.model(images - shift)
                slope = (rise * cotangent).sum(dim=1) / (2 * ctx.sigma)
                total += slope.view(-1, *[1] * (images.ndim - 1)) * direction
        return total / ctx.samples, None, None, None


def _check_positive(sigma: float, samples: int) -> None:
    if sigma <= 0 or samples < 1:
        raise InputError(f"sigma={sigma}, samples={samples}; expected sigma above 0 and at least 1 sample.")
