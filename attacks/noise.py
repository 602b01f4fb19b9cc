"""Random noise of full size: what a blind attacker reaches, and the yardstick of the masking checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..configs.errors import InputError
from .ball import scale_into_ball
from .base import BatchwiseAttack
from .counting import CountingModel
from .foolbox_model import as_foolbox
from .threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class AdditiveNoise(BatchwiseAttack):
    """Repeated noise on the surface of the ball, through foolbox: uniform (linf) or Gaussian (l2).

    Attributes:
        repeats: Draws per image.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    repeats: int = 100

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"AdditiveNoise has repeats={self.repeats}; expected at least 1.")

    @property
    def uses_gradients(self) -> bool:
        """False."""
        return False

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Draw until fooled."""
        from foolbox.attacks import additive_noise as attacks

        torch.manual_seed(seed)
        method = (
            attacks.LinfRepeatedAdditiveUniformNoiseAttack(repeats=self.repeats)
            if threat.norm == "linf"
            else attacks.L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack(repeats=self.repeats)
        )
        found = method.run(as_foolbox(model, images), images, labels, epsilon=threat.epsilon)
        # foolbox 3.3.4 scales linf noise by its largest value instead of its largest magnitude.
        return scale_into_ball(images, found, threat)
