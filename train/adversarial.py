"""Losses on attacked images: adversarial training with many steps and with one, TRADES and MART."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks import as_threat
from ..configs.errors import InputError, at_least
from ..models import Classifier
from .losses import Batch, LossResult, StandardLoss, not_negative, register_loss
from .perturb import InnerAttack, Start, cross_entropy_ascent, frozen_statistics


@dataclass(frozen=True)
class StepSettings:
    """Settings of losses whose attack takes one step.

    Attributes:
        threat: Norm and radius, e.g. "linf 8/255" or "l2 0.5".
        step_size: Length of the step in pixels; null takes what the loss's paper does.
        gradient_mode: How the attack's gradient passes the front-end; null takes the layer's own.
    """

    threat: str = "linf 8/255"
    step_size: float | None = None
    gradient_mode: Literal["unroll", "implicit"] | None = None

    def __post_init__(self) -> None:
        if self.step_size is not None and not 0.0 < self.step_size < math.inf:
            raise InputError(f"loss.step_size is {self.step_size}; give a number above 0, or null.")

    def attack(self, *, steps: int, relative: float, start: Start = "ball") -> InnerAttack:
        """Return the attack; ``relative`` is the length of its steps over epsilon where none is given."""
        threat = as_threat(self.threat)
        if threat.norm == "l1":
            raise InputError(
                f"train.loss.threat is {self.threat!r}; adversarial training here takes linf or l2."
            )
        return InnerAttack(
            threat=threat,
            steps=steps,
            step_size=self.step_size or relative * threat.epsilon,
            start=start,
            gradient_mode=self.gradient_mode,
        )


@dataclass(frozen=True)
class AttackSettings(StepSettings):
    """Settings of the loss "pgd".

    Attributes:
        steps: Gradient steps of the attack in training; a step is epsilon / 4 unless ``step_size`` is given.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("loss.steps", self.steps, 1)


@dataclass(frozen=True)
class TradesSettings(AttackSettings):
    """Settings of the loss "trades".

    Attributes:
        beta: Weight of the divergence.
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("loss.beta", self.beta)


@dataclass(frozen=True)
class MartSettings(TradesSettings):
    """Settings of the loss "mart": those of "trades"."""


@register_loss("pgd")
@dataclass(frozen=True, kw_only=True)
class AdversarialLoss(StandardLoss):
    """Cross entropy on the images of an attack that raises it (Madry et al., ICLR 2018).

    Attributes:
        attack: How images are attacked.
    """

    Settings: ClassVar[type] = AttackSettings
    attack: InnerAttack

    @classmethod
    def of(cls, settings: Any, **common: Any) -> Self:
        """Build the loss from its settings."""
        return cls(attack=settings.attack(steps=settings.steps, relative=0.25), **common)

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of the attacked batch."""
        attacked = self.attack(model, batch.images, cross_entropy_ascent(model, batch.labels))
        logits, figures = self.classify(model, attacked)
        return self.result(self.cross_entropy(logits, batch.labels), logits, figures)


@register_loss("fast")
@dataclass(frozen=True, kw_only=True)
class FastLoss(AdversarialLoss):
    """The same with one step of 1.25 epsilon from a random start in the ball (Wong, Rice and Kolter, ICLR 2020).

    It may overfit to its weak attack from one epoch to the next, so that training watches the robust accuracy.
    """

    Settings = StepSettings
    may_collapse = True

    @classmethod
    def of(cls, settings: Any, **common: Any) -> Self:
        """Build the loss from its settings."""
        return cls(attack=settings.attack(steps=1, relative=1.25), **common)


@dataclass(frozen=True)
class NoisyStepSettings(StepSettings):
    """Settings of the loss "n-fgsm": those of "fast"."""


@register_loss("n-fgsm")
@dataclass(frozen=True, kw_only=True)
class NoisyStepLoss(FastLoss):
    """The same with one step of epsilon from uniform noise of twice the radius, left where it ends.

    N-FGSM (de Jorge et al., NeurIPS 2022): without the projection onto the ball, and with stronger noise, one step
    does not overfit at radii where "fast" does. The images may be 3 epsilon away.
    """

    Settings = NoisyStepSettings

    @classmethod
    def of(cls, settings: Any, **common: Any) -> Self:
        """Build the loss from its settings."""
        return cls(attack=settings.attack(steps=1, relative=1.0, start="beyond"), **common)


@register_loss("trades")
@dataclass(frozen=True, kw_only=True)
class TradesLoss(StandardLoss):
    """Cross entropy on the image plus beta times KL(p(x) || p(x')) (Zhang et al., ICML 2019, equation 5).

    The attack raises that same divergence, beginning near the image; the paper takes beta = 6.

    Attributes:
        attack: How images are attacked.
        beta: Weight of the divergence.
    """

    Settings: ClassVar[type] = TradesSettings
    attack: InnerAttack
    beta: float = 6.0

    @classmethod
    def of(cls, settings: Any, **common: Any) -> Self:
        """Build the loss from its settings."""
        attack = settings.attack(steps=settings.steps, relative=0.25, start="near")
        return cls(attack=attack, beta=settings.beta, **common)

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


@register_loss("mart")
@dataclass(frozen=True, kw_only=True)
class MartLoss(TradesLoss):
    """Boosted cross entropy on the attacked image, and the divergence weighted by misclassification.

    Wang et al., ICLR 2020, equation 11: BCE(p(x'), y) + beta * KL(p(x) || p(x')) * (1 - p_y(x)), where BCE
    adds -log(1 - the largest other probability) to the cross entropy. The paper takes beta = 5 to 6. Label smoothing
    does not enter.

    Attributes:
        attack: How images are attacked, by raising the cross entropy.
        beta: Weight of the second term.
    """

    Settings = MartSettings
    smooths_labels = False

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
