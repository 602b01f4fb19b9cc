"""Thresholds, dictionary, solver, LCA, predictor, WARP-LCA, priming, equaliser, sparse-coding metrics."""

from .dictionary import ConvDictionary
from .encoding import Encoding
from .equaliser import Equaliser
from .lca import LCA
from .metrics import active_fraction, energy, fixed_point_residual
from .noise import noise_level, raised_lam
from .predictor import StatePredictor
from .pretrained import load_frontend, save_frontend, shipped_frontends
from .priming import PrimingPlan, measure, prime
from .solver import Schedule, SolveStatistics, solve
from .standardise import Standardised, standardise
from .threshold import THRESHOLDS, Threshold
from .warp import WarpLCA

__all__ = [
    "LCA",
    "THRESHOLDS",
    "ConvDictionary",
    "Encoding",
    "Equaliser",
    "PrimingPlan",
    "Schedule",
    "SolveStatistics",
    "Standardised",
    "StatePredictor",
    "Threshold",
    "WarpLCA",
    "active_fraction",
    "energy",
    "fixed_point_residual",
    "load_frontend",
    "measure",
    "noise_level",
    "prime",
    "raised_lam",
    "save_frontend",
    "shipped_frontends",
    "solve",
    "standardise",
]
