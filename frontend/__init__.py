"""Thresholds, dictionary, solver, LCA, predictor, WARP-LCA, priming, equaliser, sparse-coding metrics."""

from .encoding import Encoding
from .equaliser import Equaliser
from .pretrained import load_frontend, save_frontend, shipped_frontends
from .priming import measure, prime
from .priming.stages import PrimingPlan
from .sparse.dictionary import ConvDictionary
from .sparse.lca import LCA
from .sparse.metrics import SolveStatistics, active_fraction, energy, fixed_point_residual
from .sparse.noise import noise_level, raised_lam
from .sparse.schedule import Schedule
from .sparse.solver import solve
from .sparse.threshold import THRESHOLDS, Threshold
from .sparse.warp import StatePredictor, WarpLCA
from .standardise import Standardised, standardise

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
