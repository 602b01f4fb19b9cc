"""Data sets, the embedded CIFAR-10 subset, the CIFAR-10-C generator and reader."""

from .corruptions.generate import SEVERITIES, corrupt, default_scale
from .corruptions.table import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    ROBUSTBENCH_ORDER,
    STANDARD_CORRUPTIONS,
    Corruption,
    agreement,
    canonical_name,
)
from .dataset import ImageDataset
from .load import load_dataset, save_npz

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "ROBUSTBENCH_ORDER",
    "SEVERITIES",
    "STANDARD_CORRUPTIONS",
    "Corruption",
    "ImageDataset",
    "agreement",
    "canonical_name",
    "corrupt",
    "default_scale",
    "load_dataset",
    "save_npz",
]
