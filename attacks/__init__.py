"""Threat models and attacks on any callable that maps pixels in [0, 1] to logits."""

from .adaptive.layers import GRADIENT_MODES, IterativeLayer, find_iterative_layers, iterative_settings
from .gradient_free import Transfer
from .interface import Attack, AttackResult
from .registry import ATTACKS, as_attack, run_attack
from .smooth_adv import SmoothAdv, SmoothedAttack
from .suite.catalogue import SUITES, Suite, as_suite, suite_attacks
from .suite.masking import MaskingCheck, Verdict, masking_verdict
from .suite.outcomes import AttackTally, MemoryStore, Outcome, OutcomeStore, SuiteResult
from .suite.run import SuiteSession, run_suite
from .threat import PRESETS, ThreatModel, as_threat

__all__ = [
    "ATTACKS",
    "GRADIENT_MODES",
    "PRESETS",
    "SUITES",
    "Attack",
    "AttackResult",
    "AttackTally",
    "IterativeLayer",
    "MaskingCheck",
    "MemoryStore",
    "Outcome",
    "OutcomeStore",
    "SmoothAdv",
    "SmoothedAttack",
    "Suite",
    "SuiteResult",
    "SuiteSession",
    "ThreatModel",
    "Transfer",
    "Verdict",
    "as_attack",
    "as_suite",
    "as_threat",
    "find_iterative_layers",
    "iterative_settings",
    "masking_verdict",
    "run_attack",
    "run_suite",
    "suite_attacks",
]
