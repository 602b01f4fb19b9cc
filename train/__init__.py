"""Training: loop, losses, augmentation."""

from .adversarial import AdversarialLoss, MartLoss, TradesLoss
from .loop import train
from .losses import Batch, ConsistencyLoss, Loss, LossResult, NoisyLoss, StandardLoss
from .perturb import InnerAttack
from .processes import Interrupted
from .recipes import LOSSES, build_loss

__all__ = [
    "LOSSES",
    "AdversarialLoss",
    "Batch",
    "ConsistencyLoss",
    "InnerAttack",
    "Interrupted",
    "Loss",
    "LossResult",
    "MartLoss",
    "NoisyLoss",
    "StandardLoss",
    "TradesLoss",
    "build_loss",
    "train",
]
