"""Training: loop, losses, augmentation."""

from .adversarial import AdversarialLoss
from .interrupt import Interrupted
from .loop import train
from .losses import Batch, ConsistencyLoss, Loss, LossResult, StandardLoss
from .perturb import InnerAttack
from .recipes import LOSSES, build_loss
from .trades import MartLoss, TradesLoss

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
    "StandardLoss",
    "TradesLoss",
    "build_loss",
    "train",
]
