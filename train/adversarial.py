"""Losses on attacked images: adversarial training with many steps and with one, TRADES, MART, NuAT, and AWP for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attacks import as_threat
from ..configs.device import precisely
from ..configs.errors import InputError, at_least
from ..models import Classifier
from .losses import Batch, LossResult, StandardLoss, not_negative, register_loss
from .perturb import (
    InnerAttack,
    Objective,
    Start,
    at_worse_weights,
    cross_entropy_ascent,
    frozen_statistics,
)

POLAR_STEPS = 24
"""A singular value grows by at most 1.5 a step: those above a thousandth of the Frobenius norm reach 1."""


@dataclass(frozen=True)
class StepSettings:
    """Settings of losses whose attack takes one step.

    Attributes:
        threat: Norm and radius, e.g. "linf 8/255" or "l2 0.5".
        step_size: Length of the step in pixels; null takes what the loss's paper does.
        gradient_mode: Gradient mode of the front-end in the attack; null takes the layer's own.
        weight_perturbation: The gradient is taken where the backbone's weights are moved against training by this share
            of their norm (adversarial weight perturbation, Wu et al., NeurIPS 2020); 0 switches that off.
    """

    threat: str = "linf 8/255"
    step_size: float | None = None
    gradient_mode: Literal["unroll", "implicit"] | None = None
    weight_perturbation: float = 0.0

    def __post_init__(self) -> None:
        if self.step_size is not None and not 0.0 < self.step_size < math.inf:
            raise InputError(f"loss.step_size is {self.step_size}; give a number above 0, or null.")
        if not 0.0 <= self.weight_perturbation < 1.0:
            raise InputError(
                f"loss.weight_perturbation is {self.weight_perturbation}; give 0 (off) or a small share of the "
                "weights' norm, such as 0.005."
            )

    def attack(self, *, relative: float, start: Start) -> InnerAttack:
        """Return the attack; ``relative`` is the length of its steps over epsilon where none is given."""
        threat = as_threat(self.threat)
        if threat.norm == "l1":
            raise InputError(
                f"train.loss.threat is {self.threat!r}; adversarial training here takes linf or l2."
            )
        return InnerAttack(
            threat=threat,
            steps=getattr(self, "steps", 1),
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


@dataclass(frozen=True, kw_only=True)
class AttackedLoss(StandardLoss):
    """Base of losses on attacked images.

    Attributes:
        attack: The attack on images in training.
        weight_perturbation: Share of their norm by which weights are perturbed; 0 for not at all.
        relative_step: Length of a step over epsilon.
        start: Starting point of the attack.
    """

    relative_step: ClassVar[float] = 0.25
    start: ClassVar[Start] = "ball"
    attack: InnerAttack
    weight_perturbation: float = 0.0

    @classmethod
    def of(cls, settings: Any, **common: Any) -> Self:
        """Build the loss from its settings."""
        own = {"beta": settings.beta} if hasattr(settings, "beta") else {}
        attack = settings.attack(relative=cls.relative_step, start=cls.start)
        return cls(attack=attack, weight_perturbation=settings.weight_perturbation, **own, **common)

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of a batch and its attacked version."""
        attacked = self.attack(model, batch.images, self.ascent(model, batch))
        if not self.weight_perturbation:
            return self.judge(model, batch, attacked)
        return at_worse_weights(
            model, lambda same: self.judge(same, batch, attacked), self.weight_perturbation
        )

    def ascent(self, model: Classifier, batch: Batch) -> Objective:
        """Return what the attack raises: the cross entropy."""
        return cross_entropy_ascent(model, batch.labels)

    def judge(self, model: Classifier, batch: Batch, attacked: Tensor) -> LossResult:
        """Return the loss of images that are attacked already."""
        raise NotImplementedError


@register_loss("pgd")
@dataclass(frozen=True, kw_only=True)
class AdversarialLoss(AttackedLoss):
    """Cross entropy on the images of an attack that raises it (Madry et al., ICLR 2018)."""

    Settings: ClassVar[type] = AttackSettings

    def judge(self, model: Classifier, batch: Batch, attacked: Tensor) -> LossResult:
        """Return the loss of the attacked batch."""
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
    relative_step = 1.25


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
    relative_step = 1.0
    start = "beyond"


