"""Losses on attacked images: adversarial training, TRADES and MART."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import Classifier
from .losses import Batch, LossResult, StandardLoss
from .perturb import InnerAttack, cross_entropy_ascent, frozen_statistics


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

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of the attacked batch."""
        attacked = self.attack(model, batch.images, cross_entropy_ascent(model, batch.labels))
        logits, figures = self.classify(model, attacked)
        return self.result(self.cross_entropy(logits, batch.labels), logits, figures)


@dataclass(frozen=True, kw_only=True)
class TradesLoss(StandardLoss):
    """Cross entropy on the image plus beta times KL(p(x) || p(x')) (Zhang et al., ICML 2019, equation 5).

    The attack raises that same divergence, beginning near the image; the paper takes beta = 6.

    Attributes:
        attack: How images are attacked.
        beta: Weight of the divergence.
    """

    attack: InnerAttack
    beta: float = 6.0

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of a batch and its attacked version."""
        attacked = self.attack(model, batch.images, self._divergence_ascent(model, batch.images))
        logits, figures = self.classify(model, batch.images)
        other, _ = self.classify(model, attacked, auxiliary=False)
        divergence = kl_divergence(logits, other).mean()
        loss = self.cross_entropy(logits, batch.labels) + self.beta * divergence
        return self.result(loss, other, {**figures, "divergence": divergence})

    def _divergence_ascent(self, model: nn.Module, images: Tensor):
        with torch.no_grad(), frozen_statistics(model):  # the same function that the attack climbs on
            target = model(images).float()
        return lambda candidates: kl_divergence(target, model(candidates).float()).sum()


@dataclass(frozen=True, kw_only=True)
class MartLoss(StandardLoss):
    """Boosted cross entropy on the attacked image, and the divergence weighted by misclassification.

    Wang et al., ICLR 2020, equation 11: BCE(p(x'), y) + beta * KL(p(x) || p(x')) * (1 - p_y(x)), where BCE
    adds -log(1 - the largest other probability) to the cross entropy. The paper takes beta = 5 to 6. Label smoothing
    does not enter.

    Attributes:
        attack: How images are attacked, by raising the cross entropy.
        beta: Weight of the second term.
    """

    attack: InnerAttack
    beta: float = 6.0

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of a batch and its attacked version."""
        attacked = self.attack(model, batch.images, cross_entropy_ascent(model, batch.labels))
        logits, figures = self.classify(model, attacked)
        clean = model(batch.images).float()
        confidence = clean.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
        weighted = (kl_divergence(clean, logits) * (1.0 - confidence)).mean()
        loss = boosted_cross_entropy(logits, batch.labels).mean() + self.beta * weighted
        return self.result(loss, logits, {**figures, "divergence": weighted})


def kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return KL(softmax(logits) || softmax(other)) of each row, (N,), in nats."""
    logs = logits.log_softmax(dim=1)
    return (logs.exp() * (logs - other.log_softmax(dim=1))).sum(dim=1)


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log p_y - log(1 - max_{k != y} p_k) of each row, (N,).

    1 - p_k is computed as the sum of the other probabilities in the logarithm, which stays finite where
    p_k rounds to 1.
    """
    logs = logits.log_softmax(dim=1)
    true = F.one_hot(labels, logits.shape[1]).bool()
    rival = logs.masked_fill(true, -torch.inf).argmax(dim=1, keepdim=True)
    rest = logs.scatter(1, rival, -torch.inf).logsumexp(dim=1)
    return -logs.gather(1, labels[:, None])[:, 0] - rest
