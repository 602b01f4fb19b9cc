"""Data sets, the embedded CIFAR-10 subset, the CIFAR-10-C generator and reader."""

from .corruptions.generate import corrupt
from .corruptions.table import CORRUPTIONS, EXTRA_CORRUPTIONS, STANDARD_CORRUPTIONS, Corruption
from .dataset import ImageDataset
from .load import load_dataset, save_npz

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "STANDARD_CORRUPTIONS",
    "Corruption",
    "ImageDataset",
    "corrupt",
    "load_dataset",
    "save_npz",
]
