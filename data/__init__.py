"""Data sets, the embedded CIFAR-10 subset, the CIFAR-10-C generator and reader."""

from .cifar_c import CorruptedFiles, open_cifar_c
from .corruptions.generate import SEVERITIES, corrupt, default_scale
from .corruptions.table import (
    CORRUPTION_GROUPS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    ROBUSTBENCH_ORDER,
    STANDARD_CORRUPTIONS,
    Corruption,
    agreement,
    canonical_name,
)
from .corruptions.write import write_corruptions
from .dataset import ImageDataset
from .download import download_cifar_c
from .sources import load_dataset, save_npz

__all__ = [
    "CORRUPTIONS",
    "CORRUPTION_GROUPS",
    "EXTRA_CORRUPTIONS",
    "ROBUSTBENCH_ORDER",
    "SEVERITIES",
    "STANDARD_CORRUPTIONS",
    "CorruptedFiles",
    "Corruption",
    "ImageDataset",
    "agreement",
    "canonical_name",
    "corrupt",
    "default_scale",
    "download_cifar_c",
    "load_dataset",
    "open_cifar_c",
    "save_npz",
    "write_corruptions",
]
