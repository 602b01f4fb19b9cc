"""Attacks without the model's gradient: random noise of full size, and perturbations made for another model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..configs.errors import InputError
from .access import CountingModel, as_foolbox
from .interface import RANDOM_SEARCH, TRANSFER, BatchwiseAttack
from .threat import ThreatModel, scale_into_ball


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
    def kind(self) -> str:
        """Random search."""
        return RANDOM_SEARCH

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


_NORMS: dict[str, Any] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer(BatchwiseAttack):
    """Auto-PGD for the highest loss of a given surrogate, tried on the attacked model.

    Useful surrogates are the same classifier without its front-end and with a plain LCA. The points of
    highest loss are taken, not the first that fool the surrogate: they transfer better.

    Attributes:
        source: The surrogate, in evaluation mode, on the device of the attacked model.
        name: Name of the surrogate in reports.
        restarts: Runs of Auto-PGD, with cross-entropy and the difference of logits ratio in turn.
        steps: Steps of each run.
    """

    rechecks_alone: ClassVar[bool] = True
    source: nn.Module
    name: str = "surrogate"
    restarts: int = 4
    steps: int = 50

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.steps < 1:
            raise InputError(
                f"Transfer has restarts={self.restarts}, steps={self.steps}; expected at least 1 each."
            )
        if any(part.training for part in self.source.modules()):
            raise InputError(f"the surrogate {self.name!r} is in training mode; call its eval() first.")

    @property
    def kind(self) -> str:
        """Transfer."""
        return TRANSFER

    @property
    def uses_gradients(self) -> bool:
        """False: only the surrogate is differentiated, and what that costs is not counted."""
        return False

    def run_batch(
        self, model: CountingModel, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
    ) -> Tensor:
        """Maximise the surrogate's loss, and try each result."""
        found = images.clone()
        standing = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            loss = "dlr" if restart % 2 and self._classes(images) > 2 else "ce"
            tried = self._maximise(images[standing], labels[standing], threat, loss, seed + restart)
            found[standing] = tried
            with torch.no_grad():
                standing = standing[model(tried).argmax(dim=1) == labels[standing]]
            if len(standing) == 0:
                break
        return found

    def _classes(self, images: Tensor) -> int:
        with torch.no_grad():
            return self.source(images[:1]).shape[1]

    def _maximise(self, x: Tensor, y: Tensor, threat: ThreatModel, loss: str, seed: int) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack

        torch.manual_seed(seed)
        attack = APGDAttack(
            CountingModel(self.source, x.dtype),
            n_iter=self.steps,
            norm=_NORMS[threat.norm],
            eps=threat.epsilon,
            loss=loss,
            seed=seed,
            device=x.device,
        )
        return attack.perturb(x.float(), y, best_loss=True).to(x.dtype).detach()
