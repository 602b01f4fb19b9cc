"""Classifiers: a front-end before a timm backbone; checkpoints and export."""

from . import registry as _registry  # noqa: F401 - registers the models with timm
from .backbones import create_backbone
from .checkpoint import load_checkpoint, read_card, save_checkpoint
from .classifier import Classifier, build_classifier, create_classifier
from .conv import ConvFrontend
from .export import ExportCheck
from .export_onnx import QuantisedCheck, export_onnx, export_quantised
from .export_program import export_compiled, export_program
from .predictor import Predictor, open_predictor
from .shipped import shipped_checkpoints

__all__ = [
    "Classifier",
    "ConvFrontend",
    "ExportCheck",
    "Predictor",
    "QuantisedCheck",
    "build_classifier",
    "create_backbone",
    "create_classifier",
    "export_compiled",
    "export_onnx",
    "export_program",
    "export_quantised",
    "load_checkpoint",
    "open_predictor",
    "read_card",
    "save_checkpoint",
    "shipped_checkpoints",
]
