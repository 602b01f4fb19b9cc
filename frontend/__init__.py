"""Front-ends: the contract and its registry; sparse coding, convolution, equaliser, repairs; gates, chains; priming."""

from .base import Encoding, Frontend, FrontendTraining, NoTraining, register_frontend
from .chain import Chain, NoFrontend, build_frontend
from .contrast import ContrastLevelling, ContrastSettings
from .conv import ConvFrontend, ConvSettings
from .equaliser import Equaliser, EqualiserSettings
from .gate import Gated, GatedFrontend
from .image_statistics import Standardised, noise_level, raised_lam, standardise
from .impulses import ImpulseRepair, ImpulseSettings
from .pretrained import save_frontend, shipped_frontends
from .priming import measure, prime
from .priming.stages import PrimingPlan
from .sparse.dictionary import ConvDictionary
from .sparse.encoding import SparseEncoding
from .sparse.lca import LCA
from .sparse.metrics import SolveStatistics, active_fraction
from .sparse.problem import Problem
from .sparse.schedule import Schedule
from .sparse.settings import LCASettings, WarpLCASettings
from .sparse.solver import solve
from .sparse.threshold import THRESHOLDS, Threshold
from .sparse.warp import StatePredictor, WarpLCA

__all__ = [
    "LCA",
    "THRESHOLDS",
    "Chain",
    "ContrastLevelling",
    "ContrastSettings",
    "ConvDictionary",
    "ConvFrontend",
    "ConvSettings",
    "Encoding",
    "Equaliser",
    "EqualiserSettings",
    "Frontend",
    "FrontendTraining",
    "Gated",
    "GatedFrontend",
    "ImpulseRepair",
    "ImpulseSettings",
    "LCASettings",
    "NoFrontend",
    "NoTraining",
    "PrimingPlan",
    "Problem",
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