@register_loss("trades")
@dataclass(frozen=True, kw_only=True)
class TradesLoss(AttackedLoss):
    """Cross entropy on the image plus beta times KL(p(x) || p(x')) (Zhang et al., ICML 2019, equation 5).

    The attack raises that same divergence, beginning near the image; the paper takes beta = 6.

    Attributes:
        beta: Weight of the divergence.
    """

    Settings: ClassVar[type] = TradesSettings
    start = "near"
    beta: float = 6.0

    def ascent(self, model: Classifier, batch: Batch) -> Objective:
        """Return the divergence from the image's prediction."""
        target = settled_logits(model, batch.images)
        return lambda candidates: kl_divergence(target, model(candidates).float()).sum()

    def judge(self, model: Classifier, batch: Batch, attacked: Tensor) -> LossResult:
        """Return the loss of a batch and its attacked version."""
        logits, figures = self.classify(model, batch.images)
        other, _ = self.classify(model, attacked, auxiliary=False)
        divergence = kl_divergence(logits, other).mean()
        loss = self.cross_entropy(logits, batch.labels) + self.beta * divergence
        return self.result(loss, other, {**figures, "divergence": divergence})


@register_loss("mart")
@dataclass(frozen=True, kw_only=True)
class MartLoss(AttackedLoss):
    """Boosted cross entropy on the attacked image, and the divergence weighted by misclassification.

    Wang et al., ICLR 2020, equation 11: BCE(p(x'), y) + beta * KL(p(x) || p(x')) * (1 - p_y(x)), where BCE
    adds -log(1 - the largest other probability) to the cross entropy. The paper takes beta = 5 to 6. Label smoothing
    does not enter.

    Attributes:
        beta: Weight of the second term.
    """

    Settings: ClassVar[type] = MartSettings
    start = "near"
    smooths_labels = False
    beta: float = 6.0

    def judge(self, model: Classifier, batch: Batch, attacked: Tensor) -> LossResult:
        """Return the loss of a batch and its attacked version."""
        logits, figures = self.classify(model, attacked)
        clean = model(batch.images).float()
        confidence = clean.softmax(dim=1).gather(1, batch.labels[:, None])[:, 0]
        weighted = (kl_divergence(clean, logits) * (1.0 - confidence)).mean()
        loss = boosted_cross_entropy(logits, batch.labels).mean() + self.beta * weighted
        return self.result(loss, logits, {**figures, "divergence": weighted})


@dataclass(frozen=True)
class NuclearSettings(StepSettings):
    """Settings of the loss "nuat".

    Attributes:
        beta: Weight of the nuclear norm.
    """

    beta: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("loss.beta", self.beta)


@register_loss("nuat")
@dataclass(frozen=True, kw_only=True)
class NuclearLoss(AttackedLoss):
    """Cross entropy on the image plus beta times the nuclear norm of what one step does to a batch's logits.

    NuAT (Sriramanan et al., NeurIPS 2021): the step, of epsilon from a random corner of half the ball, raises the sum
    of both terms; the norm is over the batch's size. The authors raise beta from 0 to 4 over training and leave the
    norm out of every second step's attack; here beta is constant and the attack always the same.

    Attributes:
        beta: Weight of the nuclear norm.
    """

    Settings: ClassVar[type] = NuclearSettings
    may_collapse = True
    relative_step = 1.0
    start = "corner"
    beta: float = 4.0

    def ascent(self, model: Classifier, batch: Batch) -> Objective:
        """Return the cross entropy plus the norm."""
        target = settled_logits(model, batch.images)

        def objective(candidates: Tensor) -> Tensor:
            logits = model(candidates).float()
            entropy = F.cross_entropy(logits, batch.labels, reduction="sum")
            return entropy + self.beta * nuclear_norm(logits - target)

        return objective

    def judge(self, model: Classifier, batch: Batch, attacked: Tensor) -> LossResult:
        """Return the loss of a batch and its attacked version."""
        logits, figures = self.classify(model, batch.images)
        other, _ = self.classify(model, attacked, auxiliary=False)
        moved = nuclear_norm(logits - other) / len(logits)
        loss = self.cross_entropy(logits, batch.labels) + self.beta * moved
        return self.result(loss, other, {**figures, "nuclear norm": moved})


def settled_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of the function that an attack climbs on, without gradient."""
    with torch.no_grad(), frozen_statistics(model):
        return model(images).float()


def nuclear_norm(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values of (N, K), to a thousandth of its Frobenius norm a value.

    A singular-value decomposition would wait for the device. This iterates X <- 1.5 X - 0.5 X X'X to the polar factor
    U V' of the matrix, which is the norm's gradient (Higham, Functions of Matrices, 2008, chapter 8).
    """
    with precisely(matrix):
        with torch.no_grad():
            factor = matrix / matrix.norm().clamp_min(torch.finfo(matrix.dtype).tiny)
            for _ in range(POLAR_STEPS):
                factor = 1.5 * factor - 0.5 * factor @ (factor.T @ factor)
        return (matrix * factor).sum()


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
