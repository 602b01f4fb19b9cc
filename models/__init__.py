"""Classifiers: a front-end before a timm backbone; checkpoints and export."""

from . import registry as _registry  # noqa: F401 - registers the models with timm
from .backbones import create_backbone
from .checkpoint import load_checkpoint, read_card, save_checkpoint
from .classifier import Classifier, build_classifier, create_classifier
from .conv import ConvFrontend
from .export import ExportCheck, export_onnx

__all__ = [
    "Classifier",
    "ConvFrontend",
    "ExportCheck",
    "build_classifier",
    "create_backbone",
    "create_classifier",
    "export_onnx",
    "load_checkpoint",
    "read_card",
    "save_checkpoint",
]
