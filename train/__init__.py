"""Training: loop, losses, augmentation."""

from .adversarial import AdversarialLoss, MartLoss, TradesLoss
from .loop import train
from .losses import Batch, ConsistencyLoss, LossResult, NoisyLoss, StandardLoss, build_loss, register_loss
from .perturb import InnerAttack
from .processes import Interrupted

__all__ = [
    "AdversarialLoss",
    "Batch",
    "ConsistencyLoss",
    "InnerAttack",
    "Interrupted",
    "LossResult",
    "MartLoss",
    "NoisyLoss",
    "StandardLoss",
    "TradesLoss",
    "build_loss",
    "register_loss",
    "train",
]
