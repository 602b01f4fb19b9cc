"""Classifiers: a front-end before a timm backbone; checkpoints and export."""

from . import timm_models as _timm_models  # noqa: F401 - registers the models with timm
from .backbones import Stem, create_backbone
from .checkpoint import read_card, save_checkpoint, shipped_checkpoints
from .classifier import Classifier, Inspection, build_classifier, create_classifier, load_checkpoint
from .export.checked import ExportCheck
from .export.onnx_file import QuantisedCheck, export_onnx, export_quantised
from .export.program import export_compiled, export_program
from .foreign import as_classifier
from .harden import Hardened, harden, shipped_chains
from .predictor import Predictor, open_predictor
from .smoothing.classifier import Certificates, SmoothedClassifier, smooth

__all__ = [
    "Certificates",
    "Classifier",
    "ExportCheck",
    "Hardened",
    "Inspection",
    "Predictor",
    "QuantisedCheck",
    "SmoothedClassifier",
    "Stem",
    "as_classifier",
    "build_classifier",
    "create_backbone",
    "create_classifier",
    "export_compiled",
    "export_onnx",
    "export_program",
    "export_quantised",
    "harden",
    "load_checkpoint",
    "open_predictor",
    "read_card",
    "save_checkpoint",
    "shipped_chains",
    "shipped_checkpoints",
    "smooth",
]
