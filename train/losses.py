"""Training losses: from a batch to a scalar, with what the progress bar shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..frontend import StatePredictor


@dataclass(frozen=True)
class LossResult:
    """A batch's loss and what was seen on the way.

    Attributes:
        loss: Scalar to minimise.
        logits: (N, classes) on the clean images.
        told: Scalars for display, without gradient.
    """

    loss: Tensor
    logits: Tensor
    told: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class StandardLoss:
    """Cross entropy with label smoothing, plus the predictor's self-distillation where there is a predictor.

    Attributes:
        label_smoothing: 0 to below 1 (Szegedy et al., CVPR 2016).
        distillation: Weight of ``WarpLCA.distillation_loss``.
    """

    label_smoothing: float = 0.0
    distillation: float = 0.0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> LossResult:
        """Return the loss of a batch of augmented images in [0, 1]."""
        distil = self.distillation > 0 and _learns_to_predict(model)
        logits, told = model(images, auxiliary=True, distil=distil)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        if "distillation" in told:
            loss = loss + self.distillation * told["distillation"]
        return LossResult(loss, logits.detach(), {name: value.detach() for name, value in told.items()})


def _learns_to_predict(model: nn.Module) -> bool:
    """Tell whether the model has a predictor that is not frozen."""
    return any(
        isinstance(part, StatePredictor) and next(part.parameters()).requires_grad for part in model.modules()
    )
