"""Training: loop, losses, augmentation."""

from .adversarial import AdversarialLoss, AttackedLoss, MartLoss, NuclearLoss, TradesLoss
from .distillation import DistillationLoss
from .loop import train
from .losses import Batch, ConsistencyLoss, LossResult, NoisyLoss, StandardLoss, build_loss, register_loss
from .perturb import InnerAttack
from .processes import Interrupted

__all__ = [
    "AdversarialLoss",
    "AttackedLoss",
    "Batch",
    "ConsistencyLoss",
    "DistillationLoss",
    "InnerAttack",
    "Interrupted",
    "LossResult",
    "MartLoss",
    "NoisyLoss",
    "NuclearLoss",
    "StandardLoss",
    "TradesLoss",
    "build_loss",
    "register_loss",
    "train",
]
