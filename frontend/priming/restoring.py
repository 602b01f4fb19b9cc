"""The restoring stage: a front-end learns to give back the image under white noise of unknown strength.

Dictionary, predictor, step sizes and the rule that raises lambda with the noise are trained end to end through the
unrolled cycles, as in CDLNet (Janjusevic, Khalilian-Gourtani and Wang, IEEE Open Journal of Signal Processing 2022),
whose thresholds follow the noise as well; there the codes start at zero and need some thirty cycles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...configs.errors import InputError
from ..sparse.lca import LCA
from .stages import Stage

STRONGEST = 0.3  # standard deviation of the noise in pixels
ERROR_FLOOR = 4e-4  # squared pixels; errors count relative to this + a tenth of the noise's variance
SHARE = 0.1
LEVELS = (10, 25, 50)  # of 255 grey levels, at which restoration is measured


def noisy(
    images: Tensor, sigma: Tensor | float, generator: torch.Generator, *, clipped: Tensor | bool
) -> Tensor:
    """Add white Gaussian noise; where ``clipped``, clip to [0, 1] and round to 8 bits, as a camera does.

    Args:
        images: (N, C, H, W), pixels in [0, 1].
        sigma: Standard deviation in pixels, one for all or (N, 1, 1, 1).
        generator: Source of the noise.
        clipped: Whether to clip, one for all or (N, 1, 1, 1).
    """
    noise = torch.randn(images.shape, generator=generator).to(images)
    seen = images + sigma * noise
    camera = (seen.clamp(0, 1) * 255).round() / 255
    return torch.where(torch.as_tensor(clipped, device=seen.device), camera, seen)


def psnr(restored: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, (N,); restored pixels are clipped to [0, 1]."""
    return -10.0 * (restored.clamp(0, 1) - images).square().flatten(1).mean(1).log10()


class RestoringStage(Stage):
    """Restore images under white noise from 0 to 0.3, clipped to 8 bits in half of them.

    The loss is the squared error over (0.0004 + a tenth of the noise's variance), so that weak noise counts as much as
    strong noise. The layer outputs its reconstruction.
    """

    name, number, warm_up = "restoring", 4, 0.05

    def make_optimiser(self) -> torch.optim.Optimizer:
        """Adam; the few step sizes, momenta and numbers of the rule take ten times the rate."""
        layer, rate = self.layer, self.plan.restoring_rate
        if layer.output != "reconstruction":
            raise InputError(
                'restoring_steps needs output: reconstruction in the frontend section, whose output is "code".'
            )
        few = [
            weight for weight in layer.parameters() if weight.ndim <= 1 and not _in(weight, layer.predictor)
        ]
        many = [weight for weight in layer.parameters() if not _in(weight, few)]
        return torch.optim.Adam(
            [{"params": many, "lr": rate}, {"params": few, "lr": 10 * rate}], betas=(0.9, 0.99)
        )

    def loss(self, step: int) -> Tensor:
        """Return the weighted error on the step's images."""
        images, generator = self.batch(step), self.generator(-step - 1)
        shape = (len(images), 1, 1, 1)
        sigma = STRONGEST * torch.rand(shape, generator=generator).to(images)
        clipped = torch.rand(shape, generator=generator) < 0.5
        restored = self.layer(noisy(images, sigma, generator, clipped=clipped))
        error = (restored - images).square().flatten(1).mean(1)
        return (error / (ERROR_FLOOR + SHARE * sigma.flatten().square())).mean()


def _in(weight: Tensor, group: object) -> bool:
    members = group.parameters() if isinstance(group, torch.nn.Module) else group
    return any(weight is member for member in members)  # type: ignore[union-attr]


@torch.no_grad()
def measure_restoration(layer: LCA, images: Tensor) -> dict[str, float]:
    """Return PSNR in dB, mean over images, noisy and restored, at noise of 10, 25 and 50 grey levels and without.

    Args:
        layer: A layer whose output is the reconstruction.
        images: (N, C, H, W) of pixels in [0, 1] that priming did not see.
    """
    figures = {"psnr_clean": float(psnr(layer(images), images).mean())}
    for level in LEVELS:
        seen = noisy(images, level / 255, torch.Generator().manual_seed(level), clipped=True)
        figures[f"psnr_{level}_noisy"] = float(psnr(seen, images).mean())
        figures[f"psnr_{level}"] = float(psnr(layer(seen), images).mean())
    return figures
