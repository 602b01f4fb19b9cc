"""Front-ends: the contract and its registry, sparse coding (LCA, WARP-LCA), convolution, equaliser, chains; priming."""

from .base import Encoding, Frontend, FrontendTraining, NoTraining, register_frontend
from .chain import Chain, NoFrontend, build_frontend
from .conv import ConvFrontend, ConvSettings
from .equaliser import Equaliser, EqualiserSettings
from .image_statistics import Standardised, noise_level, raised_lam, standardise
from .pretrained import save_frontend, shipped_frontends
from .priming import measure, prime
from .priming.stages import PrimingPlan
from .sparse.dictionary import ConvDictionary
from .sparse.encoding import SparseEncoding
from .sparse.lca import LCA
from .sparse.metrics import SolveStatistics, active_fraction, energy, fixed_point_residual
from .sparse.schedule import Schedule
from .sparse.settings import LCASettings, WarpLCASettings
from .sparse.solver import solve
from .sparse.threshold import THRESHOLDS, Threshold
from .sparse.warp import StatePredictor, WarpLCA

__all__ = [
    "LCA",
    "THRESHOLDS",
    "Chain",
    "ConvDictionary",
    "ConvFrontend",
    "ConvSettings",
    "Encoding",
    "Equaliser",
    "EqualiserSettings",
    "Frontend",
    "FrontendTraining",
    "LCASettings",
    "NoFrontend",
    "NoTraining",
    "PrimingPlan",
    "Schedule",
    "SolveStatistics",
    "SparseEncoding",
    "Standardised",
    "StatePredictor",
    "Threshold",
    "WarpLCA",
    "WarpLCASettings",
    "active_fraction",
    "build_frontend",
    "energy",
    "fixed_point_residual",
    "measure",
    "noise_level",
    "prime",
    "raised_lam",
    "register_frontend",
    "save_frontend",
    "shipped_frontends",
    "solve",
    "standardise",
]
