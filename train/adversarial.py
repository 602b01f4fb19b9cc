"""Adversarial training: the loss on attacked images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .losses import Batch, LossResult, StandardLoss
from .perturb import InnerAttack, cross_entropy_ascent


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss(StandardLoss):
    """Cross entropy on the images of an attack that raises it (Madry et al., ICLR 2018).

    With one step of 1.25 epsilon from a random start in the ball it is fast adversarial training (Wong, Rice
    and Kolter, ICLR 2020), which may overfit to its weak attack from one epoch to the next; the training loop
    watches the robust accuracy for that.

    Attributes:
        attack: How images are attacked.
    """

    attack: InnerAttack

    def __call__(self, model: nn.Module, batch: Batch) -> LossResult:
        """Return the loss of the attacked batch."""
        attacked = self.attack(model, batch.images, cross_entropy_ascent(model, batch.labels))
        logits, told = self.classify(model, attacked)
        return self.result(self.cross_entropy(logits, batch.labels), logits, told)
