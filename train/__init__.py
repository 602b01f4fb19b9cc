"""Training: loop, losses, augmentation."""

from .interrupt import Interrupted
from .loop import train
from .losses import LossResult, StandardLoss

__all__ = ["Interrupted", "LossResult", "StandardLoss", "train"]
