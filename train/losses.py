"""Training losses: from a batch to a scalar, with what the progress bar shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs import TrainConfig
from ..configs.errors import InputError
from ..configs.extensions import LOSSES
from ..configs.recipe import filled
from ..models import Classifier

L = TypeVar("L", bound="StandardLoss")


@dataclass(frozen=True)
class Batch:
    """The images of one step.

    Attributes:
        images: (N, C, H, W), augmented, pixels in [0, 1].
        labels: (N,) classes.
        views: Further augmentations of the same images, each (N, C, H, W).
        clean: The same images before noise, AugMix and PRIME, where the loss has a teacher.
    """

    images: Tensor
    labels: Tensor
    views: tuple[Tensor, ...] = ()
    clean: Tensor | None = None


@dataclass(frozen=True)
class LossResult:
    """A batch's loss and what was seen on the way.

    Attributes:
        loss: Scalar to minimise.
        logits: (N, classes) on the images that the network was trained on: attacked ones where it was attacked.
        figures: Scalars for display, without gradient.
    """

    loss: Tensor
    logits: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)


def register_loss(name: str) -> Callable[[type[L]], type[L]]:
    """Make a loss known under a name, for ``train.loss`` in configurations.

    Its class derives from :class:`StandardLoss`, has a frozen dataclass ``Settings`` of its own, whose fields are the
    keys of the section, and builds itself from them in ``of``.
    """

    def register(cls: type[L]) -> type[L]:
        LOSSES.add(name, cls)
        return cls

    return register


def build_loss(
    recipe: TrainConfig, auxiliary: Mapping[str, float] | None = None, teacher: Classifier | None = None
) -> StandardLoss:
    """Return the loss that a recipe names.

    Args:
        recipe: The recipe.
        auxiliary: Weights of the front-end's auxiliary losses, by name; None for none.
        teacher: For a loss that has one.

    Raises:
        InputError: If the threat cannot be read, or the loss has no such norm.
    """
    smoothing = filled(recipe.label_smoothing)
    common: dict[str, Any] = {"label_smoothing": smoothing, "auxiliary": auxiliary}
    if recipe.loss_class.has_teacher:
        common["teacher"] = teacher
    return recipe.loss_class.of(recipe.loss, **common)


def auxiliary_weights(training: Sequence[Any]) -> dict[str, float]:
    """Return the weights of the auxiliary losses of several front-ends, by the settings of their training.

    Raises:
        InputError: If two of them weigh losses of one name, which are added, differently.
    """
    weights: dict[str, float] = {}
    for part in training:
        for name, weight in part.auxiliary_weights().items():
            if weights.setdefault(name, weight) != weight:
                raise InputError(
                    f"two front-ends weigh the loss {name!r} by {weights[name]} and {weight}; losses of one name "
                    "are added, so give equal weights."
                )
    return weights


@dataclass(frozen=True)
class StandardSettings:
    """The loss "standard" has no settings."""


@register_loss("standard")
@dataclass(frozen=True, kw_only=True)
class StandardLoss:
    """Cross entropy with label smoothing, plus the auxiliary losses of the front-end.

    Every loss is one of these; its class attributes name what it needs of training.

    Attributes:
        label_smoothing: 0 to below 1 (Szegedy et al., CVPR 2016).
        auxiliary: A weight for each of ``Frontend.auxiliary_losses``, by name; None leaves these losses out.
        Settings: The section of the configuration.
        views: Augmented views of each image that it looks at.
        smooths_labels: Whether label smoothing enters.
        may_collapse: Whether robust accuracy may break down within an epoch, so that training watches it.
        has_teacher: Whether it is built with a ``teacher``, and batches hold their images as that one is to see them.
    """

    Settings: ClassVar[type] = StandardSettings
    views: ClassVar[int] = 1
    smooths_labels: ClassVar[bool] = True
    may_collapse: ClassVar[bool] = False
    has_teacher: ClassVar[bool] = False
    label_smoothing: float = 0.0
    auxiliary: Mapping[str, float] | None = None

    @classmethod
    def of(cls, settings: Any, **common: Any) -> Self:
        """Build the loss from its settings; ``common`` are label smoothing and auxiliary weights."""
        return cls(**vars(settings), **common)

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of a batch of augmented images in [0, 1]."""
        logits, figures = self.classify(model, batch.images)
        return self.result(self.cross_entropy(logits, batch.labels), logits, figures)

    def classify(
        self, model: Classifier, images: Tensor, *, auxiliary: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (N, classes) in float32, means of the front-end's figures and, where asked for, its losses."""
        logits, encoding = model.inspect(images)
        figures = {name: values.detach().mean() for name, values in encoding.figures().items()}
        weights = self.auxiliary
        if (
            auxiliary
            and weights is not None
            and (not weights or any(weight > 0.0 for weight in weights.values()))
        ):
            losses = model.frontend.auxiliary_losses(encoding)
            for name in losses:
                if name not in weights:
                    raise InputError(
                        f"the front-end gives the loss {name!r} and no weight for it; let its Training name one in "
                        "auxiliary_weights."
                    )
            figures |= losses
        return logits.float(), figures

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def result(self, loss: Tensor, logits: Tensor, figures: dict[str, Tensor]) -> LossResult:
        """Add the auxiliary losses, and cut off what is only shown."""
        for name, weight in (self.auxiliary or {}).items():
            if name in figures:
                loss = loss + weight * figures[name]
        return LossResult(loss, logits.detach(), {name: value.detach() for name, value in figures.items()})


@dataclass(frozen=True)
class JensenShannonSettings:
    """Settings of the loss "jsd".

    Attributes:
        beta: Weight of the divergence.
    """

    beta: float = 12.0

    def __post_init__(self) -> None:
        not_negative("loss.beta", self.beta)


@register_loss("jsd")
@dataclass(frozen=True, kw_only=True)
class ConsistencyLoss(StandardLoss):
    """Cross entropy on the plain view plus the divergence between all views' predictions.

    AugMix's Jensen-Shannon term (Hendrycks et al., ICLR 2020, section 3): with M the mean of the views'
    distributions, the mean of KL(p || M) over views; the paper takes the weight 12.

    Attributes:
        beta: Factor on the divergence.
    """

    Settings = JensenShannonSettings
    views = 2
    beta: float = 12.0

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of images and their views, classified in one pass."""
        logits, figures = self.classify(model, torch.cat([batch.images, *batch.views]))
        views = logits.chunk(1 + len(batch.views))
        divergence = jensen_shannon(views)
        figures = {**figures, "divergence": divergence}
        loss = self.cross_entropy(views[0], batch.labels) + self.beta * divergence
        return self.result(loss, views[0], figures)


ENTROPY_WEIGHT = 0.5
"""The weight of the entropy of the mean prediction: the paper's for CIFAR-10, at every sigma."""


@dataclass(frozen=True)
class GaussianSettings:
    """Settings of the loss "gaussian".

    Attributes:
        sigma: Standard deviation of the noise, in pixels of [0, 1].
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma < math.inf:
            raise InputError(f"loss.sigma is {self.sigma}; give a number above 0, in pixels of [0, 1].")


@dataclass(frozen=True)
class NoisyConsistencySettings(GaussianSettings):
    """Settings of the loss "consistency".

    Attributes:
        beta: Weight of the divergence between the copies of an image.
    """

    beta: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("loss.beta", self.beta)


@register_loss("gaussian")
@dataclass(frozen=True, kw_only=True)
class NoisyLoss(StandardLoss):
    """Cross entropy on Gaussian copies that leave [0, 1] as the copies of randomised smoothing do.

    One copy: Cohen, Rosenfeld and Kolter, ICML 2019. Several, with a beta above 0: the consistency regularisation of
    Jeong and Shin, NeurIPS 2020, which adds ``beta`` times the mean over copies of KL(m || p), where m is the mean of
    their distributions p, and half the entropy of m.

    Attributes:
        sigma: Standard deviation of the noise, in pixels of [0, 1].
        copies: Noisy copies of each image.
        beta: Factor on the divergence; 0 leaves both terms out.
    """

    Settings = GaussianSettings
    sigma: float
    copies: int = 1
    beta: float = 0.0

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of images and their copies, classified in one pass."""
        images = batch.images.repeat(self.copies, 1, 1, 1)
        logits, figures = self.classify(model, images + self.sigma * torch.randn_like(images))
        loss = self.cross_entropy(logits, batch.labels.repeat(self.copies))
        views = logits.chunk(self.copies)
        if self.beta:
            logs = torch.stack([view.log_softmax(dim=1) for view in views])
            mean_log = logs.logsumexp(dim=0) - math.log(self.copies)
            mean = mean_log.exp()
            divergence = (mean * (mean_log - logs)).sum(dim=2).mean()
            entropy = -(mean * mean_log).sum(dim=1).mean()
            figures = {**figures, "divergence": divergence}
            loss = loss + self.beta * divergence + ENTROPY_WEIGHT * entropy
        return self.result(loss, views[0], figures)


@register_loss("consistency")
@dataclass(frozen=True, kw_only=True)
class NoisyConsistencyLoss(NoisyLoss):
    """The same with two copies of each image, as in the paper."""

    Settings = NoisyConsistencySettings
    copies: int = 2
    beta: float = 10.0


def not_negative(name: str, value: float) -> None:
    """Refuse a weight that is negative, infinite or not a number."""
    if not 0.0 <= value < math.inf:
        raise InputError(f"{name} is {value}; give 0 or more.")


def jensen_shannon(views: tuple[Tensor, ...]) -> Tensor:
    """Return the mean over images of the generalised Jensen-Shannon divergence of V logits (N, classes), in nats."""
    logs = torch.stack([logits.log_softmax(dim=1) for logits in views])
    mixture = logs.logsumexp(dim=0) - math.log(len(views))
    return (logs.exp() * (logs - mixture)).sum(dim=2).mean()
