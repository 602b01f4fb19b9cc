"""Fine-tuning beside a teacher: the network that ``train.init`` names goes on answering as it did."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs import InputError, TrainConfig
from ..configs.extensions import LOSSES
from ..models import Classifier, build_classifier, load_checkpoint
from .initial import read_weights
from .losses import Batch, LossResult, StandardLoss, register_loss


@dataclass(frozen=True)
class DistillationSettings:
    """Settings of the loss "distillation".

    Attributes:
        weight: Share of the teacher's answers in the loss; the labels have the rest. 1 leaves the labels out.
        temperature: What the logits of both networks are divided by, which shows more of what the teacher thinks of
            the other classes.
    """

    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight <= 1.0:
            raise InputError(f"loss.weight is {self.weight}; give a share above 0, at most 1.")
        if not 0.0 < self.temperature < math.inf:
            raise InputError(f"loss.temperature is {self.temperature}; give a number above 0, such as 2.")


@register_loss("distillation")
@dataclass(frozen=True, kw_only=True)
class DistillationLoss(StandardLoss):
    """(1 - w) times the cross entropy plus w T^2 KL(teacher || student), both softened by the temperature T.

    Hinton, Vinyals and Dean, 2015. The teacher sees each image cropped and mirrored as the student does (Beyer et al.,
    CVPR 2022), before noise, AugMix and PRIME.

    Attributes:
        teacher: A classifier in evaluation mode, whose weights stay.
        weight: w, above 0 to 1.
        temperature: T, above 0.
    """

    Settings = DistillationSettings
    has_teacher = True
    teacher: Classifier
    weight: float = 0.5
    temperature: float = 2.0

    def __call__(self, model: Classifier, batch: Batch) -> LossResult:
        """Return the loss of a batch of augmented images in [0, 1]."""
        logits, figures = self.classify(model, batch.images)
        with torch.no_grad():
            answers = self.teacher(batch.images if batch.clean is None else batch.clean).float()
        divergence = softened_divergence(answers, logits, self.temperature)
        loss = (1.0 - self.weight) * self.cross_entropy(logits, batch.labels) + self.weight * divergence
        return self.result(loss, logits, {**figures, "teacher": divergence})


def softened_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return the mean over images of T^2 KL(softmax(teacher / T) || softmax(student / T)), logits (N, classes)."""
    own, target = ((logits / temperature).log_softmax(dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(own, target, reduction="batchmean", log_target=True)


def load_teacher(recipe: TrainConfig, model: Classifier) -> Classifier | None:
    """Return the teacher of a recipe's loss: the network of ``train.init``; None where the loss has none.

    A checkpoint is taken as it is, with the front-end that it may have. The weights in a file are put into the
    student's backbone without a front-end.

    Args:
        recipe: Names the loss and ``init``.
        model: The student.

    Raises:
        InputError: If ``init`` names nothing, its weights are not complete, or its classes are others.
    """
    if not recipe.loss_class.has_teacher:
        return None
    if recipe.init is None:
        raise InputError(
            f"train.loss is {LOSSES.name_of(type(recipe.loss))!r}, whose teacher is the network that training starts "
            "from, and train.init names none; add --init with a checkpoint folder, a shipped classifier's name or a "
            "safetensors file."
        )
    file = Path(recipe.init).suffix == ".safetensors"
    teacher = _bare(recipe.init, model) if file else load_checkpoint(recipe.init)
    if teacher.num_classes != model.num_classes:
        raise InputError(
            f"train.init: the teacher {recipe.init} knows {teacher.num_classes} classes, and the model has "
            f"num_classes {model.num_classes}; take a teacher of the same classes, or another loss."
        )
    return teacher.eval().requires_grad_(False)


def _bare(source: str, model: Classifier) -> Classifier:
    config = replace(model.config, frontend="none", hardened=0)
    teacher = build_classifier(config, load_weights=False)
    own, found = teacher.backbone.state_dict(), read_weights(source)
    lacking = [name for name, value in own.items() if name not in found or found[name].shape != value.shape]
    if lacking:
        raise InputError(
            f"train.init: {source} cannot be the teacher of train.loss, as {lacking[0]!r} of the backbone "
            f"{config.backbone!r} is missing in it or has another shape; take a complete network, or another loss."
        )
    teacher.backbone.load_state_dict({name: found[name] for name in own})
    return teacher
